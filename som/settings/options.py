"""The options that a command has for its settings: their names, kinds, defaults and descriptions."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from som.settings.plain import dataclasses_in


@dataclass(frozen=True)
class Option:
    """One setting on the command line."""

    name: str
    """Such as ``--data.seq-name``; the bare field's name in capitals where it is given without an option."""
    kind: Any
    """Its type annotation."""
    default: Any
    """``dataclasses.MISSING`` where it has to be given."""
    description: str
    """The docstring under its field."""

    @property
    def is_switch(self) -> bool:
        """Whether it is True or False."""
        return self.kind is bool

    @property
    def values(self) -> str:
        """What may follow the option, in tyro's notation."""
        return _values(self.kind)


def options_of(settings: type) -> dict[str, Option]:
    """Every setting of a dataclass by its path (``data.seq_name``); those of all members where there is a choice."""
    return dict(_options(settings, None, "", ""))


def _options(owner: type, instance: Any, path: str, prefix: str) -> typing.Iterator[tuple[str, Option]]:
    hints = typing.get_type_hints(owner, include_extras=True)
    for field in dataclasses.fields(owner):
        default = _default(field) if instance is None else getattr(instance, field.name)
        kind, *notes = typing.get_args(hints[field.name]) if _is_annotated(hints[field.name]) else (hints[field.name],)
        names = [note.name for note in notes if getattr(note, "name", None) is not None]
        option = prefix + (names[0] if names else field.name.replace("_", "-"))
        choices = dataclasses_in(kind)
        for choice in choices:
            inner = default if type(default) is choice else None
            yield from _options(choice, inner, f"{path}{field.name}.", f"{option}." if option else "")
        if not choices:
            name = field.name.upper() if any("Positional" in str(note) for note in notes) else f"--{option}"
            yield path + field.name, Option(name, kind, default, descriptions(owner).get(field.name, ""))


def _is_annotated(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Annotated


def _default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


@cache
def descriptions(owner: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass and of its bases."""
    found: dict[str, str] = {}
    for kind in reversed(owner.__mro__[:-1]):
        parsed = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        for field, text in pairwise(getattr(parsed, "body", [])):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found


def first_sentence(text: str) -> str:
    """The first sentence of a description, without the marks of code."""
    end = re.search(r"(?<=[^.\s])\.(?=\s|$)", text)
    return text[: end.end() if end else None].replace("``", "")


def _values(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _values(inner[0])
    if origin in (typing.Union, types.UnionType):
        return "|".join(_values(k) for k in inner if k is not type(None))
    if origin is typing.Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin is tuple:
        return f"[{_values(inner[0])} ...]" if inner[-1] is Ellipsis else " ".join(map(_values, inner))
    return {bool: "", Path: "PATH"}.get(kind, kind.__name__.upper())
