"""Smoothness of a map, weaker across the edges of the image."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from som.depth.learning.losses.reduction import check_map
from som.reductions import weighted_mean, weighted_mean_per_image


def _along(x: Tensor, axis: int, first: int, last: int) -> Tensor:
    """x without its ``first`` leading and ``last`` trailing entries along an axis."""
    length = x.shape[axis] - first - last
    return x.narrow(axis, first, length) if length > 0 else x.narrow(axis, 0, 0)


def _prepare(name: str, values: Tensor, image: Tensor, valid: Tensor | None, normalize: bool) -> tuple[Tensor, Tensor]:
    """The map, divided by its mean over valid pixels where asked for, and the weights."""
    check_map(name, "values", values, image)
    if valid is not None:
        check_map(name, "valid", valid, image)
    weights = torch.ones_like(values) if valid is None else valid.to(values.dtype)
    values = torch.where(weights > 0, values, torch.zeros_like(values))
    if normalize:
        mean, _ = weighted_mean_per_image(values, weights)
        values = values / (mean + 1e-7)[:, None, None, None]
    return values, weights


def edge_aware_smoothness(
    values: Float[Tensor, "b 1 h w"],
    image: Float[Tensor, "b c h w"],
    valid: Tensor | None = None,
    normalize: bool = True,
    edge_scale: float = 1.0,
) -> Float[Tensor, ""]:
    """First-order smoothness, ``mean |∂x d| exp(-s mean_c |∂x I|)`` plus the same in y.

    Monodepth (Godard et al., CVPR 2017); with the division of d by its mean (Wang et al., CVPR 2018), without which
    shrinking the map lowers the loss. Monodepth2 gives disparity, SC-SfMLearner depth.

    Args:
        values: disparity or depth, >= 0.
        image: on the same pixels, in [0, 1].
        valid: (B,1,H,W), bool or weights >= 0; a difference weighs the product of its two pixels. None counts all.
        normalize: divide each map by its mean over valid pixels.
        edge_scale: s, without unit; 1 for images in [0, 1], 2 for what [-1, 1] would give, 0 ignores the image.

    Returns:
        scalar >= 0, without unit if normalised, else in the unit of the map per pixel; a differentiable 0 when nothing
        counts.

    Raises:
        ValueError: shapes disagree.
    """
    values, weights = _prepare("edge_aware_smoothness", values, image, valid, normalize)
    total = values.new_zeros(())
    for axis in (3, 2):
        edges = (_along(image, axis, 1, 0) - _along(image, axis, 0, 1)).abs().mean(1, keepdim=True)
        steps = (_along(values, axis, 1, 0) - _along(values, axis, 0, 1)).abs()
        pairs = _along(weights, axis, 1, 0) * _along(weights, axis, 0, 1)
        total = total + weighted_mean(steps * torch.exp(-edge_scale * edges), pairs)
    return total


def geonet_smoothness(
    disparity: Float[Tensor, "b 1 h w"], image: Float[Tensor, "b c h w"], valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """GeoNet's form (Yin and Shi, CVPR 2018), ``|∇D| exp(-|∇I|)``: not normalised, image differences of [-1, 1].

    Args:
        disparity: 1 / depth at any scale s (GeoNet weighs scale s with 0.5 / 2^s).
        image: in [0, 1], at the same size.
        valid: (B,1,H,W), bool or weights >= 0; None counts all.

    Raises:
        ValueError: shapes disagree.
    """
    return edge_aware_smoothness(disparity, image, valid, normalize=False, edge_scale=2.0)


def second_order_smoothness(
    values: Float[Tensor, "b 1 h w"],
    image: Float[Tensor, "b c h w"],
    valid: Tensor | None = None,
    normalize: bool = True,
    edge_scale: float = 1.0,
) -> Float[Tensor, ""]:
    """Second-order smoothness, ``mean |∂xx d| exp(-s mean_c |I(x+1) - I(x-1)|)`` plus the same in y.

    The disparity of a plane is linear in the image, so that planes at any slant cost nothing, unlike in first order.
    Weights as UFlow's (Jonschkowski et al., ECCV 2020), over the whole span of the second difference.

    Args:
        values: disparity (depth of a slanted plane is not linear), >= 0.
        image, valid, normalize, edge_scale: as in ``edge_aware_smoothness``; the image's difference is that over two
            pixels. SfMLearner's form has edge_scale = 0.

    Returns:
        scalar >= 0; a differentiable 0 when nothing counts.

    Raises:
        ValueError: shapes disagree.
    """
    values, weights = _prepare("second_order_smoothness", values, image, valid, normalize)
    total = values.new_zeros(())
    for axis in (3, 2):
        v0, v1, v2 = (_along(values, axis, k, 2 - k) for k in range(3))
        w0, w1, w2 = (_along(weights, axis, k, 2 - k) for k in range(3))
        edges = (_along(image, axis, 2, 0) - _along(image, axis, 0, 2)).abs().mean(1, keepdim=True)
        total = total + weighted_mean((v2 - 2 * v1 + v0).abs() * torch.exp(-edge_scale * edges), w0 * w1 * w2)
    return total
