"""A video file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from som.data.checks import Problems
from som.data.layouts.images import set_cameras
from som.data.layouts.layout import Layout
from som.data.recording import FrameRecord, Recording, Size
from som.data.sequence import target_size
from som.errors import UserError
from som.files import VIDEO_SUFFIXES, probe_video, read_video, resize_image


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
    """A video file that ffmpeg can decode. Its frames are decoded once, here, and kept as uint8 at the size wanted.

    Args:
        K: (3,3) or (T,3,3) for the video's frames as stored, pixel centres at +0.5.
        fps: frames per second that are wanted: of the file's, those nearest to a regular rhythm are taken; None
            takes all. Timestamps are the file's.
        start, end: range of the file's frames.
        size, max_side, multiple: see ``target_size``; K still belongs to the stored size.

    Raises:
        UserError: the file is missing or cannot be decoded, fps exceeds the file's, or the range holds no frame.
    """
    info = probe_video(path)
    if info.fps is None:
        raise UserError(f"{path}: the video does not say its frame rate; extract its frames.")
    if fps is not None and not 0 < fps <= info.fps * 1.001:
        raise UserError(f"{path}: fps must be above 0 and at most the video's {info.fps:g}, got {fps}.")
    wanted = _Rhythm(start, info.fps if fps is None else fps, info.fps)
    final = target_size(info.size, size, max_side, multiple)
    decoded = read_video(path, info, start=start, end=end)
    images = {index: resize_image(image, final) for index, image in decoded if wanted.includes(index)}
    if not images:
        raise UserError(f"{path}: there is no frame in {start}:{end}; choose another range.")
    frames: list[FrameRecord] = []
    for index, image in images.items():
        record = FrameRecord(f"{index:05d}", partial(_same, image), f"{path}, frame {index}", image.shape[:2])
        record.K_size, record.time = info.size, len(frames)
        frames.append(record)
    recording = Recording(path.stem, "video", frames, fps=wanted.fps, root=path)
    set_cameras(recording, K, path)
    for index, record in zip(images, frames, strict=True):
        record.timestamp = index / info.fps
    return recording


@dataclass
class _Rhythm:
    """Which frames of a video are wanted."""

    start: int
    fps: float
    own_fps: float

    def includes(self, index: int) -> bool:
        """Whether the frame is, of all frames, the nearest to a multiple of 1/fps after the start."""
        since = index - self.start
        return since >= 0 and round(round(since * self.fps / self.own_fps) * self.own_fps / self.fps) == since


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
