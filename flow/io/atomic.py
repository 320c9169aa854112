"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path, *, durable: bool = False, keep_suffix: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` when the block ends without an exception.

    The folder is made. An interruption or an exception leaves an old file as it was, and no temporary file behind.

    Args:
        durable: flush the file to disk before it is renamed, so that a power failure leaves the old or the new file.
        keep_suffix: the temporary name ends like ``path``, for writers that choose the format by it; otherwise it ends
            in .tmp, so that nobody who lists files by suffix finds what a killed process left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, path.suffix if keep_suffix else "")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes one file, see ``atomic_path``."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Writes one text file in UTF-8, see ``atomic_path``."""
    write_bytes(path, text.encode("utf-8"))


def write_together(files: Mapping[Path, bytes]) -> None:
    """Writes all files beside their places, then renames them one after the other.

    Whatever fails while they are written leaves all old files as they were.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = _temporary(path)
            staged[path].write_bytes(data)
        for path, temporary in staged.items():
            os.replace(temporary, path)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def link_file(source: str | Path, path: str | Path) -> None:
    """Makes ``path`` another name of the file ``source`` (a copy where the file system has no hard links)."""
    with atomic_path(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)


def _temporary(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp{suffix}")
