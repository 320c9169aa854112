"""The camera height that a clip's objects agree on, and which of them do not."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.depth.metric_scale.objects import FrameMeasurements, ObjectStatus, horizon_outliers

_MAX_ROUNDS = 20


def height_candidates(measured: FrameMeasurements) -> Float[Tensor, "p 3"]:
    """What each measured object says of the camera: (metric camera height by its scale, its height over the camera's by
    the horizon, its prior height), in the order of frames and ids. Rows of several batches can be joined."""
    usable = measured.status == ObjectStatus.USED
    heights = measured.scale * measured.camera_height[:, None]
    return torch.stack([heights[usable], measured.height_ratio[usable], measured.heights[usable]], dim=-1)


def agree(
    candidates: Float[Tensor, "p 3"], max_error: float | None
) -> tuple[float, Bool[Tensor, "p"]] | tuple[None, Bool[Tensor, "p"]]:
    """The metric camera height that the candidates agree on, and who takes part in it.

    Starts with all and alternates: the location of those that take part, then the horizon test of all against it,
    until the set stays the same. An earlier label has no say: a test against a label that is wrong keeps exactly the
    objects that confirm it.

    Args:
        candidates: rows of ``height_candidates``; rows whose ratio is nan are never refused.
        max_error: as ``FrameConfig.max_height_error``; None refuses none.

    Returns:
        the camera height in metres, None if nobody takes part.
    """
    height, ratio, prior = candidates.double().unbind(-1)
    kept, seen = torch.ones_like(height, dtype=torch.bool), list[Tensor]()
    for _ in range(_MAX_ROUNDS):
        if not bool(kept.any()):
            return None, kept
        location = robust_location(height[kept])
        if max_error is None or any(torch.equal(kept, old) for old in seen):
            break
        seen.append(kept)
        kept = ratio.isnan() | ~horizon_outliers(ratio, prior, location, max_error)
    return location, kept


def robust_location(values: Float[Tensor, "n"]) -> float:
    """Huber's location: the mean with weights min(1, 1.5 s / |x - location|), s = 1.4826 times the median absolute
    deviation from the median. Nearly as efficient as the mean, and outliers pull with bounded force."""
    location = values.quantile(0.5)
    width = 1.5 * 1.4826 * (values - location).abs().quantile(0.5)
    if width == 0:
        return float(location)
    for _ in range(20):
        weights = (width / (values - location).abs().clamp(min=torch.finfo(values.dtype).tiny)).clamp(max=1)
        location = (weights * values).sum() / weights.sum()
    return float(location)
