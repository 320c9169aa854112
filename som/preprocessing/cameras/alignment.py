"""Compares two trajectories of cameras: similarity alignment, absolute and relative errors.

Both trajectories are ``w2c`` (T,4,4), OpenCV axes, frame by frame the same moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from som.cameras.rotations import angles_degrees


@dataclass(frozen=True)
class Similarity:
    """x -> scale R x + t."""

    scale: float
    R: Float[np.ndarray, "3 3"]
    t: Float[np.ndarray, "3"]

    def points(self, x: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """The images of points."""
        return self.scale * x @ self.R.T + self.t

    def cameras(self, w2c: Float[np.ndarray, "*n 4 4"]) -> Float[np.ndarray, "*n 4 4"]:
        """The same cameras in the aligned world; depths in them grow by ``scale``."""
        R = w2c[..., :3, :3] @ self.R.T
        centers = self.points(camera_centers(w2c))
        aligned = np.broadcast_to(np.eye(4), w2c.shape).copy()
        aligned[..., :3, :3] = R
        aligned[..., :3, 3] = -np.einsum("...ij,...j->...i", R, centers)
        return aligned


@dataclass(frozen=True)
class TrajectoryError:
    """How far an estimated trajectory is from the true one after similarity alignment of the camera centres."""

    ate: float
    """Root mean square distance of the centres, in the true world's unit (absolute trajectory error)."""
    ate_share: float
    """``ate`` as a share of the true path's extent."""
    extent: float
    """Root mean square distance of the true centres from their mean."""
    rotation_deg: float
    """Root mean square angle in degrees between the relative rotations of successive frames."""
    translation_share: float
    """Root mean square error of the successive translations, after alignment, as a share of the root mean square true
    one."""
    orientation_deg: float
    """Mean angle in degrees between the orientations after alignment."""


def camera_centers(w2c: Float[np.ndarray, "*n 4 4"]) -> Float[np.ndarray, "*n 3"]:
    """Positions -R^T t of cameras in the world."""
    return -np.einsum("...ji,...j->...i", w2c[..., :3, :3], w2c[..., :3, 3])


def align_points(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> Similarity:
    """The similarity that takes ``source`` to ``target`` with least squares (Umeyama 1991, equations 34 to 43).

    Raises:
        ValueError: the shapes differ, there are fewer than 3 points, or the source points coincide.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or len(source) < 3:
        raise ValueError(f"align_points needs two equal shapes (N>=3,3), got {source.shape} and {target.shape}.")
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = source - mean_s, target - mean_t
    variance = (s**2).sum(1).mean()
    if variance <= 1e-24 * max(1.0, (mean_s**2).sum()):
        raise ValueError("align_points: the source points coincide, so that no scale aligns them.")
    U, D, Vt = np.linalg.svd(t.T @ s / len(s))
    S = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = U * S @ Vt
    scale = float((D * S).sum() / variance)
    return Similarity(scale, R, mean_t - scale * R @ mean_s)


def align_cameras(estimate: Float[np.ndarray, "t 4 4"], truth: Float[np.ndarray, "t 4 4"]) -> Similarity:
    """``align_points`` of the camera centres."""
    return align_points(camera_centers(estimate), camera_centers(truth))


def trajectory_error(estimate: Float[np.ndarray, "t 4 4"], truth: Float[np.ndarray, "t 4 4"]) -> TrajectoryError:
    """Absolute and relative errors (Sturm et al. 2012, section V) of ``estimate`` after similarity alignment.

    Raises:
        ValueError: as ``align_points``.
    """
    aligned = align_cameras(estimate, truth).cameras(estimate)
    centers = camera_centers(truth)
    ate = float(np.sqrt(((camera_centers(aligned) - centers) ** 2).sum(1).mean()))
    extent = float(np.sqrt(((centers - centers.mean(0)) ** 2).sum(1).mean()))
    steps_true, steps = (w[1:] @ np.linalg.inv(w[:-1]) for w in (truth, aligned))
    errors = steps @ np.linalg.inv(steps_true)
    moved = np.sqrt((steps_true[:, :3, 3] ** 2).sum(1).mean())
    wrong = np.sqrt(((steps[:, :3, 3] - steps_true[:, :3, 3]) ** 2).sum(1).mean())
    orientation = aligned[:, :3, :3] @ truth[:, :3, :3].transpose(0, 2, 1)
    return TrajectoryError(
        ate=ate,
        ate_share=ate / extent if extent > 0 else float("inf"),
        extent=extent,
        rotation_deg=float(np.sqrt((angles_degrees(errors[:, :3, :3]) ** 2).mean())),
        translation_share=float(wrong / moved) if moved > 0 else float("inf"),
        orientation_deg=float(angles_degrees(orientation).mean()),
    )


def focal_error(K: Float[np.ndarray, "3 3"], truth: Float[np.ndarray, "3 3"]) -> float:
    """Relative error of the focal length, 0.01 for 1 % too long; the geometric mean of both axes."""
    return float(np.sqrt(K[0, 0] * K[1, 1] / (truth[0, 0] * truth[1, 1])) - 1)
