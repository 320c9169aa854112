"""Flow estimators by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch

from flow.errors import FlowError
from flow.estimator import FlowEstimator

ESTIMATORS = ("auto", "dis", "raft-large", "raft-small")
"""Names that ``make_estimator`` takes."""


def make_estimator(
    name: str = "auto", *, weights: str | Path | None = None, device: str | torch.device = "cpu", **options
) -> FlowEstimator:
    """An estimator by name.

    Args:
        name: ``dis`` (OpenCV, needs no weights), ``raft-large``, ``raft-small``, or ``auto``: the RAFT model that
            ``weights`` holds, or ``dis`` where no weights are given.
        weights: a RAFT checkpoint: a file, or the name of a published one (``flow.raft.weights``).
        device: where RAFT runs; DIS always runs on the CPU.
        options: fields of the estimator's class (``flow.dis.DISEstimator``, ``flow.raft.RAFTEstimator``).

    Raises:
        FlowError: an unknown name, weights for an estimator that has none, or unusable weights.
    """
    if name not in ESTIMATORS:
        raise FlowError(f"unknown flow estimator {name!r}; choose one of {', '.join(ESTIMATORS)}.")
    if name == "dis" or (name == "auto" and weights is None):
        from flow.dis import DISEstimator

        if weights is not None:
            raise FlowError("dis has no weights; choose raft-large or raft-small, or leave the weights out.")
        _check_options(name, DISEstimator, options)
        return DISEstimator(**options)
    from flow.raft.estimator import RAFTEstimator

    _check_options(name, RAFTEstimator, options, besides=("model", "weights", "weights_sha256"))
    return RAFTEstimator.load(weights, variant=None if name == "auto" else name, device=device, **options)


def _check_options(name: str, kind: type, options: dict, besides: tuple[str, ...] = ()) -> None:
    known = [field.name for field in fields(kind) if field.name not in besides]
    for option in options:
        if option not in known:
            raise FlowError(f"{name} has no option {option!r}; it has {', '.join(known)}.")
