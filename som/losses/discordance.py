"""How often rendered depth has the order of two pixels wrong: a score, not a loss."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from som.losses.ordinal import check_pairs, known_pairs
from som.reductions import check_same_shape


@torch.no_grad()
def discordance_rate(
    pred_i: Float[Tensor, "*p"],
    pred_j: Float[Tensor, "*p"],
    signs: Float[Tensor, "*p"],
    weights: Shaped[Tensor, "*p"] | None = None,
) -> Float[Tensor, ""]:
    """Weighted share of pairs whose rendered order contradicts their sign; equal rendered depths count as half wrong.

    A render without any depth in it therefore scores 0.5, as chance does. (With Kendall's tau-a of the pairs that
    have a sign, the rate is ``(1 - tau) / 2``.)

    Args:
        pred_i, pred_j: rendered z-depths; <= 0 = nothing hit, ignored.
        signs: +1 where the first is farther, -1 where the second is, 0 ignored.
        weights: the same shape, >= 0 or bool.

    Returns:
        scalar in [0, 1] without gradient; nan where nothing counts.

    Raises:
        ValueError: the shapes disagree.
    """
    check_same_shape("discordance_rate", pred_i=pred_i, pred_j=pred_j)
    check_pairs("discordance_rate", pred_i, signs=signs, weights=weights)
    counted = known_pairs(pred_i, pred_j, signs, weights)
    wrong = (1 - signs * (pred_i - pred_j).sign()) / 2
    wrong = torch.where(counted > 0, wrong, torch.zeros_like(wrong))
    return (wrong * counted).sum() / counted.sum()
