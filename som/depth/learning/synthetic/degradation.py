"""Depth made as poor as networks give it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def degrade_depth(
    depth: Float[Tensor, "t h w"], noise: float = 0.05, smear: float = 1.5, seed: int = 0
) -> Float[Tensor, "t h w"]:
    """Depth as a weak net gives it: smeared over object edges, wavy and noisy.

    Disparity is blurred with a Gaussian of ``smear`` pixels (the sky has disparity 0), then depth is multiplied by
    exp(noise x g), g a unit normal field half of whose variance varies over some 10 pixels and half per pixel.

    Args:
        depth: exact z, 0 = sky.
        noise: standard deviation of the relative error.
        smear: standard deviation of the blur in pixels; 0 keeps the edges.
        seed: seed of the noise.

    Returns:
        depth in the same unit, 0 where it was 0: a mask of the sky is taken for given.
    """
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    z = depth.double().cpu().numpy()
    disparity = np.divide(1.0, z, out=np.zeros_like(z), where=z > 0)
    disparity = ndimage.gaussian_filter(disparity, (0, smear, smear), mode="nearest")
    waves = ndimage.gaussian_filter(rng.standard_normal(z.shape), (0, 5, 5), mode="reflect")
    field_ = np.sqrt(0.5) * (waves / waves.std() + rng.standard_normal(z.shape))
    out = np.where(z > 0, np.exp(noise * field_) / np.maximum(disparity, 1e-6), 0.0)
    return torch.from_numpy(out).to(depth)
