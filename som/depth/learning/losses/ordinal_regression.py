"""Depth as a choice among ordered intervals (DORN, Fu et al., CVPR 2018) or among planes of inverse depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from som.depth.learning.losses.reduction import check_map
from som.reductions import check_same_shape, weighted_mean


def ordinal_regression_loss(
    log_odds: Float[Tensor, "b k h w"], labels: Int[Tensor, "b 1 h w"], valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """DORN's loss, ``-mean_pixels [ sum_(k<l) ln P_k + sum_(k>=l) ln(1 - P_k) ]`` with P_k = P(label > k).

    Being off by many intervals costs more than being off by one, unlike in classification.

    Args:
        log_odds: logit of P_k, k = 0..K-1; for DORN's softmaxed pairs of channels their difference (``OrdinalHead``).
        labels: interval of the true depth, 0..K-1 (``som.depth.networks.heads.depth_to_label``).
        valid: (B,1,H,W), bool or weights >= 0, e.g. ``depth > 0``; None counts all.

    Returns:
        scalar >= 0 without unit, summed over the K decisions of a pixel; a differentiable 0 when nothing counts.

    Raises:
        ValueError: shapes disagree.
    """
    check_map("ordinal_regression_loss", "labels", labels, log_odds)
    check_same_shape("ordinal_regression_loss", labels=labels, valid=valid)
    above = (torch.arange(log_odds.shape[1], device=labels.device)[:, None, None] < labels).to(log_odds.dtype)
    decisions = F.binary_cross_entropy_with_logits(log_odds, above, reduction="none")
    return weighted_mean(decisions.sum(1, keepdim=True), valid)


def plane_cross_entropy(
    logits: Float[Tensor, "b n h w"],
    depth: Float[Tensor, "b 1 h w"],
    planes: Float[Tensor, "n"],
    valid: Tensor | None = None,
) -> Float[Tensor, ""]:
    """Cross entropy of a discrete disparity volume against the two planes around the true inverse depth.

    The target gives the two planes the weights of linear interpolation, so that its expectation over the planes is the
    true inverse depth exactly; beyond the ends all weight is on the last plane.

    Args:
        logits: of N planes, softmaxed over dim 1.
        depth: known z, 0 = unknown; no gradient.
        planes: inverse depths in ascending order, 1 / unit of depth, N >= 2.
        valid: (B,1,H,W), bool or weights >= 0; None counts every known pixel.

    Returns:
        scalar >= 0 in nats; a differentiable 0 when nothing is known.

    Raises:
        ValueError: shapes disagree.
    """
    check_map("plane_cross_entropy", "depth", depth, logits)
    check_same_shape("plane_cross_entropy", depth=depth, valid=valid)
    if planes.shape != (logits.shape[1],) or len(planes) < 2:
        raise ValueError(
            f"plane_cross_entropy: planes must be ({logits.shape[1]},) and at least 2, got {tuple(planes.shape)}."
        )
    known = depth > 0
    weights = known.to(logits.dtype) if valid is None else known * valid.to(logits.dtype)
    inverse = torch.where(known, depth, torch.ones_like(depth)).detach().reciprocal().clamp(planes[0], planes[-1])
    upper = torch.bucketize(inverse, planes.contiguous()).clamp(1, len(planes) - 1)
    share = (inverse - planes[upper - 1]) / (planes[upper] - planes[upper - 1])
    log_p = logits.log_softmax(1)
    error = -(share * log_p.gather(1, upper) + (1 - share) * log_p.gather(1, upper - 1))
    return weighted_mean(error, weights)
