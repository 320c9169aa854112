"""Losses over the scales of a decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from som.depth.learning.losses.reduction import check_map
from som.depth.learning.losses.sparse import sparse_inverse_depth_loss


def upsample_to(disparities: Sequence[Float[Tensor, "b c _ _"]], size: tuple[int, int]) -> list[Tensor]:
    """Disparities of all scales at one size, bilinear with half-pixel centres (``align_corners=False``).

    Monodepth2's full-resolution multi-scale: coarse *disparities* are enlarged before they become depth, and every
    loss is taken at full size, so that a coarse scale is not trained to explain a blurred image.

    Args:
        disparities: (B,C,h,w) of each scale.
        size: (height, width) of the full image.
    """
    return [
        d if d.shape[-2:] == tuple(size) else F.interpolate(d, size=size, mode="bilinear", align_corners=False)
        for d in disparities
    ]


def resize_depth(depth: Float[Tensor, "b 1 h w"], size: tuple[int, int]) -> Float[Tensor, "b 1 h2 w2"]:
    """Nearest-neighbour resizing, which mixes neither two surfaces nor known with unknown (0) pixels."""
    return depth if depth.shape[-2:] == tuple(size) else F.interpolate(depth, size=size, mode="nearest")


def multiscale_inverse_depth_loss(
    pred_inverse: Sequence[Float[Tensor, "b 1 _ _"]],
    depth: Float[Tensor, "b 1 h w"],
    valid: Tensor | None = None,
) -> Float[Tensor, ""]:
    """MVDepthNet's loss (Wang and Shen, 3DV 2018), ``sum_s mean_i |xi_si - 1 / d_si|`` over the scales s.

    Args:
        pred_inverse: predicted inverse depth of each scale.
        depth: known z at full size, 0 = unknown; resized to each scale by nearest neighbour. No gradient.
        valid: (B,1,H,W) at full size, bool or weights >= 0; None counts every known pixel.

    Returns:
        scalar >= 0 in 1 / unit of depth; a differentiable 0 when nothing is known.

    Raises:
        ValueError: shapes disagree, or there is no scale.
    """
    if not pred_inverse:
        raise ValueError("multiscale_inverse_depth_loss: pred_inverse holds no scale.")
    if valid is not None:
        check_map("multiscale_inverse_depth_loss", "valid", valid, depth)
    total = pred_inverse[0].new_zeros(())
    for pred in pred_inverse:
        size = (pred.shape[-2], pred.shape[-1])
        resized = None if valid is None else resize_depth(valid.to(pred.dtype), size)
        total = total + sparse_inverse_depth_loss(pred, resize_depth(depth, size), resized)
    return total
