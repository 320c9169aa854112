"""Where a command computes, and how the process is set up for it."""

from __future__ import annotations

import ctypes
import sys

import torch

from som.errors import UserError


def choose_device(name: str, threads: int = 0) -> torch.device:
    """The device that an option names (``auto``, ``cpu`` or ``cuda``), with the process set up for it.

    Args:
        threads: CPU threads; 0 leaves torch's choice.

    Raises:
        UserError: cuda was asked for and is not there, or the number of threads is negative.
    """
    if threads < 0:
        raise UserError(f"--threads: must be 0 or positive, got {threads}.")
    if threads:
        torch.set_num_threads(threads)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("--device cuda: no usable NVIDIA GPU was found; use --device cpu.")
    if available and name != "cpu":
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


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
