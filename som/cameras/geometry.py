"""Projective geometry with OpenCV cameras: the one place where pixels, depths, poses and 3D points are converted.

Conventions: camera axes are x right, y down, z forward; ``w2c`` maps world to camera; the centre of the pixel in
column i and row j is (i + 0.5, j + 0.5); depth is z along the optical axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.cameras.rotations import rotvec_to_matrix, slerp

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""From OpenCV's camera axes to OpenGL's (x right, y up, z backward), or back: its own inverse."""


def pixel_centers(height: int, width: int, *, device=None, dtype=torch.float32) -> Float[Tensor, "h w 2"]:
    """Continuous image coordinates (x, y) of all pixel centres."""
    y = torch.arange(height, device=device, dtype=dtype) + 0.5
    x = torch.arange(width, device=device, dtype=dtype) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def invert_se3(T: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Inverse of rigid transforms: R' = R^T, t' = -R^T t."""
    R_inv = T[..., :3, :3].transpose(-1, -2)
    t_inv = -(R_inv @ T[..., :3, 3:])
    bottom = T.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*T.shape[:-2], 1, 4)
    return torch.cat([torch.cat([R_inv, t_inv], dim=-1), bottom], dim=-2)


def camera_centers(w2c: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 3"]:
    """Camera positions in the world, -R^T t."""
    return -(w2c[..., :3, :3].transpose(-1, -2) @ w2c[..., :3, 3:])[..., 0]


def transform_points(T_b_a: Float[Tensor, "*#b 4 4"], points: Float[Tensor, "*#b n 3"]) -> Float[Tensor, "*#b n 3"]:
    """Maps points from frame a into frame b; the leading dimensions broadcast."""
    return points @ T_b_a[..., :3, :3].transpose(-1, -2) + T_b_a[..., None, :3, 3]


def unproject(
    xy: Float[Tensor, "*#b n 2"], depth: Float[Tensor, "*#b n"], K: Float[Tensor, "*#b 3 3"]
) -> Float[Tensor, "*#b n 3"]:
    """Points in the camera frame, z K^-1 (x, y, 1), for a K without skew."""
    x = (xy[..., 0] - K[..., None, 0, 2]) / K[..., None, 0, 0]
    y = (xy[..., 1] - K[..., None, 1, 2]) / K[..., None, 1, 1]
    return torch.stack([x * depth, y * depth, depth], dim=-1)


def unproject_to_world(
    xy: Float[Tensor, "*#b n 2"],
    depth: Float[Tensor, "*#b n"],
    K: Float[Tensor, "*#b 3 3"],
    w2c: Float[Tensor, "*#b 4 4"],
) -> Float[Tensor, "*#b n 3"]:
    """Points in the world frame seen at image coordinates ``xy`` with z-depth ``depth``."""
    return transform_points(invert_se3(w2c), unproject(xy, depth, K))


def project(
    points_cam: Float[Tensor, "*#b n 3"], K: Float[Tensor, "*#b 3 3"], min_depth: float = 1e-5
) -> tuple[Float[Tensor, "*#b n 2"], Float[Tensor, "*#b n"]]:
    """Perspective projection of camera-frame points.

    Returns:
        image coordinates (x, y) in pixels, with the depth clamped to at least ``min_depth`` so that points behind the
        camera stay finite, and the true depths z (unclamped; callers decide visibility by z > 0).
    """
    x, y, z = points_cam.unbind(-1)
    safe = z.clamp(min=min_depth)
    x = x / safe * K[..., None, 0, 0] + K[..., None, 0, 2]
    y = y / safe * K[..., None, 1, 1] + K[..., None, 1, 2]
    return torch.stack([x, y], dim=-1), z


def project_from_world(
    points: Float[Tensor, "*#b n 3"],
    K: Float[Tensor, "*#b 3 3"],
    w2c: Float[Tensor, "*#b 4 4"],
    min_depth: float = 1e-5,
) -> tuple[Float[Tensor, "*#b n 2"], Float[Tensor, "*#b n"]]:
    """``project`` after moving world points into the camera frame."""
    return project(transform_points(w2c, points), K, min_depth)


def sample_image(
    image: Float[Tensor, "b h w c"], xy: Float[Tensor, "b n 2"], mode: str = "bilinear"
) -> Float[Tensor, "b n c"]:
    """Values of an image at continuous image coordinates, clamped at the border.

    Args:
        mode: ``bilinear`` or ``nearest``. Bilinear sampling exactly at a pixel centre returns that pixel.
    """
    h, w = image.shape[1:3]
    grid = xy / xy.new_tensor([w, h]) * 2.0 - 1.0
    out = F.grid_sample(
        image.permute(0, 3, 1, 2), grid[:, :, None], mode=mode, padding_mode="border", align_corners=False
    )
    return out[..., 0].permute(0, 2, 1)


def sample_depth(
    depth: Float[Tensor, "b h w"], xy: Float[Tensor, "b n 2"], max_ratio: float = 1.2
) -> Float[Tensor, "b n"]:
    """Depth at continuous image coordinates that never mixes two surfaces.

    Bilinear where the four neighbours are known and within ``max_ratio`` of each other, otherwise the nearest pixel's
    value; 0 (unknown) where the nearest pixel is unknown or the coordinates lie outside the image.
    """
    h, w = depth.shape[1:3]
    batch = torch.arange(depth.shape[0], device=depth.device)[:, None]
    x, y = xy[..., 0] - 0.5, xy[..., 1] - 0.5
    x0, y0 = x.floor(), y.floor()
    fx, fy = x - x0, y - y0

    def at(col: Tensor, row: Tensor) -> Tensor:
        return depth[batch, row.long().clamp(0, h - 1), col.long().clamp(0, w - 1)]

    corners = torch.stack([at(x0, y0), at(x0 + 1, y0), at(x0, y0 + 1), at(x0 + 1, y0 + 1)])
    weights = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    smooth = (corners > 0).all(0) & (corners.amax(0) <= max_ratio * corners.amin(0))
    nearest = at(xy[..., 0].floor(), xy[..., 1].floor())
    value = torch.where(smooth, (corners * weights).sum(0), nearest)
    return torch.where(in_image(xy, h, w), value, torch.zeros_like(value))


def in_image(xy: Float[Tensor, "*b 2"], height: int, width: int) -> Bool[Tensor, "*b"]:
    """Whether image coordinates lie inside the image rectangle [0, width) x [0, height)."""
    x, y = xy[..., 0], xy[..., 1]
    return (x >= 0) & (y >= 0) & (x < width) & (y < height)


def resize_intrinsics(K: Float[Tensor, "*b 3 3"], scale_x: float, scale_y: float) -> Float[Tensor, "*b 3 3"]:
    """K of the image resized by (scale_x, scale_y); with centres at +0.5 the rows scale and nothing else changes."""
    return K * K.new_tensor([scale_x, scale_y, 1.0])[:, None]


def _assemble_se3(R: Float[Tensor, "*b 3 3"], t: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    bottom = R.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*R.shape[:-2], 1, 4)
    return torch.cat([torch.cat([R, t[..., None]], dim=-1), bottom], dim=-2)


def axis_angle_to_se3(v: Float[Tensor, "*b 3"], t: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """Rigid transforms [R | t] from rotation vectors, see ``rotvec_to_matrix``.

    Args:
        v: rotation axis times angle in radians.
        t: translation in any unit, the same shape.

    Raises:
        ValueError: the shapes differ or do not end in 3.
    """
    if v.shape != t.shape or v.shape[-1:] != (3,):
        raise ValueError(f"axis_angle_to_se3: v {tuple(v.shape)} and t {tuple(t.shape)} must both be (...,3).")
    return _assemble_se3(rotvec_to_matrix(v), t)


def euler_to_se3(angles: Float[Tensor, "*b 3"], t: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """Rigid transforms [R | t] with R = Rx(angles[0]) Ry(angles[1]) Rz(angles[2]), as SfMLearner's pose nets have it.

    Args:
        angles: radians around the x, y and z axis.
        t: translation in any unit, the same shape.

    Raises:
        ValueError: the shapes differ or do not end in 3.
    """
    if angles.shape != t.shape or angles.shape[-1:] != (3,):
        raise ValueError(f"euler_to_se3: angles {tuple(angles.shape)} and t {tuple(t.shape)} must both be (...,3).")
    cx, cy, cz = angles.cos().unbind(-1)
    sx, sy, sz = angles.sin().unbind(-1)
    rows = [
        *(cy * cz, -cy * sz, sy),
        *(cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy),
        *(sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy),
    ]
    return _assemble_se3(torch.stack(rows, dim=-1).unflatten(-1, (3, 3)), t)


def flip_intrinsics(K: Float[Tensor, "*b 3 3"], width: float) -> Float[Tensor, "*b 3 3"]:
    """K of the image mirrored left to right: cx' = width - cx. A relative pose is mirrored with it, ``flip_pose``."""
    sign = K.new_tensor([[1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    shift = K.new_tensor([[0.0, 0.0, width], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    return K * sign + shift


def flip_pose(T: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """The rigid transform between the mirrored worlds, F T F with F = diag(-1, 1, 1, 1), for images flipped in x.

    Serves relative poses and ``w2c`` alike. Flipping the images and ``K`` alone describes another camera motion.
    """
    sign = T.new_tensor([-1.0, 1.0, 1.0, 1.0])
    return T * sign * sign[:, None]


def _check_views(name: str, depth: Tensor, K_tgt: Tensor, K_src: Tensor, T_src_tgt: Tensor) -> None:
    if depth.ndim != 4 or depth.shape[1] != 1:
        raise ValueError(f"{name}: depth must be (B,1,H,W), got {tuple(depth.shape)}.")
    B = depth.shape[0]
    for label, matrix, side in (("K_tgt", K_tgt, 3), ("K_src", K_src, 3), ("T_src_tgt", T_src_tgt, 4)):
        if matrix.shape != (B, side, side):
            raise ValueError(f"{name}: {label} must be ({B},{side},{side}), got {tuple(matrix.shape)}.")


def reproject(
    depth: Float[Tensor, "b 1 h w"],
    K_tgt: Float[Tensor, "b 3 3"],
    K_src: Float[Tensor, "b 3 3"],
    T_src_tgt: Float[Tensor, "b 4 4"],
    min_depth: float = 1e-3,
) -> tuple[Float[Tensor, "b h w 2"], Float[Tensor, "b 1 h w"]]:
    """Where every pixel of a target view lies in a source view.

    Args:
        depth: z of the target's pixels; T_src_tgt translates in the same unit.
        K_tgt, K_src: intrinsics in pixels of the two images, whose sizes may differ.
        T_src_tgt: maps target-camera points into the source camera.
        min_depth: smallest z that is divided by, so that points beside or behind the source camera stay finite.

    Returns:
        image coordinates (x, y) in pixels of the source, and z in the source camera (not clamped).

    Raises:
        ValueError: a shape is wrong.
    """
    _check_views("reproject", depth, K_tgt, K_src, T_src_tgt)
    H, W = depth.shape[-2:]
    depth = depth.to(torch.promote_types(depth.dtype, torch.float32))
    # With A = K_src R K_tgt^-1 and b = K_src t, the pixel p goes to (z A p + b) / (its third row). Written as p plus a
    # displacement, float32 is exact for no motion and loses nothing to large coordinates under small motion. The 3x3
    # products are in float64, which autocast leaves alone.
    K, T = K_src.double(), T_src_tgt.double()
    A = K @ T[:, :3, :3] @ torch.linalg.inv_ex(K_tgt.double()).inverse
    A = (A - torch.eye(3, dtype=A.dtype, device=A.device)).to(depth.dtype)[..., None, None]
    b = (K @ T[:, :3, 3:]).to(depth.dtype)[..., None]
    x = torch.arange(W, device=depth.device, dtype=depth.dtype) + 0.5
    y = (torch.arange(H, device=depth.device, dtype=depth.dtype) + 0.5)[:, None]
    a_x, a_y, a_z = (A[:, k : k + 1, 0] * x + (A[:, k : k + 1, 1] * y + A[:, k : k + 1, 2]) for k in range(3))
    b_x, b_y, b_z = b.split(1, dim=1)
    z = depth * (a_z + 1) + b_z
    safe = z.clamp(min=min_depth)
    x_src = x + (depth * (a_x - x * a_z) + (b_x - x * b_z)) / safe
    y_src = y + (depth * (a_y - y * a_z) + (b_y - y * b_z)) / safe
    return torch.stack([x_src[:, 0], y_src[:, 0]], dim=-1), z


def sample_map(source: Float[Tensor, "b c hs ws"], xy: Float[Tensor, "b h w 2"]) -> Float[Tensor, "b c h w"]:
    """Bilinear samples of a dense map at image coordinates in pixels, clamped at the border; exact at pixel centres.

    grid_sample normalises coordinates by the size, which in float32 moves them by some 1e-7 of it, unless the size is a
    power of two. So the map is padded to one; the clamped coordinates never touch the padding.
    """
    H, W = source.shape[-2:]
    full_h, full_w = (1 << (side - 1).bit_length() for side in (H, W))
    x, y = xy[..., 0].clamp(0.5, W - 0.5), xy[..., 1].clamp(0.5, H - 0.5)
    grid = torch.stack([x * (2.0 / full_w) - 1.0, y * (2.0 / full_h) - 1.0], dim=-1)
    padded = F.pad(source, (0, full_w - W, 0, full_h - H))
    return F.grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class Warp(NamedTuple):
    """A source view seen from a target view, see ``warp``."""

    values: Float[Tensor, "b c h w"]
    """The source's values at each target pixel; where ``in_view`` is False, those of the nearest border pixel."""
    in_view: Bool[Tensor, "b 1 h w"]
    """Whether the target's depth is known and its point lies in front of the source camera and in its image."""
    depth: Float[Tensor, "b 1 h w"]
    """z of the target's points in the source camera, at least ``min_depth``."""
    xy: Float[Tensor, "b h w 2"]
    """Image coordinates of the target's points in the source, in pixels."""


def warp(
    source: Float[Tensor, "b c hs ws"],
    depth: Float[Tensor, "b 1 h w"],
    K_tgt: Float[Tensor, "b 3 3"],
    K_src: Float[Tensor, "b 3 3"],
    T_src_tgt: Float[Tensor, "b 4 4"],
    min_depth: float = 1e-3,
) -> Warp:
    """Inverse warp: samples a source view, bilinearly, where the target's pixels are seen in it.

    The two views may be neighbours in time or any posed pair, and of different sizes. No motion returns the source
    exactly, at every pixel, borders included. Occlusion is not looked at: see the depths that it returns for that.

    Args:
        source: image, depth or any dense map of the source view, (B,C,Hs,Ws), same batch.
        depth: z of the target's pixels (B,1,H,W), 0 = unknown.
        K_tgt, K_src: intrinsics in pixels of the target and source image.
        T_src_tgt: maps target-camera points into the source camera, in the unit of the depth.
        min_depth: points with less z in the source camera are out of view.

    Raises:
        ValueError: a shape is wrong.
    """
    if source.ndim != 4 or source.shape[0] != depth.shape[0]:
        raise ValueError(f"warp: source must be ({depth.shape[0]},C,H,W), got {tuple(source.shape)}.")
    xy, z = reproject(depth, K_tgt, K_src, T_src_tgt, min_depth)
    Hs, Ws = source.shape[-2:]
    values = sample_map(source.to(xy.dtype), xy)
    in_view = in_image(xy, Hs, Ws)[:, None] & (z > min_depth) & (depth > 0)
    return Warp(values, in_view, z.clamp(min=min_depth), xy)


def triangulate(
    rays: Float[np.ndarray, "m 3"],
    w2c: Float[np.ndarray, "m 4 4"],
    point: Int[np.ndarray, "m"],
    num_points: int,
) -> Float[np.ndarray, "p 4"]:
    """Homogeneous points of norm 1 that are nearest to their rays in the least-squares sense (DLT).

    Each ray d of a camera [R | t] gives d × (R x[:3] + x[3] t) = 0 (Hartley and Zisserman 2003, section 12.2). Signs
    are such that most of the cameras have the point in front of them.

    Args:
        rays: directions of the observations in camera axes.
        w2c: camera of each observation.
        point: which point each observes.
    """
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    P = w2c[:, :3]
    equations = np.cross(rays[:, :, None], P, axisa=1, axisb=1, axisc=1)
    normal = np.zeros((num_points, 4, 4))
    np.add.at(normal, point, np.einsum("mij,mik->mjk", equations, equations))
    X = np.linalg.eigh(normal)[1][:, :, 0]
    z = np.einsum("mj,mj->m", P[:, 2], X[point])
    votes = np.bincount(point, np.sign(z), minlength=num_points)
    return X * np.where(votes < 0, -1.0, 1.0)[:, None]


def max_parallax(
    points: Float[np.ndarray, "p 3"],
    centers: Float[np.ndarray, "t 3"],
    frame: Int[np.ndarray, "m"],
    point: Int[np.ndarray, "m"],
) -> Float[np.ndarray, "p"]:
    """About the widest angle in degrees at which each point is seen: twice over, the ray farthest from another one.

    From the first ray to the one farthest from it, from there to the farthest again: never more than the true widest
    angle, and at least half of it.
    """
    rays = points[point] - centers[frame]
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-30)
    first = np.full(len(points), -1)
    first[point[::-1]] = np.arange(len(point))[::-1]
    reference = np.where(first >= 0, first, 0)
    angle = np.zeros(len(points))
    for _ in range(2):
        # sin(a/2) from the chord, exact for small angles where arccos is not
        chord = np.linalg.norm(rays - rays[reference[point]], axis=1)
        order = np.lexsort((chord, point))
        last = np.flatnonzero(np.append(point[order][1:] != point[order][:-1], True)) if len(order) else order
        farthest = order[last]
        reference[point[farthest]] = farthest
        angle[point[farthest]] = np.degrees(2 * np.arcsin(np.clip(chord[farthest] / 2, 0, 1)))
    return angle


def interpolate_poses(w2c: Float[np.ndarray, "t 4 4"], known: Bool[np.ndarray, "t"]) -> Float[np.ndarray, "t 4 4"]:
    """Poses of all frames: between known ones the centre moves evenly along a line and the rotation turns evenly about
    one axis; before the first and after the last known frame the camera stands still.

    Raises:
        ValueError: no frame is known.
    """
    times = np.flatnonzero(known)
    if len(times) == 0:
        raise ValueError("interpolate_poses needs at least one known frame.")
    result = w2c.copy()
    wanted = np.clip(np.arange(len(w2c)), times[0], times[-1])
    R = np.repeat(w2c[times, :3, :3], len(w2c), 0)
    if len(times) > 1:
        R = slerp(times, w2c[times, :3, :3], wanted)
    centers = -np.einsum("tji,tj->ti", w2c[times, :3, :3], w2c[times, :3, 3])
    centers = np.stack([np.interp(wanted, times, centers[:, i]) for i in range(3)], 1)
    missing = ~known
    result[missing, :3, :3] = R[missing]
    result[missing, :3, 3] = -np.einsum("tij,tj->ti", R, centers)[missing]
    return result
