"""Overlap of masks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mask_iou(
    pred: Bool[Tensor, "*b h w"], target: Bool[Tensor, "*b h w"], valid: Bool[Tensor, "*b h w"] | None = None
) -> Float[Tensor, "*b"]:
    """Intersection over union of each pair of masks, over valid pixels; nan where both are empty."""
    if pred.shape != target.shape or (valid is not None and valid.shape != pred.shape):
        shapes = [tuple(m.shape) for m in (pred, target, valid) if m is not None]
        raise ValueError(f"mask_iou: the masks must have one shape, got {shapes}.")
    if valid is None:
        valid = torch.ones_like(target)
    intersection = (pred & target & valid).sum((-2, -1))
    return intersection / ((pred | target) & valid).sum((-2, -1))
