"""Weighted rigid registration of point sets."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_procrustes(
    source: Float[Tensor, "*#b n 3"],
    target: Float[Tensor, "*#b n 3"],
    weights: Float[Tensor, "*#b n"],
    prior_rotation: Float[Tensor, "*#b 3 3"] | None = None,
    prior_strength: float = 1e-3,
) -> tuple[Float[Tensor, "*#b 3 3"], Float[Tensor, "*#b 3"]]:
    """Rotation and translation that minimise ``sum w |R x + t - y|^2`` (Kabsch 1976, Umeyama 1991).

    Args:
        source, target: corresponding points x and y; leading dimensions broadcast. Under weight 0 anything goes, also
            NaN.
        weights: >= 0. Where all are 0 the prior rotation and no translation come back.
        prior_rotation: decides directions that the points leave open (one point, a line) and is otherwise outweighed;
            None is the identity.
        prior_strength: the prior's weight as a share of the points' own covariance.

    Returns:
        R (..., 3, 3) with determinant 1, and t (..., 3).

    Raises:
        ValueError: the points have different shapes or not three coordinates.
    """
    if source.shape[-2:] != target.shape[-2:] or source.shape[-1] != 3 or weights.shape[-1] != source.shape[-2]:
        raise ValueError(
            f"weighted_procrustes: source {tuple(source.shape)}, target {tuple(target.shape)} and "
            f"weights {tuple(weights.shape)} do not correspond."
        )
    w = weights[..., None]
    x, y = (torch.where(w > 0, p, torch.zeros_like(p)) for p in (source, target))
    w = w / w.sum(-2, keepdim=True).clamp(min=1e-12)
    x_mean, y_mean = (w * x).sum(-2), (w * y).sum(-2)
    covariance = (w * (y - y_mean[..., None, :])).transpose(-1, -2) @ (x - x_mean[..., None, :])
    prior = torch.eye(3).to(covariance) if prior_rotation is None else prior_rotation
    size = torch.linalg.matrix_norm(covariance)[..., None, None]
    U, _, Vh = torch.linalg.svd(covariance + (prior_strength * size + 1e-12) * prior)
    sign = torch.ones_like(U[..., 0])
    sign[..., 2] = torch.linalg.det(U) * torch.linalg.det(Vh)
    R = (U * sign[..., None, :]) @ Vh
    t = y_mean - (R @ x_mean[..., None])[..., 0]
    return R, t


def robust_procrustes(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    weights: Float[Tensor, "*b n"],
    tolerance: float,
    R: Float[Tensor, "*b 3 3"],
    t: Float[Tensor, "*b 3"] | None = None,
    iterations: int = 3,
) -> tuple[Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3"]]:
    """``weighted_procrustes`` with Geman-McClure weights ``1 / (1 + (r / s)^2)^2``, re-estimated a few times.

    Args:
        tolerance: smallest scale s; above it, s is 1.5 times the median residual, so that a poor start is not frozen.
        R, t: start; with t None the first pass is unweighted. R is the prior rotation throughout.

    Returns:
        R (..., 3, 3) and t (..., 3).
    """
    prior = R
    if t is None:
        R, t = weighted_procrustes(source, target, weights, prior)
    for _ in range(iterations):
        residual = torch.linalg.vector_norm(source @ R.transpose(-1, -2) + t[..., None, :] - target, dim=-1)
        residual = torch.where(weights > 0, residual, torch.full_like(residual, torch.nan))
        scale = (1.5 * residual.nanmedian(-1, keepdim=True).values).nan_to_num(0.0).clamp(min=tolerance)
        robust = weights / (1 + (residual.nan_to_num(0.0) / scale) ** 2) ** 2
        R, t = weighted_procrustes(source, target, robust, prior)
    return R, t
