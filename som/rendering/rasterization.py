"""The one way in which this project draws Gaussians.

:func:`rasterize` has the meaning, the argument names and the results of ``gsplat.rasterization`` (1.5.3, not packed,
pinhole cameras, no spherical harmonics). CUDA tensors go to gsplat, CPU tensors to the kernels in
:mod:`som.rendering.cpu`; :mod:`som.rendering.reference` says in plain PyTorch what both compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from som.rendering.validation import RASTERIZE_MODES, RENDER_MODES, SceneShape, check_arguments

__all__ = ["RASTERIZE_MODES", "RENDER_MODES", "rasterize"]

TILE_SIZE = 16
Backend = Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]


def rasterize(
    means: Tensor,  # (..., N, 3)
    quats: Tensor,  # (..., N, 4) wxyz
    scales: Tensor,  # (..., N, 3)
    opacities: Tensor,  # (..., N)
    colors: Tensor,  # (..., N, D) or (..., C, N, D)
    viewmats: Tensor,  # (..., C, 4, 4)
    Ks: Tensor,  # (..., C, 3, 3)
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    *,
    eps2d: float = 0.3,
    backgrounds: Tensor | None = None,  # (..., C, D)
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
    absgrad: bool = False,
) -> tuple[Tensor, Tensor, dict]:
    """Draws N Gaussians of each scene into the C cameras of that scene; differentiable.

    All tensors are float32 and on one device. ``...`` stands for any number of leading dimensions, the same in all
    of them: one entry is one scene with its own Gaussians and cameras.

    Args:
        means: centres in world space.
        quats: rotations as quaternions, order wxyz, any norm.
        scales: standard deviations along the three axes, linear.
        opacities: in [0, 1].
        colors: features to blend, any number of channels D >= 1, shared by the cameras or one set per camera.
        viewmats: world-to-camera matrices, OpenCV axes (x right, y down, z forward).
        Ks: pinhole intrinsics in pixels; the centre of pixel (column i, row j) is (i + 0.5, j + 0.5). They get no
            gradient.
        width, height: size of the images in pixels.
        near_plane, far_plane: Gaussians whose centre lies outside this range of depths are left out.
        eps2d: square pixels added to both diagonal entries of each projected covariance.
        backgrounds: what is seen where nothing is drawn; zeros if not given. Depth always has background 0.
        render_mode: "RGB" the features; "D" depth along the optical axis, accumulated, ``sum_i w_i z_i``; "ED" that
            divided by alpha; "RGB+D" and "RGB+ED" the features with the depth as their last channel.
        rasterize_mode: "antialiased" makes a Gaussian smaller than a pixel fainter instead of larger.
        absgrad: after ``backward()``, ``info["means2d"].absgrad`` holds the sums over pixels of the absolute values
            of what each pixel adds to the gradient of ``means2d`` (AbsGS, arXiv 2404.10484).

    Returns:
        ``(renders, alphas, info)``: renders (..., C, H, W, X) with X = D, 1 or D + 1 channels, alphas
        (..., C, H, W, 1), and a dict with what density control needs: ``means2d`` (..., C, N, 2), part of the graph,
        so ``info["means2d"].retain_grad()`` before ``backward()`` keeps its gradient; ``radii`` (..., C, N, 2) int32,
        0 for what was culled; ``depths``, ``conics``, ``opacities`` (..., C, N, .); ``width``, ``height``,
        ``n_batches``, ``n_cameras``, ``tile_size``, ``tile_width``, ``tile_height``.

    Raises:
        ValueError: an argument has the wrong shape, type or device, or a camera is not finite.
    """
    shape = check_arguments(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, eps2d,
        backgrounds, render_mode, rasterize_mode,
    )  # fmt: skip
    if shape.n_gaussians == 0:
        return _rasterize_nothing(means, colors, backgrounds, shape, width, height, render_mode)
    gaussians = (means, quats, scales, opacities, colors)
    options: dict[str, Any] = dict(
        near_plane=float(near_plane), far_plane=float(far_plane), eps2d=float(eps2d), backgrounds=backgrounds,
        render_mode=render_mode, rasterize_mode=rasterize_mode, absgrad=bool(absgrad),
    )  # fmt: skip
    if means.device.type == "cuda":
        from som.rendering.gsplat_backend import rasterize_with_gsplat

        backend: Backend = rasterize_with_gsplat
    elif means.device.type == "cpu":
        from som.rendering.cpu import rasterize_on_cpu

        backend = rasterize_on_cpu
    else:
        raise ValueError(f"means: expected to be on a cpu or cuda device, got {means.device}")
    renders, alphas, info = backend(*gaussians, viewmats, Ks, int(width), int(height), shape=shape, **options)
    return renders, alphas, {**info, **image_info(shape, width, height)}


def _rasterize_nothing(means, colors, backgrounds, shape: SceneShape, width, height, render_mode):
    """No Gaussians at all: the backgrounds, with results of the usual shapes that are still part of a graph."""
    lead = (*shape.batch, shape.n_cameras)
    means2d = means[..., None, :, :2].expand(*lead, 0, 2)
    feature_channels = 0 if render_mode in ("D", "ED") else shape.n_channels
    depth_channels = 0 if render_mode == "RGB" else 1
    pixels = means.new_zeros(*lead, height, width, feature_channels + depth_channels)
    if backgrounds is not None and feature_channels:
        padding = backgrounds.new_zeros(*lead, depth_channels)
        pixels = pixels + torch.cat([backgrounds, padding], -1)[..., None, None, :]
    nothing = means2d.sum() + colors.sum()  # 0, and a path for gradients
    info = dict(
        means2d=means2d, radii=means.new_zeros(*lead, 0, 2, dtype=torch.int32), depths=means.new_zeros(*lead, 0),
        conics=means.new_zeros(*lead, 0, 3), opacities=means.new_zeros(*lead, 0), **image_info(shape, width, height),
    )  # fmt: skip
    return pixels + nothing, means.new_zeros(*lead, height, width, 1) + nothing, info


def image_info(shape: SceneShape, width: int, height: int) -> dict:
    """The part of ``info`` that does not depend on the Gaussians."""
    return dict(
        batch_ids=None, camera_ids=None, gaussian_ids=None,  # what gsplat's packed mode would need
        width=width, height=height, n_batches=shape.n_scenes, n_cameras=shape.n_cameras, tile_size=TILE_SIZE,
        tile_width=-(-width // TILE_SIZE), tile_height=-(-height // TILE_SIZE),
    )  # fmt: skip
