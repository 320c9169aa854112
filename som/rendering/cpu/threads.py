"""Sharing one kernel call between threads.

A kernel is a compiled function without the GIL that does a whole pass (say, sorting, then drawing) in *stages*, each
split into numbered *chunks*. Several threads call the same kernel with the same arguments. Inside, each takes the
next free chunk of the current stage with an atomic counter until none is left, then waits until all chunks of the
stage are finished, and goes on to the next stage::

    while True:
        chunk = claim(progress, stage)
        if chunk >= n_chunks:
            break
        ...                                # the work of that chunk
        finish(progress, stage)
    wait_for(progress, stage, n_chunks)

What follows from that:

* a chunk is taken only by a thread that is running, so no stage ever waits for a thread that has not come: the
  calling thread alone would finish everything, and a helper that comes late finds nothing to do and leaves;
* a late helper may still be there when the call has returned and its scratch memory serves another one, so a thread
  writes nothing before it has claimed a chunk: as long as one is claimed and not finished, the call goes on;
* so any number of threads may call kernels at the same time, and they share the helpers;
* one hand-over to the helpers per pass, some 50 microseconds, instead of one per stage.

Which thread does which chunk must not matter to the result; the kernels write what each chunk computes to places of
its own. Numba's own parallel loops are not used: they compile slowly, bring a second OpenMP runtime beside torch's
(the spinning threads of the two starve each other), and one of their back ends refuses concurrent callers.
"""

from __future__ import annotations

import os
import queue
import sys
import threading

import numpy as np
from numba.core import types

from som.rendering.cpu.cache import helper
from som.rendering.cpu.simd import atomic_add, atomic_get

_LINE = 16  # numbers between two counters, so that they lie on cache lines of their own
_yield_thread = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)


def new_progress(n_stages: int) -> np.ndarray:
    """The counters of one kernel call: arrivals, then chunks claimed and chunks finished of every stage."""
    return np.zeros(_LINE * (1 + 2 * n_stages), np.int64)


@helper
def enter(progress):
    """A number for the calling thread, different for each: 0, 1, ..."""
    return atomic_add(progress, 0, 1)


@helper
def claim(progress, stage):
    """The next chunk of a stage; beyond the last if there is none left."""
    return atomic_add(progress, _LINE * (1 + 2 * stage), 1)


@helper
def finish(progress, stage):
    """Says that one claimed chunk is done."""
    atomic_add(progress, _LINE * (2 + 2 * stage), 1)


@helper
def wait_for(progress, stage, n_chunks):
    """Returns when all chunks of a stage are done, and everything written by them can be seen."""
    looks = 0
    while atomic_get(progress, _LINE * (2 + 2 * stage)) < n_chunks:
        looks += 1
        if looks > 100:  # a chunk may belong to a thread that the system has put aside
            _yield_thread()


class _Helpers:
    """Daemon threads that wait for kernel calls to join; started when first needed, one set per process."""

    def __init__(self):
        self.calls = queue.SimpleQueue()
        self.count = 0
        self.lock = threading.Lock()

    def invite(self, kernel, arguments, n: int) -> None:
        with self.lock:
            while self.count < n:
                threading.Thread(target=self._serve, name=f"som-raster-{self.count}", daemon=True).start()
                self.count += 1
        for _ in range(n):
            self.calls.put((kernel, arguments))

    def _serve(self):
        while True:
            kernel, arguments = self.calls.get()
            kernel(*arguments)
            del kernel, arguments  # or the arrays would live until the next call


_helpers = _Helpers()


def _forget_helpers():
    """Threads do not survive a fork: the child starts its own."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)


def run_kernel(kernel, n_threads: int, *arguments) -> None:
    """Calls ``kernel(*arguments)`` in this thread and, if they come in time, in ``n_threads - 1`` helpers."""
    if n_threads > 1 and kernel.overloads:  # the very first call compiles, which helpers cannot help with
        _helpers.invite(kernel, arguments, n_threads - 1)
    kernel(*arguments)
