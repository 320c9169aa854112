"""Point track metrics in 3D and 2D."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TAP_VID_SIZE = 256
TAP_VID_THRESHOLDS = (1.0, 2.0, 4.0, 8.0, 16.0)


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


def tap_vid(
    pred_xy: Float[Tensor, "q t 2"],
    pred_visible: Bool[Tensor, "q t"],
    target_xy: Float[Tensor, "q t 2"],
    target_visible: Bool[Tensor, "q t"],
    scored: Bool[Tensor, "q t"],
    width: int,
    height: int,
    thresholds: tuple[float, ...] = TAP_VID_THRESHOLDS,
) -> dict[str, float]:
    """TAP-Vid's metrics (arXiv 2211.03726): coordinates scaled to 256 x 256, all pairs pooled.

    Both positions and visibility have to be predicted for **every** scored pair, whether or not the point is truly
    visible there; ``scored`` must not depend on the true visibility at the target time, or occluded points come out
    right for free.

    Returns:
        ``oa``: fraction of scored pairs whose visibility is right;
        ``delta_avg``: fraction of truly visible pairs within a threshold, mean over the thresholds;
        ``aj``: Jaccard index TP / (truly visible + FP), mean over the thresholds, where TP is truly visible, predicted
        visible and within, and FP is predicted visible but truly occluded or outside. nan where undefined.
    """
    scale = pred_xy.new_tensor([TAP_VID_SIZE / width, TAP_VID_SIZE / height])
    error = torch.linalg.norm((pred_xy - target_xy) * scale, dim=-1)[scored]
    says, truth = pred_visible[scored], target_visible[scored]
    if len(error) == 0:
        return {"aj": math.nan, "delta_avg": math.nan, "oa": math.nan}
    positives, deltas, jaccards = int(truth.sum()), [], []
    for threshold in thresholds:
        within = truth & (error < threshold)
        true_positives = int((within & says).sum())
        false_positives = int((says & ~within).sum())
        deltas.append(int(within.sum()) / positives if positives else math.nan)
        union = positives + false_positives
        jaccards.append(true_positives / union if union else math.nan)
    return {
        "aj": sum(jaccards) / len(jaccards),
        "delta_avg": sum(deltas) / len(deltas),
        "oa": float((says == truth).double().mean()),
    }
