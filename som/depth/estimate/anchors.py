"""Depth that is known otherwise at some pixels, such as points of structure from motion, joined with the sweep's."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from som.data.sequence import resize_depth
from som.depth.errors import DepthError

MIN_SWEEP_CONFIDENCE = 0.3
"""Confidence of the sweep from which on it may contradict a point."""
MAX_RELATIVE_DIFFERENCE = 0.1
"""Relative difference up to which a point and the sweep agree."""
MIN_CHECKED_POINTS = 20
"""Points on sure pixels that are needed to judge the points' scale."""
UNCHECKED_CONFIDENCE = 0.7
"""Confidence of points where the sweep has nothing to say."""
RANGE_MARGIN_FACTOR = 2.0
"""Points nearer or farther than the sweep's known depth by this factor are left out: nothing there confirms them."""


def add_anchors(
    depth: Float[Tensor, "t h w"], confidence: Float[Tensor, "t h w"], sparse: Float[Tensor, "t h w"]
) -> tuple[Float[Tensor, "t h w"], Float[Tensor, "t h w"], dict]:
    """The sweep's depth with what is known otherwise.

    A point that agrees with the sweep (within ``MAX_RELATIVE_DIFFERENCE``) or lies where the sweep's confidence is low
    replaces the sweep's depth; a point that contradicts a confident sweep is left out, since points of structure from
    motion may be wrong or lie on what moves. So is a point far outside the depths that the sweep knows.

    Args:
        depth, confidence: the sweep's, 0 = unknown.
        sparse: z-depth in the unit of the poses, 0 = unknown, at the same size.

    Returns:
        depth and confidence (1 for points that agree, ``UNCHECKED_CONFIDENCE`` for those that nothing checks), and what
        to log: ``sparse_given``, ``sparse_used``, ``sparse_contradicted`` and maybe ``warnings``.

    Raises:
        DepthError: the points agree with the sweep but for one factor: they are in another unit than the poses.
    """
    given = sparse > 0
    sure = given & (depth > 0) & (confidence >= MIN_SWEEP_CONFIDENCE)
    ratio = (sparse[sure] / depth[sure]).double()
    _check_unit(ratio)
    agrees = torch.zeros_like(given)
    agrees[sure] = ratio.log().abs() < math.log(1 + MAX_RELATIVE_DIFFERENCE)
    known = depth[depth > 0].double()
    nearest, farthest = (float(known.min()), float(known.max())) if len(known) else (0.0, math.inf)
    plausible = (sparse * RANGE_MARGIN_FACTOR > nearest) & (sparse < farthest * RANGE_MARGIN_FACTOR)
    unchecked = given & ~sure & plausible
    used = agrees | unchecked
    contradicted = int((sure & ~agrees).sum())
    log: dict[str, Any] = {"sparse_given": int(given.sum()), "sparse_used": int(used.sum())}
    log["sparse_contradicted"] = contradicted
    if contradicted > 0.5 * len(ratio) and len(ratio) >= MIN_CHECKED_POINTS:
        log["warnings"] = [
            f"{contradicted} of {len(ratio)} sparse points contradict the plane sweep, and not by one factor: they "
            "were left out; check which camera and frames they belong to."
        ]
    confidence = torch.where(unchecked, torch.full_like(confidence, UNCHECKED_CONFIDENCE), confidence)
    return torch.where(used, sparse, depth), confidence.masked_fill(agrees, 1.0), log


def _check_unit(ratio: Float[Tensor, "n"]) -> None:
    """Refuses points of which most agree with the sweep once divided by one factor, and not before."""
    if len(ratio) < MIN_CHECKED_POINTS:
        return
    factor = float(ratio.median())
    consistent = float(((ratio / factor).log().abs() < math.log(1 + MAX_RELATIVE_DIFFERENCE)).double().mean())
    if abs(math.log(factor)) > math.log(1 + MAX_RELATIVE_DIFFERENCE) and consistent > 0.6:
        raise DepthError(
            f"sparse depth is {factor:.3g} times what the plane sweep measures with these poses, at {len(ratio)} "
            f"points: it is in another unit; divide it by {factor:.3g}, or scale the poses."
        )


def resize_maps(depth: Float[Tensor, "t h w"], size: tuple[int, int]) -> Float[Tensor, "t h2 w2"]:
    """Depth with unknown (0) pixels at another size, by ``resize_depth``."""
    return torch.stack([torch.from_numpy(resize_depth(z.cpu().numpy(), size)) for z in depth.float()])
