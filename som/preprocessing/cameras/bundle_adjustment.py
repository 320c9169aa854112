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
from scipy import sparse
from scipy.spatial.transform import Rotation

from som.preprocessing.cameras.observations import Observations

MIN_Z = 1e-6
"""Points with a smaller y_z are not in front of the camera."""
HIDDEN = 1e6
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
    """xy - u in pixels, and their squared lengths, ``HIDDEN`` where the point is not in front of the camera."""
    y = camera_coordinates(scene, seen)
    front = y[:, 2] > MIN_Z
    z = np.where(front, y[:, 2], 1.0)
    r = seen.xy - center - scene.focal * y[:, :2] / z[:, None]
    return r, np.where(front, np.minimum((r**2).sum(1), HIDDEN), HIDDEN)


def linearize(scene: Scene, seen: Observations, center: Float[np.ndarray, "2"]) -> Linearization:
    """Residuals and their analytic Jacobians."""
    r, squared = residuals(scene, seen, center)
    y = camera_coordinates(scene, seen)
    z = np.where(y[:, 2] > MIN_Z, y[:, 2], 1.0)
    X, R, t = scene.X[seen.point], scene.R[seen.frame], scene.t[seen.frame]
    du_dy = np.zeros((len(z), 2, 3))
    du_dy[:, 0, 0] = du_dy[:, 1, 1] = scene.focal / z
    du_dy[:, :, 2] = -scene.focal * y[:, :2] / z[:, None] ** 2
    turned = y - X[:, 3:] * t
    # exp(w) R x = R x + w × R x, so that a row g of du/dy gives (R x × g)ᵀ w
    by_rotation = np.cross(turned[:, None, :], du_dy)
    by_translation = du_dy * X[:, 3, None, None]
    basis = tangent_basis(scene.X)[seen.point]
    dy_dX = np.einsum("mij,mjk->mik", R, basis[:, :3]) + t[:, :, None] * basis[:, 3:]
    return Linearization(
        r,
        squared,
        np.concatenate([by_rotation, by_translation], 2),
        du_dy @ dy_dX,
        scene.focal * y[:, :2] / z[:, None],
    )


def robust_cost(squared: Float[np.ndarray, "m"], scale: float) -> float:
    """Sum of Cauchy's loss s² log(1 + e²/s²) in px²."""
    return float(scale**2 * np.log1p(squared / scale**2).sum())


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
    system = _System(len(scene.R), len(scene.X), seen)
    free = np.ones((len(scene.R), 6), bool)
    free[list(fixed)] = False
    free = np.append(free.ravel(), prior is not None)

    def total(candidate: Scene) -> float:
        return robust_cost(residuals(candidate, seen, center)[1], scale) + _prior_cost(candidate, prior, len(seen.xy))

    cost, damping, done = total(scene), 1e-4, 0
    while done < iterations:
        lin = linearize(scene, seen, center)
        weight = np.where(lin.squared < HIDDEN, 1 / (1 + lin.squared / scale**2), 0.0)
        normal = system.normal_equations(lin, weight, scene.focal, prior)
        for _ in range(8):
            camera_step, point_step = system.solve(normal, damping, free)
            candidate = _moved(scene, camera_step, point_step)
            new_cost = total(candidate)
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


def _products(a: Float[np.ndarray, "m 2 i"], b: Float[np.ndarray, "m 2 j"]) -> Float[np.ndarray, "m i j"]:
    """aᵀ b of every observation; written out, as einsum and matmul are slow on many small matrices."""
    return a[:, 0, :, None] * b[:, 0, None, :] + a[:, 1, :, None] * b[:, 1, None, :]


@dataclass(frozen=True)
class _Normal:
    """Blocks of the Gauss-Newton system: cameras and log f (A, a), points (V, v), and between (W per observation)."""

    A: np.ndarray
    a: np.ndarray
    V: np.ndarray
    v: np.ndarray
    W: np.ndarray
    """(M,6,3)"""
    F: np.ndarray
    """(P,3): between log f and the points."""


class _System:
    """The structure of the problem: which observation belongs to which camera, point and dense chunk."""

    CHUNK = 200
    """Points that are eliminated together, at most."""

    def __init__(self, num_cameras: int, num_points: int, seen: Observations):
        M = len(seen.frame)
        self.C, self.P, self.seen = num_cameras, num_points, seen
        one, columns = np.ones(M), np.arange(M)
        self.by_camera = sparse.csr_array((one, (seen.frame, columns)), (num_cameras, M))
        self.by_point = sparse.csr_array((one, (seen.point, columns)), (num_points, M))
        self.starts = np.searchsorted(seen.point, np.arange(num_points + 1))

    def normal_equations(self, lin: Linearization, weight: np.ndarray, focal: float, prior: FocalPrior | None):
        M, C = len(weight), self.C
        Jc, Jp, Jf = lin.camera, lin.point, lin.log_focal
        wJc, wJp, wJf, wr = (weight.reshape(-1, *[1] * (J.ndim - 1)) * J for J in (Jc, Jp, Jf, lin.residual))
        A, a = np.zeros((6 * C + 1, 6 * C + 1)), np.zeros(6 * C + 1)
        blocks = self.by_camera @ _products(wJc, Jc).reshape(M, 36)
        for i in range(C):
            A[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] = blocks[i].reshape(6, 6)
        A[:-1, -1] = A[-1, :-1] = (self.by_camera @ _products(wJc, Jf[:, :, None])[:, :, 0]).ravel()
        A[-1, -1], a[-1] = (wJf * Jf).sum(), (wJf * lin.residual).sum()
        a[:-1] = (self.by_camera @ _products(Jc, wr[:, :, None])[:, :, 0]).ravel()
        if prior is not None:
            strength = M * prior.weight / prior.sigma**2
            A[-1, -1] += strength
            a[-1] -= strength * np.log(focal / prior.focal)
        V = (self.by_point @ _products(wJp, Jp).reshape(M, 9)).reshape(self.P, 3, 3)
        v = self.by_point @ _products(Jp, wr[:, :, None])[:, :, 0]
        F = self.by_point @ _products(Jp, wJf[:, :, None])[:, :, 0]
        return _Normal(A, a, V, v, _products(wJc, Jp), F)

    def solve(self, n: _Normal, damping: float, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Steps of the cameras with log f (6C+1,), 0 where not ``free``, and of the points (P,3)."""
        diagonal = np.einsum("pii->pi", n.V)
        floor = 1e-9 * max(diagonal.max(), 1e-300)
        V_inv = np.linalg.inv(n.V + np.eye(3) * np.maximum(damping * diagonal, floor)[:, :, None])
        S, b = n.A.copy(), n.a.copy()
        for first in range(0, self.P, self.CHUNK):
            points = slice(first, min(first + self.CHUNK, self.P))
            G, rows = self._dense(n, points)
            GV = (G @ V_inv[points]).swapaxes(0, 1).reshape(len(rows), -1)
            S[np.ix_(rows, rows)] -= GV @ G.swapaxes(0, 1).reshape(len(rows), -1).T
            b[rows] -= GV @ n.v[points].ravel()
        camera_diagonal = np.diag(n.A)
        S[np.diag_indices_from(S)] += damping * np.maximum(camera_diagonal, 1e-9 * camera_diagonal.max())
        step = np.zeros(len(b))
        step[free] = np.linalg.solve(S[np.ix_(free, free)], b[free])
        by_camera = np.einsum("mij,mi->mj", n.W, step[:-1].reshape(-1, 6)[self.seen.frame])
        point_step = np.einsum("pij,pj->pi", V_inv, n.v - self.by_point @ by_camera - step[-1] * n.F)
        return step, point_step

    def _dense(self, n: _Normal, points: slice) -> tuple[np.ndarray, np.ndarray]:
        """W of some points as one array (points,K,3), and the K rows of the system that it belongs to."""
        where = slice(self.starts[points.start], self.starts[points.stop])
        frames = self.seen.frame[where]
        low, high = frames.min(), frames.max() + 1
        number = points.stop - points.start
        G = np.zeros((number, 6 * (high - low) + 1, 3))
        rows = 6 * (frames - low)[:, None] + np.arange(6)
        G[self.seen.point[where, None] - points.start, rows] = n.W[where]
        G[:, -1] = n.F[points]
        return G, np.append(np.arange(6 * low, 6 * high), 6 * self.C)
