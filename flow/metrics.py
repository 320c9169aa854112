"""How far a flow field is from the truth. Pure functions of tensors, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from flow.errors import FlowError


def end_point_errors(pred: Tensor, target: Tensor) -> Tensor:
    """Distance in pixels between the ends of both vectors.

    Args:
        pred, target: (...,2) in pixels.

    Returns:
        (...), >= 0.

    Raises:
        FlowError: the shapes differ or are not those of vectors.
    """
    if pred.shape != target.shape or pred.ndim == 0 or pred.shape[-1] != 2:
        shapes = f"{tuple(pred.shape)} and {tuple(target.shape)}"
        raise FlowError(f"predicted and true flow must have the same shape (...,2), got {shapes}.")
    return torch.linalg.vector_norm(pred - target, dim=-1)


def end_point_error(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean end-point error (EPE) in pixels; see ``end_point_errors`` for the arguments.

    Args:
        mask: (...) bool, the pixels that count (where the truth is known, not occluded, ...); None counts all.

    Returns:
        scalar; nan where nothing counts.
    """
    return _masked_mean(end_point_errors(pred, target), mask)


def outlier_share(pred: Tensor, target: Tensor, threshold: float, mask: Tensor | None = None) -> Tensor:
    """Share in [0, 1] of the counted pixels that are more than ``threshold`` pixels wrong; nan where none counts."""
    return _masked_mean(end_point_errors(pred, target) > threshold, mask)


def fl_score(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """KITTI's Fl (Menze and Geiger, CVPR 2015) as a share in [0, 1]: more than 3 px and more than 5 % wrong.

    Args:
        mask: (...) bool, the pixels that count; None counts all.

    Returns:
        scalar; nan where nothing counts.
    """
    errors = end_point_errors(pred, target)
    return _masked_mean((errors > 3) & (errors > 0.05 * torch.linalg.vector_norm(target, dim=-1)), mask)


def angular_error(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean angle in degrees between (u, v, 1) of both fields (Barron et al., IJCV 1994); nan where nothing counts."""
    end_point_errors(pred, target)  # the same checks
    a, b = (torch.nn.functional.pad(flow.double(), (0, 1), value=1.0) for flow in (pred, target))
    # atan2 is exact for small angles, where arccos of the normalised product is not.
    angles = torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1), (a * b).sum(-1))
    return _masked_mean(torch.rad2deg(angles), mask)


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.double().mean()
    if mask.shape != values.shape or mask.dtype != torch.bool:
        given = f"{mask.dtype} of shape {tuple(mask.shape)}"
        raise FlowError(f"the mask must be bool of shape {tuple(values.shape)}, got {given}.")
    return values[mask].double().mean()
