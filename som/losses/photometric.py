"""Colour losses: L1 and SSIM (Wang et al. 2004, IEEE TIP 13(4)), mixed as in 3D Gaussian splatting."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from som.reductions import check_same_shape, weighted_mean

WINDOW_PX = 11
WINDOW_SIGMA_PX = 1.5
C1, C2 = 0.01**2, 0.03**2


def _check_images(name: str, pred: Tensor, target: Tensor, valid: Tensor | None) -> None:
    check_same_shape(name, pred=pred, target=target)
    if pred.ndim != 4:
        raise ValueError(f"{name}: images must be (B,H,W,C), got {tuple(pred.shape)}.")
    if valid is not None and valid.shape != pred.shape[:3]:
        raise ValueError(f"{name}: valid {tuple(valid.shape)} must be {tuple(pred.shape[:3])}.")


def l1(
    pred: Float[Tensor, "b h w c"], target: Float[Tensor, "b h w c"], valid: Shaped[Tensor, "b h w"] | None = None
) -> Float[Tensor, ""]:
    """Mean absolute colour difference over valid pixels.

    Args:
        pred, target: images in [0, 1].
        valid: pixels that count, bool or weights >= 0; None counts all.

    Returns:
        scalar in [0, 1]; a differentiable 0 when nothing is valid.

    Raises:
        ValueError: the shapes disagree.
    """
    _check_images("l1", pred, target, valid)
    return weighted_mean((pred - target).abs().mean(-1), valid)


def _blur_valid(maps: Float[Tensor, "n h w"], size: int) -> Float[Tensor, "n oh ow"]:
    """Separable Gaussian of ``size`` taps, without padding."""
    taps = torch.arange(size, device=maps.device, dtype=maps.dtype) - (size - 1) / 2
    kernel = torch.exp(-(taps**2) / (2 * WINDOW_SIGMA_PX**2))
    kernel = kernel / kernel.sum()
    n = len(maps)  # one group a map: by far the fastest layout on a CPU
    rows = F.conv2d(maps[None], kernel.view(1, 1, size, 1).expand(n, 1, size, 1), groups=n)
    return F.conv2d(rows, kernel.view(1, 1, 1, size).expand(n, 1, 1, size), groups=n)[0]


def window_size(height: int, width: int) -> int:
    """11, or for smaller images the largest odd number of taps that fits into both sides."""
    return min(WINDOW_PX, height - 1 + height % 2, width - 1 + width % 2)


def ssim_map(
    pred: Float[Tensor, "b h w c"], target: Float[Tensor, "b h w c"]
) -> Float[Tensor, "b oh ow c"]:
    """Structural similarity of every full window: 11 Gaussian taps of sigma 1.5, data range 1, no padding.

    Args:
        pred, target: images in [0, 1]. Sides below 11 pixels use the largest odd window that fits.

    Returns:
        values in [-1, 1], smaller than the images by window - 1 in both directions.

    Raises:
        ValueError: the shapes disagree.
    """
    _check_images("ssim_map", pred, target, None)
    B, H, W, C = pred.shape
    x, y = (image.permute(0, 3, 1, 2).reshape(B * C, H, W) for image in (pred, target))
    size = window_size(H, W)
    # the variances enter only as their sum; the target's mean is blurred apart because it needs no gradient
    mu_x, squares, xy = _blur_valid(torch.cat([x, x * x + y * y, x * y]), size).chunk(3)
    mu_y = _blur_valid(y, size)
    mu_squares, mu_xy = mu_x * mu_x + mu_y * mu_y, mu_x * mu_y
    luminance = (2 * mu_xy + C1) / (mu_squares + C1)
    structure = (2 * (xy - mu_xy) + C2) / ((squares - mu_squares).clamp(min=0) + C2)
    return (luminance * structure).unflatten(0, (B, C)).permute(0, 2, 3, 1)


def ssim_loss(
    pred: Float[Tensor, "b h w c"], target: Float[Tensor, "b h w c"], valid: Shaped[Tensor, "b h w"] | None = None
) -> Float[Tensor, ""]:
    """``1 - SSIM``, the mean over windows whose pixels are *all* valid; windows that touch a masked pixel do not count.

    Args:
        pred, target: images in [0, 1].
        valid: pixels that may be used (non-zero); None uses all.

    Returns:
        scalar in [0, 2]; a differentiable 0 when no window is entirely valid.

    Raises:
        ValueError: the shapes disagree.
    """
    _check_images("ssim_loss", pred, target, valid)
    if valid is None:
        return 1 - ssim_map(pred, target).mean()
    inside = valid > 0
    pred, target = (torch.where(inside[..., None], image, torch.zeros_like(image)) for image in (pred, target))
    similarity = ssim_map(pred, target).mean(-1)
    invalid = (~inside).to(similarity.dtype)[:, None]
    size = window_size(*inside.shape[1:])
    touched = F.max_pool2d(F.max_pool2d(invalid, (size, 1), stride=1), (1, size), stride=1)[:, 0]
    return weighted_mean(1 - similarity, 1 - touched)


def photometric(
    pred: Float[Tensor, "b h w c"],
    target: Float[Tensor, "b h w c"],
    valid: Shaped[Tensor, "b h w"] | None = None,
    ssim_weight: float = 0.2,
) -> Float[Tensor, ""]:
    """``(1 - w) L1 + w (1 - SSIM)`` (Kerbl et al. 2023, arXiv 2308.04079).

    Args:
        pred, target: images in [0, 1].
        valid: pixels that count; None counts all.
        ssim_weight: w in [0, 1].

    Returns:
        scalar >= 0; a differentiable 0 when nothing is valid.

    Raises:
        ValueError: the shapes disagree.
    """
    loss = (1 - ssim_weight) * l1(pred, target, valid)
    if ssim_weight == 0.0:
        return loss
    return loss + ssim_weight * ssim_loss(pred, target, valid)
