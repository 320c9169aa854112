"""Commands: settings that tyro fills from the command line, a short help, and errors in one sentence."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from som.errors import UserError
from som.settings.messages import render_message
from som.settings.options import Option, first_sentence, options_of
from som.settings.plain import RENAMED

T = TypeVar("T")


def _no_defaults(argv: Sequence[str]) -> None:
    return None


@dataclass(frozen=True)
class Command(Generic[T]):
    """A command: its settings, what ``--help`` shows of them, and what it does with them."""

    settings: Any
    """The dataclass of its settings."""
    summary: str
    """One sentence."""
    common: tuple[str, ...]
    """Paths of the settings that people use, which ``--help`` shows."""
    call: Callable[[T], int]
    """Does the work; returns the exit code."""
    defaults: Callable[[Sequence[str]], T | None] = _no_defaults
    """Settings that lie under the command line, such as those of its presets."""

    @property
    def options(self) -> dict[str, Option]:
        """The command's options by the path of their setting."""
        return options_of(self.settings)

    def parse(self, argv: Sequence[str], prog: str = "som4d") -> T:
        """The settings that the command line asks for; options may stand before or after a ``data:...`` word.

        Raises:
            UserError: an option of an earlier version, or a preset that does not fit.
            SystemExit: ``--help`` (0), or the command line is wrong (2); tyro has said why.
        """
        import tyro

        if {"-h", "--help"} & set(argv):
            print(self.short_help(argv, prog))
            raise SystemExit(0)
        default = self.defaults(argv)
        argv = ["--help" if argument == "--help-all" else argument for argument in spell_out(argv, self.options)]
        config = (tyro.conf.FlagConversionOff, tyro.conf.CascadeSubcommandArgs)
        given: dict[str, Any] = {} if default is None else {"default": default}
        return tyro.cli(self.settings, prog=prog, args=argv, description=self.summary, config=config, **given)

    def run(self, argv: Sequence[str], prog: str = "som4d") -> int:
        """Parses and calls; returns the exit code: 0 done, 2 for what the user has to mend, 130 when interrupted."""
        try:
            return self.call(self.parse(argv, prog))
        except UserError as error:
            print(f"error: {self.render(str(error))}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            return 0

    def render(self, text: str) -> str:
        """A message of the library with settings written as options of this command."""
        return render_message(text, {path: option.name for path, option in self.options.items()})

    def short_help(self, argv: Sequence[str], prog: str) -> str:
        """What ``--help`` prints: the options that people use, or those of the ``data:...`` word in ``argv``."""
        words = subcommands(self.settings)
        chosen = next((argument for argument in argv if argument in words), None)
        if chosen is None:
            options = {path: self.options[path] for path in self.common}
            about, choices = self.summary, words
        else:
            owner, about = words[chosen]
            field = chosen.partition(":")[0]
            options = {
                path: dataclasses.replace(option, name=option.name.replace("--", f"--{field}.", 1))
                for path, option in options_of(owner).items()
            }
            choices = {}
        positional = " ".join(o.name for o in self.options.values() if not o.name.startswith("--"))
        usage = " ".join(filter(None, [prog, positional, chosen, "[options]", "data:..." if choices else ""]))
        rows = [_row(option) for option in options.values()]
        if choices:
            rows += [("", "")] + [(word, text) for word, (_, text) in choices.items()]
        every = f"{prog}{f' {chosen}' if chosen else ''} --help-all"
        ending = f"All {len(self.options)} options: {every}"
        if choices:
            ending += f"\nOf one data set: {prog} {min(choices)} --help"
        return f"usage: {usage}\n\n{about}\n\n{_table(rows)}\n\n{ending}"


def subcommands(settings: type) -> dict[str, tuple[Any, str]]:
    """The words (``data:demo``) that choose among several dataclasses of one setting, and what each means."""
    found = {}
    for name, hint in typing.get_type_hints(settings, include_extras=True).items():
        for member in typing.get_args(hint):
            for note in getattr(member, "__metadata__", ()):
                if dataclasses.is_dataclass(kind := typing.get_args(member)[0]) and hasattr(note, "description"):
                    found[f"{name}:{note.name}"] = (kind, note.description)
    return found


def spell_out(argv: Sequence[str], options: dict[str, Option]) -> list[str]:
    """The command line with every switch written ``--option True`` or ``--option False``.

    A switch may stand alone, be followed by True or False, or be turned off by ``--no-option``.

    Raises:
        UserError: an option of an earlier version; names the one of today.
    """
    switches = {option.name for option in options.values() if option.is_switch}
    off = {_negated(name): name for name in switches}
    renamed = {
        options[new].name.removesuffix(_dashed(new)) + _dashed(old): options[new].name
        for old, new in RENAMED.items()
        if new in options and old not in options
    }
    spelled = []
    for i, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        name = name.replace("_", "-")
        following = argv[i + 1] if i + 1 < len(argv) else ""
        if name in renamed:
            raise UserError(f"{name}: this option is called {renamed[name]} now.")
        if name in off and not equals:
            spelled += [off[name], "False"]
        elif name in switches and equals:
            spelled += [name, value.capitalize()]
        elif name in switches and following.lower() not in ("true", "false"):
            spelled += [name, "True"]
        elif i and argv[i - 1].replace("_", "-") in switches:
            spelled.append(argument.capitalize() if argument.lower() in ("true", "false") else argument)
        else:
            spelled.append(argument)
    return spelled


def _negated(name: str) -> str:
    return re.sub(r"([^.-][^.]*)$", r"no-\1", name)


def _dashed(path: str) -> str:
    return path.rpartition(".")[2].replace("_", "-")


def option_value(argv: Sequence[str], name: str) -> str | None:
    """The value of ``--name VALUE`` or ``--name=VALUE`` in raw arguments, needed before they are parsed."""
    for i, argument in enumerate(argv):
        if argument == name and i + 1 < len(argv):
            return argv[i + 1]
        if argument.startswith(name + "="):
            return argument.split("=", 1)[1]
    return None


def _row(option: Option) -> tuple[str, str]:
    default = option.default
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    known = default not in (None, "", False, dataclasses.MISSING) or (default == 0 and default is not False)
    text = first_sentence(option.description)
    return f"{option.name} {option.values}".rstrip(), f"{text} [{default}]" if known else text


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns; what is too long for the first stands on a line of its own."""
    width = max(shutil.get_terminal_size((120, 24)).columns, 80)
    column = min(max(len(left) for left, _ in rows), 30) + 4
    lines = []
    for left, right in rows:
        wrapped = textwrap.wrap(right, width - column) or [""]
        if len(left) + 4 > column:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left:<{column - 2}}{wrapped.pop(0)}".rstrip())
        lines += [" " * column + line for line in wrapped]
    return "\n".join(lines)
