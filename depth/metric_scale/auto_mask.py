"""The road's exception from the auto-mask."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor


def keep_road(
    keep: Bool[Tensor, "b *s"], road: Bool[Tensor, "b *s"], static_share: float = 0.75
) -> Bool[Tensor, "b *s"]:
    """Auto-mask's "keep" mask with the road kept as well, except in frames of a standing camera.

    Textureless road looks equal in neighbouring frames, so the auto-mask drops it and its wrong depth is never
    corrected. Where at least ``static_share`` of a frame is dropped the camera is taken to stand still, and the mask
    stays as it is (FUMET).

    Args:
        keep: True where the photometric loss counts, (B,H,W) or (B,1,H,W).
        road: True on the road, the same shape.
        static_share: share of dropped pixels, in [0, 1].

    Raises:
        ValueError: the shapes differ or a mask is not bool.
    """
    if keep.shape != road.shape:
        raise ValueError(f"keep {tuple(keep.shape)} and road {tuple(road.shape)} differ in shape.")
    if keep.dtype != torch.bool or road.dtype != torch.bool:
        raise ValueError(f"keep and road must be bool, got {keep.dtype} and {road.dtype}.")
    dropped = (~keep).flatten(1).float().mean(1)
    moving = (dropped < static_share).view(-1, *[1] * (keep.ndim - 1))
    return keep | (road & moving)
