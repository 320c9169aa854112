"""Drives of KITTI raw."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from som.data.checks import Problems
from som.data.layouts import kitti_calibration as kitti
from som.data.layouts.images import image_frames
from som.data.layouts.kitti_calibration import Truth
from som.data.layouts.layout import Layout
from som.data.recording import Recording
from som.errors import UserError
from som.files import list_images


def read(path: Path, problems: Problems, *, camera: int = 2, truth: Truth = "camera") -> Recording:
    """A drive of KITTI raw, rectified: ``<date>/<date>_drive_NNNN_sync``; calibration is read from ``<date>``.

    Speed and poses come from ``oxts``, depth from ``velodyne_points``, times from ``image_0N/timestamps.txt``, each
    where it exists. Images may have been resized or turned into jpg: K follows their size.

    Args:
        camera: 0 to 3; 2 is the left colour camera.
        truth: how scans become depth, see ``kitti.project_scan``.

    Raises:
        UserError: images or calibration are missing or inconsistent.
    """
    kitti.check_options(camera, truth)
    calibration = kitti.raw_camera(path.parent, camera)
    folder = path / f"image_{camera:02d}"
    frames = image_frames(folder / "data")
    for frame in frames:
        frame.K, frame.K_size = calibration.K, calibration.size
        scan = path / "velodyne_points" / "data" / f"{frame.name}.bin"
        if calibration.T_rect_velo is not None and scan.is_file():
            frame.depth = partial(kitti.scan_depth, scan, calibration, calibration.size or frame.size, truth)
    if (folder / "timestamps.txt").is_file():
        # the list counts frames from 0; an excerpt of a drive keeps the file names
        times = kitti.read_timestamps(folder / "timestamps.txt")
        for frame in frames:
            index = kitti.frame_number(frame)
            if index >= len(times):
                raise UserError(f"{folder / 'timestamps.txt'}: has no line for frame {frame.name}; restore the file.")
            frame.timestamp = times[index]
    recording = Recording(path.resolve().name, "kitti_raw", frames, world_scale="metric", fps=10.0, root=path)
    _set_navigation(recording, path, calibration)
    missing = sum(frame.depth is None for frame in frames)
    if 0 < missing < len(frames):
        recording.notes.append(f"{missing} of {len(frames)} frames have no laser scan")
    return recording


def _set_navigation(recording: Recording, drive: Path, camera: kitti.RigCamera) -> None:
    """Speeds, and poses where the IMU's and the scanner's calibration exist."""
    if not (drive / "oxts" / "data").is_dir():
        return
    poses, speeds = kitti.read_oxts([drive / "oxts" / "data" / f"{frame.name}.txt" for frame in recording.frames])
    for frame, speed in zip(recording.frames, speeds, strict=True):
        frame.speed = float(speed)
    if camera.T_rect_velo is None or not (drive.parent / "calib_imu_to_velo.txt").is_file():
        recording.notes.append("no poses: calib_velo_to_cam.txt or calib_imu_to_velo.txt is missing")
        return
    T_cam_imu = camera.T_cam_rect @ camera.T_rect_velo @ kitti.imu_to_velo(drive.parent)
    for frame, T_world_imu in zip(recording.frames, poses, strict=True):
        frame.w2c = T_cam_imu @ np.linalg.inv(T_world_imu)


def _is_kitti_raw(path: Path) -> bool:
    """Whether a folder has images where a drive of KITTI raw has them."""
    return any(list_images(path / f"image_{camera:02d}" / "data") for camera in range(4))


LAYOUT = Layout("kitti_raw", "KITTI raw", "image_0N/data/*.png", _is_kitti_raw, read)
