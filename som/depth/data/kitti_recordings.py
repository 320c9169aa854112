"""Readers of KITTI raw drives, KITTI odometry sequences and lists of frames such as the Eigen split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from som.depth.data import kitti
from som.depth.data.files import IMAGE_SUFFIXES, list_images, read_image, read_map, read_numbers, require_file
from som.depth.data.kitti import Truth
from som.depth.data.sequence import FrameRecord, Recording
from som.depth.data.simple import image_frames, read_pose_rows
from som.depth.errors import DepthError

IMPROVED_UNIT = 1 / 256
"""Metres per step of KITTI's accumulated ground truth."""


def read_kitti_raw(path: Path, *, camera: int = 2, truth: Truth = "camera") -> Recording:
    """A drive of KITTI raw, rectified: ``<date>/<date>_drive_NNNN_sync``; calibration is read from ``<date>``.

    Speed and poses come from ``oxts``, depth from ``velodyne_points``, times from ``image_0N/timestamps.txt``, each
    where it exists. Images may have been resized or turned into jpg: K follows their size.

    Args:
        camera: 0 to 3; 2 is the left colour camera.
        truth: how scans become depth, see ``kitti.project_scan``.

    Raises:
        DepthError: images or calibration are missing or inconsistent.
    """
    _check(camera, truth)
    calibration = kitti.raw_camera(path.parent, camera)
    folder = path / f"image_{camera:02d}"
    frames = image_frames(folder / "data")
    for frame in frames:
        frame.K, frame.K_size = calibration.K, calibration.size
        scan = path / "velodyne_points" / "data" / f"{frame.name}.bin"
        if calibration.T_rect_velo is not None and scan.is_file():
            frame.depth = partial(_scan_depth, scan, calibration, calibration.size, truth)
    if (folder / "timestamps.txt").is_file():
        # the list counts frames from 0; an excerpt of a drive keeps the file names
        times = kitti.read_timestamps(folder / "timestamps.txt")
        for frame in frames:
            index = _frame_number(frame)
            if index >= len(times):
                raise DepthError(f"{folder / 'timestamps.txt'}: has no line for frame {frame.name}; restore the file.")
            frame.timestamp = times[index]
    recording = Recording(path.resolve().name, "kitti_raw", frames, world_scale="metric", fps=10.0)
    _set_navigation(recording, path, calibration)
    missing = sum(frame.depth is None for frame in frames)
    if 0 < missing < len(frames):
        recording.notes.append(f"{missing} of {len(frames)} frames have no laser scan")
    return recording


def _set_navigation(recording: Recording, drive: Path, camera: kitti.Camera) -> None:
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


def read_kitti_odometry(path: Path, *, camera: int = 2, truth: Truth = "camera") -> Recording:
    """A sequence of KITTI odometry: ``<root>/sequences/NN`` with poses in ``<root>/poses/NN.txt``.

    Poses of the file are camera 0's; they are carried over to ``camera``. Depth comes from ``velodyne``, times from
    ``times.txt``, each where it exists.

    Args:
        camera: 0 to 3; 0 and 1 are grey, 2 and 3 colour.
        truth: how scans become depth, see ``kitti.project_scan``.

    Raises:
        DepthError: images or calibration are missing or inconsistent.
    """
    _check(camera, truth)
    calibration = kitti.odometry_camera(path / "calib.txt", camera)
    frames = image_frames(path / f"image_{camera}")
    for frame in frames:
        frame.K = calibration.K
        scan = path / "velodyne" / f"{frame.name}.bin"
        if calibration.T_rect_velo is not None and scan.is_file():
            frame.depth = partial(_scan_depth, scan, calibration, frame.size, truth)
    name = path.resolve().name
    if (path / "times.txt").is_file():
        rows = read_numbers(path / "times.txt", "the timestamps")
        for frame in frames:
            frame.timestamp = float(_row(rows, frame, path / "times.txt")[0])
    poses = path.resolve().parent.parent / "poses" / f"{name}.txt"
    if poses.is_file():
        rows = read_pose_rows(poses)
        for frame in frames:
            frame.w2c = calibration.T_cam_rect @ np.linalg.inv(_row(rows, frame, poses))
    return Recording(f"odometry {name}", "kitti_odometry", frames, world_scale="metric", fps=10.0)


def _row(rows: list, frame: FrameRecord, file: Path):
    """The row of a frame: file names count from 0, so an excerpt of a sequence keeps its rows."""
    index = _frame_number(frame)
    if index >= len(rows):
        raise DepthError(f"{file}: has {len(rows)} rows, none for frame {frame.name}; restore the file.")
    return rows[index]


def _frame_number(frame: FrameRecord) -> int:
    if not frame.name.isdigit():
        raise DepthError(f"{frame.where}: KITTI's images are named by their number; rename it or move it away.")
    return int(frame.name)


@dataclass(frozen=True)
class SplitLine:
    """One line of a split file."""

    drive: str
    """``<date>/<drive>``, relative to the root of KITTI raw."""
    frame: int
    camera: int
    """2 for l, 3 for r."""


def read_split(path: Path) -> list[SplitLine]:
    """Lines ``<date>/<drive> <frame> <l|r>`` of a split file (the side may be left out).

    Raises:
        DepthError: the file is missing or a line is something else.
    """
    lines = []
    for number, line in enumerate(require_file(path, "the split file").read_text().splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\S+)\s+(\d+)(?:\s+([lr]))?\s*", line)
        if match is None:
            raise DepthError(f'{path}: line {number} must be "<date>/<drive> <frame> <l|r>", found {line!r}.')
        lines.append(SplitLine(match[1].strip("/"), int(match[2]), 3 if match[3] == "r" else 2))
    if not lines:
        raise DepthError(f"{path}: the split file names no frame.")
    return lines


def read_eigen(
    path: Path, *, root: str | Path | None = None, truth: Truth = "eigen", improved: str | Path | None = None
) -> Recording:
    """The frames of a split file, for scoring: neighbours in the list are not neighbours in time.

    Args:
        path: the split file.
        root: folder of KITTI raw, holding ``<date>/<drive>``.
        truth: ``eigen`` gives the ground truth of the literature, ``camera`` the geometrically exact one; see
            ``kitti.project_scan``.
        improved: folder of KITTI's accumulated ground truth, used in place of the scans; frames that it lacks are left
            out, and counted in the notes. Found as ``[<date>/|train/|val/]<drive>/proj_depth/groundtruth/image_0N``.

    Raises:
        DepthError: a drive, an image, a scan or the calibration is missing.
    """
    if root is None:
        raise DepthError(f"{path}: pass root, the folder of KITTI raw that holds <date>/<drive>.")
    _check(2, truth)
    root, lines, frames = Path(root), read_split(path), []
    cameras: dict[tuple[str, int], kitti.Camera] = {}
    sizes: dict[tuple[str, int], tuple[int, int]] = {}
    for line in lines:
        key = (line.drive, line.camera)
        if key not in cameras:
            cameras[key] = kitti.raw_camera((root / line.drive).parent, line.camera)
        camera, image = cameras[key], _raw_image(root, line)
        truth_file = None if improved is None else _improved_file(Path(improved), line)
        if improved is not None and truth_file is None:
            continue
        if key not in sizes:
            sizes[key] = read_image(image).shape[:2]
        name = f"{line.drive} {line.frame:010d} {'l' if line.camera == 2 else 'r'}"
        frame = FrameRecord(name, partial(read_image, image), str(image), sizes[key], camera.K, camera.size)
        if truth_file is not None:
            frame.depth = partial(read_map, truth_file, IMPROVED_UNIT)
        elif camera.T_rect_velo is not None:
            scan = root / line.drive / "velodyne_points" / "data" / f"{line.frame:010d}.bin"
            require_file(scan, "the laser scan", "restore it, or take the frame out of the split file")
            frame.depth = partial(_scan_depth, scan, camera, camera.size, truth)
        frames.append(frame)
    recording = Recording(path.stem, "eigen", frames)
    if len(frames) < len(lines):
        recording.notes.append(f"{len(lines) - len(frames)} of {len(lines)} frames have no improved ground truth")
    return recording


def _raw_image(root: Path, line: SplitLine) -> Path:
    folder = root / line.drive / f"image_{line.camera:02d}" / "data"
    candidates = [folder / f"{line.frame:010d}{suffix}" for suffix in IMAGE_SUFFIXES]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise DepthError(f"{candidates[0]}: this image is missing (or as .jpg); download the drive {line.drive}.")
    return found


def _improved_file(folder: Path, line: SplitLine) -> Path | None:
    drive = Path(line.drive)
    parts = Path("proj_depth", "groundtruth", f"image_{line.camera:02d}", f"{line.frame:010d}.png")
    places = (folder / drive, folder / drive.name, folder / "train" / drive.name, folder / "val" / drive.name)
    return next((place / parts for place in places if (place / parts).is_file()), None)


def drives_of_split(lines: list[SplitLine]) -> dict[tuple[str, int], list[int]]:
    """Frame numbers by (drive, camera), for training on a split file.

    Open each drive as ``kitti_raw`` and pass these as the data set's targets: their neighbours in time are then found
    in the drive, whether or not they are listed.
    """
    drives: dict[tuple[str, int], list[int]] = {}
    for line in lines:
        drives.setdefault((line.drive, line.camera), []).append(line.frame)
    return drives


def _scan_depth(scan: Path, camera: kitti.Camera, size: tuple[int, int], truth: Truth) -> np.ndarray:
    return kitti.project_scan(kitti.read_scan(scan), camera, size, truth)


def _check(camera: int, truth: str) -> None:
    if camera not in (0, 1, 2, 3):
        raise DepthError(f"KITTI's cameras are 0 to 3, got {camera!r}.")
    if truth not in ("camera", "eigen"):
        raise DepthError(f'truth must be "camera" or "eigen", got {truth!r}.')


def is_kitti_raw(path: Path) -> bool:
    """Whether a folder has images where a drive of KITTI raw has them."""
    return any(list_images(path / f"image_{camera:02d}" / "data") for camera in range(4))
