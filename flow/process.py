"""What a command sets up in its process before torch is imported; nothing here is done by importing the package."""

from __future__ import annotations

import os


def limit_thread_spinning() -> None:
    """Keeps torch's idle OpenMP threads from spinning for milliseconds, unless the environment says otherwise.

    Has no effect once torch has been imported. By default the threads spin after every operation and starve all other
    threads (those of the CPU rasteriser, those that compute flow fields, other programs). Not spinning at all makes
    every short operation wait for the system to wake them; some microseconds of it make an optimisation step a third
    faster.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
