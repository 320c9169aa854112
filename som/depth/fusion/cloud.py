"""Depth maps and poses to one coloured point cloud, keeping only what several views agree on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real
from scipy.spatial import cKDTree
from torch import Tensor

from som.cameras.geometry import invert_se3, pixel_centers, resize_intrinsics, sample_image, transform_points, unproject
from som.depth.errors import DepthError
from som.depth.fusion.checks import check_cameras, check_maps
from som.depth.fusion.consistency import Agreement, compare_views, pick_views
from som.depth.fusion.options import FusionOptions
from som.depth.views import overlap_and_parallax


@dataclass(frozen=True, eq=False)
class ViewCheck:
    """Which pixels of all depth maps are confirmed."""

    keep: Bool[Tensor, "t h w"]
    """Passed every test."""
    views: Int[Tensor, "t h w"]
    """Number of other views that agree."""
    confidence: Float[Tensor, "t h w"]
    """In [0, 1]: the share of the views compared with that agree; 0 where a pixel is not kept."""


@dataclass(frozen=True, eq=False)
class PointCloud:
    """N coloured points in the world frame, in the unit of the poses."""

    points: Float[np.ndarray, "n 3"]
    """float32."""
    colors: Float[np.ndarray, "n 3"]
    """RGB in [0, 1], float32."""
    confidence: Float[np.ndarray, "n"]
    """In [0, 1], float32."""
    views: Int[np.ndarray, "n"]
    """Number of views that agree on the point beside the one it comes from, int32; the largest of merged points."""

    def __len__(self) -> int:
        return len(self.points)


def check_views(
    depths: Float[Tensor, "t h w"],
    Ks: Float[Tensor, "t 3 3"],
    w2cs: Float[Tensor, "t 4 4"],
    options: FusionOptions = FusionOptions(),  # noqa: B008 (frozen)
    size: tuple[int, int] | None = None,
) -> ViewCheck:
    """Drops the border, depth edges and the ends of the range, then keeps what ``min_views`` other views agree on.

    Args:
        depths: z-depth in the unit of the poses, 0 = unknown.
        Ks: intrinsics in pixels of images of ``size``; they are scaled to the depth maps here.
        w2cs: world-to-camera poses.
        size: (height, width); None if ``Ks`` are in pixels of the depth maps.

    Raises:
        DepthError: bad input, or fewer than two views.
    """
    depths, K, w2c = _checked(depths, Ks, w2cs, size)
    keep, votes, confidence = (torch.zeros_like(depths) for _ in range(3))
    for t, check, others in _checks(depths, K, w2c, options):
        votes[t] = check.agrees.sum(0)
        keep[t] = _kept(depths[t], votes[t], others, options)
        confidence[t] = keep[t] * votes[t] / others
    return ViewCheck(keep > 0, votes.int(), confidence)


def fuse_points(
    depths: Float[Tensor, "t h w"],
    images: Float[Tensor, "t 3 H W"],
    Ks: Float[Tensor, "t 3 3"],
    w2cs: Float[Tensor, "t 4 4"],
    options: FusionOptions = FusionOptions(),  # noqa: B008 (frozen)
) -> PointCloud:
    """One cloud of all confirmed pixels: points averaged over agreeing views, merged in voxels, outliers removed.

    Args:
        depths: z-depth in the unit of the poses, 0 = unknown; may be of another size than the images.
        images: RGB in [0, 1]; they give the colours.
        Ks: intrinsics in pixels of the *images*; they are scaled to the depth maps here.
        w2cs: world-to-camera poses.

    Returns:
        the cloud, empty if no pixel is confirmed.

    Raises:
        DepthError: bad input, or fewer than two views.
    """
    check_maps("images", images, (len(depths), 3, -1, -1))
    depths, K, w2c = _checked(depths, Ks, w2cs, (images.shape[-2], images.shape[-1]))
    h, w = depths.shape[1:]
    xy = pixel_centers(h, w, device=depths.device)
    at = (xy * xy.new_tensor([images.shape[-1] / w, images.shape[-2] / h])).view(1, -1, 2)
    points, colors, confidence, views, footprints = [], [], [], [], []
    for t, check, others in _checks(depths, K, w2c, options):
        votes = check.agrees.sum(0)
        keep = _kept(depths[t], votes, others, options)
        own = unproject(xy.view(-1, 2), depths[t].view(-1), K[t].float()).view(h, w, 3)
        if options.average:
            theirs = torch.where(check.agrees[..., None], check.points, 0.0).sum(0)
            own = (own + theirs) / (votes[..., None] + 1)
        points.append(transform_points(invert_se3(w2c[t]), own[keep].double()))
        colors.append(sample_image(images[t].permute(1, 2, 0)[None].float().to(xy.device), at)[0].view(h, w, 3)[keep])
        confidence.append((votes / others)[keep])
        views.append(votes[keep])
        footprints.append((depths[t] / K[t, 0, 0].float())[keep])
    if not any(map(len, points)):
        nothing = np.zeros((0, 3), np.float32)
        return PointCloud(nothing, nothing, np.zeros(0, np.float32), np.zeros(0, np.int32))
    parts = [torch.cat(part).cpu().numpy() for part in (points, colors, confidence, views)]
    voxel = float(torch.cat(footprints).median()) if options.voxel is None else options.voxel
    xyz, rgb, trust, seen = _without_outliers(_merged(parts, voxel), options)
    return PointCloud(
        xyz.astype(np.float32), rgb.astype(np.float32), trust.astype(np.float32), seen.astype(np.int32)
    )


def _checked(
    depths: Tensor, Ks: Tensor, w2cs: Tensor, size: tuple[int, int] | None
) -> tuple[Float[Tensor, "t h w"], Float[Tensor, "t 3 3"], Float[Tensor, "t 4 4"]]:
    """Depth, intrinsics in pixels of the depth maps, and poses."""
    check_maps("depths", depths, (-1, -1, -1))
    T, h, w = depths.shape
    if T < 2:
        raise DepthError(f"comparing views needs at least two depth maps, got {T}.")
    if float(depths.amin()) < 0:
        raise DepthError("depths must not be negative; 0 means unknown.")
    H, W = (h, w) if size is None else size
    K, w2c = check_cameras(Ks, w2cs, T, (H, W))
    return depths.float(), resize_intrinsics(K, w / W, h / H).to(depths.device), w2c.to(depths.device)


def _kept(
    depth: Float[Tensor, "h w"], votes: Real[Tensor, "h w"], others: int, options: FusionOptions
) -> Bool[Tensor, "h w"]:
    """Known, confirmed, and away from the border, depth edges and the ends of the searched range."""
    good = torch.zeros_like(depth, dtype=torch.bool)
    h, w = depth.shape
    good[options.border : h - options.border, options.border : w - options.border] = True
    for dim in (0, 1):
        a, b = depth.narrow(dim, 0, depth.shape[dim] - 1), depth.narrow(dim, 1, depth.shape[dim] - 1)
        smooth = (a == 0) | (b == 0) | ((a - b).abs() <= options.max_jump * torch.minimum(a, b))
        good.narrow(dim, 0, smooth.shape[dim]).logical_and_(smooth)
        good.narrow(dim, 1, smooth.shape[dim]).logical_and_(smooth)
    if options.near is not None:
        good &= depth > options.near
    if options.far is not None:
        good &= depth < options.far
    return good & (depth > 0) & (votes >= min(options.min_views, others))


def _checks(depths: Tensor, K: Tensor, w2c: Tensor, options: FusionOptions) -> Iterator[tuple[int, Agreement, int]]:
    """For every view that others can confirm: its index, what they say, and how many they are.

    Pixels near the border or depth edges take part as witnesses; they are only not kept themselves.
    """
    size = (depths.shape[1], depths.shape[2])
    known = torch.where(depths > 0, depths, torch.full_like(depths, torch.nan))
    if bool(known.isnan().all()):
        return
    share, angle = overlap_and_parallax(w2c, K, float(known.nanmedian()), size)
    others = pick_views(share, angle, options.num_views, options.angles, min_overlap=0.3)
    if not any(others):
        raise DepthError(
            "no two views see the same part of the scene with enough parallax, so that none can confirm another; "
            "check the poses and the unit of the depth, or ask for smaller angles."
        )
    for t, picked in enumerate(others):
        if picked:
            check = compare_views(depths, K, w2c, t, picked, options.max_depth_error, options.max_reprojection)
            yield t, check, len(picked)


def _merged(parts: list[np.ndarray], voxel: float) -> list[np.ndarray]:
    """Means of the points, colours and confidences in each cube; the largest number of views."""
    if voxel == 0:
        return parts
    cells = np.floor(parts[0] / voxel).astype(np.int64)
    _, cell, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    cell = cell.reshape(-1)

    def mean(values: np.ndarray) -> np.ndarray:
        columns = values.reshape(len(values), -1).T
        total = np.stack([np.bincount(cell, column, minlength=len(count)) for column in columns], axis=1)
        return (total / count[:, None]).reshape(-1, *values.shape[1:])

    views = np.zeros(len(count), parts[3].dtype)
    np.maximum.at(views, cell, parts[3])
    return [*(mean(part) for part in parts[:3]), views]


def _without_outliers(parts: list[np.ndarray], options: FusionOptions) -> list[np.ndarray]:
    """Leaves out points whose mean distance to their neighbours is far above that of the others.

    Rusu et al., Towards 3D point cloud based object maps, 2008.
    """
    points = parts[0]
    if not options.neighbors or len(points) <= options.neighbors:
        return parts
    distance, _ = cKDTree(points).query(points, k=options.neighbors + 1)
    mean = distance[:, 1:].mean(1)
    kept = mean <= mean.mean() + options.max_sigma * mean.std()
    return [part[kept] for part in parts]
