"""The inner loops of bundle adjustment: residuals, Jacobians, normal equations, and their solution without the points.

With camera steps c (six a camera and log f), point steps p and weights w

    [A  W] [c]   [a]      S = A - Σ W V⁻¹ Wᵀ,  S c = a - Σ W V⁻¹ v,  p = V⁻¹ (v - Wᵀ c)
    [Wᵀ V] [p] = [v]

(Triggs et al. 2000, section 6.1). Every V is 3x3; of its Cholesky factor V = L Lᵀ the sum over points needs only
Y = W L⁻ᵀ, as Y Yᵀ, one symmetric product for some hundred points at a time. Loops over observations are compiled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numba import njit
from scipy.linalg import cho_factor, cho_solve

from som.preprocessing.cameras.observations import Observations

_compiled = njit(cache=True, nogil=True)


@dataclass(frozen=True)
class Normal:
    """Blocks of the Gauss-Newton system: cameras and log f (A, a), points (V, v), and between (W, F)."""

    A: Float[np.ndarray, "6c+1 6c+1"]
    a: Float[np.ndarray, "6c+1"]
    V: Float[np.ndarray, "p 3 3"]
    v: Float[np.ndarray, "p 3"]
    W: Float[np.ndarray, "m 3 6"]
    """Between the point and the camera of every observation."""
    F: Float[np.ndarray, "p 3"]
    """Between the points and log f."""


class PointElimination:
    """The structure of one problem: which points are eliminated together.

    Points that are seen by about the same frames go together, so that few zeros are multiplied.
    """

    CHUNK = 64
    """Points that are eliminated together, at most;"""
    BEGIN = 8
    """those first seen within so many frames, ordered by the frame that sees them last."""

    def __init__(self, num_cameras: int, num_points: int, seen: Observations):
        self.C, self.P, self.seen = num_cameras, num_points, seen
        self.starts = np.searchsorted(seen.point, np.arange(num_points + 1))
        first, last = np.full(num_points, num_cameras), np.zeros(num_points, np.int64)
        np.minimum.at(first, seen.point, seen.frame)
        np.maximum.at(last, seen.point, seen.frame)
        self.order = np.lexsort((last, first // self.BEGIN))
        self.first, self.last = first, last

    def normal_equations(
        self,
        camera: Float[np.ndarray, "m 2 6"],
        point: Float[np.ndarray, "m 2 3"],
        log_focal: Float[np.ndarray, "m 2"],
        residual: Float[np.ndarray, "m 2"],
        weight: Float[np.ndarray, "m"],
    ) -> Normal:
        """Sums of the weighted products of the Jacobians with each other and with the residuals."""
        C, P, M = self.C, self.P, len(weight)
        blocks = np.zeros((C, 8, 8))
        V, v, F, W = np.zeros((P, 3, 3)), np.zeros((P, 3)), np.zeros((P, 3)), np.empty((M, 3, 6))
        frame, index = self.seen.frame, self.seen.point
        _accumulate(frame, index, camera, point, log_focal, residual, weight, blocks, V, v, F, W)
        A, a = np.zeros((6 * C + 1, 6 * C + 1)), np.zeros(6 * C + 1)
        for i in range(C):
            A[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] = blocks[i, :6, :6]
        A[:-1, -1] = A[-1, :-1] = blocks[:, :6, 6].ravel()
        a[:-1] = blocks[:, :6, 7].ravel()
        A[-1, -1], a[-1] = blocks[:, 6, 6].sum(), blocks[:, 6, 7].sum()
        return Normal(A, a, V, v, W, F)

    def solve(
        self, n: Normal, damping: float, free: np.ndarray
    ) -> tuple[Float[np.ndarray, "6c+1"], Float[np.ndarray, "p 3"]]:
        """Steps of the cameras with log f, 0 where not ``free``, and of the points.

        Args:
            damping: this share of the diagonal is added to it (Levenberg-Marquardt).

        Raises:
            LinAlgError: rounding leaves S no longer positive definite; more damping helps.
        """
        diagonal = np.einsum("pii->pi", n.V)
        floor = 1e-9 * max(diagonal.max(), 1e-300)
        damped = n.V + np.eye(3) * np.maximum(damping * diagonal, floor)[:, :, None]
        L_inv = np.linalg.inv(np.linalg.cholesky(damped))
        S, b = n.A.copy(), n.a.copy()
        Lv, LF = np.einsum("pij,pj->pi", L_inv, n.v), np.einsum("pij,pj->pi", L_inv, n.F)
        for start in range(0, self.P, self.CHUNK):
            points = self.order[start : start + self.CHUNK]
            low, high = int(self.first[points].min()), int(self.last[points].max()) + 1
            blocks = np.zeros((len(points), 3, 6 * (high - low)))
            _whiten(points, self.starts, self.seen.frame, low, L_inv, n.W, blocks)
            Y = blocks.reshape(3 * len(points), -1)
            rows = slice(6 * low, 6 * high)
            S[rows, rows] -= Y.T @ Y
            S[rows, -1] -= Y.T @ LF[points].ravel()
            b[rows] -= Y.T @ Lv[points].ravel()
        S[-1, :-1] = S[:-1, -1]
        S[-1, -1] -= (LF**2).sum()
        b[-1] -= (LF * Lv).sum()
        camera_diagonal = np.diag(n.A)
        S[np.diag_indices_from(S)] += damping * np.maximum(camera_diagonal, 1e-9 * camera_diagonal.max())
        step = np.zeros(len(b))
        # Of a symmetric matrix the transpose is the same, and LAPACK factors it without another copy.
        factor = cho_factor(S[np.ix_(free, free)].T, lower=True, overwrite_a=True, check_finite=False)
        step[free] = cho_solve(factor, b[free], check_finite=False)
        remainder = n.v - step[-1] * n.F
        _subtract_cameras(self.seen.frame, self.seen.point, n.W, step[:-1].reshape(-1, 6), remainder)
        return step, np.einsum("pji,pjk,pk->pi", L_inv, L_inv, remainder, optimize=True)


@_compiled
def fill_residuals(R, t, X, focal, frame, point, xy, min_z, hidden, residual, squared):
    """xy - u and its squared length for every observation, ``hidden`` behind ``min_z``; xy relative to the center."""
    for m in range(len(frame)):
        r, shift, x = R[frame[m]], t[frame[m]], X[point[m]]
        y0 = r[0, 0] * x[0] + r[0, 1] * x[1] + r[0, 2] * x[2] + x[3] * shift[0]
        y1 = r[1, 0] * x[0] + r[1, 1] * x[1] + r[1, 2] * x[2] + x[3] * shift[1]
        y2 = r[2, 0] * x[0] + r[2, 1] * x[1] + r[2, 2] * x[2] + x[3] * shift[2]
        front = y2 > min_z
        z = y2 if front else 1.0
        residual[m, 0] = xy[m, 0] - focal * y0 / z
        residual[m, 1] = xy[m, 1] - focal * y1 / z
        squared[m] = min(residual[m, 0] ** 2 + residual[m, 1] ** 2, hidden) if front else hidden


@_compiled
def fill_jacobians(R, t, X, basis, focal, frame, point, min_z, by_camera, by_point, by_log_focal):
    """Derivatives of u by the camera's rotation vector and translation, the point's tangent space, and log f."""
    gradient, to_point = np.zeros((2, 3)), np.empty(4)
    for m in range(len(frame)):
        r, shift, x, B = R[frame[m]], t[frame[m]], X[point[m]], basis[point[m]]
        q0 = r[0, 0] * x[0] + r[0, 1] * x[1] + r[0, 2] * x[2]
        q1 = r[1, 0] * x[0] + r[1, 1] * x[1] + r[1, 2] * x[2]
        q2 = r[2, 0] * x[0] + r[2, 1] * x[1] + r[2, 2] * x[2]
        z = q2 + x[3] * shift[2]
        z = z if z > min_z else 1.0
        by_log_focal[m, 0] = focal * (q0 + x[3] * shift[0]) / z
        by_log_focal[m, 1] = focal * (q1 + x[3] * shift[1]) / z
        for k in range(2):
            gradient[k, k] = focal / z
            gradient[k, 2] = -by_log_focal[m, k] / z
            g0, g1, g2 = gradient[k]
            # exp(w) R x = R x + w × R x, so that a row g of du/dy gives (R x × g)ᵀ w
            by_camera[m, k, 0] = q1 * g2 - q2 * g1
            by_camera[m, k, 1] = q2 * g0 - q0 * g2
            by_camera[m, k, 2] = q0 * g1 - q1 * g0
            for i in range(3):
                by_camera[m, k, 3 + i] = gradient[k, i] * x[3]
                to_point[i] = g0 * r[0, i] + g1 * r[1, i] + g2 * r[2, i]
            to_point[3] = g0 * shift[0] + g1 * shift[1] + g2 * shift[2]
            for i in range(3):
                by_point[m, k, i] = (
                    to_point[0] * B[0, i] + to_point[1] * B[1, i] + to_point[2] * B[2, i] + to_point[3] * B[3, i]
                )


@_compiled
def _accumulate(frame, point, by_camera, by_point, by_log_focal, residual, weight, blocks, V, v, F, W):
    """``blocks`` holds, for every camera, the products of its six columns, that of log f and the residual."""
    row = np.empty(8)
    for m in range(len(frame)):
        block, p = blocks[frame[m]], point[m]
        W[m] = 0
        for k in range(2):
            row[:6], row[6], row[7] = by_camera[m, k], by_log_focal[m, k], residual[m, k]
            for i in range(8):
                weighted = weight[m] * row[i]
                for j in range(8):
                    block[i, j] += weighted * row[j]
            for i in range(3):
                weighted = weight[m] * by_point[m, k, i]
                for j in range(3):
                    V[p, i, j] += weighted * by_point[m, k, j]
                for j in range(6):
                    W[m, i, j] += weighted * row[j]
                F[p, i] += weighted * row[6]
                v[p, i] += weighted * row[7]


@_compiled
def _whiten(points, starts, frame, low, L_inv, W, Y):
    """Writes (W L⁻ᵀ)ᵀ of the points to the columns of the frames that see them, counted from ``low``."""
    for n in range(len(points)):
        L = L_inv[points[n]]
        for m in range(starts[points[n]], starts[points[n] + 1]):
            column = 6 * (frame[m] - low)
            for j in range(6):
                Y[n, 0, column + j] = L[0, 0] * W[m, 0, j]
                Y[n, 1, column + j] = L[1, 0] * W[m, 0, j] + L[1, 1] * W[m, 1, j]
                Y[n, 2, column + j] = L[2, 0] * W[m, 0, j] + L[2, 1] * W[m, 1, j] + L[2, 2] * W[m, 2, j]


@_compiled
def _subtract_cameras(frame, point, W, step, remainder):
    """Subtracts Wᵀ c of every observation from the right side of its point."""
    for m in range(len(frame)):
        c = step[frame[m]]
        for i in range(3):
            total = 0.0
            for j in range(6):
                total += W[m, i, j] * c[j]
            remainder[point[m], i] -= total
