"""Depth losses in disparity 1/z, which weighs near surfaces more and tames far ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from som.reductions import check_same_shape, trimmed_mean

DEPTH_EPS = 1e-5
"""Added to depth before it is inverted, in scene units."""


def known_disparity(
    pred_depth: Tensor, depth: Tensor, weights: Tensor | None
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """Both disparities and the weights, which are 0 where either depth is unknown (<= 0); disparities are 0 there."""
    check_same_shape("depth", pred_depth=pred_depth, depth=depth)
    if weights is not None and weights.shape != depth.shape:
        raise ValueError(f"weights {tuple(weights.shape)} and depth {tuple(depth.shape)} differ in shape.")
    known = (pred_depth.detach() > 0) & (depth > 0)
    if weights is not None:
        known = known & (weights > 0)
    ones, zeros = torch.ones_like(pred_depth), torch.zeros_like(pred_depth)

    def invert(z: Tensor) -> Tensor:
        return torch.where(known, 1 / (torch.where(known, z, ones) + DEPTH_EPS), zeros)

    counted = known.to(pred_depth.dtype)
    return invert(pred_depth), invert(depth), counted if weights is None else counted * weights


def disparity_l1(
    pred_depth: Float[Tensor, "*s"],
    depth: Float[Tensor, "*s"],
    weights: Shaped[Tensor, "*s"] | None = None,
    quantile: float = 0.98,
) -> Float[Tensor, ""]:
    """Trimmed ``|1/pred - 1/depth|`` where both depths are known.

    Args:
        pred_depth: rendered z-depth in scene units; 0 = nothing hit, ignored.
        depth: z-depth of the prior in scene units; 0 = unknown, ignored.
        weights: the same shape, >= 0 or bool.
        quantile: share of elements kept.

    Returns:
        scalar, 1 / scene unit; a differentiable 0 when nothing is known.

    Raises:
        ValueError: the shapes disagree.
    """
    pred, target, weights = known_disparity(pred_depth, depth, weights)
    return trimmed_mean((pred - target).abs(), weights, quantile)


def disparity_gradient(
    pred_depth: Float[Tensor, "b h w"],
    depth: Float[Tensor, "b h w"],
    weights: Shaped[Tensor, "b h w"] | None = None,
    quantile: float = 0.95,
) -> Float[Tensor, ""]:
    """Trimmed L1 between forward differences of disparity, the sum of the x and the y direction.

    A difference counts where both of its pixels are known, with the product of their weights. It is blind to a
    constant shift of disparity within an image.

    Args:
        pred_depth: rendered z-depth in scene units; 0 = nothing hit, ignored.
        depth: z-depth of the prior in scene units; 0 = unknown, ignored.
        weights: the same shape, >= 0 or bool.
        quantile: share of differences kept in each direction.

    Returns:
        scalar, 1 / scene unit per pixel; a differentiable 0 when nothing is known.

    Raises:
        ValueError: the shapes disagree or are not (B,H,W).
    """
    if pred_depth.ndim != 3:
        raise ValueError(f"disparity_gradient: depth must be (B,H,W), got {tuple(pred_depth.shape)}.")
    pred, target, weights = known_disparity(pred_depth, depth, weights)
    residual = pred - target
    loss = residual.new_zeros(())
    for dim in (1, 2):
        n = residual.shape[dim] - 1
        near, far = weights.narrow(dim, 0, n), weights.narrow(dim, 1, n)
        loss = loss + trimmed_mean(residual.diff(dim=dim).abs(), near * far, quantile)
    return loss
