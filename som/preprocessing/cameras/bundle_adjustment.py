"""Bundle adjustment: cameras, points and one focal length that explain tracked points best.

Levenberg-Marquardt on the Schur complement of the cameras (Triggs et al. 2000), with Cauchy's robust loss by iterated
reweighting. Points are homogeneous, unit 4-vectors that move in their tangent space, so that points at infinity and
cameras that only turn are nothing special (Schneider et al. 2012).

    y = R x[:3] + x[3] t,   u = f (y_x, y_y) / y_z + c,   cost = sum of s² log(1 + |xy - u|² / s²) + prior on log f
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from som.preprocessing.cameras.normal_equations import PointElimination, fill_jacobians, fill_residuals
from som.preprocessing.cameras.observations import Observations

MIN_HOMOGENEOUS_Z = 1e-6
"""Points with a smaller y_z are not in front of the camera."""
BEHIND_CAMERA_ERROR = 1e6
"""Squared error (px²) of a point that is not in front of the camera that saw it."""


@dataclass(frozen=True)
class Scene:
    """C cameras of one focal length and P points."""

    R: Float[np.ndarray, "c 3 3"]
    """World to camera."""
    t: Float[np.ndarray, "c 3"]
    X: Float[np.ndarray, "p 4"]
    """Homogeneous points of norm 1; the place is X[:3] / X[3]."""
    focal: float
    """Pixels."""

    def w2c(self) -> Float[np.ndarray, "c 4 4"]:
        matrices = np.broadcast_to(np.eye(4), (len(self.R), 4, 4)).copy()
        matrices[:, :3, :3], matrices[:, :3, 3] = self.R, self.t
        return matrices


@dataclass(frozen=True)
class FocalPrior:
    """A penalty of ``weight`` ((log f - log focal) / sigma)² px² for every observation."""

    focal: float
    sigma: float = 0.35
    """Natural logarithm: 0.35 allows some 40 % either way."""
    weight: float = 1e-3


@dataclass(frozen=True)
class Solution:
    """Outcome of ``adjust``."""

    scene: Scene
    cost: float
    """px², the sum over the observations, without the prior."""
    iterations: int


@dataclass(frozen=True)
class Linearization:
    """Residuals and Jacobians at a scene, before weighting."""

    residual: Float[np.ndarray, "m 2"]
    """xy - u."""
    squared: Float[np.ndarray, "m"]
    camera: Float[np.ndarray, "m 2 6"]
    """Of u, by the rotation vector w in R <- exp(w) R and by t."""
    point: Float[np.ndarray, "m 2 3"]
    """Of u, by coordinates in the tangent space of X."""
    log_focal: Float[np.ndarray, "m 2"]


def tangent_basis(X: Float[np.ndarray, "p 4"]) -> Float[np.ndarray, "p 4 3"]:
    """Three orthonormal directions at right angles to each unit vector: columns of its Householder reflection."""
    v = X.copy()
    v[:, 0] += np.where(X[:, 0] >= 0, 1.0, -1.0)
    H = np.eye(4) - 2 * v[:, :, None] * v[:, None, :] / (v**2).sum(1)[:, None, None]
    return H[:, :, 1:]


def camera_coordinates(scene: Scene, seen: Observations) -> Float[np.ndarray, "m 3"]:
    """y of every observation, whose third entry is depth times X[3]."""
    X = scene.X[seen.point]
    return np.einsum("mij,mj->mi", scene.R[seen.frame], X[:, :3]) + X[:, 3:] * scene.t[seen.frame]


def residuals(
    scene: Scene, seen: Observations, center: Float[np.ndarray, "2"]
) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, "m"]]:
    """xy - u in pixels, and their squared lengths, ``BEHIND_CAMERA_ERROR`` where the point is not in front."""
    residual, squared = np.empty((len(seen.xy), 2)), np.empty(len(seen.xy))
    arguments = *_arrays(scene, seen), seen.xy - center, MIN_HOMOGENEOUS_Z, BEHIND_CAMERA_ERROR, residual, squared
    fill_residuals(*arguments)
    return residual, squared


def normalized(scene: Scene, seen: Observations) -> Scene:
    """The same scene, scaled so that the median depth of the observations is 1, most points in front of infinity."""
    inverse_depth = scene.X[seen.point, 3] / np.maximum(camera_coordinates(scene, seen)[:, 2], 1e-12)
    scale = np.median(inverse_depth)
    if abs(scale) < 1e-12:
        return scene
    # (X[3], t) and (-X[3], -t) project alike; a negative median is corrected by the same division.
    X = scene.X / np.array([1, 1, 1, scale])
    return replace(scene, t=scene.t * scale, X=X / np.linalg.norm(X, axis=1, keepdims=True))


def linearize(scene: Scene, seen: Observations, center: Float[np.ndarray, "2"]) -> Linearization:
    """Residuals and their analytic Jacobians."""
    M = len(seen.xy)
    camera, point, log_focal = np.empty((M, 2, 6)), np.empty((M, 2, 3)), np.empty((M, 2))
    R, t, X, focal, frame, index = _arrays(scene, seen)
    fill_jacobians(R, t, X, tangent_basis(X), focal, frame, index, MIN_HOMOGENEOUS_Z, camera, point, log_focal)
    return Linearization(*residuals(scene, seen, center), camera, point, log_focal)


def _arrays(scene: Scene, seen: Observations) -> tuple:
    """What the compiled loops begin with, in one form, so that they are compiled once."""
    parts = (np.ascontiguousarray(part, dtype=np.float64) for part in (scene.R, scene.t, scene.X))
    return (*parts, float(scene.focal), *(np.ascontiguousarray(i, dtype=np.int64) for i in (seen.frame, seen.point)))


def robust_cost(squared: Float[np.ndarray, "m"], scale: float) -> float:
    """Sum of Cauchy's loss s² log(1 + e²/s²) in px²."""
    return float(scale**2 * np.log1p(squared / scale**2).sum())


def residual_scale(scene: Scene, seen: Observations, center: Float[np.ndarray, "2"]) -> float:
    """The scale s in pixels of the Cauchy distribution in the plane that has the median of the residuals' lengths.

    Its share within r is 1 - (1 + r²/s²)^(-1/2), so that the median is √3 s. With this s the loss is about the negative
    log-likelihood of the residuals: a stricter one wastes good tracks, a more tolerant one gives poor ones weight.
    """
    return float(np.sqrt(np.median(residuals(scene, seen, center)[1]) / 3))


def adjust(
    scene: Scene,
    seen: Observations,
    center: Float[np.ndarray, "2"],
    *,
    scale: float,
    prior: FocalPrior | None = None,
    iterations: int = 30,
    tolerance: float = 1e-4,
    fixed: Int[np.ndarray, "k"] | tuple[int, ...] = (0,),
) -> Solution:
    """Moves cameras and points, and the focal length where it has a prior, to a minimum of the cost.

    Args:
        scene: where to start.
        seen: observations in pixels; frames in [0, C), points in [0, P).
        center: principal point (x, y) in pixels.
        scale: Cauchy's s in pixels.
        prior: frees the focal length and pulls it gently; None holds it.
        iterations: most successful steps.
        tolerance: stops when a step lowers the cost by less than this share.
        fixed: cameras that stay where they are; without any, the choice of the world frame is left open.
    """
    system = PointElimination(len(scene.R), len(scene.X), seen)
    moves = np.ones((len(scene.R), 6), bool)
    moves[list(fixed)] = False
    free = np.append(moves.ravel(), prior is not None)

    def total(candidate: Scene) -> float:
        return robust_cost(residuals(candidate, seen, center)[1], scale) + _prior_cost(candidate, prior, len(seen.xy))

    cost, damping, done = total(scene), 1e-4, 0
    while done < iterations:
        lin = linearize(scene, seen, center)
        weight = np.where(lin.squared < BEHIND_CAMERA_ERROR, 1 / (1 + lin.squared / scale**2), 0.0)
        normal = system.normal_equations(lin.camera, lin.point, lin.log_focal, lin.residual, weight)
        if prior is not None:
            strength = len(weight) * prior.weight / prior.sigma**2
            normal.A[-1, -1] += strength
            normal.a[-1] -= strength * np.log(scene.focal / prior.focal)
        for _ in range(8):
            try:
                candidate = _moved(scene, *system.solve(normal, damping, free))
                new_cost = total(candidate)
            except np.linalg.LinAlgError:
                new_cost = np.inf
            if new_cost < cost:
                break
            damping *= 6
        else:
            break
        converged = cost - new_cost < tolerance * cost
        scene, cost, done, damping = candidate, new_cost, done + 1, max(damping / 6, 1e-9)
        if converged:
            break
    squared = residuals(scene, seen, center)[1]
    return Solution(scene, robust_cost(squared, scale), done)


def _prior_cost(scene: Scene, prior: FocalPrior | None, number: int) -> float:
    if prior is None:
        return 0.0
    return number * prior.weight * (np.log(scene.focal / prior.focal) / prior.sigma) ** 2


def _moved(scene: Scene, camera_step: Float[np.ndarray, "k"], point_step: Float[np.ndarray, "p 3"]) -> Scene:
    step = camera_step[:-1].reshape(-1, 6)
    X = scene.X + np.einsum("pij,pj->pi", tangent_basis(scene.X), point_step)
    return replace(
        scene,
        R=Rotation.from_rotvec(step[:, :3]).as_matrix() @ scene.R,
        t=scene.t + step[:, 3:],
        X=X / np.linalg.norm(X, axis=1, keepdims=True),
        focal=scene.focal * float(np.exp(np.clip(camera_step[-1], -0.3, 0.3))),
    )
