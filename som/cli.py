"""What the commands share: presets under the command line, configurations on disk, and errors in one sentence.

Nothing here imports torch, so that every ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from som.errors import UserError
from som.files import write_text
from som.runs.device import set_up_process

T = TypeVar("T")
PRESETS = Path(__file__).resolve().parent.parent / "configs"


def to_plain(value: Any) -> Any:
    """A configuration as dicts, lists, strings and numbers; unions of dataclasses are tagged with their type."""
    if dataclasses.is_dataclass(value):
        return {f.name: _tagged(f, getattr(value, f.name), type(value)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _tagged(field: dataclasses.Field, value: Any, owner: type) -> Any:
    plain = to_plain(value)
    if dataclasses.is_dataclass(value) and len(_dataclasses_in(_hints(owner)[field.name])) > 1:
        return {"type": type(value).__name__, **plain}
    return plain


def _hints(owner: type) -> dict[str, Any]:
    return typing.get_type_hints(owner)


def _dataclasses_in(hint: Any) -> list[type]:
    """The dataclasses that a type annotation allows."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [t for arg in typing.get_args(hint) for t in _dataclasses_in(arg)]


def merge(default: T, plain: dict, source: str) -> T:
    """``default`` with the entries of ``plain`` in place of its own; dataclasses are merged recursively.

    Args:
        source: named in error messages.

    Raises:
        UserError: an entry that the configuration does not have, or a value of the wrong kind.
    """
    if not isinstance(plain, dict):
        raise UserError(f"{source}: expected a mapping of option names to values, found {type(plain).__name__}.")
    hints, changes = _hints(type(default)), {}
    for key, value in plain.items():
        if key not in hints:
            known = ", ".join(sorted(hints))
            raise UserError(f"{source}: there is no option '{key}' here; known are {known}.")
        changes[key] = _convert(hints[key], value, getattr(default, key), f"{source}: {key}")
    return dataclasses.replace(default, **changes)


def _convert(hint: Any, value: Any, default: Any, source: str) -> Any:
    choices = _dataclasses_in(hint)
    if isinstance(value, dict) and choices:
        value = dict(value)
        names = {c.__name__: c for c in choices}
        name = value.pop("type", None)
        if name is not None and name not in names:
            raise UserError(f"{source}: type '{name}' is not one of {', '.join(names)}.")
        chosen = names[name] if name else (type(default) if dataclasses.is_dataclass(default) else choices[0])
        return merge(default if type(default) is chosen else chosen(), value, source)
    allowed = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in allowed:
        return None
    for kind in allowed:
        origin = typing.get_origin(kind)
        if origin is typing.Literal and value in typing.get_args(kind):
            return value
        if kind is Path and isinstance(value, str):
            return Path(value)
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if origin is tuple and isinstance(value, (list, tuple)):
            inner = typing.get_args(kind)[0]
            return tuple(_convert(inner, v, None, source) for v in value)
        if isinstance(kind, type) and origin is None and type(value) is kind:
            return value
    raise UserError(f"{source}: {value!r} does not fit, expected {str(hint).replace('typing.', '')}.")


def read_yaml(path: Path) -> dict:
    """A YAML file's mapping.

    Raises:
        UserError: missing or not valid YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not valid YAML ({reason}).") from None


def write_yaml(path: Path, config: Any) -> None:
    """Writes a configuration atomically."""
    write_text(path, yaml.safe_dump(to_plain(config), sort_keys=False))


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
        raise UserError(f"--config {name}: no such preset or file; presets are {known}.")
    return merge(default, read_yaml(path), str(path))


def option_value(argv: Sequence[str], name: str) -> str | None:
    """The value of ``--name VALUE`` or ``--name=VALUE`` in raw arguments, needed before they are parsed."""
    for i, argument in enumerate(argv):
        if argument == name and i + 1 < len(argv):
            return argv[i + 1]
        if argument.startswith(name + "="):
            return argument.split("=", 1)[1]
    return None


def parse(kind: type[T], argv: Sequence[str], description: str, default: T | None = None) -> T:
    """Parses the command line into ``kind`` with tyro; booleans are written ``--option True``.

    Options of the command may stand before or after the ``data:...`` word.
    """
    import tyro

    config = (tyro.conf.FlagConversionOff, tyro.conf.CascadeSubcommandArgs)
    given = {} if default is None else {"default": default}
    return tyro.cli(kind, args=list(argv), description=description, config=config, **given)


def run(command: Callable[[Sequence[str]], int]) -> None:
    """Runs a command and exits: 0 done, 2 for what the user has to mend, 130/143 when interrupted."""
    set_up_process()  # before anything imports torch
    try:
        code = command(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 0
    sys.exit(code)
