"""Runs a parsed command."""

from __future__ import annotations

from som.depth.cli import options


def run(command: options.Command) -> int:
    """Returns the exit code: 0 done, 1 the computation failed, 130/143 interrupted and saved.

    Raises:
        DepthError: something in the options or the data is wrong.
    """
    # each command loads only what it needs
    match command:
        case options.TrainCommand():
            from som.depth.cli.train import train

            return train(command)
        case options.PredictCommand():
            from som.depth.cli.predict import predict

            return predict(command)
        case options.ScoreCommand():
            from som.depth.cli.score import score

            return score(command)
        case options.FuseCommand():
            from som.depth.cli.fuse import fuse

            return fuse(command)
        case options.SweepCommand():
            from som.depth.cli.predict import sweep

            return sweep(command)
    raise TypeError(f"unknown command {type(command).__name__}")
