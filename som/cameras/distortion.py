"""Lens models: from a direction in camera axes to the plane in front of K, and back.

Every model sends a direction to a plane, moves it there by a polynomial, and lets K follow. With r² = u² + v²:

- ``pinhole``: (u, v) = (x, y) / z, no polynomial.
- ``opencv``: the same plane; k1, k2, p1, p2 [, k3 [, k4, k5, k6 [, s1, s2, s3, s4]]] as OpenCV orders them.
- ``opencv_fisheye``: (u, v) = θ (x, y) / |(x, y)|, θ the angle from the optical axis; k1, k2, k3, k4.
- ``thin_prism_fisheye``: the fisheye's plane; k1, k2, p1, p2, k3, k4, sx1, sy1, as COLMAP orders them.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

CameraModel = Literal["pinhole", "opencv", "opencv_fisheye", "thin_prism_fisheye"]
MODELS: tuple[str, ...] = get_args(CameraModel)
COEFFICIENTS = {"pinhole": (0,), "opencv": (4, 5, 8, 12), "opencv_fisheye": (4,), "thin_prism_fisheye": (8,)}
"""How many numbers a model's distortion may have."""
_MIRRORED = {"opencv": (3, 8, 9), "opencv_fisheye": (), "thin_prism_fisheye": (3, 6)}
"""Coefficients that change sign in a picture mirrored left to right."""
_MAX_ITERATIONS = 50


def to_plane(points: Float[Tensor, "*n 3"], model: CameraModel, min_depth: float) -> Float[Tensor, "*n 2"]:
    """Where points in camera axes meet the model's plane, before distortion.

    Args:
        min_depth: smallest z that a pinhole divides by; a fisheye also sees what lies beside and behind it.
    """
    xy, z = points[..., :2], points[..., 2:]
    if model in ("pinhole", "opencv"):
        return xy / z.clamp(min=min_depth)
    squared = xy.square().sum(-1, keepdim=True)
    axis = squared <= 1e-12 * z.square()  # θ / r tends to 1 / z there; the root has no gradient at 0
    r = torch.where(axis, torch.ones_like(squared), squared).sqrt()
    near = 1 / torch.where(axis & (z != 0), z, torch.ones_like(z))
    return xy * torch.where(axis, near, torch.atan2(r, z) / r)


def from_plane(uv: Float[Tensor, "*n 2"], model: CameraModel) -> Float[Tensor, "*n 3"]:
    """Directions, not of unit length, that ``to_plane`` sends to ``uv``."""
    if model in ("pinhole", "opencv"):
        return torch.cat([uv, torch.ones_like(uv[..., :1])], dim=-1)
    squared = uv.square().sum(-1, keepdim=True)
    axis = squared < 1e-12
    theta = torch.where(axis, torch.ones_like(squared), squared).sqrt()
    sinc = torch.where(axis, torch.ones_like(squared), theta.sin() / theta)
    return torch.cat([uv * sinc, torch.where(axis, torch.ones_like(squared), theta.cos())], dim=-1)


def distort(
    uv: Float[Tensor, "*#n 2"], model: CameraModel, coefficients: Float[Tensor, "*#n c"] | None
) -> Float[Tensor, "*#n 2"]:
    """Moves points of the plane as the lens does; the leading dimensions broadcast."""
    if model == "pinhole" or coefficients is None:
        return uv
    u, v = uv.unbind(-1)
    r2 = u * u + v * v
    c = list(coefficients.unbind(-1))
    if model == "opencv_fisheye":
        k1, k2, k3, k4 = c
        return uv * (1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4))))[..., None]
    if model == "thin_prism_fisheye":
        k1, k2, p1, p2, k3, k4, s1, s3 = c
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
        s2 = s4 = torch.zeros_like(s1)
    else:
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = c + [torch.zeros_like(c[0])] * (12 - len(c))
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    moved_u = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u) + r2 * (s1 + r2 * s2)
    moved_v = v * radial + p1 * (r2 + 2 * v * v) + 2 * p2 * u * v + r2 * (s3 + r2 * s4)
    return torch.stack([moved_u, moved_v], dim=-1)


def undistort(
    uv: Float[Tensor, "*#n 2"], model: CameraModel, coefficients: Float[Tensor, "*#n c"] | None
) -> Float[Tensor, "*#n 2"]:
    """Inverse of ``distort`` by Newton's method from the distorted point on; nan where no point is sent to ``uv``.

    The last step is differentiable and makes the gradients those of the exact inverse.
    """
    if model == "pinhole" or coefficients is None:
        return uv
    with torch.no_grad():
        target, c = uv.double(), coefficients.double()
        target = target.expand(torch.broadcast_shapes(target.shape[:-1], c.shape[:-1]) + (2,))
        solution = target.clone()
        for _ in range(_MAX_ITERATIONS):
            inverse = _inverse_jacobian(solution, model, c)
            step = (inverse @ (distort(solution, model, c) - target)[..., None])[..., 0]
            solution = solution - step
            if not bool((step.abs() > 1e-13 * (1 + solution.abs())).any()):
                break
        error = (distort(solution, model, c) - target).abs().amax(-1, keepdim=True)
        found = error < 1e-9  # False where it is nan
        if model != "opencv":
            found &= solution.norm(dim=-1, keepdim=True) < torch.pi
        # beyond the fold of a polynomial is a wrong branch, where the Jacobian reverses one direction or both
        found &= (torch.linalg.det(inverse) > 0)[..., None] & (inverse.diagonal(dim1=-2, dim2=-1).sum(-1, True) > 0)
        solution, inverse = solution.to(uv), inverse.to(uv)
    residual = distort(solution, model, coefficients) - uv
    exact = solution - (inverse @ residual[..., None])[..., 0]
    return torch.where(found, exact, torch.full_like(exact, torch.nan))


def _inverse_jacobian(uv: Tensor, model: CameraModel, coefficients: Tensor) -> Tensor:
    """(..., 2, 2); that of the identity where the Jacobian cannot be inverted."""

    def moved(points: Tensor) -> Tensor:
        return distort(points, model, coefficients)

    axes = torch.eye(2).to(uv)
    columns = [torch.func.jvp(moved, (uv,), (axis.expand_as(uv).contiguous(),))[1] for axis in axes]
    J = torch.stack(columns, dim=-1)
    a, b, c, d = J.flatten(-2).unbind(-1)
    determinant = a * d - b * c
    inverse = torch.stack([d, -b, -c, a], -1).unflatten(-1, (2, 2)) / determinant[..., None, None]
    return torch.where((determinant.abs() > 1e-12)[..., None, None], inverse, axes)


def mirrored(model: CameraModel, coefficients: Float[Tensor, "*b c"] | None) -> Float[Tensor, "*b c"] | None:
    """The distortion of the picture mirrored left to right."""
    if model == "pinhole" or coefficients is None:
        return coefficients
    sign = [-1.0 if i in _MIRRORED[model] else 1.0 for i in range(coefficients.shape[-1])]
    return coefficients * coefficients.new_tensor(sign)
