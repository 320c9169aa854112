"""Configurations as plain values, for JSON and checkpoints, and what differs between two. Free of torch."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

from som.depth.errors import DepthError

T = TypeVar("T")


def to_plain(config: Any) -> dict:
    """A configuration as dicts, lists, numbers and strings, for JSON and checkpoints."""
    return {
        key: to_plain(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for key, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    }


def from_plain(kind: type[T], plain: dict, source: str) -> T:
    """Inverse of ``to_plain``; what ``plain`` lacks has its default.

    Args:
        source: named in error messages.

    Raises:
        DepthError: an entry that the configuration does not have, or of the wrong kind.
    """
    if not isinstance(plain, dict):
        raise DepthError(f"{source}: expected a table of settings, found {type(plain).__name__}.")
    hints, values = typing.get_type_hints(kind), {}
    for key, value in plain.items():
        if key not in hints:
            raise DepthError(f"{source}: there is no setting {key!r}; known are {', '.join(sorted(hints))}.")
        values[key] = _convert(hints[key], value, f"{source}: {key}")
    return kind(**values)


def _convert(hint: Any, value: Any, source: str) -> Any:
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for choice in choices:
        origin = typing.get_origin(choice)
        if dataclasses.is_dataclass(choice) and isinstance(value, dict):
            return from_plain(choice, value, source)
        if origin is Literal and value in typing.get_args(choice):
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            inner = typing.get_args(choice)
            if len(inner) == len(value):
                return tuple(_convert(i, v, source) for i, v in zip(inner, value, strict=True))
        if choice is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if origin is None and isinstance(choice, type) and type(value) is choice:
            return value
    raise DepthError(f"{source}: {value!r} does not fit; see the documentation of this setting.")


def differences(recorded: dict, wanted: dict, prefix: str = "") -> list[str]:
    """What differs between two plain configurations, as ``setting: recorded -> wanted``."""
    found = []
    for key in sorted(set(recorded) | set(wanted)):
        a, b = recorded.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found
