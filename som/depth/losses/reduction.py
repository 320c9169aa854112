"""Weighted means and the checks of shapes that the losses share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def check_same_shape(name: str, **tensors: Tensor | None) -> None:
    """Raises ValueError unless all tensors that are not None have the shape of the first."""
    given = {label: tuple(tensor.shape) for label, tensor in tensors.items() if tensor is not None}
    if len(set(given.values())) > 1:
        listed = ", ".join(f"{label} {shape}" for label, shape in given.items())
        raise ValueError(f"{name}: {listed} differ in shape.")


def check_map(name: str, label: str, value: Tensor, like: Tensor) -> None:
    """Raises ValueError unless ``value`` is a one-channel map (B,1,H,W) on the pixels of ``like`` (B,C,H,W)."""
    if like.ndim != 4 or value.shape != (like.shape[0], 1, *like.shape[2:]):
        raise ValueError(
            f"{name}: {label} must be one channel on the pixels of {tuple(like.shape)}, got {tuple(value.shape)}."
        )


def weighted_mean(values: Float[Tensor, "*s"], weights: Tensor | None = None) -> Float[Tensor, ""]:
    """``sum(w v) / sum(w)``; a differentiable 0 when all weights are 0. Values under weight 0 may even be NaN.

    Args:
        values: any shape and unit.
        weights: the same shape, >= 0 or bool; None is the plain mean.

    Raises:
        ValueError: the shapes differ.
    """
    if weights is None:
        return values.mean() if values.numel() else values.sum()
    check_same_shape("weighted_mean", values=values, weights=weights)
    weights = weights.to(values.dtype)
    values = torch.where(weights > 0, values, torch.zeros_like(values))
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))


def weighted_mean_per_image(
    values: Float[Tensor, "b *s"], weights: Float[Tensor, "b *s"]
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """``weighted_mean`` of every image, and 1 where an image has any weight, else 0."""
    values, weights = values.flatten(1), weights.to(values.dtype).flatten(1)
    values = torch.where(weights > 0, values, torch.zeros_like(values))
    total = weights.sum(-1)
    counted = total > 0
    return (values * weights).sum(-1) / torch.where(counted, total, torch.ones_like(total)), counted.to(values.dtype)


def masked_difference(a: Float[Tensor, "*s"], b: Float[Tensor, "*s"], weights: Tensor) -> Float[Tensor, "*s"]:
    """``a - b`` where there is weight, else 0 with gradient 0, even if a or b is not finite there."""
    return torch.where(weights > 0, a - b, torch.zeros_like(a))


def known_weights(name: str, pred: Tensor, depth: Tensor, valid: Tensor | None) -> Tensor:
    """Weights of a supervised loss: ``valid`` (or 1) where the given depth is known (> 0), else 0.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(name, pred=pred, depth=depth, valid=valid)
    known = (depth > 0).to(pred.dtype)
    return known if valid is None else known * valid.to(pred.dtype)
