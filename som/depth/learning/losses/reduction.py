"""Checks and weights that the losses of depth share."""

from __future__ import annotations

from torch import Tensor

from som.reductions import check_same_shape


def check_map(name: str, label: str, value: Tensor, like: Tensor) -> None:
    """Raises ValueError unless ``value`` is a one-channel map (B,1,H,W) on the pixels of ``like`` (B,C,H,W)."""
    if like.ndim != 4 or value.shape != (like.shape[0], 1, *like.shape[2:]):
        raise ValueError(
            f"{name}: {label} must be one channel on the pixels of {tuple(like.shape)}, got {tuple(value.shape)}."
        )


def known_weights(name: str, pred: Tensor, depth: Tensor, valid: Tensor | None) -> Tensor:
    """Weights of a supervised loss: ``valid`` (or 1) where the given depth is known (> 0), else 0.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(name, pred=pred, depth=depth, valid=valid)
    known = (depth > 0).to(pred.dtype)
    return known if valid is None else known * valid.to(pred.dtype)
