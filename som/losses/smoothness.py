"""Losses on second differences over time: motion may be fast but should not jerk."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def _mean_acceleration(x: Float[Tensor, "*n t c"]) -> Float[Tensor, ""]:
    """Mean norm of ``x[t-1] - 2 x[t] + x[t+1]``; a differentiable 0 when fewer than three times exist."""
    if x.shape[-2] < 3 or x.numel() == 0:
        return x.sum() * 0.0
    return torch.linalg.vector_norm(x.diff(n=2, dim=-2), dim=-1).mean()


def base_smoothness(rots: Float[Tensor, "k t 6"], transls: Float[Tensor, "k t 3"]) -> Float[Tensor, ""]:
    """``A(rots) + 2 A(transls)``, A the mean norm of second differences over time (Shape of Motion).

    Args:
        rots: 6D rotations of K bases.
        transls: their translations in scene units.

    Returns:
        scalar >= 0; 0 for uniform motion of the raw values and for fewer than three times.

    Raises:
        ValueError: the shapes disagree.
    """
    if rots.shape[:2] != transls.shape[:2] or rots.ndim != 3:
        raise ValueError(f"base_smoothness: rots {tuple(rots.shape)} and transls {tuple(transls.shape)} disagree.")
    return _mean_acceleration(rots) + 2 * _mean_acceleration(transls)


def track_smoothness(positions: Float[Tensor, "*n t 3"]) -> Float[Tensor, ""]:
    """Half the mean norm of the second differences of positions at consecutive times.

    Args:
        positions: trajectories in scene units, time second to last; three times (t-1, t, t+1) suffice.

    Returns:
        scalar >= 0 in scene units; 0 for uniform motion and for fewer than three times.

    Raises:
        ValueError: not (..., T, 3).
    """
    if positions.ndim < 2 or positions.shape[-1] != 3:
        raise ValueError(f"track_smoothness: positions must be (...,T,3), got {tuple(positions.shape)}.")
    return 0.5 * _mean_acceleration(positions)


def ray_acceleration(
    positions: Float[Tensor, "*n 3 3"], camera_centers: Float[Tensor, "*m 3"]
) -> Float[Tensor, ""]:
    """Mean squared acceleration along the viewing ray, the direction that a single camera sees worst.

    ``((x[t-1] - 2 x[t] + x[t+1]) . r)^2`` with r the unit ray from the camera centre at time t to x[t]. Unlike the
    squared *velocities* that Shape of Motion sums, it does not slow a point that moves evenly to or from the camera.

    Args:
        positions: (..., 3 times, xyz) at t-1, t, t+1 in scene units.
        camera_centers: camera centre at time t; broadcasts against (..., xyz).

    Returns:
        scalar >= 0 in squared scene units; a differentiable 0 for no points.

    Raises:
        ValueError: not (..., 3, 3).
    """
    if positions.ndim < 2 or positions.shape[-2:] != (3, 3):
        raise ValueError(f"ray_acceleration: positions must be (...,3,3), got {tuple(positions.shape)}.")
    if positions.numel() == 0:
        return positions.sum()
    ray = torch.nn.functional.normalize(positions[..., 1, :] - camera_centers, dim=-1)
    acceleration = positions[..., 0, :] - 2 * positions[..., 1, :] + positions[..., 2, :]
    return ((acceleration * ray).sum(-1) ** 2).mean()
