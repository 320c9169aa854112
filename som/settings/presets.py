"""Presets: YAML files in configs/ with some of a command's settings."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from som.errors import UserError
from som.settings.plain import merge, read_settings

T = TypeVar("T")
_PACKAGE = Path(__file__).resolve().parent.parent
PRESETS = next(p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir())
"""In the package where it is installed, beside it in a clone."""


def load_preset(default: T, name: str) -> T:
    """``default`` changed by configs/<name>.yaml, or by the YAML file at the path ``name``.

    Raises:
        UserError: no such preset or file, or an entry that does not fit.
    """
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.relative_to(PRESETS).with_suffix("").as_posix() for p in PRESETS.rglob("*.yaml")))
        raise UserError(f"`config` {name}: no such preset or file; presets are {known}.")
    return merge(default, read_settings(path), str(path))
