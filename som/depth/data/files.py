"""Reads single files of a recording; what cannot be used becomes one sentence with the file's name."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from som.depth.errors import DepthError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Compared without regard to case."""


def natural_key(path: Path) -> list[str | int]:
    """Sorts frame_2 before frame_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path.name)]


def list_images(folder: Path) -> list[Path]:
    """Images of a folder in natural order; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    images = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(images, key=natural_key)


def require_file(path: Path, what: str, remedy: str = "restore it") -> Path:
    """The path itself.

    Raises:
        DepthError: there is no such file.
    """
    if not path.is_file():
        raise DepthError(f"{path}: {what} is missing; {remedy}.")
    return path


def read_image(path: Path) -> np.ndarray:
    """(H,W,3) uint8 RGB, pixels as stored: orientation tags are ignored, transparency is dropped.

    Raises:
        DepthError: the file is missing, broken or cut off.
    """
    image = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, "this image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_flow(path: Path) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Optical flow (H,W,2) float32 in pixels, and (H,W) bool where it is right or None, from an .npz with ``flow`` in
    steps of ``step`` pixels and maybe ``consistent`` (docs/data-formats.md); None if there is no such file.

    Raises:
        DepthError: the file is broken, or holds something else.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path) as arrays:
            flow = arrays["flow"].astype(np.float32) * float(arrays.get("step", 1.0))
            right = arrays["consistent"].astype(bool) if "consistent" in arrays else None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DepthError(f"{path}: this flow cannot be read ({error}); compute it again.") from error
    if flow.ndim != 3 or flow.shape[2] != 2 or (right is not None and right.shape != flow.shape[:2]):
        raise DepthError(f"{path}: flow must be (H,W,2), and consistent (H,W); compute it again.")
    return flow, right


def read_mask(path: Path, threshold: int = 127) -> np.ndarray:
    """(H,W) bool, true where any colour channel is above ``threshold``; in masks of 0 and 1 alone, where it is 1.

    Raises:
        DepthError: the file is missing, broken or cut off.
    """
    mask = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, "this mask")
    return (mask > (0 if mask.max() <= 1 else threshold)).any(-1)


def has_alpha(path: Path) -> bool:
    """Whether an image file is a png with an alpha channel, by its header; False if there is no such file."""
    if path.suffix.lower() != ".png" or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(26)
    return len(header) == 26 and header[25] in (4, 6)


def encode_image(pixels: np.ndarray, suffix: str) -> bytes:
    """A png or jpg file's content from (H,W,3) uint8 RGB, or (H,W) uint8 or, as png, uint16.

    Raises:
        DepthError: OpenCV cannot encode it.
    """
    pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels))
    if not done:
        raise DepthError(f"pixels of type {pixels.dtype} and shape {pixels.shape} cannot be encoded as {suffix}.")
    return data.tobytes()


def read_opaque(path: Path) -> np.ndarray | None:
    """(H,W) bool, true where an image is opaque; None if it has no transparency.

    Raises:
        DepthError: the file is missing, broken or cut off.
    """
    image = _decode(path, cv2.IMREAD_UNCHANGED, "this image")
    return image[..., 3] > np.iinfo(image.dtype).max // 2 if image.ndim == 3 and image.shape[2] == 4 else None


def read_map(
    path: Path, unit: float, invalid: int | None = None, what: str = "this depth map", *, strict: bool = False
) -> np.ndarray:
    """(H,W) float32 from .npy as it is, or from an integer png in steps of ``unit``.

    Args:
        invalid: a value of the png that means unknown, beside 0.
        strict: refuses negative values.

    Returns:
        negative and non-finite values are 0.

    Raises:
        DepthError: the file is missing or broken, or has no single channel.
    """
    if path.suffix == ".npy":
        require_file(path, what)
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DepthError(f"{path}: {what} cannot be read ({_first_line(error)}); write it anew.") from error
    else:
        values = _decode(path, cv2.IMREAD_UNCHANGED, what)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DepthError(f"{path}: {what} must have one channel of numbers, found {values.dtype} {values.shape}.")
    if path.suffix != ".npy":
        unknown = np.zeros(values.shape, bool) if invalid is None else values == invalid
        values = np.where(unknown, 0, values * np.float64(unit))
    values = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if strict and (values < 0).any():
        raise DepthError(f"{path}: {what} holds negative values; write 0 where it is unknown.")
    return np.maximum(values, 0)


def read_numbers(path: Path, what: str) -> list[list[float]]:
    """Rows of numbers of a text file, separated by blanks or commas; empty lines and # comments are skipped.

    Raises:
        DepthError: the file is missing or holds something else.
    """
    require_file(path, what)
    rows = []
    for number, line in enumerate(_text(path, what).splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        try:
            row = [float(word) for word in words]
        except ValueError:
            raise DepthError(f"{path}: line {number} of {what} must hold numbers only, found {line!r}.") from None
        if row:
            rows.append(row)
    return rows


def read_matrix(path: Path, shape: tuple[int, int], what: str) -> np.ndarray:
    """A matrix written row by row, however the lines are broken.

    Raises:
        DepthError: the file is missing or holds another number of values, or values that are not finite.
    """
    values = np.array([value for row in read_numbers(path, what) for value in row])
    if values.size != shape[0] * shape[1] or not np.isfinite(values).all():
        raise DepthError(f"{path}: {what} must hold {shape[0]}x{shape[1]} finite numbers, found {values.size}.")
    return values.reshape(shape)


def read_keyed(path: Path, what: str) -> dict[str, np.ndarray]:
    """KITTI's calibration files: lines ``name: numbers``; lines with other values (dates) are left out.

    Raises:
        DepthError: the file is missing.
    """
    require_file(path, what)
    entries = {}
    for line in _text(path, what).splitlines():
        key, _, values = line.partition(":")
        try:
            entries[key.strip()] = np.array([float(value) for value in values.split()])
        except ValueError:
            continue  # a date; a matrix that is missing is reported by who needs it
    return entries


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file.

    Raises:
        DepthError: the file is missing or no JSON.
    """
    require_file(path, what)
    try:
        return json.loads(_text(path, what))
    except json.JSONDecodeError as error:
        raise DepthError(f"{path}: {what} is no valid JSON ({error}); correct it.") from error


def check_intrinsics(K: np.ndarray, where: str | Path) -> np.ndarray:
    """K (3,3) as float64.

    Raises:
        DepthError: it is not [fx 0 cx; 0 fy cy; 0 0 1] with positive focal lengths.
    """
    K = np.asarray(K, np.float64)
    usable = K.shape == (3, 3) and np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0
    if not usable or not np.allclose(K[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]) or abs(K[0, 1]) > 1e-6 * K[0, 0]:
        raise DepthError(f"{where}: K must be [fx 0 cx; 0 fy cy; 0 0 1] with positive focal lengths; correct it.")
    return K


def rigid(pose: np.ndarray, where: str) -> np.ndarray:
    """A pose (3,4) or (4,4) as an exactly rigid (4,4); text files round rotations.

    Raises:
        DepthError: it is not finite, or further than rounding from a rigid motion.
    """
    pose = np.asarray(pose, np.float64)
    full = np.eye(4)
    full[: pose.shape[0]] = pose
    if not np.isfinite(full).all():
        raise DepthError(f"{where}: the pose holds NaN or infinite numbers; leave this frame out.")
    U, S, Vt = np.linalg.svd(full[:3, :3])
    if np.abs(S - 1).max() > 1e-2 or np.linalg.det(U @ Vt) < 0 or np.abs(full[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise DepthError(f"{where}: the pose is not rigid (R R^T = 1, det R = 1, last row 0 0 0 1); correct it.")
    full[:3, :3] = U @ Vt
    return full


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DepthError(f"{path}: {what} cannot be read as text ({_first_line(error)}).") from error


def _decode(path: Path, flags: int, what: str) -> np.ndarray:
    require_file(path, what)
    data = path.read_bytes()
    # OpenCV 4 decodes the part that is there of a file that was cut off, and says nothing; OpenCV 5 refuses it
    jpeg_cut = data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    png_cut = data[:4] == b"\x89PNG" and b"IEND" not in data[-4096:]
    image = None if jpeg_cut or png_cut or not data else cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        reason = "is cut off" if jpeg_cut or png_cut else "cannot be decoded"
        raise DepthError(f"{path}: {what} {reason}; restore the file or write it anew.")
    return image


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
