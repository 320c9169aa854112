"""Depth priors broken on purpose, in the ways in which monocular depth is wrong. All seeded, all keep 0 = unknown."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def exact(depths: Tensor, generator: torch.Generator) -> Tensor:
    """(a) The true depth."""
    return depths.clone()


def scale_per_frame(depths: Tensor, generator: torch.Generator) -> Tensor:
    """(b) Every frame times its own factor, log-uniform in [1/2, 2]."""
    factors = 2 ** (2 * torch.rand(len(depths), generator=generator) - 1)
    return depths * factors[:, None, None]


def scale_and_shift_per_frame(depths: Tensor, generator: torch.Generator) -> Tensor:
    """(c) Disparity of every frame a d + b: a log-uniform in [1/2, 2], b up to +-0.4 (a median d), kept positive."""
    out = torch.zeros_like(depths)
    for i, depth in enumerate(depths):
        known = depth > 0
        disparity = 1 / depth[known]
        a = 2 ** (2 * float(torch.rand(1, generator=generator)) - 1)
        b = 0.8 * (float(torch.rand(1, generator=generator)) - 0.5) * a * float(disparity.median())
        b = max(b, -0.7 * a * float(disparity.min()))  # a real network's output is positive, too
        out[i][known] = 1 / (a * disparity + b)
    return out


def monotone(depths: Tensor, generator: torch.Generator) -> Tensor:
    """(d) Every frame's depth through m (D/m)^g, m its median: log g drifts smoothly over time within +-log 2.5."""
    knots = torch.rand(max(2, len(depths) // 6 + 2), generator=generator)
    exponents = F.interpolate(knots[None, None], size=len(depths), mode="linear", align_corners=True)[0, 0]
    exponents = 2.5 ** (2 * exponents - 1)
    out = torch.zeros_like(depths)
    for i, depth in enumerate(depths):
        known = depth > 0
        median = depth[known].median()
        out[i][known] = median * (depth[known] / median) ** exponents[i]
    return out


def monocular(depths: Tensor, generator: torch.Generator) -> Tensor:
    """(e) Blurred disparity (edges bleed over 1 % of the width), low-frequency error of 8 %, flicker of 5 %, holes."""
    n, _, width = depths.shape
    known = (depths > 0).float()
    disparity = torch.where(depths > 0, 1 / depths.clamp(min=1e-9), torch.zeros_like(depths))
    sigma = 0.01 * width
    disparity = _blur(disparity, sigma) / _blur(known, sigma).clamp(min=1e-6)
    coarse = torch.randn(n, 1, 5, 8, generator=generator)
    error = F.interpolate(coarse, size=depths.shape[1:], mode="bicubic", align_corners=False)[:, 0]
    flicker = torch.randn(n, 1, 1, generator=generator)
    broken = 1 / (disparity * torch.exp(0.08 * error + 0.05 * flicker)).clamp(min=1e-9)
    holes = F.interpolate(torch.randn(n, 1, 9, 16, generator=generator), size=depths.shape[1:], mode="bicubic")[:, 0]
    return torch.where((depths > 0) & (holes < 1.5), broken, torch.zeros_like(broken))


def _blur(maps: Tensor, sigma: float) -> Tensor:
    radius = max(1, round(3 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=maps.dtype)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None]
    padded = F.pad(maps[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[:, :, None]), kernel[..., None])[:, 0]


PRIORS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "exact": exact,
    "scale": scale_per_frame,
    "scale_shift": scale_and_shift_per_frame,
    "monotone": monotone,
    "monocular": monocular,
}
