"""Metrics of 2D point tracking: TAP-Vid (Doersch et al. 2022, arXiv 2211.03726)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from flow.errors import FlowError

TAP_VID_SIZE = 256
"""TAP-Vid measures distances in an image resized to this many pixels a side."""
TAP_VID_THRESHOLDS = (1.0, 2.0, 4.0, 8.0, 16.0)


def tap_vid(
    pred_xy: Tensor,
    pred_visible: Tensor,
    target_xy: Tensor,
    target_visible: Tensor,
    scored: Tensor,
    width: int,
    height: int,
    thresholds: tuple[float, ...] = TAP_VID_THRESHOLDS,
) -> dict[str, float]:
    """TAP-Vid's metrics: coordinates scaled to 256 x 256, all scored pairs of track and frame pooled.

    Both positions and visibility have to be predicted for **every** scored pair, whether or not the point is truly
    visible there; ``scored`` must not depend on the true visibility at the target time, or occluded points come out
    right for free. ``scored_pairs`` makes the usual ones.

    Args:
        pred_xy, target_xy: (Q,T,2) in pixels of an image of width x height.
        pred_visible, target_visible: (Q,T) bool.
        scored: (Q,T) bool, the pairs that count.
        thresholds: distances in pixels of the 256 x 256 image.

    Returns:
        ``oa``: fraction of scored pairs whose visibility is right;
        ``delta_avg``: fraction of truly visible pairs within a threshold, mean over the thresholds;
        ``aj``: Jaccard index TP / (truly visible + FP), mean over the thresholds, where TP is truly visible, predicted
        visible and within, and FP is predicted visible but truly occluded or outside. nan where undefined.

    Raises:
        FlowError: shapes differ.
    """
    pairs = scored.shape
    shapes = (pred_xy.shape[:-1], target_xy.shape[:-1], pred_visible.shape, target_visible.shape)
    if any(shape != pairs for shape in shapes) or pred_xy.shape[-1] != 2 or target_xy.shape[-1] != 2:
        got = ", ".join(str(tuple(v.shape)) for v in (pred_xy, pred_visible, target_xy, target_visible, scored))
        raise FlowError(f"tap_vid needs positions (Q,T,2) and flags (Q,T) of equal Q and T, got {got}.")
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


def scored_pairs(query_frames: Tensor, num_frames: int, mode: Literal["strided", "first"] = "strided") -> Tensor:
    """Which pairs of track and frame TAP-Vid scores, (Q,T) bool.

    Args:
        query_frames: (Q,) integers in [0, T).
        mode: ``strided``: every frame but the query's own, before and after it; ``first``: only frames after it, for
            trackers that run forward from the first observation.

    Raises:
        FlowError: an unknown mode.
    """
    if mode not in ("strided", "first"):
        raise FlowError(f"mode must be strided or first, got {mode!r}.")
    frames = torch.arange(num_frames, device=query_frames.device)
    return frames != query_frames[:, None] if mode == "strided" else frames > query_frames[:, None]
