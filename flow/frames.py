"""Frames of a video, from a folder of images, a video file or a list of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError
from flow.io.images import IMAGE_SUFFIXES, list_images, read_image, reduced_size, resize_image
from flow.io.video import probe_video, read_video


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
        source: a folder of .jpg or .png images (in natural order: 2 before 10), a video file that ffmpeg can decode,
            or a sequence of image files, in this order.
        max_side: larger frames are reduced so that their longer side has this many pixels.
        start, end, every: which frames, as in slices of lists, but not negative.

    Returns:
        frames: (T,H,W,3) uint8 RGB.
        names: T file names without ending; five-digit frame numbers for a video file.

    Raises:
        UserError: nothing there, an unreadable image or video, or images of unequal size.
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


def reduce_image(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """An image (H,W,3) uint8 with its longer side reduced to ``max_side`` by averaging areas; see ``reduced_size``."""
    return resize_image(image, reduced_size((image.shape[0], image.shape[1]), max_side))


def _images_in(folder: Path) -> list[Path]:
    paths = list_images(folder)
    if not paths:
        raise FlowError(f"{folder}: holds no {' or '.join(IMAGE_SUFFIXES)} image; give the folder of the frames.")
    return paths


def _read_images(paths: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    for path in paths:
        yield path.stem, read_image(path, upright=True)


def _read_video(path: Path, chosen: slice) -> Iterator[tuple[str, np.ndarray]]:
    frames = read_video(path, probe_video(path), start=chosen.start, end=chosen.stop, every=chosen.step)
    return ((f"{index:05d}", image) for index, image in frames)
