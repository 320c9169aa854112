"""Edges of a map, and how far from them on either side the first usable pixel lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from flow.errors import FlowError

NUM_ANGLES = 256
"""Directions across an edge that are distinguished."""
NUM_DISTANCES = 16
"""Distances from an edge that are distinguished."""


@dataclass(frozen=True)
class Edges:
    """k edge pixels of each of B maps, all (B,k); the steepest pixels, in the order of their indices."""

    pixel: Tensor
    """int64, row * W + column."""
    angle: Tensor
    """int64 in [0, 256): direction across the edge in 256ths of a turn, from right over down; either way."""
    start: Tensor
    """int64, (B,k,2): index of the first of 16 distances at which a usable pixel lies, along ``angle`` and opposite."""
    found: Tensor
    """bool: the map changes here and there is a usable pixel on both sides."""

    @classmethod
    def none(cls, batch: int, device: torch.device) -> Edges:
        """Maps without an edge: one pixel each, of which none is found."""
        zero = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        return cls(zero, zero, torch.stack([zero, zero], -1), zero > 0)


@torch.no_grad()
def find_edges(guidance: Tensor, usable: Tensor, share: float, gap: float, reach: float) -> Edges:
    """Where a map is steepest, which way is across, and where usable pixels begin on either side.

    Gradients of several channels are joined by their structure tensor (Di Zenzo, CVGIP 1986): the direction is its
    main eigenvector, the steepness its greater eigenvalue. Occlusion makes one side of a depth edge unusable up to
    the distance by which the front moves, so that the search outwards is what leaves pairs there.

    Args:
        guidance: (B,H,W) or (B,H,W,C). Places beside nan or inf are no edges.
        usable: (B,H,W) bool, pixels that may be used.
        share: of all pixels, in (0, 1], that are edges at most.
        gap, reach: least and greatest distance from an edge, pixels.

    Raises:
        FlowError: ``guidance`` does not fit ``usable``.
    """
    channels = guidance[..., None] if guidance.ndim == 3 else guidance
    if channels.ndim != 4 or channels.shape[:3] != usable.shape:
        sizes = f"{tuple(usable.shape)} or with channels behind, got {tuple(guidance.shape)}"
        raise FlowError(f"guidance must have shape {sizes}.")
    H, W = usable.shape[1:]
    steepness, angle = _steepest(channels.float().permute(0, 3, 1, 2))
    count = max(int(share * H * W), 1)
    pixel = steepness.flatten(1).topk(count, dim=1, sorted=False).indices.sort(1).values
    angle = angle.flatten(1).gather(1, pixel)
    # Rounding noise in a map without edges is not an edge.
    floor = 1e-6 * steepness.amax((1, 2))[:, None]
    found = steepness.flatten(1).gather(1, pixel) > floor
    starts = []
    steps = edge_steps(gap, reach).to(pixel.device)
    for turn in (0, NUM_ANGLES // 2):
        index = ((angle + turn) % NUM_ANGLES)[..., None] * NUM_DISTANCES + torch.arange(
            NUM_DISTANCES, device=pixel.device
        )
        place, inside = step_from(pixel[..., None], steps[index], (H, W))
        reached = inside & usable.flatten(1).gather(1, place.flatten(1)).view(place.shape)
        starts.append(reached.byte().argmax(-1))
        found = found & reached.any(-1)
    return Edges(pixel, angle, torch.stack(starts, -1), found)


def step_from(pixel: Tensor, step: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Flat pixel indices moved by (...,2) columns and rows, kept in the image, and whether they stayed in it."""
    H, W = size
    column, row = pixel % W + step[..., 0], pixel // W + step[..., 1]
    inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
    return row.clamp(0, H - 1) * W + column.clamp(0, W - 1), inside


@lru_cache(maxsize=16)
def edge_steps(gap: float, reach: float) -> Tensor:
    """(256 * 16, 2) int64, columns and rows of the steps away from an edge, by direction and distance.

    They are tabulated so that no rounding of sines depends on the device.
    """
    distance = torch.linspace(gap, max(gap, reach), NUM_DISTANCES, dtype=torch.float64)
    angle = torch.arange(NUM_ANGLES, dtype=torch.float64) * (2 * math.pi / NUM_ANGLES)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    return (direction[:, None] * distance[:, None]).round().long().view(-1, 2)


def _steepest(channels: Tensor) -> tuple[Tensor, Tensor]:
    """Steepness (B,H,W) and direction in 256ths of a turn, int64, of maps (B,C,H,W)."""
    padded = F.pad(channels, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    dx = (rows[..., 2:] - rows[..., :-2]).nan_to_num(0, 0, 0)
    dy = (columns[..., 2:, :] - columns[..., :-2, :]).nan_to_num(0, 0, 0)
    xx, xy, yy = dx.square().sum(1), (dx * dy).sum(1), dy.square().sum(1)
    steepness = (xx + yy + ((xx - yy).square() + 4 * xy.square()).sqrt()) / 2
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    return steepness, (angle * (NUM_ANGLES / (2 * math.pi))).round().long() % NUM_ANGLES
