"""Reads and writes single images, masks, depth maps and arrays; every failure becomes one recorded sentence."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cv2
import imageio.v3 as iio
import numpy as np

from som.data.checks import Problems
from som.files import atomic_path, write_bytes

T = TypeVar("T")
Size = tuple[int, int]
"""(height, width)"""
UNREADABLE = (
    OSError, ValueError, TypeError, SyntaxError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
"""What json, numpy and the image decoders raise on missing, truncated or damaged files."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".JPG", ".JPEG", ".PNG")


def attempt(path: Path, problems: Problems, read: Callable[[Path], T], what: str) -> T | None:
    """``read(path)``, or None after recording that the file is missing or broken."""
    if not path.is_file():
        problems.add(path, f"{what} is missing; restore the file or remove the reference to it.")
        return None
    try:
        return read(path)
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        problems.add(path, f"{what} cannot be read ({reason}); restore the file or write it anew.")
        return None


def decode(path: Path) -> np.ndarray:
    """The pixels of an image file; raises on truncated files, which OpenCV reads half of in silence."""
    return iio.imread(path, plugin="pillow")


def read_json(path: Path, problems: Problems, what: str = "this JSON file") -> Any | None:
    """The content of a JSON file, or None after recording why not."""
    return attempt(path, problems, lambda p: json.loads(p.read_text(encoding="utf-8")), what)


def reduced_size(size: Size, max_side: int | None) -> Size:
    """The size after reducing the longer side to at most ``max_side``, at least one pixel."""
    height, width = size
    if max_side is None or max(height, width) <= max_side:
        return size
    scale = max_side / max(height, width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def read_image(path: Path, problems: Problems) -> np.ndarray | None:
    """(H,W,3) or, where the file has transparency, (H,W,4) uint8 RGB(A)."""
    image = attempt(path, problems, decode, "this image")
    if image is None:
        return None
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        problems.add(path, f"an 8-bit image is expected, found {image.dtype} of shape {image.shape}; convert it.")
        return None
    if image.ndim == 2 or image.shape[2] in (1, 2):
        image = np.repeat(image.reshape(*image.shape[:2], -1)[..., :1], 3, axis=2)
    return np.ascontiguousarray(image[..., :4])


def read_mask(path: Path, problems: Problems, threshold: int = 0) -> np.ndarray | None:
    """(H,W) bool: any colour channel above ``threshold``."""
    mask = attempt(path, problems, decode, "this mask")
    if mask is None:
        return None
    return mask > threshold if mask.ndim == 2 else (mask[..., :3] > threshold).any(-1)


def read_map(path: Path, problems: Problems, unit: float, what: str) -> np.ndarray | None:
    """(H,W) float32 from a .npy file, or from an integer png multiplied by ``unit``; non-finite values become 0."""

    def read(p: Path) -> np.ndarray:
        if p.suffix == ".npy":
            return np.load(p, allow_pickle=False).astype(np.float32)
        return (decode(p).astype(np.float64) * unit).astype(np.float32)

    values = attempt(path, problems, read, what)
    if values is None:
        return None
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2:
        problems.add(path, f"{what} must have two dimensions, found shape {values.shape}; write one channel.")
        return None
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def read_arrays(path: Path, problems: Problems, names: tuple[str, ...], what: str) -> dict[str, np.ndarray] | None:
    """The arrays ``names`` of an .npz file, or None after recording what is missing."""

    def read(p: Path) -> dict[str, np.ndarray]:
        archive = np.load(p, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is not an .npz archive")
        with archive:
            return {name: archive[name] for name in archive.files}

    arrays = attempt(path, problems, read, what)
    if arrays is None:
        return None
    missing = [name for name in names if name not in arrays]
    if missing:
        problems.add(path, f"{what} lacks {', '.join(missing)} (has {', '.join(arrays) or 'nothing'}); write it anew.")
        return None
    wrong = [name for name in names if arrays[name].dtype.kind not in "biuf"]
    if wrong:
        problems.add(path, f"{', '.join(wrong)} must hold numbers; write it anew.")
        return None
    return arrays


def has_size(path: Path, array: np.ndarray, size: Size, problems: Problems, what: str, of: str = "its image") -> bool:
    """Whether a map has the size (height, width) of its image; otherwise records it."""
    if array.shape[:2] == tuple(size):
        return True
    found, wanted = f"{array.shape[1]}x{array.shape[0]}", f"{size[1]}x{size[0]}"
    problems.add(path, f"{what} is {found}, expected {wanted} as {of}; write it at that size.")
    return False


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Colours resized by area."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def resize_map(values: np.ndarray, size: Size) -> np.ndarray:
    """Depth or mask resized by taking the nearest pixel, which never mixes two surfaces."""
    if values.shape[:2] == tuple(size):
        return values
    rows = ((np.arange(size[0]) + 0.5) * values.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * values.shape[1] / size[1]).astype(int)
    return values[rows[:, None], columns[None]]


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 RGB, or a bool mask as 0/255."""
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.ndim == 3:
        image = image[..., ::-1]
    write_bytes(path, cv2.imencode(path.suffix, image)[1].tobytes())


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one .npy file."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder in name order; empty if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix in IMAGE_SUFFIXES and not p.name.startswith("."))


def find_file(folder: Path, stem: str, suffixes: tuple[str, ...]) -> Path:
    """The file ``stem`` with the first suffix that exists; with the first suffix if none does."""
    for suffix in suffixes:
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    return folder / (stem + suffixes[0])
