"""The road under the camera: normals from eight neighbours, camera height, robust plane, horizon.

Road normals point down, away from the camera, so that n . X of a road point X is the camera's height above the road.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import pixel_centers, unproject
from som.depth.metric_scale.statistics import masked_quantile

_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""(row, column) steps to the eight neighbours, counter-clockwise from the right."""


def _shift(image: Tensor, row: int, column: int) -> Tensor:
    """Interior pixels of (B,H,W,...) moved by a step of at most one: (B,H-2,W-2,...)."""
    H, W = image.shape[1:3]
    return image[:, 1 + row : H - 1 + row, 1 + column : W - 1 + column]


def _centers(depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "1 n 2"]:
    """Coordinates of all pixel centres of a depth map, in the order of ``flatten``."""
    return pixel_centers(*depth.shape[2:], device=depth.device, dtype=depth.dtype).flatten(0, 1)[None]


def _grow(image: Tensor) -> Tensor:
    """Puts a border of zeros around (B,H-2,W-2,...)."""
    return F.pad(image, [0, 0] * (image.ndim - 3) + [1, 1, 1, 1])


def interior(mask: Bool[Tensor, "b h w"]) -> Bool[Tensor, "b h w"]:
    """Pixels whose eight neighbours are in the mask too; none on the image border."""
    inside = _shift(mask, 0, 0)
    for row, column in _RING:
        inside = inside & _shift(mask, row, column)
    return _grow(inside)


def surface_normals(points: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b h w 3"]:
    """Unit normals from each pixel's eight neighbours, differentiable in the points.

    n = normalise(sum_i v_{i+2} x v_i) with v_i the vectors to the neighbours, counter-clockwise from the right: the
    formula of FUMET (Kinoshita and Nishino, ECCV 2024), taken over all eight pairs at right angles. The normal of a
    visible surface points away from the camera, on the road down. Zero on the image border and where the neighbours
    span no area.

    Raises:
        ValueError: the shape is not (B,H,W,3) with sides of at least 3.
    """
    if points.ndim != 4 or points.shape[-1] != 3 or min(points.shape[1:3]) < 3:
        raise ValueError(f"points must be (B,H,W,3) with sides of at least 3, got {tuple(points.shape)}.")
    center = _shift(points, 0, 0)
    v = [_shift(points, row, column) - center for row, column in _RING]
    area = sum(torch.linalg.cross(v[(i + 2) % 8], v[i], dim=-1) for i in range(8))
    squared = area.square().sum(-1, keepdim=True)
    spans = squared > torch.finfo(points.dtype).tiny
    length = torch.where(spans, squared, torch.ones_like(squared)).sqrt()
    return _grow(torch.where(spans, area / length, torch.zeros_like(area)))


def camera_heights(
    depth: Float[Tensor, "b 1 h w"], K: Float[Tensor, "b 3 3"], road: Bool[Tensor, "b h w"]
) -> tuple[Float[Tensor, "b h w"], Bool[Tensor, "b h w"]]:
    """Camera height n . X from every road pixel's own normal, in units of depth, and where it is defined.

    It is defined where the pixel and its eight neighbours are road of known depth (> 0); elsewhere it is 0 and carries
    no gradient. Differentiable through the normals.

    Raises:
        ValueError: the shapes disagree.
    """
    check_frames(depth, K, road)
    used = interior(road & (depth[:, 0] > 0))
    points = unproject(_centers(depth), depth.flatten(1), K.to(depth)).unflatten(1, depth.shape[2:])
    height = (surface_normals(points) * points).sum(-1)
    return torch.where(used, height, torch.zeros_like(height)), used


class RoadPlane(NamedTuple):
    """Planes n . X = height of B frames; nan where a frame has no road."""

    normal: Float[Tensor, "b 3"]
    """Unit normals in camera axes, pointing down."""
    height: Float[Tensor, "b"]
    """Height of the camera above the plane, in units of depth."""
    residual: Float[Tensor, "b"]
    """Median relative depth error of the road pixels against the plane: its roughness."""


@torch.no_grad()
def fit_road_plane(
    depth: Float[Tensor, "b 1 h w"],
    K: Float[Tensor, "b 3 3"],
    road: Bool[Tensor, "b h w"],
    iterations: int = 10,
    min_share: float = 0.01,
) -> RoadPlane:
    """Robust plane through the road pixels: m minimises sum w (m . X - 1)^2, then n = m / |m| and height = 1 / |m|.

    m . X - 1 is the relative error of depth against the plane. The weights are Tukey's biweight with the width
    4.685 x 1.4826 x median |residual|, recomputed ``iterations`` times; 0 iterations give the plain least squares of
    VADepth (RA-L 2022). The result is detached by intent: gradients through the inverse make training collapse.

    Args:
        depth: z, 0 = unknown.
        K: intrinsics in pixels.
        road: True on the road.
        iterations: number of reweightings.
        min_share: frames with road of known depth on a smaller share of their pixels get nan.

    Raises:
        ValueError: the shapes disagree.
    """
    check_frames(depth, K, road)
    kind, mask = depth.dtype, (road & (depth[:, 0] > 0)).flatten(1)
    depth = depth.double()
    points = unproject(_centers(depth), depth.flatten(1), K.double())
    points = torch.where(mask[..., None], points, torch.zeros_like(points))
    weights = mask.double()
    for step in range(iterations + 1):
        weighted = points * weights[..., None]
        m = torch.linalg.pinv(weighted.transpose(1, 2) @ points, hermitian=True) @ weighted.sum(1)[..., None]
        residual = ((points @ m)[..., 0] - 1).abs()
        typical = masked_quantile(residual, mask).nan_to_num(0.0)
        if step < iterations:
            # The floor keeps the weights defined on an exact plane.
            width = (4.685 * 1.4826 * typical).clamp(min=1e-6)[:, None]
            weights = (1 - (residual / width).clamp(max=1).square()).square() * mask
    length = torch.linalg.vector_norm(m[..., 0], dim=-1, keepdim=True)
    ok = (mask.double().mean(1) >= min_share) & mask.any(1) & (length[:, 0] > 0)
    nan = torch.full_like(length, torch.nan)
    length = torch.where(ok[:, None], length, nan)
    return RoadPlane(
        (m[..., 0] / length).to(kind),
        (1 / length[:, 0]).to(kind),
        torch.where(ok, typical, nan[:, 0]).to(kind),
    )


def horizon(normal: Float[Tensor, "b 3"], K: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b 3"]:
    """The horizon line l = K^-T n, scaled so that l . (x, y, 1) is the pixel distance from it, positive below it.

    Multiplying by ``horizon_scale`` gives K^-T n back.
    """
    line = torch.linalg.solve(K.transpose(-1, -2), normal[..., None])[..., 0]
    return line / torch.linalg.vector_norm(line[..., :2], dim=-1, keepdim=True)


def horizon_scale(normal: Float[Tensor, "b 3"], K: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b"]:
    """Length |(l_x, l_y)| of K^-T n: height above ground per depth and per pixel across the horizon; 1/f_y if level."""
    line = torch.linalg.solve(K.transpose(-1, -2), normal[..., None])[..., 0]
    return torch.linalg.vector_norm(line[..., :2], dim=-1)


def horizon_distance(line: Float[Tensor, "b 3"], height: int, width: int) -> Float[Tensor, "b h w"]:
    """Signed distance in pixels of all pixel centres from the horizon, positive below it."""
    xy = pixel_centers(height, width, device=line.device, dtype=line.dtype)
    a, b, c = (part[:, None, None] for part in line.unbind(-1))
    return a * xy[..., 0] + b * xy[..., 1] + c


def check_frames(depth: Tensor, K: Tensor, road: Tensor) -> None:
    if depth.ndim != 4 or depth.shape[1] != 1:
        raise ValueError(f"depth must be (B,1,H,W), got {tuple(depth.shape)}.")
    B, _, H, W = depth.shape
    if road.shape != (B, H, W) or K.shape != (B, 3, 3):
        raise ValueError(f"road and K must be {(B, H, W)} and {(B, 3, 3)}, got {tuple(road.shape)}, {tuple(K.shape)}.")
    if road.dtype != torch.bool:
        raise ValueError(f"road must be bool, got {road.dtype}.")
