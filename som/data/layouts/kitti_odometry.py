"""Sequences of KITTI odometry."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from som.data.checks import Problems
from som.data.layouts import kitti_calibration as kitti
from som.data.layouts.images import image_frames
from som.data.layouts.kitti_calibration import Truth
from som.data.layouts.layout import Layout
from som.data.layouts.plain import read_pose_rows
from som.data.recording import FrameRecord, Recording
from som.errors import UserError
from som.files import read_numbers


def read(path: Path, problems: Problems, *, camera: int = 2, truth: Truth = "camera") -> Recording:
    """A sequence of KITTI odometry: ``<root>/sequences/NN`` with poses in ``<root>/poses/NN.txt``.

    Poses of the file are camera 0's; they are carried over to ``camera``. Depth comes from ``velodyne``, times from
    ``times.txt``, each where it exists.

    Args:
        camera: 0 to 3; 0 and 1 are grey, 2 and 3 colour.
        truth: how scans become depth, see ``kitti.project_scan``.

    Raises:
        UserError: images or calibration are missing or inconsistent.
    """
    kitti.check_options(camera, truth)
    calibration = kitti.odometry_camera(path / "calib.txt", camera)
    frames = image_frames(path / f"image_{camera}")
    for frame in frames:
        frame.K = calibration.K
        scan = path / "velodyne" / f"{frame.name}.bin"
        if calibration.T_rect_velo is not None and scan.is_file():
            frame.depth = partial(kitti.scan_depth, scan, calibration, frame.size, truth)
    name = path.resolve().name
    if (path / "times.txt").is_file():
        stamps = read_numbers(path / "times.txt", "the timestamps")
        for frame in frames:
            frame.timestamp = float(_row(stamps, frame, path / "times.txt")[0])
    poses = path.resolve().parent.parent / "poses" / f"{name}.txt"
    if poses.is_file():
        rows = read_pose_rows(poses)
        for frame in frames:
            frame.w2c = calibration.T_cam_rect @ np.linalg.inv(_row(rows, frame, poses))
    return Recording(
        f"odometry {name}", "kitti_odometry", frames, world_scale="metric", fps=10.0, root=path
    )


def _row(rows: list, frame: FrameRecord, file: Path):
    """The row of a frame: file names count from 0, so an excerpt of a sequence keeps its rows."""
    index = kitti.frame_number(frame)
    if index >= len(rows):
        raise UserError(f"{file}: has {len(rows)} rows, none for frame {frame.name}; restore the file.")
    return rows[index]


def _is_kitti_odometry(path: Path) -> bool:
    return (path / "calib.txt").is_file() and any((path / f"image_{n}").is_dir() for n in range(4))


LAYOUT = Layout("kitti_odometry", "KITTI odometry", "calib.txt beside image_N/", _is_kitti_odometry, read)
