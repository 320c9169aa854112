"""Arrays on disk: .npy and .npz. Nothing in them is ever executed."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flow.errors import UserError
from flow.io.atomic import atomic_path
from flow.io.text import UNREADABLE, require_file, unreadable

# numpy parses a file's header with ast, which fails at random when threads do so at the same time (CPython gh-106905)
_PARSING = threading.Lock()


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Writes one .npy file, see ``atomic_path``."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed .npz file, see ``atomic_path``; its name is kept as it is."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; safe to call from several threads.

    Raises:
        OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile: the file is missing or broken.
    """
    with zipfile.ZipFile(path) as archive:
        contents = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    with _PARSING:
        return {
            name: np.lib.format.read_array(io.BytesIO(data), allow_pickle=False) for name, data in contents.items()
        }


def array_shapes(path: str | Path, what: str = "this file of arrays") -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of an .npz file, from their headers alone; an .npy file has one, called "".

    Raises:
        UserError: the file is missing or broken.
    """
    path = require_file(path, what, "correct the path")
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"": _header(file)}
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _header(archive.open(name)) for name in members}
    except UNREADABLE as error:
        raise unreadable(path, what, error) from error


def read_array(path: str | Path, what: str = "this array") -> np.ndarray:
    """The numbers of an .npy file.

    Raises:
        UserError: the file is missing, broken or holds anything but numbers.
    """
    path = require_file(path, what)
    try:
        with path.open("rb") as file, _PARSING:
            values = np.lib.format.read_array(file, allow_pickle=False)
    except UNREADABLE as error:
        raise unreadable(path, what, error) from error
    return _numbers(path, what, values)


def read_arrays(
    path: str | Path, required: Sequence[str] = (), optional: Sequence[str] = (), what: str = "this file of arrays"
) -> dict[str, np.ndarray]:
    """Arrays of numbers of an .npz file: all that are required, and of the optional ones those that it has.

    Raises:
        UserError: the file is missing or broken, lacks an array, or one holds anything but numbers.
    """
    path = require_file(path, what)
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            missing = [name for name in required if name not in found]
            if missing:
                has = ", ".join(found) or "nothing"
                raise UserError(f"{path}: {what} lacks {', '.join(missing)} (has {has}); write it anew.")
            wanted = [name for name in (*required, *optional) if name in found]
            contents = {name: archive.read(f"{name}.npy") for name in wanted}
        with _PARSING:
            arrays = {
                name: np.lib.format.read_array(io.BytesIO(data), allow_pickle=False) for name, data in contents.items()
            }
    except UNREADABLE as error:
        raise unreadable(path, what, error) from error
    return {name: _numbers(path, name, values) for name, values in arrays.items()}


def _header(file) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)[0]


def _numbers(path: Path, what: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        raise UserError(f"{path}: {what} must hold numbers, found {values.dtype}; write the file anew.")
    return values
