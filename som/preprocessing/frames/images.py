"""Reads a folder of images as a recording: natural order, upright, 8-bit RGB."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from som.errors import UserError
from som.files import HEIF_SUFFIXES, natural_key, read_image, resize_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", *HEIF_SUFFIXES)
"""Of recordings; those of data sets are fewer."""
NUMBERS = re.compile(r"(\d+)")


def list_recording(folder: Path) -> list[Path]:
    """The images of a folder in natural order (2 before 10).

    Raises:
        UserError: there is none.
    """
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    paths = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        found = ", ".join(sorted({path.suffix for path in files if path.suffix})[:5]) or "nothing"
        raise UserError(
            f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}), found {found}; "
            "give the folder of the frames or a video file."
        )
    return sorted(paths, key=lambda path: (natural_key(path.name), path.name))


def missing_numbers(paths: list[Path]) -> list[int]:
    """Numbers that the names skip, where names differ in their last number only and mostly count in equal steps."""
    parts = [NUMBERS.split(path.stem) for path in paths]
    if len({(*p[:-2], p[-1]) for p in parts if len(p) > 2}) != 1 or any(len(p) < 3 for p in parts):
        return []
    numbers = [int(p[-2]) for p in parts]
    steps = Counter(b - a for a, b in pairwise(numbers))
    step, count = steps.most_common(1)[0] if steps else (0, 0)
    if step < 1 or count < 0.8 * (len(numbers) - 1):
        return []
    return sorted(set(range(numbers[0], numbers[-1] + 1, step)) - set(numbers))


def check_sizes(paths: list[Path], sizes: list[tuple[int, int]]) -> None:
    """Raises:
    UserError: the images (height, width) differ in size.
    """
    counts = Counter(sizes)
    if len(counts) > 1:
        odd = min(counts, key=lambda size: counts[size])
        example = paths[sizes.index(odd)].name
        found = ", ".join(f"{count} of {width}x{height}" for (height, width), count in counts.most_common(4))
        raise UserError(
            f"{paths[0].parent}: its images differ in size ({found}; for example {example} is {odd[1]}x{odd[0]}); "
            "resize or remove those that do not belong to the clip."
        )


def read_images(paths: list[Path], indices: list[int], size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    """Index and image (H,W,3) uint8 RGB of chosen files, resized by area to ``size`` (height, width)."""
    for index in indices:
        yield index, resize_image(read_image(paths[index], upright=True), size)


def scan_images(
    paths: list[Path], thumbnail: Callable[[np.ndarray], np.ndarray], progress: Callable[[float], None]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Thumbnails (N,h,w) and the size (height, width) that all images have.

    Raises:
        UserError: an image cannot be read, or they differ in size.
    """
    thumbnails, sizes = [], []
    for i, path in enumerate(paths):
        image = read_image(path, upright=True)
        sizes.append(image.shape[:2])
        thumbnails.append(thumbnail(image))
        progress((i + 1) / len(paths))
    check_sizes(paths, sizes)
    return np.stack(thumbnails), sizes[0]
