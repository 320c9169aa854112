"""``som4d <command>``: finds the command and runs it. Nothing here is slow to import."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from som.runs.device import set_up_process

COMMANDS = {
    "preprocess": "Turn a video into a data set folder.",
    "check": "List everything that is wrong with a data set folder.",
    "train": "Optimise a 4D scene against one video.",
    "val": "Score a trained scene; write side-by-side images and videos.",
    "depth": "Depth of videos: networks trained, depth predicted, scored, fused, swept.",
    "flow": "Optical flow and point tracks of two images or a video.",
}
"""What there is; ``som.commands.<name>`` holds its ``COMMAND``, or ``COMMANDS`` by their second word."""


def main() -> NoReturn:
    """The entry point of ``som4d``."""
    sys.exit(dispatch(sys.argv[1:]))


def run(name: str) -> NoReturn:
    """Runs one command with the arguments of this process, for the scripts run_*.py."""
    sys.exit(dispatch([name, *sys.argv[1:]]))


def dispatch(argv: Sequence[str]) -> int:
    """Runs the command that the arguments name; returns its exit code."""
    set_up_process()  # before anything imports torch
    name, *rest = argv or ["--help"]
    if name == "--version":
        from som import __version__

        print(f"som4d {__version__}")
        return 0
    if name in ("-h", "--help"):
        print(f"usage: som4d <command> [options]\n\n{_listed(COMMANDS)}\n\nEach explains itself: som4d train --help")
        return 0
    if name not in COMMANDS:
        return _unknown("som4d", name, COMMANDS)
    if name == "flow":  # a package of its own, with a command of its own
        from flow.cli import main as flow_main

        return flow_main(rest, "som4d flow")
    if (name, *rest[:1]) == ("preprocess", "check"):
        name, *rest = rest
    module = importlib.import_module(f"som.commands.{name}")
    if hasattr(module, "COMMAND"):
        return module.COMMAND.run(rest, f"som4d {name}")
    return _second_word(f"som4d {name}", module.COMMANDS, rest)


def _second_word(prog: str, commands: dict, argv: Sequence[str]) -> int:
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        summaries = {word: command.summary for word, command in commands.items()}
        print(f"usage: {prog} <command> [options]\n\n{_listed(summaries)}\n\nEach explains itself: {prog} train --help")
        return 0
    if name not in commands:
        return _unknown(prog, name, commands)
    return commands[name].run(rest, f"{prog} {name}")


def _listed(summaries: dict[str, str]) -> str:
    return "\n".join(f"  {name:<12}{text}" for name, text in summaries.items())


def _unknown(prog: str, name: str, known: dict) -> int:
    near = difflib.get_close_matches(name, known, 1, 0.4)
    meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}."
    print(f"error: {prog}: there is no command {name}{meant}", file=sys.stderr)
    return 2
