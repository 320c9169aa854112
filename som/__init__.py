"""The 4D scene: Gaussians that move, optimised against one video.

Importing this package is cheap: torch, numba and gsplat are loaded by the sub-packages that need them, so that the
commands can print their help at once.
"""

__version__ = "0.1.0"
