"""KITTI's calibration, laser scans and navigation records (Geiger et al., IJRR 2013)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from som.cameras.checks import check_intrinsics
from som.cameras.rotations import axis_rotation
from som.data.recording import FrameRecord
from som.errors import UserError
from som.files import read_keyed, read_numbers, read_text, require_file

Truth = Literal["camera", "eigen"]
EARTH_RADIUS_METRES = 6378137.0
"""Metres, as KITTI's development kit has it."""
CENTER_SHIFT = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
"""KITTI's matrices have integer pixel centres; this package's lie at +0.5."""


@dataclass
class RigCamera:
    """One rectified camera of the rig."""

    P: np.ndarray
    """(3,4) projection from camera 0's rectified frame, integer pixel centres, as in the file."""
    size: tuple[int, int] | None
    """(height, width) of the images that P belongs to; None where the file does not say."""
    T_rect_velo: np.ndarray | None
    """(4,4) scanner to camera 0's rectified frame; None without that calibration."""

    @property
    def K(self) -> np.ndarray:
        """(3,3), pixel centres at +0.5."""
        return self.P[:, :3] + CENTER_SHIFT

    @property
    def T_cam_rect(self) -> np.ndarray:
        """(4,4) camera 0's rectified frame to this camera's."""
        T = np.eye(4)
        T[:3, 3] = np.linalg.solve(self.P[:, :3], self.P[:, 3])
        return T


def raw_camera(folder: Path, camera: int) -> RigCamera:
    """RigCamera ``camera`` of KITTI raw: calib_cam_to_cam.txt, and calib_velo_to_cam.txt where it exists.

    Raises:
        UserError: a file or an entry is missing.
    """
    file = folder / "calib_cam_to_cam.txt"
    entries = read_keyed(file, "the camera calibration")
    P = _entry(entries, f"P_rect_{camera:02d}", 12, file).reshape(3, 4)
    check_intrinsics(P[:, :3], file)
    width, height = _entry(entries, f"S_rect_{camera:02d}", 2, file)
    T_rect_velo = None
    if (folder / "calib_velo_to_cam.txt").is_file():
        R_rect = np.eye(4)
        R_rect[:3, :3] = _entry(entries, "R_rect_00", 9, file).reshape(3, 3)
        T_rect_velo = R_rect @ _rigid_file(folder / "calib_velo_to_cam.txt")
    return RigCamera(P, (int(height), int(width)), T_rect_velo)


def odometry_camera(file: Path, camera: int) -> RigCamera:
    """RigCamera ``camera`` of KITTI odometry's calib.txt.

    Raises:
        UserError: the file or the entry is missing.
    """
    entries = read_keyed(file, "the camera calibration")
    P = _entry(entries, f"P{camera}", 12, file).reshape(3, 4)
    check_intrinsics(P[:, :3], file)
    T_rect_velo = None
    if "Tr" in entries:
        T_rect_velo = np.vstack([_entry(entries, "Tr", 12, file).reshape(3, 4), [0, 0, 0, 1]])
    return RigCamera(P, None, T_rect_velo)


def read_scan(path: Path) -> np.ndarray:
    """(N,4) float32: x forward, y left, z up in metres, reflectance.

    Raises:
        UserError: the file is missing, or its length does not fit.
    """
    values = np.fromfile(require_file(path, "the laser scan"), np.float32)
    if values.size % 4:
        raise UserError(f"{path}: a laser scan holds 4 float32 a point, found {values.size}; restore the file.")
    return values.reshape(-1, 4)


def project_scan(scan: np.ndarray, camera: RigCamera, size: tuple[int, int], truth: Truth = "camera") -> np.ndarray:
    """Sparse depth map of a laser scan; of several points in a pixel the nearest is kept.

    Args:
        scan: (N,4), see ``read_scan``.
        camera: with ``T_rect_velo``.
        size: (height, width) of the images that ``camera.P`` belongs to.
        truth: ``camera``: z in the camera's frame, in the pixel that the point falls into. ``eigen``: as the files were
            made that the literature scores with: the scanner's forward distance (on KITTI about 0.27 m more than z),
            one pixel further left and up.

    Returns:
        (h,w) float32 metres, 0 where no point falls.
    """
    height, width = size
    points = scan[scan[:, 0] >= 0].astype(np.float64)
    points[:, 3] = 1
    image = (camera.P @ camera.T_rect_velo @ points.T).T
    # P's last column makes the third coordinate z of this camera, up to the rig's tiny shift along the axis
    front = image[:, 2] > 1e-3
    points, image = points[front], image[front]
    shift = 1 if truth == "eigen" else 0
    column, row = (np.round(image[:, :2] / image[:, 2:]).T - shift).astype(int)
    values = points[:, 0] if truth == "eigen" else image[:, 2]
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    depth = np.full(size, np.inf)
    np.minimum.at(depth, (row[inside], column[inside]), values[inside])
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32)


def read_oxts(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Poses and speeds from the navigation records, one file a frame.

    Mercator projection with the scale of the first latitude and R = Rz(yaw) Ry(pitch) Rx(roll), as in KITTI's
    development kit.

    Returns:
        (T,4,4) IMU to world (east, north, up; the first position is the origin), metres; and (T) speeds in m/s.

    Raises:
        UserError: a file is missing or holds less than 11 numbers.
    """
    records = []
    for path in paths:
        rows = read_numbers(path, "the navigation record")
        if len(rows) != 1 or len(rows[0]) < 11:
            raise UserError(f"{path}: a navigation record is one line of at least 11 numbers; restore the file.")
        records.append(rows[0][:11])
    latitude, longitude, altitude, roll, pitch, yaw, _, _, *velocity = np.array(records).T
    scale = EARTH_RADIUS_METRES * np.cos(np.radians(latitude[0]))
    east = scale * np.radians(longitude)
    north = scale * np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2))
    position = np.stack([east, north, altitude], -1)
    poses = np.tile(np.eye(4), (len(paths), 1, 1))
    poses[:, :3, :3] = axis_rotation(2, yaw) @ axis_rotation(1, pitch) @ axis_rotation(0, roll)
    poses[:, :3, 3] = position - position[0]
    return poses, np.linalg.norm(np.stack(velocity), axis=0)


def imu_to_velo(folder: Path) -> np.ndarray:
    """(4,4) of calib_imu_to_velo.txt.

    Raises:
        UserError: the file is missing or incomplete.
    """
    return _rigid_file(folder / "calib_imu_to_velo.txt")


def read_timestamps(path: Path) -> list[float]:
    """Seconds since the first line of KITTI raw's timestamps.txt (date and time with nanoseconds).

    Raises:
        UserError: the file is missing or a line is no date and time.
    """
    lines = [line for line in read_text(path, "the timestamps").splitlines() if line.strip()]
    try:
        times = np.array([np.datetime64(line.strip().replace(" ", "T"), "ns") for line in lines])
    except ValueError as error:
        raise UserError(f"{path}: every line must be a date and a time ({error}); restore the file.") from error
    return ((times - times[:1]) / np.timedelta64(1, "s")).tolist()


def _rigid_file(file: Path) -> np.ndarray:
    entries = read_keyed(file, "the calibration")
    T = np.eye(4)
    T[:3, :3] = _entry(entries, "R", 9, file).reshape(3, 3)
    T[:3, 3] = _entry(entries, "T", 3, file)
    return T


def _entry(entries: dict[str, np.ndarray], key: str, count: int, file: Path) -> np.ndarray:
    if key not in entries or entries[key].size != count:
        raise UserError(f"{file}: the entry {key} with {count} numbers is missing; restore the calibration file.")
    return entries[key]


def scan_depth(scan: Path, camera: RigCamera, size: tuple[int, int], truth: Truth) -> np.ndarray:
    """``project_scan`` of a file."""
    return project_scan(read_scan(scan), camera, size, truth)


def frame_number(frame: FrameRecord) -> int:
    """The number that KITTI names an image by.

    Raises:
        UserError: it has another name.
    """
    if not frame.name.isdigit():
        raise UserError(f"{frame.where}: KITTI's images are named by their number; rename it or move it away.")
    return int(frame.name)


def check_options(camera: int, truth: str) -> None:
    """Raises:
    UserError: there is no such camera, or no such way from scans to depth.
    """
    if camera not in (0, 1, 2, 3):
        raise UserError(f"KITTI's cameras are 0 to 3, got {camera!r}.")
    if truth not in ("camera", "eigen"):
        raise UserError(f'truth must be "camera" or "eigen", got {truth!r}.')
