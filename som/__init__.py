"""The 4D scene: Gaussians that move, optimised against one video.

Importing this package is cheap: torch, numba and gsplat are loaded by the sub-packages that need them, so that the
commands can print their help at once.
"""

import os

# torch's OpenMP threads otherwise spin after every operation and starve the CPU rasteriser's own threads
# (and each other on a busy machine). Has to be set before torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
