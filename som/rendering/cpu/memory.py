"""Scratch memory that is used again.

Fresh memory from the system costs a page fault per 4 KiB, which for the larger arrays of one call is as much time as
the calculation itself. Buffers therefore go back to a pool when they are no longer needed, the pool keeps at most
KEPT_BYTES, and what is beyond is freed. All arrays begin on a 64-byte boundary: a register that lies across two cache
lines makes blending half as fast.
"""

from __future__ import annotations

import threading

import numpy as np

ALIGNMENT = 64
KEPT_BYTES = 64 * 2**20


def aligned_bytes(n: int) -> np.ndarray:
    raw = np.empty(n + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + n]


class _Pool:
    def __init__(self):
        self.lock = threading.Lock()
        self.free: list[np.ndarray] = []  # oldest first

    def take(self, n: int) -> np.ndarray:
        """At least n bytes, not initialised."""
        with self.lock:
            fitting = [k for k, buffer in enumerate(self.free) if n <= buffer.size <= 4 * n + 65536]
            if fitting:
                return self.free.pop(min(fitting, key=lambda k: self.free[k].size))
        return aligned_bytes(n + n // 4 + ALIGNMENT)

    def give_back(self, buffers: list[np.ndarray]) -> None:
        with self.lock:
            self.free.extend(buffers)
            while sum(buffer.size for buffer in self.free) > KEPT_BYTES:
                self.free.pop(0)


_pool = _Pool()


class Workspace:
    """Arrays of one call; they go back to the pool when the workspace is released or forgotten."""

    def __init__(self):
        self._buffers: list[np.ndarray] = []

    def empty(self, n: int, dtype) -> np.ndarray:
        """(n,) not initialised"""
        size = n * np.dtype(dtype).itemsize
        buffer = _pool.take(size)
        self._buffers.append(buffer)
        return buffer[:size].view(dtype)

    def rows(self, n_rows: int, n: int, dtype) -> np.ndarray:
        """(n_rows, at least n) not initialised, each row on a boundary"""
        n += -n % (ALIGNMENT // np.dtype(dtype).itemsize)
        return self.empty(n_rows * n, dtype).reshape(n_rows, n)

    def release(self) -> None:
        """The arrays must not be used afterwards."""
        buffers, self._buffers = self._buffers, []
        _pool.give_back(buffers)

    def __del__(self):
        self.release()
