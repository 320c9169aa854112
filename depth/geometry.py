"""Projective geometry with OpenCV cameras: the one place where pixels, depths and 3D points are converted.

Conventions: camera axes are x right, y down, z forward; ``w2c`` maps world to camera; the centre of the pixel in
column i and row j is (i + 0.5, j + 0.5); depth is z along the optical axis.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


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


def transform_points(T_b_a: Float[Tensor, "*b 4 4"], points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """Maps points from frame a into frame b; the leading dimensions broadcast."""
    return points @ T_b_a[..., :3, :3].transpose(-1, -2) + T_b_a[..., None, :3, 3]


def unproject(
    xy: Float[Tensor, "*b n 2"], depth: Float[Tensor, "*b n"], K: Float[Tensor, "*b 3 3"]
) -> Float[Tensor, "*b n 3"]:
    """Points in the camera frame, z K^-1 (x, y, 1), for a K without skew."""
    x = (xy[..., 0] - K[..., None, 0, 2]) / K[..., None, 0, 0]
    y = (xy[..., 1] - K[..., None, 1, 2]) / K[..., None, 1, 1]
    return torch.stack([x * depth, y * depth, depth], dim=-1)


def unproject_to_world(
    xy: Float[Tensor, "*b n 2"],
    depth: Float[Tensor, "*b n"],
    K: Float[Tensor, "*b 3 3"],
    w2c: Float[Tensor, "*b 4 4"],
) -> Float[Tensor, "*b n 3"]:
    """Points in the world frame seen at image coordinates ``xy`` with z-depth ``depth``."""
    return transform_points(invert_se3(w2c), unproject(xy, depth, K))


def project(
    points_cam: Float[Tensor, "*b n 3"], K: Float[Tensor, "*b 3 3"], min_depth: float = 1e-5
) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
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
    points: Float[Tensor, "*b n 3"], K: Float[Tensor, "*b 3 3"], w2c: Float[Tensor, "*b 4 4"], min_depth: float = 1e-5
) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
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
