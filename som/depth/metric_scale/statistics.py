"""Quantiles and extremes over masks and over groups of pixels, batched and without loops over objects."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def _interpolate(ordered: Tensor, first: Tensor, count: Tensor, quantile: float) -> Tensor:
    """Values at ``quantile`` of runs of ``count`` sorted values that begin at ``first``; nan for empty runs."""
    position = quantile * (count - 1).clamp(min=0).to(ordered.dtype)
    low = position.floor().long()
    high = torch.minimum(low + 1, (count - 1).clamp(min=0))
    last = ordered.shape[-1] - 1
    a = ordered.gather(-1, (first + low).clamp(max=last))
    b = ordered.gather(-1, (first + high).clamp(max=last))
    value = a + (b - a) * (position - low)
    return torch.where(count > 0, value, torch.full_like(value, torch.nan))


def masked_quantile(
    values: Float[Tensor, "b n"], mask: Bool[Tensor, "b n"], quantile: float = 0.5
) -> Float[Tensor, "b"]:
    """Linearly interpolated quantile of each row's masked values; nan in rows without any."""
    if values.shape[1] == 0:
        return values.new_full((values.shape[0],), torch.nan)
    # A row's unmasked values sort behind everything, and the run ends before them.
    largest = torch.finfo(values.dtype).max
    ordered = torch.where(mask, values, torch.full_like(values, largest)).sort(-1).values
    count = mask.sum(-1, keepdim=True)
    return _interpolate(ordered, torch.zeros_like(count), count, quantile)[:, 0]


def group_quantile(
    values: Float[Tensor, "n"], groups: Int[Tensor, "n"], num_groups: int, quantile: float = 0.5
) -> Float[Tensor, "g"]:
    """Linearly interpolated quantile of the values of each group 0 ... num_groups - 1; nan for empty groups."""
    if values.numel() == 0:
        return values.new_full((num_groups,), torch.nan)
    by_value = values.argsort()
    order = by_value[groups[by_value].argsort(stable=True)]
    count = torch.bincount(groups, minlength=num_groups)
    return _interpolate(values[order], count.cumsum(0) - count, count, quantile)


def group_extreme(
    values: Float[Tensor, "n"], groups: Int[Tensor, "n"], num_groups: int, largest: bool
) -> Float[Tensor, "g"]:
    """Largest or smallest value of each group; nan for empty groups."""
    start = values.new_full((num_groups,), torch.nan)
    return start.scatter_reduce(0, groups, values, "amax" if largest else "amin", include_self=False)
