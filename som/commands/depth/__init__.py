"""som4d depth: networks trained, depth predicted, scored, fused, swept."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from som.commands.depth import options
from som.settings.command_line import Command


def _lazily(module: str, name: str) -> Callable[[Any], int]:
    """A function that is imported when it is called, after parsing: torch and its kin take seconds."""
    return lambda command: getattr(importlib.import_module(f"{__name__}.{module}"), name)(command)


COMMANDS = {
    "predict": Command(
        options.PredictCommand,
        "Write depth and confidence of a video: by a trained network or, without one, by a sweep and its own network.",
        (
            "input.data",
            "output",
            "input.start",
            "input.end",
            "input.every",
            "input.fov",
            "model.model",
            "model.weights",
            "budget_s",
            "device",
            "threads",
            "overwrite",
        ),
        _lazily("predict", "predict"),
    ),
    "train": Command(
        options.TrainCommand,
        "Train a depth network on videos.",
        (
            "input.data",
            "work_dir",
            "input.kind",
            "training.network.name",
            "training.width",
            "training.height",
            "training.steps",
            "training.batch_size",
            "training.seed",
            "device",
            "threads",
            "overwrite",
        ),
        _lazily("train", "train"),
    ),
    "score": Command(
        options.ScoreCommand,
        "Score depth against the true depth of a data set.",
        (
            "input.data",
            "depth",
            "model.model",
            "model.weights",
            "protocol",
            "scales",
            "static_only",
            "output",
            "device",
            "threads",
        ),
        _lazily("score", "score"),
    ),
    "fuse": Command(
        options.FuseCommand,
        "Fuse depth maps and poses into a coloured point cloud.",
        (
            "input.data",
            "output",
            "depth",
            "max_side",
            "min_confidence",
            "min_views",
            "max_depth_error",
            "voxel",
            "threads",
        ),
        _lazily("fuse", "fuse"),
    ),
    "sweep": Command(
        options.SweepCommand,
        "Write the depth that a plane sweep finds, without any training; unknown where views do not agree.",
        (
            "input.data",
            "output",
            "sweep.depth_range",
            "sweep.num_planes",
            "sweep.num_sources",
            "max_side",
            "device",
            "threads",
        ),
        _lazily("predict", "sweep"),
    ),
}
