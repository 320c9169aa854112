"""Text files, and the sentences about files that cannot be used."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from flow.errors import UserError

T = TypeVar("T")
UNREADABLE = (
    OSError, ValueError, TypeError, SyntaxError, LookupError, EOFError, RuntimeError, AttributeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What json, numpy and the image decoders raise on missing, truncated or damaged files."""


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts names by their numbers, not by digits: frame_2 before frame_10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in parts]


def require_file(path: str | Path, what: str, remedy: str = "restore the file or remove the reference to it") -> Path:
    """The path itself.

    Raises:
        UserError: there is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: {what} is missing; {remedy}.")
    return Path(path)


def unreadable(path: str | Path, what: str, error: BaseException, verb: str = "read") -> UserError:
    """The error to raise for a file that is there but cannot be used."""
    if isinstance(error, UserError):
        return error
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"{path}: {what} cannot be {verb} ({reason}); restore the file or write it anew.")


def load_file(path: str | Path, read: Callable[[Path], T], what: str) -> T:
    """``read(path)``.

    Raises:
        UserError: the file is missing, or ``read`` raised what readers raise on damaged files.
    """
    path = require_file(path, what)
    try:
        return read(path)
    except UNREADABLE as error:
        raise unreadable(path, what, error) from error


def find_file(folder: Path, stem: str, suffixes: Sequence[str]) -> Path:
    """The file ``stem`` with the first suffix that exists; with the first suffix if none does."""
    paths = [folder / (stem + suffix) for suffix in suffixes]
    return next((path for path in paths if path.is_file()), paths[0])


def read_text(path: str | Path, what: str = "this text file") -> str:
    """The content of a UTF-8 file.

    Raises:
        UserError: the file is missing, or no text.
    """
    return load_file(path, lambda found: found.read_text(encoding="utf-8"), what)


def read_json(path: str | Path, what: str = "this JSON file") -> Any:
    """The content of a JSON file.

    Raises:
        UserError: the file is missing or no JSON.
    """
    try:
        return json.loads(read_text(path, what))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: {what} is no valid JSON ({error}); correct it.") from error


def read_numbers(path: str | Path, what: str) -> list[list[float]]:
    """Rows of numbers of a text file, separated by blanks or commas; empty lines and # comments are skipped.

    Raises:
        UserError: the file is missing or holds something else.
    """
    rows = []
    for number, line in enumerate(read_text(path, what).splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        try:
            row = [float(word) for word in words]
        except ValueError:
            raise UserError(f"{path}: line {number} of {what} must hold numbers only, found {line!r}.") from None
        if row:
            rows.append(row)
    return rows


def read_matrix(path: str | Path, shape: tuple[int, int], what: str) -> np.ndarray:
    """A matrix written row by row, however the lines are broken.

    Raises:
        UserError: the file is missing or holds another number of values, or values that are not finite.
    """
    values = np.array([value for row in read_numbers(path, what) for value in row])
    if values.size != shape[0] * shape[1] or not np.isfinite(values).all():
        raise UserError(f"{path}: {what} must hold {shape[0]}x{shape[1]} finite numbers, found {values.size}.")
    return values.reshape(shape)


def read_keyed(path: str | Path, what: str) -> dict[str, np.ndarray]:
    """KITTI's calibration files: lines ``name: numbers``; lines with other values (dates) are left out.

    Raises:
        UserError: the file is missing.
    """
    entries = {}
    for line in read_text(path, what).splitlines():
        key, _, values = line.partition(":")
        try:
            entries[key.strip()] = np.array([float(value) for value in values.split()])
        except ValueError:
            continue  # a date; a matrix that is missing is reported by who needs it
    return entries
