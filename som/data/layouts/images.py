"""A folder of images alone, and what the readers of folders of images share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from som.cameras.checks import check_intrinsics
from som.data.checks import Problems
from som.data.layouts.layout import Layout
from som.data.recording import FrameRecord, Recording
from som.errors import UserError
from som.files import image_size, list_images, read_image

Offset = float | tuple[float, float]


def image_frames(folder: Path, paths: list[Path] | None = None) -> list[FrameRecord]:
    """Frames of the images of a folder in natural order; the first one is opened for its size.

    Raises:
        UserError: there is no image, or the first is broken.
    """
    paths = list_images(folder) if paths is None else paths
    if not paths:
        raise UserError(f"{folder}: holds no png or jpg image; give the folder of the frames.")
    height, width = image_size(paths[0])
    return [
        FrameRecord(p.stem, partial(read_image, p), str(p), (height, width), time=time) for time, p in enumerate(paths)
    ]


def shifted_intrinsics(K: np.ndarray, center_offset: Offset, where: str | Path) -> np.ndarray:
    """K with ``center_offset`` (x, y) added to the principal point: 0.5 takes integer pixel centres to this package's.

    Raises:
        UserError: K is unusable.
    """
    K = check_intrinsics(K, where).copy()
    K[:2, 2] += center_offset
    return K


def set_cameras(recording: Recording, K: np.ndarray | None, where: Path) -> None:
    """Intrinsics (one for all or one each) and, where fps is known, timestamps."""
    frames = recording.frames
    if K is not None:
        K = np.asarray(K, np.float64)
        if K.shape not in ((3, 3), (len(frames), 3, 3)):
            raise UserError(f"{where}: K must be (3,3) or ({len(frames)},3,3), got {K.shape}.")
        for frame, one in zip(frames, np.broadcast_to(K, (len(frames), 3, 3)), strict=True):
            frame.K = check_intrinsics(one, where)
    if recording.fps is not None:
        if not recording.fps > 0:
            raise UserError(f"{where}: fps must be positive, got {recording.fps}.")
        for index, frame in enumerate(frames):
            frame.timestamp = index / recording.fps


def read(path: Path, problems: Problems, *, K: np.ndarray | None = None, fps: float | None = None) -> Recording:
    """A folder of images, or one with a subfolder ``images``.

    Args:
        K: (3,3) or (T,3,3) for the images as stored, pixel centres at +0.5; None where unknown.
        fps: frames per second, for the timestamps; None where unknown.
    """
    folder = path if list_images(path) else path / "images"
    recording = Recording(path.resolve().name, "folder", image_frames(folder), fps=fps, root=path)
    set_cameras(recording, K, path)
    return recording


LAYOUT = Layout(
    "folder",
    "images alone",
    "png or jpg images in it or in images/",
    lambda path: bool(list_images(path) or list_images(path / "images")),
    read,
    posed=False,
)
