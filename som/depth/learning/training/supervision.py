"""Difference between predicted and known depth, in every form that a run can choose."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.learning.losses.multiscale import multiscale_inverse_depth_loss
from som.depth.learning.losses.ordinal_regression import ordinal_regression_loss, plane_cross_entropy
from som.depth.learning.losses.sparse import sparse_log_loss
from som.depth.learning.losses.supervised import berhu_loss, huber_loss, scale_invariant_loss, silog_loss
from som.depth.learning.training.batches import Batch
from som.depth.networks import DepthModule, DepthNet, DepthOutput
from som.depth.networks.heads import OrdinalHead, VolumeHead, depth_to_label


def labels(batch: Batch, term: str = "supervised") -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"] | None]:
    """Known depth of the targets (0 = unknown) and its weights: a teacher's, else the data set's.

    Args:
        term: the term of the objective that asks, for the message.

    Raises:
        DepthError: the batch holds neither.
    """
    if "label" in batch:
        return batch["label"][:, None], batch["label_confidence"][:, None]
    if "depth" in batch:
        return batch["depth"], None
    raise DepthError(f"weights.{term} needs known depth, but the data set has none; set the weight to 0.")


def supervised_loss(
    form: str, net: DepthModule, output: DepthOutput, depths: list[Float[Tensor, "b 1 h w"]], batch: Batch
) -> Float[Tensor, ""]:
    """The loss against ``labels``, averaged over the scales.

    Args:
        form: see ``DepthTrainingConfig.supervision``.
        depths: predicted depth by every scale, at full size.
    """
    known, weights = labels(batch)
    if form == "inverse":
        return multiscale_inverse_depth_loss(output.disparities, known, weights) / len(depths)
    if form == "head":
        return _head_loss(net, output, known, weights)
    losses: dict[str, Callable[..., Tensor]] = {
        "log": sparse_log_loss,
        "silog": silog_loss,
        "scale_invariant": scale_invariant_loss,
        "huber": huber_loss,
        "berhu": berhu_loss,
    }
    return torch.stack([losses[form](depth, known, valid=weights) for depth in depths]).mean()


def _head_loss(net: DepthModule, output: DepthOutput, known: Tensor, weights: Tensor | None) -> Tensor:
    """Cross entropy of the distribution that the head predicts at full size."""
    if output.logits is None:
        raise DepthError("supervision head needs network.head ddv or dorn, which predict a distribution.")
    head, logits = net.head if isinstance(net, DepthNet) else None, output.logits[0].float()
    if isinstance(head, VolumeHead):
        return plane_cross_entropy(logits, known, head.plane_disparities(logits), weights)
    if isinstance(head, OrdinalHead):
        valid = (known > 0) * (torch.ones_like(known) if weights is None else weights)
        label = depth_to_label(known, head.lo, head.hi, head.bins)
        return ordinal_regression_loss(head.log_odds(logits), label, valid)
    raise DepthError("supervision head needs network.head ddv or dorn, which predict a distribution.")
