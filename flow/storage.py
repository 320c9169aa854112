"""Arrays on disk, written whole or not at all."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from pathlib import Path

import numpy as np


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a compressed .npz in one rename, with its folder; an interruption leaves the old file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# numpy parses a file's header with ast, which fails at random when threads do so at the same time (CPython gh-106905)
_PARSING = threading.Lock()


def read_npz(path: Path) -> dict[str, np.ndarray]:
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
