"""The 4D scene: Gaussians that move, optimised against one video.

Importing this package is cheap: torch, numba and gsplat are loaded by the sub-packages that need them, so that the
commands can print their help at once.
"""

import os

# Has to be set before torch is first imported. By default torch's OpenMP threads spin for milliseconds after every
# operation and starve the CPU rasteriser's own threads (and each other on a busy machine). Not spinning at all makes
# every short operation wait for the system to wake them; some microseconds of it make a step a third faster.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "4000")

__version__ = "0.1.0"
