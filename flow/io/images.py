"""The one decoder and the one encoder of images.

Pillow decodes, since it says what is wrong with a damaged file; OpenCV, which fills files that were cut off in
silence, encodes, and decodes the one kind that Pillow cannot: PNG files of 16-bit colours. Both are imported when they
are first needed, so that importing this module is cheap.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flow.errors import UserError
from flow.io.arrays import read_array
from flow.io.atomic import write_bytes
from flow.io.text import UNREADABLE, natural_key, require_file, unreadable

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Of the images of data sets; compared without regard to case."""
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Photos of phones; reading them needs an optional package."""
COLOR_MODES = {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
"""Pillow's modes whose channels are not grey, red, green, blue and opacity, and what they are converted to."""
MASK_THRESHOLD = 127
"""Masks are true above this value, of 255."""

Size = tuple[int, int]
"""(height, width)"""


def decode_image(path: str | Path, what: str = "this image", *, upright: bool = False, raw: bool = False) -> np.ndarray:
    """The pixels of an image file: (H,W), or (H,W,C) with C = 2 (grey, opacity), 3 (RGB) or 4 (RGB, opacity).

    They are uint8, or uint16 in files of 16 bits; PFM and TIFF may hold float32 or int32.

    Args:
        what: name of the thing in messages.
        upright: turns the image as its EXIF orientation says; otherwise the pixels come as they are stored.
        raw: palettes give their indices, and single bits 0 and 1, instead of colours and 0 and 255.

    Raises:
        UserError: the file is missing, broken or cut off, or needs a package that is not installed.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = require_file(path, what)
    if path.suffix.lower() in HEIF_SUFFIXES:
        _allow_heif(path)
    try:
        with Image.open(path) as image:
            if image.format == "TIFF" and _is_cut_off(path):  # Pillow guesses what the lost tags said
                raise ValueError("its tags are incomplete")
            if image.format == "PNG" and _has_deep_colors(path):
                image.load()  # finds damage
                return _decode_deep_colors(path)
            shown = ImageOps.exif_transpose(image) if upright else image
            pixels = np.array(shown if raw else _with_colors(shown))
            # older versions of Pillow open grey png files of 16 bits as 32-bit integers
            narrow = image.format == "PNG" and pixels.dtype == np.int32
    except UnidentifiedImageError as error:
        raise unreadable(path, what, ValueError("it is no image of a known kind"), "decoded") from error
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        if _is_cut_off(path):
            raise UserError(f"{path}: {what} is cut off; restore the file or write it anew.") from error
        raise unreadable(path, what, error, "decoded") from error
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    return pixels.astype(np.uint16) if narrow else pixels


def read_image(
    path: str | Path, what: str = "this image", *, upright: bool = False, alpha: bool = False
) -> np.ndarray:
    """(H,W,3) uint8 RGB; grey images get three equal channels, 16 bits become 8 (65535 is 255).

    Args:
        upright: see ``decode_image``.
        alpha: keeps opacity where the file has it, as the fourth of then four channels; otherwise it is dropped.

    Raises:
        UserError: the file is missing, broken, cut off, or holds other numbers than colours of 8 or 16 bits.
    """
    pixels = decode_image(path, what, upright=upright)
    if pixels.dtype.kind not in "ui" or pixels.ndim not in (2, 3):
        raise UserError(f"{path}: {what} holds {pixels.dtype} values, 8 or 16 bits are expected; convert it to png.")
    pixels = _to_8_bits(pixels)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels < 3:
        grey = pixels.reshape(*pixels.shape[:2], channels)
        pixels = np.concatenate([np.repeat(grey[..., :1], 3, axis=2), grey[..., 1:]], axis=2)
    return np.ascontiguousarray(pixels if alpha else pixels[..., :3])


def read_mask(path: str | Path, threshold: int = MASK_THRESHOLD, what: str = "this mask") -> np.ndarray:
    """(H,W) bool: true where any colour channel is above ``threshold`` of 255; in a mask of 0 and 1, where it is 1.

    Raises:
        UserError: the file is missing, broken or cut off; or nothing in it is above the threshold although it holds
            other values than 0 and 1, so that it is unclear what they mean.
    """
    pixels = decode_image(path, what)
    pixels = pixels[..., : 3 if pixels.shape[-1] > 2 else 1] if pixels.ndim == 3 else pixels[..., None]
    largest = pixels.max()
    if largest > 1:
        pixels = _to_8_bits(pixels)
        largest = pixels.max()
        lossy = Path(path).suffix.lower() in (".jpg", ".jpeg")  # black is not exactly 0 there
        if largest <= threshold and not lossy:
            raise UserError(
                f"{path}: {what} holds values up to {largest}, true is above {threshold}; write 0 and 255, or 0 and 1."
            )
        return np.any(pixels > threshold, axis=-1)
    return np.any(pixels > 0, axis=-1)


def read_map(
    path: str | Path,
    unit: float = 1.0,
    invalid: int | None = None,
    what: str = "this depth map",
    *,
    strict: bool = True,
) -> np.ndarray:
    """(H,W) float32 from .npy as it is, or from an image of integers in steps of ``unit``; 0 is unknown.

    Args:
        invalid: a value of the image that means unknown, beside 0.
        strict: refuses negative values; otherwise they are unknown, as are those that are not finite.

    Raises:
        UserError: the file is missing or broken, has no single channel of numbers, or holds negative values.
    """
    path = Path(path)
    values = read_array(path, what) if path.suffix == ".npy" else decode_image(path, what)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise UserError(
            f"{path}: {what} must have one channel of numbers, found {values.dtype} of shape {values.shape}; "
            "write one channel."
        )
    if path.suffix != ".npy":
        values = np.where(False if invalid is None else values == invalid, 0, values * np.float64(unit))
    values = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if strict and (values < 0).any():
        raise UserError(f"{path}: {what} holds negative values; write 0 where it is unknown.")
    return np.maximum(values, 0)


def image_size(path: str | Path, what: str = "this image") -> Size:
    """(height, width) as stored, from the header alone.

    Raises:
        UserError: the file is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(require_file(path, what)) as image:
            return image.height, image.width
    except UNREADABLE as error:
        raise unreadable(path, what, error, "decoded") from error


def has_alpha(path: str | Path) -> bool:
    """Whether an image has opacity, by its header; False if there is no such image."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info)
    except UNREADABLE:
        return False


def encode_image(pixels: np.ndarray, suffix: str, quality: int | None = None) -> bytes:
    """A png or jpg file's content from (H,W,3) uint8 RGB, (H,W) uint8 or bool (0 and 255), or as png uint16.

    Args:
        quality: of jpg, 0 to 100; None is OpenCV's usual one.

    Raises:
        UserError: such pixels cannot be encoded so.
    """
    import cv2

    pixels = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    known = pixels.dtype == np.uint8 or (pixels.dtype == np.uint16 and suffix.lower() == ".png")
    if not known or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or pixels.size == 0:
        raise UserError(
            f"an image must be (H,W,3) or (H,W) uint8, or uint16 as png, got {pixels.dtype} of shape {pixels.shape}."
        )
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(suffix, np.ascontiguousarray(pixels), options)[1].tobytes()


def write_image(path: str | Path, pixels: np.ndarray, quality: int | None = None) -> None:
    """Writes what ``encode_image`` takes, whole or not at all.

    Raises:
        UserError: another ending than .png or .jpg, or no such picture.
    """
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{path}: pictures are written as .png or .jpg; choose one of these endings.")
    write_bytes(path, encode_image(pixels, Path(path).suffix, quality))


def list_images(folder: str | Path) -> list[Path]:
    """Images of a folder in natural order (2 before 10); empty if there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    images = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(images, key=lambda path: (natural_key(path.name), path.name))


def reduced_size(size: Size, max_side: int | None) -> Size:
    """The size (height, width) after reducing the longer side to at most ``max_side``, at least one pixel.

    Raises:
        UserError: ``max_side`` is not positive.
    """
    if max_side is not None and max_side < 1:
        raise UserError(f"max_side must be at least 1 pixel, or None for the full size, got {max_side}.")
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size[0], size[1]
    return max(round(size[0] * max_side / longest), 1), max(round(size[1] * max_side / longest), 1)


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Colours resized to (height, width): averaged by area where they shrink, bilinear where they grow."""
    if image.shape[:2] == tuple(size):
        return image
    import cv2

    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_map(values: np.ndarray, size: Size) -> np.ndarray:
    """Depth or mask resized by taking the nearest pixel, which never mixes two surfaces."""
    if values.shape[:2] == tuple(size):
        return values
    rows = ((np.arange(size[0]) + 0.5) * values.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * values.shape[1] / size[1]).astype(int)
    return values[rows[:, None], columns[None]]


def _with_colors(image: Image.Image) -> Image.Image:
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "1":
        return image.convert("L")
    return image.convert(COLOR_MODES[image.mode]) if image.mode in COLOR_MODES else image


def _has_deep_colors(path: Path) -> bool:
    """Whether a png file has 16 bits and more channels than grey: bytes 24 and 25 of its header (PNG, 11.2.2)."""
    with path.open("rb") as file:
        header = file.read(26)
    return len(header) == 26 and header[24] == 16 and header[25] != 0


def _decode_deep_colors(path: Path) -> np.ndarray:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("OpenCV cannot decode it")
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _is_cut_off(path: Path) -> bool:
    """Whether a damaged png or jpg file lacks the marker of its end, or a TIFF file a part of its first directory."""
    data = path.read_bytes()
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if data[:4] in (b"II*\0", b"MM\0*"):
        order = "<" if data[:2] == b"II" else ">"
        (start,) = struct.unpack(f"{order}I", data[4:8])
        entries = data[start : start + 2]
        return len(entries) < 2 or start + 2 + 12 * struct.unpack(f"{order}H", entries)[0] > len(data)
    return data[:4] == b"\x89PNG" and b"IEND" not in data[-4096:]


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else (pixels.clip(0, 65535) / 257).round().astype(np.uint8)


def _allow_heif(path: Path) -> None:
    """Teaches Pillow to open HEIF."""
    try:
        import pillow_heif  # optional: no other format needs it
    except ImportError:
        raise UserError(
            f'{path}: reading HEIC photos needs the package pillow-heif; run `pip install "som4d[heic]"`, or convert '
            "them to jpg or png."
        ) from None
    pillow_heif.register_heif_opener()
