"""L1 without the largest errors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from som.reductions import check_same_shape, trimmed_mean


def trimmed_l1(
    pred: Float[Tensor, "*s"],
    target: Float[Tensor, "*s"],
    weights: Tensor | None = None,
    quantile: float = 1.0,
) -> Float[Tensor, ""]:
    """Trimmed mean of ``|pred - target|``.

    Args:
        pred, target: the same shape (..., C).
        weights: None; or (..., C), one per value; or (...), one per vector, whose error is then the mean over C.
        quantile: share of elements that is kept, in (0, 1].

    Returns:
        scalar in the unit of ``pred``; a differentiable 0 when nothing has weight.

    Raises:
        ValueError: shapes disagree or the quantile is out of range.
    """
    check_same_shape("trimmed_l1", pred=pred, target=target)
    if weights is None or weights.shape == pred.shape:
        counted = None if weights is None else weights > 0
    elif weights.shape == pred.shape[:-1]:
        counted = (weights > 0)[..., None].expand(pred.shape)
    else:
        raise ValueError(f"trimmed_l1: weights {tuple(weights.shape)} fit neither {tuple(pred.shape)} nor its vectors.")
    difference = pred - target
    if counted is not None:
        difference = torch.where(counted, difference, torch.zeros_like(difference))
    errors = difference.abs()
    if weights is not None and weights.shape != pred.shape:
        errors = errors.mean(-1)
    return trimmed_mean(errors, weights, quantile)
