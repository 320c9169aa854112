"""Losses on point tracks: where a surface point goes in another frame's image, and how deep it lies there."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from som.losses.disparity import known_disparity
from som.reductions import check_same_shape, trimmed_mean


def interval_gains(
    query_times: Int[Tensor, "*#s"], target_times: Int[Tensor, "*#s"], num_times: int
) -> Float[Tensor, "*#s"]:
    """``exp(-2 |dt| / T)`` per element: tracks over long intervals are trusted less.

    Args:
        query_times, target_times: time indices; their shapes broadcast.
        num_times: T >= 1.

    Returns:
        values in (0, 1]. They are meant as ``gains`` of the losses below, which do not normalise them away.
    """
    return torch.exp(-2.0 * (query_times - target_times).abs().float() / num_times)


def _check_scalars(name: str, reference: Tensor, **others: Tensor | None) -> None:
    for key, value in others.items():
        if value is not None and value.shape != reference.shape:
            raise ValueError(f"{name}: {key} {tuple(value.shape)} must be {tuple(reference.shape)}.")


def track_2d(
    pred_xy: Float[Tensor, "*n 2"],
    target_xy: Float[Tensor, "*n 2"],
    confidence: Float[Tensor, "*n"],
    image_size: tuple[int, int],
    gains: Float[Tensor, "*n"] | None = None,
    quantile: float = 0.98,
) -> Float[Tensor, ""]:
    """Trimmed L1 between image positions, as a share of the longer image side.

    ``sum(c g e) / sum(c) / max(H, W)``, e the mean of |dx| and |dy| in pixels. (Shape of Motion multiplies interval
    weights into the normaliser as well, where they cancel; here they act, element by element.)

    Args:
        pred_xy, target_xy: continuous image coordinates in pixels.
        confidence: >= 0 for every element; 0 where the target is not visible.
        image_size: (height, width) in pixels.
        gains: factors such as ``interval_gains``.
        quantile: share of elements kept.

    Returns:
        scalar; a differentiable 0 when no element has confidence.

    Raises:
        ValueError: the shapes disagree.
    """
    check_same_shape("track_2d", pred_xy=pred_xy, target_xy=target_xy)
    _check_scalars("track_2d", pred_xy[..., 0], confidence=confidence, gains=gains)
    difference = torch.where((confidence > 0)[..., None], pred_xy - target_xy, torch.zeros_like(pred_xy))
    return trimmed_mean(difference.abs().mean(-1), confidence, quantile, gains) / max(image_size)


def track_depth(
    pred_depth: Float[Tensor, "*n"],
    target_depth: Float[Tensor, "*n"],
    confidence: Float[Tensor, "*n"],
    gains: Float[Tensor, "*n"] | None = None,
    quantile: float = 1.0,
) -> Float[Tensor, ""]:
    """Trimmed L1 in disparity between a carried point's depth and the depth prior at its track.

    Args:
        pred_depth: z-depth in the target camera, scene units; elements <= 0 (behind the camera) are ignored.
        target_depth: the prior's depth at the target position, scene units; 0 = unknown, ignored.
        confidence: >= 0 for every element.
        gains: factors such as ``interval_gains``.
        quantile: share of elements kept.

    Returns:
        scalar, 1 / scene unit; a differentiable 0 when nothing is known.

    Raises:
        ValueError: the shapes disagree.
    """
    _check_scalars("track_depth", pred_depth, target_depth=target_depth, confidence=confidence, gains=gains)
    pred, target, weights = known_disparity(pred_depth, target_depth, confidence)
    return trimmed_mean((pred - target).abs(), weights, quantile, gains)
