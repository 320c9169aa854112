"""Image metrics on RGB in [0, 1] with channels last: PSNR and SSIM, whole and masked."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

WINDOW_PX = 11
WINDOW_SIGMA_PX = 1.5
C1 = 0.01**2
C2 = 0.03**2


def psnr(
    pred: Float[Tensor, "*b h w 3"],
    target: Float[Tensor, "*b h w 3"],
    mask: Bool[Tensor, "*b h w"] | Float[Tensor, "*b h w"] | None = None,
) -> Float[Tensor, "*b"]:
    """Peak signal-to-noise ratio in dB of each image: -10 log10 of the mean squared error over the mask's pixels.

    Soft masks in [0, 1] weight the squared error once. The masked form is DyCheck's mPSNR (arXiv 2210.13445).

    Returns:
        inf for identical images, nan where the mask is empty.
    """
    _check_images("psnr", pred, target, mask)
    error = (pred - target).square().mean(-1)
    if mask is None:
        return -10 * torch.log10(error.mean((-2, -1)))
    weight = mask.to(error.dtype)
    # where(): a masked-out pixel may hold anything, nan included.
    total = torch.where(weight > 0, error * weight, torch.zeros_like(error)).sum((-2, -1))
    return -10 * torch.log10(total / weight.sum((-2, -1)))


def ssim(
    pred: Float[Tensor, "*b h w 3"], target: Float[Tensor, "*b h w 3"], mask: Bool[Tensor, "*b h w"] | None = None
) -> Float[Tensor, "*b"]:
    """Structural similarity (Wang et al. 2004) of each image: 11-tap Gaussian windows with sigma 1.5, data range 1.

    Without a mask: the mean over all pixels of windows centred at them, borders reflected, as in torchmetrics.
    With a mask: the windows see masked pixels only (their weights renormalised) and the mean is over the mask's pixels
    only, so nothing outside the mask moves the value. A full mask gives the unmasked value.

    Returns:
        values in [-1, 1]; nan where the mask is empty.
    """
    _check_images("ssim", pred, target, mask)
    values = ssim_map(pred, target, mask)
    if mask is None:
        return values.mean((-2, -1))
    return torch.where(mask, values, torch.zeros_like(values)).sum((-2, -1)) / mask.sum((-2, -1))


def ssim_map(
    pred: Float[Tensor, "*b h w 3"], target: Float[Tensor, "*b h w 3"], mask: Bool[Tensor, "*b h w"] | None = None
) -> Float[Tensor, "*b h w"]:
    """The SSIM of the window around every pixel, averaged over the channels; see :func:`ssim`.

    Where a window holds no pixel of the mask the value is 1 and means nothing.
    """
    leading, (h, w) = pred.shape[:-3], pred.shape[-3:-1]
    if min(h, w) <= WINDOW_PX // 2:
        raise ValueError(f"ssim: images of {h}x{w} are too small, at least {WINDOW_PX // 2 + 1} pixels are needed.")
    x, y = (image.reshape(-1, h, w, 3).permute(0, 3, 1, 2) for image in (pred, target))
    moments = torch.cat([x, y, x * x, y * y, x * y], 1)
    if mask is None:
        means = _blur(moments)
    else:
        inside = mask.reshape(-1, 1, h, w)
        weight = _blur(inside.to(moments.dtype))
        means = _blur(torch.where(inside, moments, torch.zeros_like(moments)))
        means = torch.where(weight > 0, means / weight.clamp(min=1e-12), torch.zeros_like(means))
    return _ssim_of_moments(means).mean(1).reshape(*leading, h, w)


def masked_ssim(
    pred: Float[Tensor, "*b h w 3"],
    target: Float[Tensor, "*b h w 3"],
    mask: Bool[Tensor, "*b h w"] | None = None,
    only_masked_windows: bool = False,
) -> Float[Tensor, "*b"]:
    """DyCheck's mSSIM (arXiv 2210.13445), for comparison with published numbers.

    Valid windows only. Each of the two one-dimensional passes (along rows, then along columns) sums mask * z * filter,
    multiplies by 11 / (masked taps) and passes on where any tap was masked. This renormalisation ignores the filter's
    shape, and **windows without any masked pixel score 1 and are averaged in**, so a small mask inflates the value
    towards 1 whatever the images are. Prefer :func:`ssim` with a mask.

    Args:
        only_masked_windows: average only windows that hold a masked pixel (nan if there is none), not DyCheck's.
    """
    _check_images("masked_ssim", pred, target, mask)
    leading, (h, w) = pred.shape[:-3], pred.shape[-3:-1]
    if min(h, w) < WINDOW_PX:
        raise ValueError(f"masked_ssim: images of {h}x{w} hold no complete window of {WINDOW_PX} pixels.")
    x, y = (image.reshape(-1, h, w, 3).permute(0, 3, 1, 2) for image in (pred, target))
    inside = x.new_ones(len(x), 1, h, w) if mask is None else mask.reshape(-1, 1, h, w).to(x.dtype)
    moments = torch.cat([x, y, x * x, y * y, x * y], 1)
    moments = torch.where(inside > 0, moments, torch.zeros_like(moments))
    taps = _window(moments)
    for shape in ((1, 1, 1, WINDOW_PX), (1, 1, WINDOW_PX, 1)):
        channels = moments.shape[1]
        sums = F.conv2d(moments * inside, taps.view(shape).expand(channels, *shape[1:]), groups=channels)
        count = F.conv2d(inside, torch.ones_like(taps).view(shape))
        seen = count > 0.5
        moments = torch.where(seen, sums * WINDOW_PX / count.clamp(min=1), torch.zeros_like(sums))
        inside = seen.to(moments.dtype)
    values = _ssim_of_moments(moments, clamp_covariance=True).mean(1)
    if not only_masked_windows:
        return values.mean((-2, -1)).reshape(leading)
    windows = inside[:, 0]
    return ((values * windows).sum((-2, -1)) / windows.sum((-2, -1))).reshape(leading)


def _window(like: Tensor) -> Tensor:
    offset = torch.arange(WINDOW_PX, device=like.device, dtype=like.dtype) - WINDOW_PX // 2
    taps = torch.exp(-0.5 * (offset / WINDOW_SIGMA_PX) ** 2)
    return taps / taps.sum()


def _blur(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Gaussian window with reflected borders, separably."""
    taps, c, r = _window(image), image.shape[1], WINDOW_PX // 2
    padded = F.pad(image, (r, r, r, r), mode="reflect")
    rows = F.conv2d(padded, taps.view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)
    return F.conv2d(rows, taps.view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)


def _ssim_of_moments(means: Float[Tensor, "b 15 h w"], clamp_covariance: bool = False) -> Float[Tensor, "b 3 h w"]:
    """SSIM from the window means of x, y, xx, yy and xy."""
    mx, my, mxx, myy, mxy = means.chunk(5, dim=1)
    var_x, var_y = (mxx - mx * mx).clamp(min=0), (myy - my * my).clamp(min=0)
    cov = mxy - mx * my
    if clamp_covariance:
        bound = (var_x * var_y).sqrt()
        cov = torch.maximum(torch.minimum(cov, bound), -bound)
    numerator = (2 * mx * my + C1) * (2 * cov + C2)
    return numerator / ((mx * mx + my * my + C1) * (var_x + var_y + C2))


def _check_images(name: str, pred: Tensor, target: Tensor, mask: Tensor | None) -> None:
    if pred.shape != target.shape or pred.ndim < 3 or pred.shape[-1] != 3:
        raise ValueError(
            f"{name}: pred {tuple(pred.shape)} and target {tuple(target.shape)} must be one (..., H, W, 3)."
        )
    if mask is not None and mask.shape != pred.shape[:-1]:
        raise ValueError(f"{name}: mask {tuple(mask.shape)} must be {tuple(pred.shape[:-1])}.")
