"""Compiled kernels on disk, valid as long as no source file of this package changes.

Numba's own cache looks only at the file that holds the cached function, but our kernels are made of functions from
several files (``simd.py`` is in all of them). Here the stamp of every cached kernel is a hash over all sources of the
package. Numba adds its version, the processor and the argument types to the key by itself.

The files go to ``__pycache__/kernels`` beside the sources, or, where that cannot be written (a read-only installation),
to the user's cache folder. ``SOM_CACHE_DIR`` names another place.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from pathlib import Path

from numba import njit
from numba.core import caching

_PACKAGE = Path(__file__).parent
_log = logging.getLogger(__name__)


def sources_hash(folder: Path = _PACKAGE) -> str:
    """Changes when any ``.py`` file in ``folder`` changes."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _user_cache_folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or tempfile.gettempdir()
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "som-rasterizer" / hashlib.sha256(str(_PACKAGE).encode()).hexdigest()[:16]


def cache_folder() -> Path | None:
    """The first of the possible folders that can be written; None if there is none."""
    chosen = os.environ.get("SOM_CACHE_DIR")
    candidates = [Path(chosen)] if chosen else [_PACKAGE / "__pycache__" / "kernels", _user_cache_folder()]
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return None


class _Locator(caching._CacheLocator):
    """Tells Numba where its files lie and what they depend on."""

    def __init__(self, py_func, folder: Path):
        self._name = py_func.__qualname__
        self._folder = folder

    def get_cache_path(self):
        return str(self._folder)

    def get_source_stamp(self):
        return sources_hash()

    def get_disambiguator(self):
        return self._name

    @classmethod
    def from_function(cls, py_func, py_file):
        folder = cache_folder()
        return None if folder is None else cls(py_func, folder)


class _CacheImplementation(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 (the name and form that Numba reads)


class _KernelCache(caching.FunctionCache):
    """Numba's cache with our locator, which also says when something has to be compiled."""

    _impl_class = _CacheImplementation
    _announced = False

    def load_overload(self, sig, target_context):
        found = super().load_overload(sig, target_context)
        if found is None:
            announce_compilation()
        return found


def announce_compilation() -> None:
    """One line per process, only if something is really compiled."""
    if not _KernelCache._announced:
        _KernelCache._announced = True
        _log.warning("compiling the CPU rasteriser (once per machine, less than a minute) ...")


_OPTIONS = {
    "nogil": True,
    "error_model": "numpy",  # division by zero gives infinity and no exception
    "_nrt": False,  # no counting of references to arrays: it would be atomic, at every call of every helper
}


def helper(function):
    """Decorator for a function that only kernels call; it is compiled into them and not cached by itself."""
    return njit(forceinline=True, **_OPTIONS)(function)


def kernel(function):
    """Decorator: compiles on first use, without the GIL, and keeps the result on disk.

    Kernels take arrays and numbers (and tuples of them), write their results into arrays and return nothing.
    """
    dispatcher = njit(**_OPTIONS)(function)
    try:
        dispatcher._cache = _KernelCache(function)
    except RuntimeError:  # Numba's "no locator available"
        _log.warning("no folder for compiled kernels can be written: they are compiled again in every process")
    return dispatcher
