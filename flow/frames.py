"""Frames of a video, from a folder of images, a video file or a list of images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_frames(
    source: str | Path | Sequence[str | Path],
    *,
    max_side: int | None = None,
    start: int = 0,
    end: int | None = None,
    every: int = 1,
) -> tuple[Tensor, list[str]]:
    """Frames ``start:end:every`` of a video.

    Args:
        source: a folder of .jpg or .png images (in natural order: 2 before 10), a video file that OpenCV can decode,
            or a sequence of image files, in this order.
        max_side: larger frames are reduced so that their longer side has this many pixels.
        start, end, every: which frames, as in slices of lists, but not negative.

    Returns:
        frames: (T,H,W,3) uint8 RGB.
        names: T file names without ending; five-digit frame numbers for a video file.

    Raises:
        FlowError: nothing there, an unreadable image or video, or images of unequal size.
    """
    if start < 0 or every < 1 or (end is not None and end <= start):
        raise FlowError(f"frames {start}:{end}:{every} are none; choose 0 <= start < end and every >= 1.")
    chosen = slice(start, end, every)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            frames = _read_images(_images_in(path)[chosen])
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            raise FlowError(f"{path} is one image; give its folder, a video file or several images.")
        else:
            frames = _read_video(path, chosen)
    else:
        frames = _read_images([Path(path) for path in source][chosen])

    names, images = [], []
    for name, image in frames:
        names.append(name)
        images.append(reduce_image(image, max_side))
        if images[-1].shape != images[0].shape:
            (H0, W0, _), (H, W, _) = images[0].shape, images[-1].shape
            raise FlowError(f"frame {name} is {W}x{H} but frame {names[0]} is {W0}x{H0}; resize or remove one.")
    if not images:
        raise FlowError(f"{source} has no frame in {start}:{end}:{every}; choose an earlier start or another source.")
    return torch.from_numpy(np.stack(images)), names


def reduced_size(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """(height, width) with the longer side at most ``max_side`` pixels; None leaves the size as it is.

    Raises:
        FlowError: ``max_side`` is not positive.
    """
    if max_side is not None and max_side < 1:
        raise FlowError(f"max_side must be at least 1 pixel, or None for the full size, got {max_side}.")
    longest = max(height, width)
    if max_side is None or longest <= max_side:
        return height, width
    return max(round(height * max_side / longest), 1), max(round(width * max_side / longest), 1)


def reduce_image(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """An image (H,W,3) uint8 with its longer side reduced to ``max_side`` by averaging areas; see ``reduced_size``."""
    H, W = reduced_size(*image.shape[:2], max_side)
    return image if image.shape[:2] == (H, W) else cv2.resize(image, (W, H), interpolation=cv2.INTER_AREA)


def _images_in(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise FlowError(f"{folder} holds no {' or '.join(IMAGE_SUFFIXES)} image; give the folder of the frames.")
    return sorted(paths, key=lambda path: _natural_key(path.name))


def _natural_key(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def _read_images(paths: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    for path in paths:
        if not path.is_file():
            raise FlowError(f"{path} does not exist; check the path.")
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise FlowError(f"{path} is not a readable image; replace or remove it.")
        yield path.stem, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _read_video(path: Path, chosen: slice) -> Iterator[tuple[str, np.ndarray]]:
    if not path.is_file():
        raise FlowError(f"{path} does not exist; give a folder of images, a video file or several images.")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise FlowError(f"{path} is not a video that OpenCV can decode; convert it, or extract its frames.")
        wanted = range(chosen.start, chosen.stop or 1 << 62, chosen.step)
        for index in range(wanted.stop):
            # grab() skips a frame without converting it.
            if not capture.grab():
                break
            if index in wanted:
                read, image = capture.retrieve()
                if not read:
                    raise FlowError(f"frame {index} of {path} cannot be decoded; convert the video again.")
                yield f"{index:05d}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
