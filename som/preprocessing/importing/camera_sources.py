"""What a reader of one foreign camera format gives, before it is fitted to the frames of the video."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from som.cameras.rotations import quat_xyzw_to_matrix
from som.errors import UserError
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.frames import Match

SAMPLE_SPACING_PX = 16
"""Spacing in pixels of the depth samples that stand for dense depth."""
Size = tuple[int, int]
"""(height, width)"""


@dataclass
class CameraRequest:
    """The frames that cameras are wanted for, and what the user says about them."""

    names: FrameNames
    """Of the T frames, in the order of time."""
    size: Size
    """Of the frames."""
    focal: float | None = None
    """Focal length in pixels of the frames, for formats without intrinsics."""
    fov: float | None = None
    """Or the horizontal field of view, degrees."""
    source_size: Size | None = None
    """Of the images that the program was given, where they were not of ``size``."""
    allow_pickle: bool = False
    """Whether .npy files of dicts, which are pickles, may be opened; only arrays in them are accepted."""

    def given_intrinsics(self, path: Path) -> Float[np.ndarray, "1 3 3"]:
        """K from ``focal`` or ``fov``, principal point in the centre.

        Raises:
            UserError: neither or both are given, or not a possible number.
        """
        height, width = self.size
        if self.focal is not None and self.fov is None:
            focal = self.focal
        elif self.fov is not None and self.focal is None:
            if not 0 < self.fov < 180:
                raise UserError(f"`cameras.fov` must lie between 0 and 180 degrees, found {self.fov:g}.")
            focal = width / 2 / np.tan(np.radians(self.fov / 2))
        else:
            raise UserError(
                f"{path}: holds poses without intrinsics; give `cameras.focal` or `cameras.fov`, one of them."
            )
        if not focal > 0:
            raise UserError(f"`cameras.focal` must be a positive number of pixels, found {focal:g}.")
        return np.array([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]], np.float64)


@dataclass
class Observations:
    """Pixels of known depth, which tie other depth to the scale of the cameras: where triangulated points are seen, or,
    for formats with dense depth, a grid."""

    frame: Int[np.ndarray, "m"]
    xy: Float[np.ndarray, "m 2"]
    """Pixels of the frames."""
    depth: Float[np.ndarray, "m"]
    """z in that frame, in the unit of the poses, positive."""


@dataclass
class ForeignCameras:
    """Cameras of N of the T frames by another program in OpenCV axes; already in the pixels of the frames."""

    program: str
    """Whose format it is, for messages and provenance."""
    w2c: Float[np.ndarray, "n 4 4"]
    K: Float[np.ndarray, "n 3 3"]
    match: Match
    """Whose N frames these are, rising."""
    points: Float[np.ndarray, "p 3"] | None = None
    observations: Observations | None = None
    depth: Float[np.ndarray, "t H W"] | None = None
    """z of all frames in the unit of the poses, 0 = unknown."""
    world_scale: Literal["metric", "arbitrary"] = "arbitrary"
    facts: dict[str, Any] = field(default_factory=dict)
    """More for the provenance, plain JSON."""
    warnings: list[str] = field(default_factory=list)


def grid_observations(depth: Float[np.ndarray, "t H W"]) -> Observations:
    """The known pixels of a grid of ``SAMPLE_SPACING_PX`` px in every frame."""
    start = SAMPLE_SPACING_PX // 2
    frame, row, column = np.nonzero(depth[:, start::SAMPLE_SPACING_PX, start::SAMPLE_SPACING_PX])
    row, column = start + SAMPLE_SPACING_PX * row, start + SAMPLE_SPACING_PX * column
    return Observations(frame, np.stack([column, row], 1) + 0.5, depth[frame, row, column].astype(np.float64))


def pose_matrices(
    translations: Float[np.ndarray, "n 3"], quats_xyzw: Float[np.ndarray, "n 4"], path: Path
) -> Float[np.ndarray, "n 4 4"]:
    """Rigid matrices from translations and quaternions of any length but 0.

    Raises:
        UserError: a quaternion is 0 or not finite.
    """
    norms = np.linalg.norm(quats_xyzw, axis=1)
    if not (np.isfinite(norms).all() and (norms > 1e-6).all()):
        raise UserError(f"{path}: holds a quaternion that is zero or not a number; write the trajectory anew.")
    matrices = np.tile(np.eye(4), (len(translations), 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = quat_xyzw_to_matrix(quats_xyzw), translations
    return matrices


def inverted(poses: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
    """The inverse of each pose; NaN where a pose is not finite or has none."""
    out = np.full(poses.shape, np.nan)
    usable = np.isfinite(poses).all((1, 2)) & (np.abs(np.linalg.det(np.nan_to_num(poses))) > 1e-9)
    out[usable] = np.linalg.inv(poses[usable])
    return out


def four_rows(poses: np.ndarray) -> Float[np.ndarray, "n 4 4"]:
    """Poses (N,3,4) or (N,4,4) as float64 (N,4,4)."""
    out = np.tile(np.eye(4), (len(poses), 1, 1))
    out[:, : poses.shape[1]] = poses
    return out
