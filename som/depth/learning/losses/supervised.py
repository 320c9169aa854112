"""Supervision by dense depth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from som.depth.learning.losses.reduction import known_weights
from som.reductions import masked_difference, weighted_mean, weighted_mean_per_image


def _log_error(name: str, pred: Tensor, depth: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    weights = known_weights(name, pred, depth, valid)
    if pred.ndim < 2:
        raise ValueError(f"{name}: depth must be (B,...), got {tuple(pred.shape)}.")
    one = torch.ones_like(depth)
    error = torch.where(weights > 0, pred, one).log() - torch.where(weights > 0, depth, one).detach().log()
    return error, weights


def _spread(error: Tensor, weights: Tensor, variance_focus: float) -> tuple[Tensor, Tensor]:
    """``mean(e²) - lambda mean(e)²`` of every image and 1 where it has known pixels.

    As variance + (1 - lambda) mean², which does not cancel and is never negative.
    """
    mean, counted = weighted_mean_per_image(error, weights)
    deviation = error - mean.view(-1, *[1] * (error.ndim - 1))
    variance, _ = weighted_mean_per_image(deviation.square(), weights)
    return variance + (1 - variance_focus) * mean.square(), counted


def scale_invariant_loss(
    pred_depth: Float[Tensor, "b *s"],
    depth: Float[Tensor, "b *s"],
    valid: Tensor | None = None,
    variance_focus: float = 0.5,
) -> Float[Tensor, ""]:
    """Scale-invariant log error of Eigen et al. (NIPS 2014), ``mean(e²) - lambda mean(e)²``, e = log z - log d.

    Args:
        pred_depth: predicted z > 0.
        depth: known z, 0 = unknown, the same shape; no gradient.
        valid: the same shape, bool or weights >= 0; None counts every known pixel.
        variance_focus: lambda in [0, 1]. 1 is the variance of e, equal to ``1 / (2 n²) sum_ij (e_i - e_j)²``, and
            does not change with the scale of an image; 0 is the mean square; Eigen et al. train with 0.5.

    Returns:
        scalar >= 0 without unit, the mean over images with known pixels; a differentiable 0 without any.

    Raises:
        ValueError: shapes disagree or lambda is out of range.
    """
    if not 0.0 <= variance_focus <= 1.0:
        raise ValueError(f"scale_invariant_loss: variance_focus must lie in [0, 1], got {variance_focus}.")
    error, weights = _log_error("scale_invariant_loss", pred_depth, depth, valid)
    return weighted_mean(*_spread(error, weights, variance_focus))


def silog_loss(
    pred_depth: Float[Tensor, "b *s"],
    depth: Float[Tensor, "b *s"],
    valid: Tensor | None = None,
    variance_focus: float = 0.85,
    gain: float = 10.0,
) -> Float[Tensor, ""]:
    """``gain sqrt(mean(e²) - lambda mean(e)²)``, e = log z - log d, as BTS (Lee et al., 2019) trains with.

    Args:
        pred_depth, depth, valid: as in ``scale_invariant_loss``. Here each image has its own root; BTS takes one over
            the pixels of the whole batch.
        variance_focus: lambda in [0, 1].
        gain: factor that brings the value near 1.

    Returns:
        scalar >= 0 without unit; a differentiable 0 when nothing is known. Its gradient at a perfect fit is 0.

    Raises:
        ValueError: shapes disagree or lambda is out of range.
    """
    if not 0.0 <= variance_focus <= 1.0:
        raise ValueError(f"silog_loss: variance_focus must lie in [0, 1], got {variance_focus}.")
    error, weights = _log_error("silog_loss", pred_depth, depth, valid)
    spread, counted = _spread(error, weights, variance_focus)
    positive = spread > 1e-14  # the root has no gradient at 0
    root = torch.where(positive, torch.where(positive, spread, torch.ones_like(spread)).sqrt(), spread)
    return gain * weighted_mean(root, counted)


def huber_loss(
    pred: Float[Tensor, "*s"], depth: Float[Tensor, "*s"], delta: float = 1.0, valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """Huber's loss of r = pred - depth: ``r² / 2`` up to |r| = delta, ``delta (|r| - delta / 2)`` beyond.

    Args:
        pred: predicted depth, any shape.
        depth: known depth, 0 = unknown, the same shape and unit; no gradient.
        delta: where the square becomes linear, in that unit, > 0.
        valid: the same shape, bool or weights >= 0; None counts every known pixel.

    Returns:
        scalar >= 0 in the unit squared; a differentiable 0 when nothing is known.

    Raises:
        ValueError: shapes disagree or delta is not positive.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}.")
    weights = known_weights("huber_loss", pred, depth, valid)
    r = masked_difference(pred, depth.detach(), weights).abs()
    inside = r.clamp(max=delta)
    return weighted_mean(inside * (r - 0.5 * inside), weights)


def berhu_loss(
    pred: Float[Tensor, "*s"], depth: Float[Tensor, "*s"], share: float = 0.2, valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """Reverse Huber loss of r = pred - depth (Laina et al., 3DV 2016): ``|r|`` up to c, ``(r² + c²) / 2c`` beyond.

    Args:
        pred: predicted depth, any shape.
        depth: known depth, 0 = unknown, the same shape and unit; no gradient.
        share: c as a share of the largest |r| of the batch, in (0, 1]; c carries no gradient.
        valid: the same shape, bool or weights >= 0; None counts every known pixel.

    Returns:
        scalar >= 0 in the unit of depth; a differentiable 0 when nothing is known.

    Raises:
        ValueError: shapes disagree or the share is out of range.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"berhu_loss: share must lie in (0, 1], got {share}.")
    weights = known_weights("berhu_loss", pred, depth, valid)
    if not pred.numel():
        return pred.sum()
    r = masked_difference(pred, depth.detach(), weights).abs()
    c = (share * r.detach().max()).clamp(min=torch.finfo(r.dtype).tiny)
    return weighted_mean(torch.where(r <= c, r, 0.5 * (r * (r / c) + c)), weights)
