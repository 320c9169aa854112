"""Checks of the arguments of :func:`som.rendering.rasterize`, each failing with one sentence.

Shapes, data types and devices are compared on every call; the values of the cameras are looked at too, because
a camera with a NaN in it draws an empty image without a word, and cameras are few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
RASTERIZE_MODES = ("classic", "antialiased")


@dataclass(frozen=True)
class SceneShape:
    """The sizes that all arguments of one call agree on."""

    batch: tuple[int, ...]
    """Leading dimensions, one entry per scene; ``()`` for a single scene without a batch dimension."""
    n_cameras: int
    """Cameras per scene, C."""
    n_gaussians: int
    """Gaussians per scene, N."""
    n_channels: int
    """Channels of ``colors``, D."""
    colors_per_view: bool
    """Whether ``colors`` has the camera dimension, (..., C, N, D), and not only (..., N, D)."""

    @property
    def n_scenes(self) -> int:
        return math.prod(self.batch)


def check_arguments(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    backgrounds: Tensor | None,
    render_mode: str,
    rasterize_mode: str,
) -> SceneShape:
    """Raises ``ValueError`` for the first argument that does not fit, and returns the common sizes."""
    tensors = dict(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=colors, viewmats=viewmats, Ks=Ks
    )
    if backgrounds is not None:
        tensors["backgrounds"] = backgrounds
    _check_modes_and_numbers(width, height, near_plane, far_plane, eps2d, render_mode, rasterize_mode)
    _check_types(tensors)
    shape = _check_shapes(tensors)
    _check_cameras(viewmats, Ks)
    return shape


def _check_modes_and_numbers(width, height, near_plane, far_plane, eps2d, render_mode, rasterize_mode) -> None:
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode: expected one of {', '.join(RENDER_MODES)}, got {render_mode!r}")
    if rasterize_mode not in RASTERIZE_MODES:
        raise ValueError(f"rasterize_mode: expected one of {', '.join(RASTERIZE_MODES)}, got {rasterize_mode!r}")
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value <= 0:
            raise ValueError(f"{name}: expected a positive whole number of pixels, got {value!r}")
    if not 0.0 < near_plane < far_plane:
        raise ValueError(f"near_plane: expected 0 < near_plane < far_plane, got {near_plane!r} and {far_plane!r}")
    if not 0.0 <= eps2d < math.inf:
        raise ValueError(f"eps2d: expected a finite number of square pixels, at least 0, got {eps2d!r}")


def _check_types(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name}: expected dtype torch.float32, got {tensor.dtype}")
        if tensor.device != tensors["means"].device:
            raise ValueError(
                f"{name}: expected to be on {tensors['means'].device} like means, got {tensor.device}"
            )


def _check_shapes(tensors: dict[str, Tensor]) -> SceneShape:
    def expect(name: str, *choices: tuple) -> None:
        got = tuple(tensors[name].shape)
        if got not in choices:
            raise ValueError(f"{name}: expected shape {' or '.join(map(str, choices))}, got {got}")

    means, colors, viewmats = tensors["means"], tensors["colors"], tensors["viewmats"]
    if means.dim() < 2 or means.shape[-1] != 3:
        raise ValueError(f"means: expected shape (..., N, 3), got {tuple(means.shape)}")
    batch, n = tuple(means.shape[:-2]), means.shape[-2]
    if math.prod(batch) == 0:
        raise ValueError(f"means: expected at least one scene in the leading dimensions, got {tuple(means.shape)}")
    expect("quats", (*batch, n, 4))
    expect("scales", (*batch, n, 3))
    expect("opacities", (*batch, n))
    if viewmats.dim() != len(batch) + 3 or viewmats.shape[:-3] != batch or viewmats.shape[-2:] != (4, 4):
        raise ValueError(f"viewmats: expected shape {(*batch, 'C', 4, 4)}, got {tuple(viewmats.shape)}")
    n_cameras = viewmats.shape[-3]
    if n_cameras == 0:
        raise ValueError(f"viewmats: expected at least one camera, got {tuple(viewmats.shape)}")
    expect("Ks", (*batch, n_cameras, 3, 3))
    if colors.dim() < 2 or colors.shape[-1] == 0:
        raise ValueError(f"colors: expected shape (..., N, D) with D >= 1, got {tuple(colors.shape)}")
    channels = colors.shape[-1]
    expect("colors", (*batch, n, channels), (*batch, n_cameras, n, channels))
    if "backgrounds" in tensors:
        expect("backgrounds", (*batch, n_cameras, channels))
    return SceneShape(batch, n_cameras, n, channels, colors_per_view=colors.dim() == len(batch) + 3)


def _check_cameras(viewmats: Tensor, Ks: Tensor) -> None:
    """On a GPU this waits for the device, once: three numbers, asked for together."""
    focal_lengths = Ks.diagonal(dim1=-2, dim2=-1)[..., :2]
    extremes = [viewmats.detach().abs().max(), Ks.abs().max(), focal_lengths.min()]  # NaN and infinity show in them
    largest_view, largest_K, smallest_focal_length = torch.stack(extremes).tolist()
    if not math.isfinite(largest_view):
        raise ValueError("viewmats: expected finite numbers, got NaN or infinity")
    if not math.isfinite(largest_K):
        raise ValueError("Ks: expected finite numbers, got NaN or infinity")
    if smallest_focal_length <= 0:
        raise ValueError(f"Ks: expected positive focal lengths, got {smallest_focal_length}")
