"""Readers of recordings without a published layout: a folder of images, a video file, the plain folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from som.depth.data.files import (
    check_intrinsics,
    list_images,
    read_image,
    read_map,
    read_matrix,
    read_numbers,
    require_file,
    rigid,
)
from som.depth.data.sequence import FrameRecord, Recording, Size, resize_image, target_size
from som.depth.errors import DepthError

Offset = float | tuple[float, float]
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")


def image_frames(folder: Path, paths: list[Path] | None = None) -> list[FrameRecord]:
    """Frames of the images of a folder in natural order; the first one is opened for its size.

    Raises:
        DepthError: there is no image, or the first is broken.
    """
    paths = list_images(folder) if paths is None else paths
    if not paths:
        raise DepthError(f"{folder}: holds no png or jpg image; give the folder of the frames.")
    height, width = read_image(paths[0]).shape[:2]
    return [FrameRecord(p.stem, partial(read_image, p), str(p), (height, width)) for p in paths]


def shifted_intrinsics(K: np.ndarray, center_offset: Offset, where: str | Path) -> np.ndarray:
    """K with ``center_offset`` (x, y) added to the principal point: 0.5 takes integer pixel centres to this package's.

    Raises:
        DepthError: K is unusable.
    """
    K = check_intrinsics(K, where).copy()
    K[:2, 2] += center_offset
    return K


def read_folder(path: Path, *, K: np.ndarray | None = None, fps: float | None = None) -> Recording:
    """A folder of images, or one with a subfolder ``images``.

    Args:
        K: (3,3) or (T,3,3) for the images as stored, pixel centres at +0.5; None where unknown.
        fps: frames per second, for the timestamps; None where unknown.
    """
    folder = path if list_images(path) else path / "images"
    recording = Recording(path.resolve().name, "folder", image_frames(folder), fps=fps)
    _set_cameras(recording, K, path)
    return recording


def read_plain(
    path: Path,
    *,
    depth_unit: float | None = None,
    center_offset: Offset = 0.5,
    fps: float | None = None,
    world_scale: str = "metric",
) -> Recording:
    """``images/``, ``K.txt``, and where they exist ``poses_cam_to_world.txt`` and ``depth/``.

    K.txt holds 3x3 numbers for the images as stored. Each row of the pose file is a camera-to-world matrix, 3x4 or 4x4
    row by row, OpenCV axes, in the order of the images. ``depth/`` holds png or npy files with the images' stems, at
    any size; a frame without one has no depth.

    Args:
        depth_unit: unit of an integer step of depth/*.png: 0.001 for millimetres, 1/256 for KITTI's files.
        center_offset: added to cx and cy of K.txt; 0.5 if it has integer pixel centres (KITTI, 7-Scenes, OpenCV), 0 if
            it has this package's. For a K with integer centres that was scaled by (sx, sy): (0.5 sx, 0.5 sy).
        fps: frames per second, for the timestamps.
        world_scale: ``metric`` if the poses are in metres, else ``arbitrary``.

    Raises:
        DepthError: a part is missing or inconsistent, or there are png depth maps and no ``depth_unit``.
    """
    if world_scale not in ("metric", "arbitrary"):
        raise DepthError(f'world_scale must be "metric" or "arbitrary", got {world_scale!r}.')
    frames = image_frames(path / "images")
    file = path / "K.txt"
    K = shifted_intrinsics(read_matrix(file, (3, 3), "the intrinsics"), center_offset, file)
    recording = Recording(path.resolve().name, "plain", frames, world_scale=world_scale, fps=fps)
    _set_cameras(recording, K, file)
    if (path / "poses_cam_to_world.txt").is_file():
        poses = read_pose_rows(path / "poses_cam_to_world.txt")
        if len(poses) != len(frames):
            file = path / "poses_cam_to_world.txt"
            raise DepthError(f"{file}: holds {len(poses)} poses for {len(frames)} images; they must pair up.")
        for frame, c2w in zip(frames, poses, strict=True):
            frame.w2c = np.linalg.inv(c2w)
    if (path / "depth").is_dir():
        for frame in frames:
            _set_plain_depth(frame, path / "depth", depth_unit)
        missing = sum(frame.depth is None for frame in frames)
        if missing:
            recording.notes.append(f"{missing} of {len(frames)} images have no depth map")
    return recording


def _set_plain_depth(frame: FrameRecord, folder: Path, unit: float | None) -> None:
    for file in (folder / f"{frame.name}.npy", folder / f"{frame.name}.png"):
        if not file.is_file():
            continue
        if file.suffix == ".png" and unit is None:
            raise DepthError(
                f"{file}: its unit is not known; pass depth_unit, 0.001 for millimetres, 1/256 for KITTI's."
            )
        frame.depth = partial(read_map, file, 1.0 if unit is None else unit)
        return


def read_pose_rows(path: Path) -> list[np.ndarray]:
    """Camera-to-world matrices (4,4) of a text file with 12 or 16 numbers per row.

    Raises:
        DepthError: the file is missing, a row has another length, or a pose is not rigid.
    """
    poses = []
    for number, row in enumerate(read_numbers(path, "the poses"), 1):
        if len(row) not in (12, 16):
            raise DepthError(f"{path}: row {number} has {len(row)} numbers; a pose is 3x4 or 4x4, row by row.")
        poses.append(rigid(np.array(row).reshape(-1, 4), f"{path}: row {number}"))
    return poses


def _set_cameras(recording: Recording, K: np.ndarray | None, where: Path) -> None:
    """Intrinsics (one for all or one each) and, where fps is known, timestamps."""
    frames = recording.frames
    if K is not None:
        K = np.asarray(K, np.float64)
        if K.shape not in ((3, 3), (len(frames), 3, 3)):
            raise DepthError(f"{where}: K must be (3,3) or ({len(frames)},3,3), got {K.shape}.")
        for frame, one in zip(frames, np.broadcast_to(K, (len(frames), 3, 3)), strict=True):
            frame.K = check_intrinsics(one, where)
    if recording.fps is not None:
        if not recording.fps > 0:
            raise DepthError(f"{where}: fps must be positive, got {recording.fps}.")
        for index, frame in enumerate(frames):
            frame.timestamp = index / recording.fps


def read_video(
    path: Path,
    *,
    K: np.ndarray | None = None,
    fps: float | None = None,
    start: int = 0,
    stop: int | None = None,
    size: Size | None = None,
    max_side: int | None = None,
    multiple: int = 1,
) -> Recording:
    """A video file that OpenCV can decode. Its frames are decoded once, here, and kept as uint8 at the size wanted.

    Args:
        K: (3,3) or (T,3,3) for the video's frames as stored, pixel centres at +0.5.
        fps: frames per second that are wanted: of the file's, those nearest to a regular rhythm are taken; None
            takes all. Timestamps are the file's.
        start, stop: range of the file's frames.
        size, max_side, multiple: see ``target_size``; K still belongs to the stored size.

    Raises:
        DepthError: the file is missing or cannot be decoded, fps exceeds the file's, or the range holds no frame.
    """
    require_file(path, "the video", "check the path")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DepthError(f"{path}: OpenCV cannot decode this video; convert it, or extract its frames.")
        own_fps = capture.get(cv2.CAP_PROP_FPS)
        if not (np.isfinite(own_fps) and own_fps > 0):
            raise DepthError(f"{path}: the video does not say its frame rate; extract its frames.")
        if fps is not None and not 0 < fps <= own_fps * 1.001:
            raise DepthError(f"{path}: fps must be above 0 and at most the video's {own_fps:g}, got {fps}.")
        wanted = _Rhythm(start, stop, own_fps if fps is None else fps, own_fps)
        images = {}
        for index, image in _decode(path, capture, wanted):
            stored = image.shape[:2]
            images[index] = resize_image(image, target_size(stored, size, max_side, multiple))
    finally:
        capture.release()
    if not images:
        raise DepthError(f"{path}: there is no frame in {start}:{stop}; choose another range.")
    frames = []
    for index, image in images.items():
        record = FrameRecord(f"{index:05d}", partial(_same, image), f"{path}, frame {index}", image.shape[:2])
        record.K_size = stored
        frames.append(record)
    recording = Recording(path.stem, "video", frames, fps=wanted.fps)
    _set_cameras(recording, K, path)
    for index, record in zip(images, frames, strict=True):
        record.timestamp = index / own_fps
    return recording


@dataclass
class _Rhythm:
    """Which frames of a video are wanted."""

    start: int
    stop: int | None
    fps: float
    own_fps: float

    def includes(self, index: int) -> bool:
        """Whether the frame is, of all frames, the nearest to a multiple of 1/fps after the start."""
        since = index - self.start
        return since >= 0 and round(round(since * self.fps / self.own_fps) * self.own_fps / self.fps) == since


def _decode(path: Path, capture: cv2.VideoCapture, wanted: _Rhythm) -> Iterator[tuple[int, np.ndarray]]:
    index = 0
    while (wanted.stop is None or index < wanted.stop) and capture.grab():  # grab() decodes without converting
        if wanted.includes(index):
            read, image = capture.retrieve()
            if not read:
                raise DepthError(f"{path}: frame {index} cannot be decoded; convert the video again.")
            yield index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        index += 1


def _same(image: np.ndarray) -> np.ndarray:
    return image
