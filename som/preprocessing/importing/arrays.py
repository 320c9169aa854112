"""Opens .npy and .npz files of other programs; every failure is one sentence. Nothing in them is ever executed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from som.errors import UserError

BROKEN = (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
"""What numpy raises on missing, truncated or damaged files, and on those that hold Python objects."""


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of an .npz file, from their headers alone; an .npy file has one, called "".

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"": _header(file)}
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _header(archive.open(name)) for name in members}
    except BROKEN as error:
        raise _unreadable(path, error) from error


def _header(file) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)[0]


def load_array(path: Path) -> np.ndarray:
    """The numbers of an .npy file.

    Raises:
        UserError: the file is missing, broken or holds anything but numbers.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except BROKEN as error:
        raise _unreadable(path, error) from error
    return _numbers(path, "", values)


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of ``names`` that an .npz file has.

    Raises:
        UserError: the file is missing or broken, or one of them holds anything but numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names if name in archive.files}
    except BROKEN as error:
        raise _unreadable(path, error) from error
    return {name: _numbers(path, name, values) for name, values in arrays.items()}


def _numbers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name or 'the array'} must hold numbers, found {values.dtype}; write the file anew.")
    return values


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: does not exist; correct the path.")
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"{path}: cannot be read as arrays of numbers ({reason}); write the file anew.")
