"""Where a run computes, and how a command sets up its process. Free of torch to import."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flow.process import limit_thread_spinning
from som.errors import UserError

if TYPE_CHECKING:
    import torch


def choose_device(device: str | torch.device) -> torch.device:
    """The device meant by ``auto``, ``cpu``, ``cuda`` or a ``torch.device``; changes nothing.

    Raises:
        UserError: cuda was asked for and is not there, or something that is neither cpu nor cuda.
    """
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise UserError(f"`device` must be auto, cpu or cuda, got {device!r}.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"`device` must be auto, cpu or cuda, got {device!r}.")
    if chosen.type == "cuda" and not available:
        raise UserError(f"`device` {chosen}: no usable NVIDIA GPU was found; use cpu.")
    return chosen


def set_up_process(threads: int = 0) -> None:
    """What a command sets for its whole process; a library function never does.

    Called before torch is first imported, it keeps torch's idle threads from spinning; and it keeps freed memory in the
    process. May be called again, once the number of threads is known.

    Args:
        threads: CPU threads; 0 leaves torch's choice.

    Raises:
        UserError: the number of threads is negative.
    """
    if threads < 0:
        raise UserError(f"`threads`: must be 0 or positive, got {threads}.")
    limit_thread_spinning()
    keep_freed_memory()
    if threads:
        import torch

        torch.set_num_threads(threads)


def keep_freed_memory() -> bool:
    """Makes glibc keep large freed blocks for the next tensor instead of handing them back to the system.

    By default every large tensor is mapped anew and its pages are faulted in one by one, on which an optimisation step
    can spend most of its time. Returns whether it was done (only with glibc on Linux).
    """
    if not sys.platform.startswith("linux"):
        return False
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(mmap_threshold, 1 << 30)) and bool(mallopt(trim_threshold, (1 << 31) - 1))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's own generators of the CPU and ``device`` start from the seed; afterwards they are as before."""
    import torch

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
