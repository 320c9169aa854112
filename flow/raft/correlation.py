"""Correlation of all pairs of feature vectors, read in windows at four scales (paper section 3.2).

Two implementations with equal results: one keeps the whole correlation volume, whose size grows with the square of the
number of pixels; the other computes what is read, when it is read. Here, coordinates are those of the feature maps as
in the published code: integer at cell centres.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flow.errors import FlowError

Kind = Literal["full", "on_demand", "auto"]
KINDS = get_args(Kind)
"""Names that ``make_correlation`` takes."""

NUM_LEVELS = 4
"""Scales of the pyramid; each halves the second feature map."""
MAX_PYRAMID_BYTES = 256 * 2**20
"""``auto`` keeps the full pyramid up to this many bytes."""
TILE_CELLS = 16
"""Side of the square of queries, in cells of a level, whose windows ``on_demand`` reads together."""


def read_windows(planes: Tensor, base: Tensor, fraction: Tensor, radius: int) -> Tensor:
    """Bilinear values in a window around one place on each plane; 0 beyond its border.

    The window's points lie whole steps apart, so all share one fraction, and each of its (2r+2)^2 cells is read once.

    Args:
        planes: (Q,h,w), one for each query.
        base: (Q,2) int64, column and row of the window's first cell, ``floor(centre) - radius``.
        fraction: (Q,2) in [0, 1), ``centre - floor(centre)``.
        radius: r.

    Returns:
        (Q,(2r+1)^2). As the published weights expect, the offset in x is the slow index and the offset in y the fast
        one: channel ``(dx + r) * (2r + 1) + (dy + r)``.
    """
    h, w = planes.shape[1:]
    steps = torch.arange(2 * radius + 2, device=planes.device)
    columns, rows = base[:, :1] + steps, base[:, 1:] + steps
    index = columns.clamp(0, w - 1)[:, :, None] + rows.clamp(0, h - 1)[:, None, :] * w
    cells = planes.flatten(1).gather(1, index.flatten(1)).view(index.shape)
    there = ((columns >= 0) & (columns < w))[:, :, None] & ((rows >= 0) & (rows < h))[:, None, :]
    cells = cells * there
    x, y = fraction[:, :1, None], fraction[:, 1:, None]
    cells = torch.lerp(cells[:, :-1], cells[:, 1:], x)
    return torch.lerp(cells[:, :, :-1], cells[:, :, 1:], y).flatten(1)


def _split(centres: Tensor, radius: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    """``base`` and ``fraction`` of ``read_windows`` for centres (...,2); far outside, base stays in int64's range."""
    whole = centres.detach().floor()
    base = (whole - radius).clamp(-2 * radius - 2, max(h, w))
    return base.long(), centres - whole


def check_kind(kind: str) -> None:
    """Raises FlowError unless ``kind`` is one of ``KINDS``."""
    if kind not in KINDS:
        raise FlowError(f"unknown correlation {kind!r}; choose one of {', '.join(KINDS)}.")


def full_bytes(batch: int, h: int, w: int, element_size: int = 4) -> int:
    """Memory of the full pyramid of feature maps (batch,C,h,w), in bytes."""
    return batch * h * w * sum((h >> level) * (w >> level) for level in range(NUM_LEVELS)) * element_size


class Correlation(ABC):
    """Correlation ``<f0(p), f1(q)> / sqrt(C)`` between all cells p of the first and q of the second feature map.

    Args:
        features0, features1: (B,C,h,w); level l of the pyramid is the mean over squares of 2^l x 2^l cells q.
        radius: r of the windows that ``lookup`` reads.
    """

    def __init__(self, features0: Tensor, features1: Tensor, radius: int):
        self.radius = radius
        self.shape = features0.shape

    @abstractmethod
    def lookup(self, centres: Tensor) -> Tensor:
        """Windows around the place in the second map where each cell of the first is thought to be.

        Args:
            centres: (B,2,h,w), x and y in cells of the second map.

        Returns:
            (B,4*(2r+1)^2,h,w): for each level l from fine to coarse, the window around ``centres / 2^l`` in the order
            of ``read_windows``. Differentiable in the features and the centres.
        """


class FullCorrelation(Correlation):
    """Keeps the correlation of all pairs at all levels: fast to read, (h*w)^2 values large."""

    def __init__(self, features0: Tensor, features1: Tensor, radius: int):
        super().__init__(features0, features1, radius)
        B, C, h, w = features0.shape
        volume = (features0.flatten(2) / C**0.5).transpose(1, 2) @ features1.flatten(2)
        self.pyramid = [volume.view(B * h * w, h, w)]
        while len(self.pyramid) < NUM_LEVELS:
            self.pyramid.append(F.avg_pool2d(self.pyramid[-1], 2))

    def lookup(self, centres: Tensor) -> Tensor:
        B, _, h, w = self.shape
        centres = centres.permute(0, 2, 3, 1).reshape(-1, 2)
        windows = []
        for level, planes in enumerate(self.pyramid):
            base, fraction = _split(centres / 2**level, self.radius, *planes.shape[1:])
            windows.append(read_windows(planes, base, fraction, self.radius))
        return torch.cat(windows, dim=1).view(B, h, w, -1).permute(0, 3, 1, 2).contiguous()


class OnDemandCorrelation(Correlation):
    """Computes at every lookup the correlations that it reads; keeps only the feature maps.

    The mean of correlations is the correlation with mean features, so the second map is pooled instead of the volume
    (paper, end of section 3.2). A square tile of queries is multiplied with the smallest box of the second map that
    holds all its windows. Flow is smooth, so the box is little larger than the tile, and the product costs far less
    than that of all pairs; where it is not, the box is the whole map at worst.
    """

    def __init__(self, features0: Tensor, features1: Tensor, radius: int):
        super().__init__(features0, features1, radius)
        self.features0 = (features0 / features0.shape[1] ** 0.5).permute(0, 2, 3, 1).contiguous()
        pooled = [features1]
        while len(pooled) < NUM_LEVELS:
            pooled.append(F.avg_pool2d(pooled[-1], 2))
        self.pyramid = [level.permute(0, 2, 3, 1).contiguous() for level in pooled]

    def lookup(self, centres: Tensor) -> Tensor:
        centres = centres.permute(0, 2, 3, 1)
        levels = [self._level(centres, level) for level in range(NUM_LEVELS)]
        return torch.cat(levels, dim=-1).permute(0, 3, 1, 2).contiguous()

    def _level(self, centres: Tensor, level: int) -> Tensor:
        """Windows (B,h,w,(2r+1)^2) of one level around centres (B,h,w,2) in cells of the finest level."""
        features1, side = self.pyramid[level], TILE_CELLS << level
        base, fraction = _split(centres / 2**level, self.radius, *features1.shape[1:3])
        boxes = self._boxes(base, side, *features1.shape[1:3])
        images = []
        for b, rows in enumerate(boxes.tolist()):
            bands = []
            for i, row in enumerate(rows):
                tiles = []
                for j, (x0, y0, x1, y1) in enumerate(row):
                    at = (b, slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side))
                    seen = features1[b, y0 : y1 + 1, x0 : x1 + 1]
                    relative = base[at] - boxes[b, i, j, :2]
                    tiles.append(self._tile(self.features0[at], seen, relative, fraction[at]))
                bands.append(torch.cat(tiles, dim=1))
            images.append(torch.cat(bands, dim=0))
        return torch.stack(images)

    def _boxes(self, base: Tensor, side: int, h: int, w: int) -> Tensor:
        """First and last column and row (x0,y0,x1,y1) of what each tile of queries sees in a map of h x w cells:
        (B,rows,columns,4) int64. A tile that sees nothing gets a cell of the border, which its windows then miss."""
        base = base.permute(0, 3, 1, 2).float()
        first = -F.max_pool2d(-base, side, ceil_mode=True)
        last = F.max_pool2d(base, side, ceil_mode=True) + 2 * self.radius + 1
        border = base.new_tensor([w - 1, h - 1, w - 1, h - 1])
        return torch.cat((first, last), dim=1).permute(0, 2, 3, 1).clamp(min=0).minimum(border).long()

    def _tile(self, features0: Tensor, features1: Tensor, base: Tensor, fraction: Tensor) -> Tensor:
        """Windows (a,b,(2r+1)^2) of a tile of queries (a,b,C) in a box (c,d,C) of the second map."""
        if torch.is_grad_enabled() and (features0.requires_grad or features1.requires_grad):
            # The product is computed again in the backward pass; kept, those of all iterations would add up.
            return checkpoint(self._windows, features0, features1, base, fraction, use_reentrant=False)
        return self._windows(features0, features1, base, fraction)

    def _windows(self, features0: Tensor, features1: Tensor, base: Tensor, fraction: Tensor) -> Tensor:
        planes = features0.flatten(0, 1) @ features1.flatten(0, 1).T
        planes = planes.view(-1, *features1.shape[:2])
        windows = read_windows(planes, base.flatten(0, 1), fraction.flatten(0, 1), self.radius)
        return windows.view(*features0.shape[:2], -1)


def make_correlation(kind: Kind, features0: Tensor, features1: Tensor, radius: int) -> Correlation:
    """The correlation of two feature maps (B,C,h,w); ``auto`` is ``full`` where that takes at most 256 MiB.

    Raises:
        FlowError: ``kind`` is none of ``KINDS``.
    """
    check_kind(kind)
    if kind == "auto":
        B, _, h, w = features0.shape
        kind = "full" if full_bytes(B, h, w, features0.element_size()) <= MAX_PYRAMID_BYTES else "on_demand"
    return (FullCorrelation if kind == "full" else OnDemandCorrelation)(features0, features1, radius)
