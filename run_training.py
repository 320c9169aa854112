"""Optimises a 4D scene against one video: python run_training.py --work-dir out data:demo"""

from __future__ import annotations

from collections.abc import Sequence

from som import cli
from som.run_config import TrainingRun, check_training_run


def parse(argv: Sequence[str]) -> TrainingRun:
    """The run that the command line asks for, on top of its preset."""
    names = (cli.option_value(argv, "--config") or "auto").split(",")
    wants_help = "--help" in argv or "-h" in argv
    if "auto" in names and not wants_help:
        device = cli.option_value(argv, "--device") or "auto"
        names[names.index("auto")] = "quality" if _has_cuda(device) else "cpu"
    # a preset cannot name the data set, so the default is built without one and filled in by the parser
    import tyro

    default = TrainingRun(data=tyro.MISSING)
    for name in names:
        if name != "auto":
            default = cli.load_preset(default, name)
    default.config = ",".join(names)
    return cli.parse(TrainingRun, argv, __doc__, default)


def _has_cuda(device: str) -> bool:
    if device != "auto":
        return device == "cuda"
    import torch

    return torch.cuda.is_available()


def main(argv: Sequence[str]) -> int:
    run = parse(argv)
    check_training_run(run)
    from som.training.run import train  # torch and its kin, only after parsing

    return train(run)


if __name__ == "__main__":
    cli.run(main)
