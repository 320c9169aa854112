"""A video file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from som.data.checks import Problems
from som.data.layouts.images import set_cameras
from som.data.layouts.layout import Layout
from som.data.recording import FrameRecord, Recording, Size
from som.data.sequence import resize_image, target_size
from som.depth.data.files import require_file
from som.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")


def read(
    path: Path,
    problems: Problems,
    *,
    K: np.ndarray | None = None,
    fps: float | None = None,
    start: int = 0,
    end: int | None = None,
    size: Size | None = None,
    max_side: int | None = None,
    multiple: int = 1,
) -> Recording:
    """A video file that OpenCV can decode. Its frames are decoded once, here, and kept as uint8 at the size wanted.

    Args:
        K: (3,3) or (T,3,3) for the video's frames as stored, pixel centres at +0.5.
        fps: frames per second that are wanted: of the file's, those nearest to a regular rhythm are taken; None
            takes all. Timestamps are the file's.
        start, end: range of the file's frames.
        size, max_side, multiple: see ``target_size``; K still belongs to the stored size.

    Raises:
        UserError: the file is missing or cannot be decoded, fps exceeds the file's, or the range holds no frame.
    """
    require_file(path, "the video", "check the path")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise UserError(f"{path}: OpenCV cannot decode this video; convert it, or extract its frames.")
        own_fps = capture.get(cv2.CAP_PROP_FPS)
        if not (np.isfinite(own_fps) and own_fps > 0):
            raise UserError(f"{path}: the video does not say its frame rate; extract its frames.")
        if fps is not None and not 0 < fps <= own_fps * 1.001:
            raise UserError(f"{path}: fps must be above 0 and at most the video's {own_fps:g}, got {fps}.")
        wanted = _Rhythm(start, end, own_fps if fps is None else fps, own_fps)
        images = {}
        for index, image in _decode(path, capture, wanted):
            stored = image.shape[:2]
            images[index] = resize_image(image, target_size(stored, size, max_side, multiple))
    finally:
        capture.release()
    if not images:
        raise UserError(f"{path}: there is no frame in {start}:{end}; choose another range.")
    frames = []
    for index, image in images.items():
        record = FrameRecord(f"{index:05d}", partial(_same, image), f"{path}, frame {index}", image.shape[:2])
        record.K_size, record.time = stored, len(frames)
        frames.append(record)
    recording = Recording(path.stem, "video", frames, fps=wanted.fps, root=path)
    set_cameras(recording, K, path)
    for index, record in zip(images, frames, strict=True):
        record.timestamp = index / own_fps
    return recording


@dataclass
class _Rhythm:
    """Which frames of a video are wanted."""

    start: int
    end: int | None
    fps: float
    own_fps: float

    def includes(self, index: int) -> bool:
        """Whether the frame is, of all frames, the nearest to a multiple of 1/fps after the start."""
        since = index - self.start
        return since >= 0 and round(round(since * self.fps / self.own_fps) * self.own_fps / self.fps) == since


def _decode(path: Path, capture: cv2.VideoCapture, wanted: _Rhythm) -> Iterator[tuple[int, np.ndarray]]:
    index = 0
    while (wanted.end is None or index < wanted.end) and capture.grab():  # grab() decodes without converting
        if wanted.includes(index):
            read, image = capture.retrieve()
            if not read:
                raise UserError(f"{path}: frame {index} cannot be decoded; convert the video again.")
            yield index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        index += 1


def _same(image: np.ndarray) -> np.ndarray:
    return image


LAYOUT = Layout(
    "video",
    "video",
    f"a file {', '.join(VIDEO_SUFFIXES)}",
    lambda path: path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES,
    read,
    posed=False,
)
