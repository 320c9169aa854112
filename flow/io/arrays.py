"""Archives of arrays (.npz)."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flow.io.atomic import atomic_path


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed .npz, see ``atomic_path``; the name is kept as it is."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


# numpy parses a file's header with ast, which fails at random when threads do so at the same time (CPython gh-106905)
_PARSING = threading.Lock()


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
