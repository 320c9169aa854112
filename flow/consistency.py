"""Which flow can be trusted: the flow back from where a pixel went must return to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flow.errors import FlowError
from flow.sampling import inside, pixel_centers, sample

HALF_CONFIDENCE_ERROR_PX = 0.5
"""Forward-backward error in pixels at which the confidence is one half. Fitted to DIS on images with known flow, so
that the confidence is about the probability that the flow is less than 1 px wrong."""


@dataclass(frozen=True)
class Consistency:
    """The forward-backward check of a field of flow, all of shape (...,H,W).

    Every pixel is exactly one of consistent, occluded, leaving, or unknown: where its own flow or the flow back is
    not finite, the three masks are False.
    """

    error: Tensor
    """Pixels between x and where the flow there and back leads; inf where leaving or unknown."""
    consistent: Tensor
    """bool: the error is within the bound, so the flow can be trusted."""
    occluded: Tensor
    """bool: x + flow(x) lies in the image but the flow back leads elsewhere; hidden there, or wrong flow."""
    leaves: Tensor
    """bool: x + flow(x) lies outside the image."""
    confidence: Tensor
    """1 / (1 + (error / 0.5 px)²) in [0, 1], about the probability to be less than 1 px wrong; 0 where leaving or
    unknown."""


def check_consistency(
    forward: Tensor, backward: Tensor, alpha: float = 0.01, beta: float = 0.5
) -> tuple[Consistency, Consistency]:
    """Checks a field f from image 0 to 1 and a field b from 1 to 0 against each other.

    A pixel x is consistent where |f(x) + b(y)|² < alpha (|f(x)|² + |b(y)|²) + beta, with y = x + f(x) in the image
    (Sundaram, Brox and Keutzer, ECCV 2010). The check is not differentiable.

    Args:
        forward, backward: (...,H,W,2) in pixels.
        alpha: share of the squared lengths that the squared error may have.
        beta: squared error in pixels² that is always allowed.

    Returns:
        The check of ``forward``, on the grid of image 0, and that of ``backward``, on the grid of image 1.

    Raises:
        FlowError: the shapes differ or are not those of flow.
    """
    if forward.shape != backward.shape or forward.ndim < 3 or forward.shape[-1] != 2:
        shapes = f"{tuple(forward.shape)} and {tuple(backward.shape)}"
        raise FlowError(f"forward and backward flow must have the same shape (...,H,W,2), got {shapes}.")
    return _check(forward, backward, alpha, beta), _check(backward, forward, alpha, beta)


@torch.no_grad()
def _check(flow: Tensor, back: Tensor, alpha: float, beta: float) -> Consistency:
    H, W = flow.shape[-3:-1]
    finite = flow.isfinite().all(-1)
    target = pixel_centers(H, W, device=flow.device, dtype=flow.dtype) + flow
    arrives = inside(target, H, W)
    leaves = finite & ~arrives
    # sample() needs finite coordinates; what it reads for the others is not used.
    target = torch.where(arrives[..., None], target, torch.zeros_like(target))
    returned = sample(back.reshape(-1, H, W, 2), target.reshape(-1, H, W, 2)).reshape(flow.shape)

    squared = (flow + returned).square().sum(-1)
    bound = alpha * (flow.square().sum(-1) + returned.square().sum(-1)) + beta
    known = arrives & squared.isfinite()
    squared = torch.where(known, squared, torch.full_like(squared, torch.inf))
    consistent = known & (squared < bound)
    confidence = 1 / (1 + squared / HALF_CONFIDENCE_ERROR_PX**2)
    return Consistency(squared.sqrt(), consistent, known & ~consistent, leaves, confidence)
