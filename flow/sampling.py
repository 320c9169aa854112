"""Fields on the pixel grid, read at any place. Continuous image coordinates: pixel (column i, row j) is centred at
(i + 0.5, j + 0.5), and the image covers [0, W] x [0, H]."""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_centers(height: int, width: int, *, device=None, dtype=torch.float32) -> Tensor:
    """Coordinates (x, y) of all pixel centres, (H,W,2)."""
    y = torch.arange(height, device=device, dtype=dtype) + 0.5
    x = torch.arange(width, device=device, dtype=dtype) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def inside(xy: Tensor, height: int, width: int) -> Tensor:
    """Whether coordinates (...,2) lie in the image; False for nan."""
    x, y = xy.unbind(-1)
    return (x >= 0) & (x <= width) & (y >= 0) & (y <= height)


def sample(field: Tensor, xy: Tensor) -> Tensor:
    """Bilinear interpolation of a field between pixel centres; beyond the outermost centres the border value holds.

    Args:
        field: (H,W,C) or (B,H,W,C), floating point.
        xy: (...,2) or (B,...,2) coordinates in pixels; must be finite.

    Returns:
        (...,C) or (B,...,C); differentiable in both arguments.

    Raises:
        ValueError: the shapes do not fit.
    """
    if field.ndim == 3:
        return sample(field[None], xy[None])[0]
    if field.ndim != 4 or xy.shape[-1] != 2 or xy.shape[0] != field.shape[0]:
        raise ValueError(f"sample: field (B,H,W,C) and xy (B,...,2) expected, got {field.shape} and {xy.shape}.")
    B, H, W, C = field.shape
    position = xy.reshape(B, -1, 2) - 0.5
    x, y = position[..., 0].clamp(0, W - 1), position[..., 1].clamp(0, H - 1)
    x0, y0 = x.detach().floor(), y.detach().floor()
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    x0, y0 = x0.long(), y0.long()
    x1, y1 = (x0 + 1).clamp(max=W - 1), (y0 + 1).clamp(max=H - 1)
    flat = field.reshape(B * H * W, C)
    first = torch.arange(B, device=field.device)[:, None] * (H * W)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return flat.index_select(0, (first + row * W + column).flatten()).view(B, -1, C)

    top = at(y0, x0) * (1 - fx) + at(y0, x1) * fx
    bottom = at(y1, x0) * (1 - fx) + at(y1, x1) * fx
    return (top * (1 - fy) + bottom * fy).reshape(*xy.shape[:-1], C)


def warp(field: Tensor, flow: Tensor) -> Tensor:
    """``field`` of the target frame, read where ``flow`` leads: out(x) = field(x + flow(x)).

    Args:
        field: (H,W,C) or (B,H,W,C).
        flow: (H,W,2) or (B,H,W,2), pixels, channel 0 right and 1 down.
    """
    H, W = flow.shape[-3:-1]
    return sample(field, pixel_centers(H, W, device=flow.device, dtype=flow.dtype) + flow)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The flow a -> c from ``first`` a -> b and ``second`` b -> c, both (H,W,2) or (B,H,W,2).

    The second is read at the place where the first leads, not at the same pixel.
    """
    return first + warp(second, first)
