"""Known cameras, written by the tests in every program's convention, and what they have to come back as."""

from pathlib import Path

import numpy as np

from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.cameras import ImportedCameras, import_cameras

SIZE = (180, 320)
NAMES = [f"{i:05d}" for i in range(4)]
K = np.array([[300.0, 0, 155], [0, 290, 95], [0, 0, 1]])
POINT = np.array([6.0, 1.5, 3.25])
"""In front of all cameras: they look along +x."""


def make_c2w(count: int = 4) -> np.ndarray:
    """Cameras at (1+i, 2, 3) that look along +x with +z up: right is -y, down is -z."""
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, 0], c2w[:, :3, 1], c2w[:, :3, 2] = (0, -1, 0), (0, 0, -1), (1, 0, 0)
    c2w[:, :3, 3] = [(1 + i, 2, 3) for i in range(count)]
    return c2w


# by hand, of the rotation above: trace 0, so w = 1/2
QUAT_C2W_WXYZ = (0.5, -0.5, 0.5, -0.5)
QUAT_W2C_WXYZ = (0.5, 0.5, -0.5, 0.5)


def translation_w2c(i: int) -> tuple:
    return (2, 3, -1 - i)


def project(K: np.ndarray, w2c: np.ndarray, point: np.ndarray = POINT) -> np.ndarray:
    x, y, z = K @ (w2c[:3, :3] @ point + w2c[:3, 3])
    return np.array([x / z, y / z])


def seen_by_hand(i: int) -> np.ndarray:
    """POINT is 5-i ahead, .5 right and .25 up of camera i."""
    return np.array([155 + 300 * 0.5 / (5 - i), 95 - 290 * 0.25 / (5 - i)])


def check(cameras: ImportedCameras, scale=(1.0, 1.0), frames=range(4)) -> None:
    for i in frames:
        assert cameras.registered[i]
        assert np.allclose(np.linalg.inv(cameras.w2c[i]), make_c2w()[i], atol=1e-6)
        assert np.allclose(project(cameras.K[i], cameras.w2c[i]), seen_by_hand(i) * scale, atol=1e-4)


def read(path: Path, **options) -> ImportedCameras:
    return import_cameras(path, **{"frames": FrameNames(NAMES), "size": SIZE, **options})
