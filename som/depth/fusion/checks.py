"""Checks of cameras and maps, with one sentence for what is wrong."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from som.depth.errors import DepthError

MAX_RIGIDITY_ERROR = 1e-3
"""Largest error of R^T R, and of the last row, of a pose."""


def check_cameras(
    Ks: Float[Tensor, "t 3 3"], w2cs: Float[Tensor, "t 4 4"], count: int, size: tuple[int, int]
) -> tuple[Float[Tensor, "t 3 3"], Float[Tensor, "t 4 4"]]:
    """Intrinsics and poses of ``count`` images of ``size`` (height, width), checked, in float64.

    Raises:
        DepthError: a shape is wrong, a value is not finite, a pose is not rigid, or K does not belong to the image.
    """
    for name, given, shape in (("Ks", Ks, (count, 3, 3)), ("w2cs", w2cs, (count, 4, 4))):
        if not isinstance(given, Tensor) or tuple(given.shape) != shape:
            got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise DepthError(f"{name} must be a tensor of shape {shape}, one matrix per image, got {got}.")
        if not bool(given.isfinite().all()):
            raise DepthError(f"{name} must be finite; frame {_first(~given.isfinite().flatten(1).all(1))} is not.")
    K, pose = Ks.detach().double(), w2cs.detach().double()
    height, width = size
    focal, center = K[:, [0, 1], [0, 1]], K[:, :2, 2]
    limit = center.new_tensor([width, height])
    bad = ~((focal > 0).all(1) & (center >= 0).all(1) & (center <= limit).all(1))
    bad |= (K[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] - K.new_tensor([0, 0, 0, 0, 1])).abs().amax(1) > 1e-6
    if bool(bad.any()):
        t = _first(bad)
        raise DepthError(
            f"Ks[{t}] does not fit images of {width}x{height} px: fx {K[t, 0, 0]:.6g}, fy {K[t, 1, 1]:.6g}, "
            f"cx {K[t, 0, 2]:.6g}, cy {K[t, 1, 2]:.6g}; it must be in their pixels, without skew."
        )
    R = pose[:, :3, :3]
    error = (R.transpose(1, 2) @ R - torch.eye(3, device=R.device)).abs().flatten(1).amax(1)
    last = (pose[:, 3] - pose.new_tensor([0, 0, 0, 1])).abs().amax(1)
    bad = (error > MAX_RIGIDITY_ERROR) | (last > MAX_RIGIDITY_ERROR) | (torch.linalg.det(R) < 0)
    if bool(bad.any()):
        raise DepthError(f"w2cs[{_first(bad)}] is not a rigid motion (a rotation and a translation); check the poses.")
    return K, pose


def check_maps(name: str, maps: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """Raises DepthError unless ``maps`` is a tensor of this shape (-1 is any) and type (None is finite floats)."""
    given = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
    expected = str(shape).replace("-1", "any")
    if not isinstance(maps, Tensor) or maps.ndim != len(shape):
        raise DepthError(f"{name} must be a tensor of shape {expected}, got {given}.")
    if any(want not in (-1, got) for want, got in zip(shape, maps.shape, strict=True)):
        raise DepthError(f"{name} must be of shape {expected}, got {given}.")
    if dtype is not None:
        if maps.dtype != dtype:
            raise DepthError(f"{name} must be of type {dtype}, got {maps.dtype}.")
    elif not maps.dtype.is_floating_point:
        raise DepthError(f"{name} must be floating point, got {maps.dtype}.")
    elif not bool(maps.isfinite().all()):
        raise DepthError(f"{name} must be finite; it holds nan or inf.")


def _first(bad: Tensor) -> int:
    return int(bad.nonzero()[0])
