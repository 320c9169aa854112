"""Tiny recordings of every layout, written by the tests themselves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest


def picture(seed: int, height: int = 24, width: int = 40) -> np.ndarray:
    """(H,W,3) uint8 RGB, different for every seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def row(values) -> str:
    return " ".join(repr(float(v)) for v in np.asarray(values).flatten())


def poses(count: int) -> np.ndarray:
    """(count,4,4) camera to world, turning and moving."""
    found = []
    for i in range(count):
        c2w = np.eye(4)
        c2w[:3, :3] = cv2.Rodrigues(np.array([0.02, 0.05, -0.03]) * i)[0]
        c2w[:3, 3] = 0.1 * i, -0.02 * i, 0.3 * i
        found.append(c2w)
    return np.stack(found)


@pytest.fixture(scope="session")
def make():
    """The helpers of this file; test modules cannot import them."""
    return SimpleNamespace(picture=picture, write=write, text=text, row=row, poses=poses)


@pytest.fixture
def plain_folder(tmp_path):
    """images 40x24, K with integer centres, 4x4 poses, depth in millimetres at 80x48 for frames 0 and 2."""
    root = tmp_path / "kitchen"
    for i in range(3):
        write(root / "images" / f"{i:05d}.png", picture(i))
    text(root / "K.txt", "50 0 19.5\n0 60 11.5\n0 0 1\n")
    text(root / "poses_cam_to_world.txt", "\n".join(row(pose) for pose in poses(3)))
    for i in (0, 2):
        write(root / "depth" / f"{i:05d}.png", np.full((48, 80), 1500 + i, np.uint16))
    return root


VELO_TO_CAM = np.array([[0.0, -1, 0, 0.02], [0, 0, -1, -0.06], [1, 0, 0, -0.3], [0, 0, 0, 1]])
"""Scanner (x forward, y left, z up) to camera 0."""
P2 = np.array([[50.0, 0, 19.5, 3.0], [0, 50, 11.5, 0.5], [0, 0, 1, 0.01]])
SCAN = np.array([[5.3, 0.2, 0.1, 0.5], [10.3, 0.2, 0.1, 0.5], [8.3, -2.0, 0.4, 0.1], [-4.0, 0, 0, 0.1]], np.float32)
"""Two points, five and ten metres ahead, nearly in one line of sight; one to the right; one behind."""


@pytest.fixture
def kitti_root(tmp_path):
    """KITTI raw with one drive of 4 frames; the scan of frame 2 is missing."""
    date = tmp_path / "raw" / "2011_09_26"
    drive = date / "2011_09_26_drive_0001_sync"
    lines = ["calib_time: 09-Jan-2012 13:57:47", f"R_rect_00: {row(np.eye(3))}"]
    for camera in (2, 3):
        lines += [f"S_rect_0{camera}: 4.0e+01 2.4e+01", f"P_rect_0{camera}: {row(P2)}"]
    text(date / "calib_cam_to_cam.txt", "\n".join(lines))
    for name, T in (("velo_to_cam", VELO_TO_CAM), ("imu_to_velo", np.eye(4))):
        content = f"calib_time: 25-May-2012 16:47:16\nR: {row(T[:3, :3])}\nT: {row(T[:3, 3])}\n"
        text(date / f"calib_{name}.txt", content)
    for i in range(4):
        for camera in ("image_02", "image_03"):
            write(drive / camera / "data" / f"{i:010d}.png", picture(i))
        # 1.2 m/s forward to the east: 0.12 m a frame
        longitude = 8.0 + np.degrees(0.12 * i / (6378137.0 * np.cos(np.radians(49.0))))
        record = [49.0, longitude, 110.0, 0, 0, 0, 0, 1.2, 1.2, 0.0, 0.0] + [0.0] * 19
        text(drive / "oxts" / "data" / f"{i:010d}.txt", row(record))
        if i != 2:
            path = drive / "velodyne_points" / "data" / f"{i:010d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            SCAN.tofile(path)
    times = "\n".join(f"2011-09-26 13:02:25.{i}64389445" for i in range(4))
    text(drive / "image_02" / "timestamps.txt", times + "\n")
    return date.parent


@pytest.fixture
def drive(kitti_root):
    return kitti_root / "2011_09_26" / "2011_09_26_drive_0001_sync"
