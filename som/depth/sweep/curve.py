"""From a pixel's costs over the planes to its inverse depth and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MINIMUM_RADIUS_PLANES = 2
"""Planes to both sides of the best one that belong to the same minimum."""


@dataclass(frozen=True)
class BestPlane:
    """The best inverse depth of every pixel."""

    inverse_depth: Float[Tensor, "h w"]
    """Between the planes, never outside their range."""
    distinctness: Float[Tensor, "h w"]
    """In [0, 1]: 1 - lowest cost / lowest cost of the planes not next to it; 0 where another depth fits as well."""
    at_end: Bool[Tensor, "h w"]
    """The lowest cost is that of the first or last plane: the depth may lie outside the range."""


def best_plane(volume: Float[Tensor, "d h w"], inverse_depth: Float[Tensor, "d #h #w"]) -> BestPlane:
    """The plane of the lowest cost, refined by the parabola through it and its two neighbours.

    Args:
        volume: costs >= 0; D >= 3.
        inverse_depth: the planes, in equal steps along the first axis; (d,1,1) or (d,h,w).
    """
    count = len(volume)
    lowest, index = volume.min(0)
    inner = index.clamp(1, count - 2)
    before, at, after = (volume.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    curvature = (before - 2 * at + after).clamp(min=1e-9)
    offset = ((before - after) / (2 * curvature)).clamp(-0.5, 0.5)
    offset = torch.where(index == inner, offset, torch.zeros_like(offset))
    step = (inverse_depth[1:2] - inverse_depth[:1])[0]
    planes = torch.arange(count, device=volume.device)[:, None, None]
    other = volume.masked_fill((planes - index).abs() <= MINIMUM_RADIUS_PLANES, torch.inf).amin(0)
    distinctness = (1 - lowest / other.clamp(min=1e-9)).clamp(0, 1)
    return BestPlane(inverse_depth[0] + (index + offset) * step, distinctness, (index == 0) | (index == count - 1))
