"""Means over what counts: weighted, per image, and without the largest errors; and the check of shapes before them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

MAX_SORTED_ELEMENTS = 16_384
"""More elements than this are subsampled before the quantile is taken."""


def check_same_shape(name: str, **tensors: Tensor | None) -> None:
    """Raises ValueError unless all tensors that are not None have the shape of the first."""
    given = {label: tuple(tensor.shape) for label, tensor in tensors.items() if tensor is not None}
    if len(set(given.values())) > 1:
        listed = ", ".join(f"{label} {shape}" for label, shape in given.items())
        raise ValueError(f"{name}: {listed} differ in shape.")


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


def quantile_threshold(
    values: Float[Tensor, "*s"], weights: Shaped[Tensor, "*s"] | None, quantile: float
) -> Float[Tensor, ""]:
    """The ``ceil(quantile n)``-th smallest of the n values with weight > 0 (at least the smallest); +inf if n = 0.

    Above 16 384 elements it is estimated from that many, spread evenly by the golden-ratio sequence, which is
    deterministic and does not beat with the image width. Runs without reading anything back from the device.
    """
    values = values.detach().flatten()
    counted = torch.ones_like(values, dtype=torch.bool) if weights is None else weights.detach().flatten() > 0
    if values.numel() > MAX_SORTED_ELEMENTS:
        steps = torch.arange(MAX_SORTED_ELEMENTS, device=values.device, dtype=torch.float64)
        picked = (torch.frac(steps * 0.6180339887498949) * values.numel()).long()
        values, counted = values[picked], counted[picked]
    if values.numel() == 0:
        return values.new_tensor(torch.inf)
    ordered = torch.where(counted, values, torch.full_like(values, torch.inf)).sort().values
    rank = (counted.sum() * quantile - 1e-6).ceil().long().clamp(min=1) - 1
    return ordered.gather(0, rank[None])[0]


def trimmed_mean(
    errors: Float[Tensor, "*s"],
    weights: Shaped[Tensor, "*s"] | None = None,
    quantile: float = 1.0,
    gains: Float[Tensor, "*s"] | None = None,
) -> Float[Tensor, ""]:
    """Mean of the errors not above their ``quantile``, ``sum(w g e) / sum(w)`` over the kept elements.

    The trimmed loss of Shape of Motion (arXiv 2407.13764), with ties kept (<=), so that equal errors are not all
    dropped, and the quantile taken over elements of weight > 0 only.

    Args:
        errors: any shape, >= 0.
        weights: the same shape, >= 0 or bool; None counts everything once.
        quantile: share of elements that is kept, in (0, 1]; 1 keeps all and sorts nothing.
        gains: the same shape; factors that scale an element's cost *without* entering the normaliser, so that they
            still act when they are equal for all elements.

    Returns:
        scalar; a differentiable 0 when nothing has weight.

    Raises:
        ValueError: shapes differ, or ``quantile`` lies outside (0, 1].
    """
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile must lie in (0, 1], got {quantile}.")
    for name, other in (("weights", weights), ("gains", gains)):
        if other is not None and other.shape != errors.shape:
            raise ValueError(f"{name} {tuple(other.shape)} and errors {tuple(errors.shape)} differ in shape.")
    if quantile < 1.0:
        kept = (errors.detach() <= quantile_threshold(errors, weights, quantile)).to(errors.dtype)
        weights = kept if weights is None else weights.to(errors.dtype) * kept
    return weighted_mean(errors if gains is None else errors * gains, weights)
