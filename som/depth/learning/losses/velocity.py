"""Metric scale from the distance that the camera travels (PackNet-SfM, Guizilini et al., CVPR 2020)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from som.reductions import check_same_shape, weighted_mean


def velocity_loss(
    T_src_tgt: Float[Tensor, "*b 4 4"], distance: Float[Tensor, "*b"], valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """``mean | |t| - distance |`` over relative poses: their length is supervised, not their direction.

    Args:
        T_src_tgt: predicted relative poses, e.g. (B,S,4,4).
        distance: metres between the two cameras, >= 0: speed times time, or the length of a measured translation.
        valid: poses whose distance is known, (...), bool or weights >= 0; None counts all.

    Returns:
        scalar >= 0 in metres; a differentiable 0 when nothing counts. PackNet-SfM weighs it with 0.1.

    Raises:
        ValueError: shapes disagree.
    """
    if T_src_tgt.shape[-2:] != (4, 4):
        raise ValueError(f"velocity_loss: T_src_tgt must be (...,4,4), got {tuple(T_src_tgt.shape)}.")
    length = T_src_tgt[..., :3, 3].norm(dim=-1)  # its gradient at 0 is 0
    check_same_shape("velocity_loss", poses=length, distance=distance, valid=valid)
    return weighted_mean((length - distance).abs(), valid)
