"""Cameras from text: TUM trajectories and MonST3R's pair of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from som.errors import UserError
from som.files import read_numbers
from som.preprocessing.importing.camera_sources import CameraRequest, ForeignCameras, inverted, pose_matrices
from som.preprocessing.importing.frames import match_count, match_stamps
from som.preprocessing.importing.windows import dust3r_image

MONST3R_FILES = ("pred_traj.txt", "pred_intrinsics.txt")


def read_tum_cameras(path: Path, request: CameraRequest) -> ForeignCameras:
    """Lines ``timestamp x y z qx qy qz qw``, camera to world in OpenCV axes; a focal length has to be given.

    Lines are matched to frames by their number or by timestamps that are frame numbers, see ``match_stamps``.

    Raises:
        UserError: the file is broken or its lines cannot be matched to frames.
    """
    rows = _rows(path, 8, "a TUM trajectory (timestamp x y z qx qy qz qw)")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    match = match_stamps(path, rows[:, 0].tolist(), request.names, "poses")
    rows = rows[match.chosen]
    K = np.tile(request.given_intrinsics(path), (len(rows), 1, 1))
    w2c = inverted(pose_matrices(rows[:, 1:4], rows[:, 4:], path))
    return ForeignCameras("TUM trajectory", w2c, K, match, facts={"file": str(path)})


def read_monst3r_cameras(path: Path, request: CameraRequest) -> ForeignCameras:
    """MonST3R's ``pred_traj.txt`` and ``pred_intrinsics.txt`` (9 numbers a line).

    The trajectory looks like TUM's but has the quaternion's real part first. K is that of images whose long side is
    512 px and whose centre was cropped to multiples of 16; the principal point is their centre.

    Raises:
        UserError: a file is missing or broken, or of another number of frames.
    """
    folder = path if path.is_dir() else path.parent
    trajectory, calibration = (folder / name for name in MONST3R_FILES)
    rows = _rows(trajectory, 8, "MonST3R's trajectory (time x y z qw qx qy qz)")
    K = _rows(calibration, 9, "MonST3R's intrinsics").reshape(-1, 3, 3)
    match = match_count(trajectory, len(rows), request.names, "cameras")
    if len(K) != len(rows):
        raise UserError(f"{calibration}: holds {len(K)} intrinsics for {len(rows)} cameras; write the files anew.")
    rows, K = rows[match.chosen], K[match.chosen]
    center = np.median(K[:, :2, 2], axis=0)
    found = round(2 * center[1]), round(2 * center[0])
    window = dust3r_image(calibration, found, request.size, request.source_size)
    quats_xyzw = rows[:, [5, 6, 7, 4]]
    w2c = inverted(pose_matrices(rows[:, 1:4], quats_xyzw, trajectory))
    return ForeignCameras("MonST3R", w2c, window.intrinsics(K), match, facts={"folder": str(folder)})


def _rows(path: Path, count: int, what: str) -> np.ndarray:
    """(N,count) finite numbers of a text file."""
    rows = read_numbers(path, what)
    if not rows or any(len(row) != count for row in rows) or not np.isfinite(np.array(rows)).all():
        raise UserError(f"{path}: {what} must have {count} finite numbers in every line; write it anew.")
    return np.array(rows)
