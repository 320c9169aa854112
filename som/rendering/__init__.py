"""Drawing Gaussians: one call, :func:`rasterize`, on NVIDIA GPUs (gsplat) and on CPUs (our own kernels).

Importing this package compiles nothing and loads neither gsplat nor Numba; the first call does.
"""

from som.rendering.rasterization import RASTERIZE_MODES, RENDER_MODES, rasterize

__all__ = ["RASTERIZE_MODES", "RENDER_MODES", "rasterize"]
