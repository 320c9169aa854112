"""One depth map from a teacher that knows some pixels well and a network that says something about all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from som.depth.learning.training.config import BlendOptions

DEFAULT = BlendOptions()


def blend(
    teacher: Float[Tensor, "t h w"],
    confidence: Float[Tensor, "t h w"],
    network: Float[Tensor, "t h w"],
    moving: Bool[Tensor, "t h w"] | None = None,
    options: BlendOptions = DEFAULT,
) -> tuple[Float[Tensor, "t h w"], Float[Tensor, "t h w"]]:
    """The teacher's depth where it is confident; elsewhere the network's, drawn to the teacher's near known pixels.

    In log depth. With r the log ratio of teacher and network where the teacher is known, s its mean around every pixel
    (a normalised convolution with a Gaussian of ``reach``, weighted by confidence c, that fades to the frame's
    median), and e the mean of |r - s| there, the correction of the network is::

        g s                      where the teacher is unknown,   g = 1 / (1 + ((|s| + e) / half_correction_error)^2)
        g s + w (r - g s)        where it is known,              w = c / (c + half_weight_confidence (1 - c))

    Where both disagree widely or in different directions, the network has seen the teacher's errors elsewhere, too, and
    is better left alone.

    Args:
        teacher: z-depth, 0 = unknown.
        confidence: of the teacher, in [0, 1].
        network: z-depth, known everywhere.
        moving: pixels of objects that move by themselves.

    Returns:
        depth, known everywhere, and its confidence in [0, 1]: the teacher's where it is known; else
        ``max_filled_confidence`` times how near known pixels are, times how well both agree there; at most
        ``moving_confidence`` on moving pixels.
    """
    known = teacher > 0
    sigma = options.reach * max(teacher.shape[-2:])
    ratio = torch.where(known, teacher.clamp(min=1e-9).log() - network.log(), 0.0)
    weight = confidence * known
    near = gaussian_blur(weight, sigma)
    # a trace of the frame's typical ratio, which takes over where nothing is known
    trace = 1e-3
    spread = (gaussian_blur(weight * ratio, sigma) + trace * _frame_medians(ratio, known)) / (near + trace)
    disagreement = gaussian_blur(weight * (ratio - spread).abs(), sigma) / (near + trace)
    correction = spread / (1 + ((spread.abs() + disagreement) / options.half_correction_error).square())
    both = confidence + options.half_weight_confidence * (1 - confidence)
    share = torch.where(known, confidence / both.clamp(min=1e-9), 0.0)
    depth = network * (correction + share * (ratio - correction)).exp()
    support = near / (near + 0.1)
    half = options.half_confidence_error
    filled = options.max_filled_confidence * support * half / (half + disagreement)
    result = torch.where(known, confidence, filled)
    if moving is not None:
        result = torch.where(moving, result.clamp(max=options.moving_confidence), result)
    return depth, result.clamp(0, 1)


def _frame_medians(values: Float[Tensor, "t h w"], known: Bool[Tensor, "t h w"]) -> Float[Tensor, "t 1 1"]:
    """Median of each frame's known values; of all frames' where a frame knows none, and 0 where no frame does."""
    frames = torch.where(known, values, torch.full_like(values, torch.nan)).flatten(1).nanmedian(1).values
    return frames.nan_to_num(float(frames.nanmedian().nan_to_num(0.0)))[:, None, None]


def gaussian_blur(maps: Float[Tensor, "t h w"], sigma: float) -> Float[Tensor, "t h w"]:
    """Blur with a Gaussian cut at three standard deviations; outside the image there is 0."""
    radius = max(int(3 * sigma + 0.5), 1)
    x = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    blurred = F.conv2d(maps[:, None], kernel[None, None, None, :], padding=(0, radius))
    return F.conv2d(blurred, kernel[None, None, :, None], padding=(radius, 0))[:, 0]
