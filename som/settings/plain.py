"""Settings as plain values, in YAML and back, and what differs between two."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml

from som.errors import UserError
from som.files import write_text

T = TypeVar("T")
RENAMED = {
    "data.stride": "data.every",
    "input.stop": "input.end",
    "out_dir": "output",
    "training.density.stop": "training.density.end",
}
"""Settings by the path that they had in files of earlier versions, and their path now."""


def to_plain(value: Any) -> Any:
    """Settings as dicts, lists, strings and numbers; unions of dataclasses are tagged with their type."""
    if dataclasses.is_dataclass(value):
        return {f.name: _tagged(f, getattr(value, f.name), type(value)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _tagged(field: dataclasses.Field, value: Any, owner: type) -> Any:
    plain = to_plain(value)
    if dataclasses.is_dataclass(value) and len(dataclasses_in(typing.get_type_hints(owner)[field.name])) > 1:
        return {"type": type(value).__name__, **plain}
    return plain


def dataclasses_in(hint: Any) -> list[type]:
    """The dataclasses that a type annotation allows."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [t for arg in typing.get_args(hint) for t in dataclasses_in(arg)]


def merge(default: T, plain: Any, source: str) -> T:
    """``default`` with the entries of ``plain`` in place of its own; dataclasses are merged recursively.

    Args:
        plain: a mapping as ``to_plain`` makes it, of all settings or of some; names of earlier versions are understood.
        source: named in error messages.

    Raises:
        UserError: an entry that the settings do not have, or a value of the wrong kind.
    """
    return _merge(default, _with_new_names(plain) if isinstance(plain, dict) else plain, source)


def _merge(default: T, plain: Any, source: str) -> T:
    if not isinstance(plain, dict):
        raise UserError(f"{source}: expected a mapping of settings to values, found {type(plain).__name__}.")
    hints, changes = typing.get_type_hints(type(default)), {}
    for key, value in plain.items():
        if key not in hints:
            known = ", ".join(sorted(hints))
            raise UserError(f"{source}: there is no setting '{key}' here; known are {known}.")
        changes[key] = _convert(hints[key], value, getattr(default, key), f"{source}: {key}")
    return dataclasses.replace(default, **changes)  # type: ignore[type-var]  # a dataclass


def _with_new_names(plain: dict) -> dict:
    for old, new in RENAMED.items():
        *folders, name = old.split(".")
        holder: Any = plain
        for folder in folders:
            holder = holder.get(folder) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and name in holder:
            moved = {new.rpartition(".")[2] if key == name else key: value for key, value in holder.items()}
            plain = _replaced(plain, folders, moved)
    return plain


def _replaced(plain: dict, folders: list[str], part: dict) -> dict:
    return part if not folders else {**plain, folders[0]: _replaced(plain[folders[0]], folders[1:], part)}


def _convert(hint: Any, value: Any, default: Any, source: str) -> Any:
    choices = dataclasses_in(hint)
    if isinstance(value, dict) and choices:
        value = dict(value)
        names = {c.__name__: c for c in choices}
        name = value.pop("type", None)
        if name is not None and name not in names:
            raise UserError(f"{source}: type '{name}' is not one of {', '.join(names)}.")
        chosen = names[name] if name else (type(default) if dataclasses.is_dataclass(default) else choices[0])
        return _merge(default if type(default) is chosen else chosen(), value, source)
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
            inner = typing.get_args(kind)
            inner = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
            if len(inner) == len(value):
                return tuple(_convert(i, v, None, source) for i, v in zip(inner, value, strict=True))
        if isinstance(kind, type) and origin is None and type(value) is kind:
            return value
    raise UserError(f"{source}: {value!r} does not fit, expected {str(hint).replace('typing.', '')}.")


def read_settings(path: Path) -> dict:
    """The mapping in a YAML file, of which JSON is a part.

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


def write_settings(path: Path, settings: Any) -> None:
    """Writes settings whole, so that ``merge`` can read them again."""
    write_text(path, yaml.safe_dump(to_plain(settings), sort_keys=False))


def differences(recorded: dict, wanted: dict, prefix: str = "") -> list[str]:
    """What differs between two plain mappings, as ``setting: recorded -> wanted``."""
    found = []
    for key in sorted(set(recorded) | set(wanted)):
        a, b = recorded.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found


def check_same_settings(recorded: T, wanted: T, work_dir: Path, free: Collection[str]) -> None:
    """A run is only resumed with the settings that it was started with.

    Args:
        free: settings that do not change what a run computes, and may differ.

    Raises:
        UserError: lists what differs.
    """
    a, b = ({k: v for k, v in to_plain(run).items() if k not in free} for run in (recorded, wanted))
    found = differences(a, b)
    if found:
        raise UserError(
            f"{work_dir} holds a run with other settings ({'; '.join(found)}). "
            "Use another `work_dir`, the same settings to resume it, or `overwrite` to start anew."
        )
