"""Scores a trained scene, writes side-by-side images and videos: python run_val.py --model 4000"""

from __future__ import annotations

from collections.abc import Sequence

from som import cli
from som.run_config import ValidationRun


def main(argv: Sequence[str]) -> int:
    run = cli.parse(ValidationRun, argv, __doc__)
    from som.evaluation.run import evaluate  # torch and its kin, only after parsing

    return evaluate(run)


if __name__ == "__main__":
    cli.run(main)
