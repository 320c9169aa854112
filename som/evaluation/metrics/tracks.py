"""Point track metrics in 3D, and PCK in 2D; TAP-Vid's are in flow/tap.py."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def track_errors_3d(
    pred: Float[Tensor, "q t 3"],
    target: Float[Tensor, "q t 3"],
    scored: Bool[Tensor, "q t"],
    thresholds: tuple[float, ...] = (0.05, 0.10),
) -> dict[str, float]:
    """End-point errors over the scored pairs of track and time.

    Args:
        scored: pairs that count. Leave out each track's query time: there a track is trivially right.
        thresholds: distances in the unit of ``target``.

    Returns:
        ``epe`` (mean), ``epe_median`` and, per threshold, ``within_<threshold>`` (fraction); nan where none is scored.
    """
    error = torch.linalg.norm(pred.double() - target.double(), dim=-1)[scored]
    if len(error) == 0:
        return dict.fromkeys(["epe", "epe_median", *(f"within_{t:g}" for t in thresholds)], math.nan)
    fractions = {f"within_{t:g}": float((error < t).double().mean()) for t in thresholds}
    return {"epe": float(error.mean()), "epe_median": float(error.quantile(0.5)), **fractions}


def pck(
    pred: Float[Tensor, "q t 2"],
    target: Float[Tensor, "q t 2"],
    scored: Bool[Tensor, "q t"],
    width: int,
    height: int,
    ratio: float = 0.05,
) -> float:
    """PCK-T of DyCheck: fraction of scored pairs within ``ratio`` x the longer image side; nan where none is scored.

    Only pairs whose true point is visible should be scored.
    """
    error = torch.linalg.norm(pred - target, dim=-1)[scored]
    return float((error < ratio * max(width, height)).double().mean()) if len(error) else math.nan
