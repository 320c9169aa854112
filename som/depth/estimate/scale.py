"""Metric scale of a finished clip: from objects on the road, or from the distance that the camera has travelled."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.estimate.prior import Clip, DepthPrior
from som.depth.metric_scale import metric_scale

MIN_STEP_METRES = 0.05
"""Metres per frame below which a step of the camera says nothing of the scale."""


def scaled_to_metres(prior: DepthPrior, clip: Clip) -> DepthPrior:
    """The prior in metres, where the clip determines the scale; else the prior itself.

    Distances come before objects: they need no guess of what is seen.

    Raises:
        DepthError: distances without poses, or nothing usable in what was given.
    """
    if clip.distances is not None:
        if clip.w2c is None:
            raise DepthError("distances scale given poses; for learned poses set self_supervised.weights.velocity.")
        factor = distance_scale(clip.w2c, clip.distances)
        return _scaled(prior, factor, {"scale_from": "distances"})
    if clip.road is not None and clip.objects is not None:
        found = metric_scale(prior.depth, clip.K, clip.road, clip.objects)
        facts = {
            "scale_from": "objects on the road",
            "camera_height": found.camera_height,
            "relative_deviation": found.relative_deviation,
            "depth_deviation": found.depth_deviation,
            "objects_used": len(found.used),
            "objects_rejected": len(found.rejected),
        }
        return _scaled(prior, found.scale, facts)
    prior.scale_log.setdefault("factor", 1.0)
    return prior


def distance_scale(w2c: Float[Tensor, "t 4 4"], distances: Float[Tensor, "t"]) -> float:
    """Metres per unit of the poses: the median over frames that move of distance over the length of the pose's step.

    Args:
        distances: metres from each frame to the next; the last is not used.

    Raises:
        DepthError: the camera, or its poses, do not move.
    """
    centers = torch.linalg.inv(w2c.double())[:, :3, 3]
    steps = (centers[1:] - centers[:-1]).norm(dim=-1)
    metres = distances[:-1].double()
    usable = (metres > MIN_STEP_METRES) & (steps > 0)
    if not bool(usable.any()):
        raise DepthError(
            f"no metric scale from distances: the camera moves less than {MIN_STEP_METRES} m in every frame."
        )
    return float((metres[usable] / steps[usable]).median())


def _scaled(prior: DepthPrior, factor: float, log: dict) -> DepthPrior:
    w2c = prior.w2c
    if w2c is not None:
        w2c = w2c.clone()
        w2c[:, :3, 3] *= factor
    return replace(
        prior,
        depth=prior.depth * factor,
        w2c=w2c,
        units="metric",
        scale_log={**prior.scale_log, **log, "factor": factor},
    )
