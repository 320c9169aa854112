"""Depth metrics: errors in world units, errors free of scale, and whether the order of depths is right."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def _known(name: str, pred: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    if pred.shape != target.shape or (mask is not None and mask.shape != pred.shape):
        shapes = [tuple(m.shape) for m in (pred, target, mask) if m is not None]
        raise ValueError(f"{name}: the depth maps and the mask must have one shape, got {shapes}.")
    return target > 0 if mask is None else (target > 0) & mask


def depth_errors(
    pred: Float[Tensor, "h w"],
    target: Float[Tensor, "h w"],
    mask: Bool[Tensor, "h w"] | None = None,
    scaling: Literal["none", "median"] = "none",
) -> dict[str, float]:
    """The usual errors of a depth map (Eigen et al. 2014) over pixels whose true depth is known (> 0).

    A pixel at which nothing was predicted (depth 0) is not left out: it counts with depth 0, that is as abs_rel 1.

    Args:
        scaling: ``median`` first multiplies ``pred`` by median(target / pred) over pixels where both are known.

    Returns:
        ``abs_rel`` = mean |pred - target| / target, ``rmse`` in the unit of ``target``, ``delta1`` = fraction with
        max(pred / target, target / pred) < 1.25; all nan where no depth is known.
    """
    known = _known("depth_errors", pred, target, mask)
    p, t = pred[known].double(), target[known].double()
    if scaling == "median" and bool((p > 0).any()):
        p = p * (t[p > 0] / p[p > 0]).median()
    if len(t) == 0:
        return {"abs_rel": math.nan, "rmse": math.nan, "delta1": math.nan}
    within = (p < 1.25 * t) & (t < 1.25 * p)
    return {
        "abs_rel": float(((p - t).abs() / t).mean()),
        "rmse": float((p - t).square().mean().sqrt()),
        "delta1": float(within.double().mean()),
    }


def disparity_correlation(
    pred: Float[Tensor, "h w"], target: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """Pearson correlation of 1/pred and 1/target where both are known, in [-1, 1]; blind to scale and shift.

    nan with fewer than two pixels or a constant map.
    """
    known = _known("disparity_correlation", pred, target, mask) & (pred > 0)
    a, b = 1 / pred[known].double(), 1 / target[known].double()
    if len(a) < 2:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    norm = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / norm if norm > 0 else math.nan


def depth_discordance(
    pred: Float[Tensor, "h w"],
    target: Float[Tensor, "h w"],
    mask: Bool[Tensor, "h w"] | None = None,
    *,
    num_pairs: int = 20000,
    margin: float = 0.05,
    generator: torch.Generator | None = None,
) -> float:
    """Share of random pixel pairs that ``pred`` orders otherwise than ``target``, in [0, 1]; chance is 0.5.

    Only pairs whose true depths differ by more than ``margin`` (|log ratio|) count. A pair that is tied in ``pred``, or
    has a pixel at which nothing was predicted (depth 0), counts as half wrong. Free of scale, and of any increasing
    distortion of depth.

    Args:
        generator: on the CPU; the pairs are drawn there so that they do not depend on the device.

    Returns:
        nan where no pair counts.
    """
    known = _known("depth_discordance", pred, target, mask)
    p, t = pred[known], target[known]
    if len(t) < 2:
        return math.nan
    first, second = torch.randint(len(t), (2, num_pairs), generator=generator).to(t.device)
    difference = (t[first] / t[second]).log()
    counts = difference.abs() > margin
    predicted = (p[first] - p[second]).sign() * ((p[first] > 0) & (p[second] > 0))
    wrong = (1 - predicted * difference.sign()) / 2
    return float(wrong[counts].double().mean()) if bool(counts.any()) else math.nan
