"""Depth of videos: networks trained, depth predicted, scored, fused, swept: python run_depth.py predict --data clip"""

from __future__ import annotations

from collections.abc import Sequence

from som import cli
from som.depth.cli.options import Command
from som.depth.errors import DepthError
from som.errors import UserError


def main(argv: Sequence[str]) -> int:
    command = cli.parse(Command, argv, __doc__)
    from som.depth.cli.run import run  # torch and its kin, only after parsing

    try:
        return run(command)
    except DepthError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    cli.run(main)
