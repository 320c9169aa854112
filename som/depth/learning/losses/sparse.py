"""Supervision by sparse depth, such as lidar, SfM points or a filtered plane sweep."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from som.cameras.geometry import in_image, reproject
from som.depth.learning.losses.reduction import known_weights
from som.reductions import masked_difference, weighted_mean


def sparse_inverse_depth_loss(
    pred_inverse: Float[Tensor, "*s"], depth: Float[Tensor, "*s"], valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """L1 of inverse depth, ``mean |xi - 1 / d|`` over known pixels: errors nearby weigh more than far away.

    The semi-supervised term of PackNet-SfM (Guizilini et al., CVPR 2020), mixed there as 0.1 self-supervised + 0.9 of
    this.

    Args:
        pred_inverse: predicted inverse depth, any shape.
        depth: known z, 0 = unknown, the same shape; no gradient.
        valid: the same shape, bool or weights >= 0; None counts every known pixel.

    Returns:
        scalar >= 0 in 1 / unit of depth; a differentiable 0 when nothing is known.

    Raises:
        ValueError: the shapes differ.
    """
    weights = known_weights("sparse_inverse_depth_loss", pred_inverse, depth, valid)
    target = torch.where(weights > 0, depth, torch.ones_like(depth)).detach().reciprocal()
    return weighted_mean(masked_difference(pred_inverse, target, weights).abs(), weights)


def sparse_log_loss(
    pred_depth: Float[Tensor, "*s"], depth: Float[Tensor, "*s"], valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """L1 of log depth, ``mean |log z - log d|`` over known pixels: relative errors, the same at every distance.

    Args:
        pred_depth: predicted z > 0, any shape.
        depth: known z, 0 = unknown, the same shape and unit; no gradient.
        valid: the same shape, bool or weights >= 0; None counts every known pixel.

    Returns:
        scalar >= 0 without unit; a differentiable 0 when nothing is known.

    Raises:
        ValueError: the shapes differ.
    """
    weights = known_weights("sparse_log_loss", pred_depth, depth, valid)
    one = torch.ones_like(depth)
    pred, target = torch.where(weights > 0, pred_depth, one), torch.where(weights > 0, depth, one).detach()
    return weighted_mean((pred.log() - target.log()).abs(), weights)


def reprojected_distance_loss(
    pred_depth: Float[Tensor, "b 1 h w"],
    depth: Float[Tensor, "b 1 h w"],
    K_tgt: Float[Tensor, "b 3 3"],
    K_src: Float[Tensor, "b 3 3"],
    T_src_tgt: Float[Tensor, "b 4 4"],
    source_size: tuple[int, int],
    valid: Shaped[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, ""]:
    """Pixels between the predicted and the labelled point, both projected into a source view with the same pose.

    Reprojected distances (Guizilini et al., CoRL 2019): depth errors count by how far they move the point in the other
    image, the quantity that the photometric term measures too, so the two can be mixed without a factor per distance.
    Where the pose has no parallax (no motion, or the epipole) nothing is learned.

    Args:
        pred_depth: predicted z > 0 of the target.
        depth: known z of the target, 0 = unknown, in the same unit; no gradient.
        K_tgt, K_src: intrinsics in pixels.
        T_src_tgt: maps target-camera points into the source camera; no gradient (pose and label may disagree).
        source_size: (height, width) of the source image; labels that project outside do not count.
        valid: pixels that count, bool or weights >= 0; None counts every known pixel.

    Returns:
        scalar >= 0 in pixels of the source; a differentiable 0 when nothing counts.

    Raises:
        ValueError: shapes disagree.
    """
    weights = known_weights("reprojected_distance_loss", pred_depth, depth, valid)
    T = T_src_tgt.detach()
    min_depth = 1e-3
    xy, z = reproject(pred_depth, K_tgt, K_src, T, min_depth)
    xy_label, z_label = reproject(depth.detach(), K_tgt, K_src, T, min_depth)
    seen = in_image(xy_label, *source_size)[:, None] & (z_label > min_depth) & (z > min_depth)
    weights = weights * seen
    offset = torch.where(weights.squeeze(1)[..., None] > 0, xy - xy_label, torch.zeros_like(xy))
    return weighted_mean(offset.norm(dim=-1)[:, None], weights)
