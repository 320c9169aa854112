"""The rasteriser for CPUs: Numba kernels with explicit vectors, on all threads, differentiable.

Read in this order: ``projection`` (Gaussians to footprints), ``binning`` (footprints to tiles), ``blending_forward``
and ``blending_backward`` (tiles to pixels, and back), ``autograd`` (the kernels in PyTorch). Below them lie ``simd``
(vectors of 16 numbers), ``threads`` (sharing a kernel call), ``memory`` (buffers used again) and ``cache`` (compiled
code on disk).
"""

from __future__ import annotations

import torch
from torch import Tensor

from som.rendering.cpu.autograd import Blend, Frame, Project
from som.rendering.validation import SceneShape


def rasterize_on_cpu(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    shape: SceneShape,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    backgrounds: Tensor | None,
    render_mode: str,
    rasterize_mode: str,
    absgrad: bool,
) -> tuple[Tensor, Tensor, dict]:
    """:func:`som.rendering.rasterize` for checked arguments on the CPU; uses ``torch.get_num_threads()`` threads."""
    frame = Frame(
        shape.batch, shape.n_scenes, shape.n_cameras, shape.n_gaussians, width, height, near_plane, far_plane, eps2d,
        rasterize_mode == "antialiased", absgrad, max(1, torch.get_num_threads()),
    )  # fmt: skip
    handover: list = []
    means2d, conics, depths, view_opacities, radii = Project.apply(
        means, quats, scales, opacities, viewmats, Ks, frame, handover
    )
    features = (None, None) if render_mode in ("D", "ED") else (colors, backgrounds)
    renders, alphas = Blend.apply(
        means2d, conics, view_opacities, depths, *features, shape.colors_per_view, render_mode, frame,
        handover[0],
    )  # fmt: skip
    info = {
        "means2d": means2d, "conics": conics, "depths": depths, "opacities": view_opacities, "radii": radii
    }  # fmt: skip
    return renders, alphas, info
