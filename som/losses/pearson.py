"""Correlation of rendered depth with a prior of unknown scale and shift, over images and over local boxes.

The loss is ``1 - rho`` with Pearson's rho. Both maps are brought into the same space, so that agreement is always a
*positive* correlation; there is no guessing between signs. The space is disparity by default, because that is where
the scale and the shift of a monocular prior are unknown.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from som.reductions import check_same_shape, weighted_mean

Space = Literal["disparity", "depth"]
MIN_KNOWN_PIXELS = 16
"""An image with fewer known pixels does not count."""
MIN_KNOWN_SHARE = 0.25
"""A box in which a smaller share of the pixels is known does not count."""
MIN_RELATIVE_DEVIATION = 1e-4
"""Relative standard deviation (of the mean) under which a map is flat: it then correlates with nothing."""
MIN_KNOWN_DEPTH, MAX_KNOWN_DEPTH = 1e-12, 1e12
"""Depths outside are unknown; inside, squares of disparity stay far from the ends of float32."""


def _known(depth: Tensor) -> Tensor:
    depth = depth.detach()
    return (depth > MIN_KNOWN_DEPTH) & (depth < MAX_KNOWN_DEPTH)


def _check(name: str, pred_depth: Tensor, depth: Tensor, weights: Tensor | None, space: str) -> None:
    check_same_shape(name, pred_depth=pred_depth, depth=depth)
    if pred_depth.ndim != 3:
        raise ValueError(f"{name}: depth must be (B,H,W), got shape {tuple(pred_depth.shape)}.")
    if weights is not None and weights.shape != depth.shape:
        raise ValueError(f"{name}: weights {tuple(weights.shape)} and depth {tuple(depth.shape)} differ in shape.")
    if space not in ("disparity", "depth"):
        raise ValueError(f'{name}: space must be "disparity" or "depth", got {space!r}.')


def _in_space(depth: Tensor, known: Tensor, space: Space) -> Tensor:
    """The map in its space; 1 where it is unknown, so that gradients stay finite there."""
    filled = torch.where(known, depth, torch.ones_like(depth))
    return filled.reciprocal() if space == "disparity" else filled


def _shares(weights: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Weights divided by their sum in each row, or 0 in a row without weight."""
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total > 0, total, torch.ones_like(total))


def _centered(values: Tensor, shares: Tensor) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n"]]:
    """Values less their weighted mean; and the variance under which the row is flat."""
    mean = (shares * values.detach()).sum(-1, keepdim=True)
    floor = (MIN_RELATIVE_DEVIATION * mean[..., 0]).square().clamp(min=torch.finfo(values.dtype).tiny)
    return values - mean, floor


def _variance(values: Tensor, weights: Tensor) -> Float[Tensor, "n"]:
    shares = _shares(weights)
    deviation, _ = _centered(values, shares)
    return (shares * deviation * deviation).sum(-1)


def _correlation(
    pred: Float[Tensor, "n p"], target: Float[Tensor, "n p"], weights: Float[Tensor, "n p"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Row-wise weighted correlation, the variance of the target, and 1 where the target is not flat.

    Both are centred before they are multiplied: ``E[xy] - E[x]E[y]`` would cancel in float32. The mean of ``pred``
    carries no gradient and needs none, since deviations from it sum to zero.
    """
    shares = _shares(weights)
    a, floor_a = _centered(pred, shares)
    b, floor_b = _centered(target, shares)
    weighted_b = shares * b
    variance_b = (weighted_b * b).sum(-1)
    variance_a = (shares * a * a).sum(-1)
    covariance = (weighted_b * a).sum(-1)
    rho = covariance * variance_a.clamp(min=floor_a).rsqrt() * variance_b.clamp(min=floor_b).rsqrt()
    return rho, variance_b, (variance_b > floor_b).to(pred.dtype)


def pearson_depth(
    pred_depth: Float[Tensor, "b h w"],
    depth: Float[Tensor, "b h w"],
    weights: Shaped[Tensor, "b h w"] | None = None,
    space: Space = "disparity",
) -> Float[Tensor, ""]:
    """Mean over images of ``1 - rho``, rho the weighted correlation of rendered and prior disparity.

    ``rho = sum(w a b) / sqrt(sum(w a^2) sum(w b^2))`` with a, b centred by their weighted means. It does not change
    when the rendered depth is scaled, nor when the prior's disparity is scaled (by a positive factor) or shifted, each
    image by its own amount. Global form of SparseGS (arXiv 2312.00206) and FSGS (arXiv 2312.00451).

    Args:
        pred_depth: rendered z-depth in scene units; 0 = nothing hit, ignored.
        depth: z-depth of the prior, any scale; 0 = unknown, ignored. Gets no gradient.
        weights: the same shape, >= 0 or bool; None counts every known pixel once.
        space: where the maps are compared. ``depth`` suits only priors that are affine in depth.

    Returns:
        scalar in [0, 2], without unit: 0 affinely related, 1 unrelated or a flat render, 2 reversed. The mean is over
        images with at least 16 pixels that count and a prior that is not constant; a differentiable 0 without any.

    Raises:
        ValueError: the shapes disagree or are not (B,H,W), or the space is unknown.
    """
    _check("pearson_depth", pred_depth, depth, weights, space)
    known = _known(pred_depth) & _known(depth)
    counted = known.to(pred_depth.dtype) if weights is None else known * weights.to(pred_depth.dtype)
    pred, target = _in_space(pred_depth, known, space), _in_space(depth.detach(), known, space)
    counted = counted.flatten(1)
    rho, _, varies = _correlation(pred.flatten(1), target.flatten(1), counted)
    return weighted_mean(1 - rho, varies * ((counted > 0).sum(-1) >= MIN_KNOWN_PIXELS))


def box_size(height: int, width: int) -> int:
    """Side of the local boxes in pixels: an eighth of the height, at least 32, at most what fits."""
    return min(max(32, height // 8), height, width)


def sample_boxes(
    batch: int,
    height: int,
    width: int,
    generator: torch.Generator | None = None,
    box: int | None = None,
    share: float = 0.5,
    device: torch.device | str = "cpu",
) -> Int[Tensor, "b k 2"]:
    """Random places of local boxes, drawn anew for every image; boxes may overlap.

    Args:
        batch, height, width: B images of H x W pixels.
        generator: drawn from on its own device, so that a CPU generator gives equal boxes on every device.
        box: side in pixels; None is ``box_size``.
        share: number of boxes as a share of those that fit side by side; at least one is drawn.
        device: where the result is wanted.

    Returns:
        (row, column) of each box's first pixel.

    Raises:
        ValueError: a box is larger than the image.
    """
    box = box_size(height, width) if box is None else box
    if not 0 < box <= min(height, width):
        raise ValueError(f"sample_boxes: a box of {box} px does not fit into {width}x{height} px.")
    count = max(1, round(share * (height // box) * (width // box)))
    places = torch.tensor([height - box + 1, width - box + 1], dtype=torch.float64)
    origin = "cpu" if generator is None else generator.device
    uniform = torch.rand(batch, count, 2, generator=generator, device=origin, dtype=torch.float64)
    return (uniform * places.to(origin)).long().to(device, non_blocking=True)


def patch_pearson_depth(
    pred_depth: Float[Tensor, "b h w"],
    depth: Float[Tensor, "b h w"],
    corners: Int[Tensor, "b k 2"],
    weights: Shaped[Tensor, "b h w"] | None = None,
    box: int | None = None,
    space: Space = "disparity",
    min_spread: float = 0.01,
) -> Float[Tensor, ""]:
    """Mean over square boxes of ``1 - rho``, the local form of SparseGS (arXiv 2312.00206), all boxes in one call.

    As ``pearson_depth``, but scale and shift of the prior's disparity may differ from box to box. That makes it blind
    to how boxes lie behind each other; use it beside the global form.

    Args:
        pred_depth: rendered z-depth in scene units; 0 = nothing hit, ignored.
        depth: z-depth of the prior, any scale; 0 = unknown, ignored. Gets no gradient.
        corners: first (row, column) of each box; the boxes must lie within the image. See ``sample_boxes``.
        weights: the same shape as the depths, >= 0 or bool.
        box: side of the boxes in pixels; None is ``box_size``.
        space: where the maps are compared.
        min_spread: a box counts only if the prior's standard deviation in it is at least this share of that in the
            whole image; what varies less is mostly noise, to which a correlation would give full weight.

    Returns:
        scalar in [0, 2], without unit. The mean is over boxes of which a quarter and at least 16 pixels count; a
        differentiable 0 without any.

    Raises:
        ValueError: the shapes disagree, the boxes do not fit, or the space is unknown.
    """
    _check("patch_pearson_depth", pred_depth, depth, weights, space)
    B, H, W = depth.shape
    if corners.ndim != 3 or corners.shape[0] != B or corners.shape[2] != 2:
        raise ValueError(f"patch_pearson_depth: corners must be ({B},K,2), got {tuple(corners.shape)}.")
    box = box_size(H, W) if box is None else box
    if not 0 < box <= min(H, W):
        raise ValueError(f"patch_pearson_depth: a box of {box} px does not fit into {W}x{H} px.")
    with torch.no_grad():
        known = _known(depth)
        target = _in_space(depth, known, space)
        counted = known.to(pred_depth.dtype) if weights is None else known * weights.to(pred_depth.dtype)
        image_variance = _variance(target.flatten(1), counted.flatten(1))
        side = torch.arange(box, device=depth.device)
        within = (side[:, None] * W + side).flatten()
        first = torch.arange(B, device=depth.device)[:, None] * (H * W) + corners[..., 0] * W + corners[..., 1]
        index = (first.reshape(-1, 1) + within).flatten()
        target, counted = (x.flatten().index_select(0, index).view(-1, box * box) for x in (target, counted))
    pred = pred_depth.flatten().index_select(0, index).view(-1, box * box)
    hit = _known(pred)
    counted = counted * hit
    rho, variance, varies = _correlation(_in_space(pred, hit, space), target, counted)
    enough = (counted > 0).sum(-1) >= max(MIN_KNOWN_PIXELS, MIN_KNOWN_SHARE * box * box)
    spread = variance >= min_spread**2 * image_variance.repeat_interleave(corners.shape[1])
    return weighted_mean(1 - rho, varies * enough * spread)
