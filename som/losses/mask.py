"""Losses on accumulated opacity: where the scene is opaque and which part of it moves."""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor

from som.losses.trimmed import trimmed_l1
from som.reductions import check_same_shape, weighted_mean


def foreground_mask(
    foreground: Float[Tensor, "b h w"],
    mask: Shaped[Tensor, "b h w"],
    valid: Tensor | None = None,
    quantile: float = 0.98,
) -> Float[Tensor, ""]:
    """Trimmed L1 between the opacity contributed by moving Gaussians and the foreground mask.

    Args:
        foreground: opacity in [0, 1].
        mask: 1 (or True) on moving objects; soft masks are allowed.
        valid: (B,H,W) pixels that count, bool or weights >= 0. Exclude a band around uncertain edges here.
        quantile: share of pixels kept; the worst ones are likely errors of the mask.

    Returns:
        scalar in [0, 1]; a differentiable 0 when nothing is valid.

    Raises:
        ValueError: the shapes disagree.
    """
    return trimmed_l1(foreground, mask.to(foreground.dtype), valid, quantile)


def coverage(
    alpha: Float[Tensor, "b h w"], target: Shaped[Tensor, "b h w"] | None = None, valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """Mean squared difference between accumulated opacity and what it should be.

    Args:
        alpha: accumulated opacity in [0, 1].
        target: wanted opacity; None is 1 everywhere (a scene with a background leaves no hole).
        valid: (B,H,W) pixels that count, bool or weights >= 0.

    Returns:
        scalar in [0, 1]; a differentiable 0 when nothing is valid.

    Raises:
        ValueError: the shapes disagree.
    """
    if target is None:
        return weighted_mean((alpha - 1) ** 2, valid)
    check_same_shape("coverage", alpha=alpha, target=target)
    return weighted_mean((alpha - target.to(alpha.dtype)) ** 2, valid)
