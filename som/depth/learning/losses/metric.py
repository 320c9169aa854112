"""Losses that make depth metric: objects of known height, and the height of the camera above the road.

Both use absolute errors and act on single pixels: a likelihood with the tiny variance of the label explodes, and the
mean depth of a mask lets some of its pixels run away.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.depth.metric_scale.road import camera_heights


def rough_height_loss(
    depth: Float[Tensor, "b 1 h w"],
    ids: Int[Tensor, "b h w"],
    heights: Float[Tensor, "b n"],
    height_per_depth: Float[Tensor, "b n"],
    average: Literal["instance", "pixel"] = "instance",
) -> Float[Tensor, ""]:
    """Mean of |z_p h'_i - h_i| over the pixels p of all objects i: metres by which depth makes an object too tall.

    The rough geometric loss of FUMET (Kinoshita and Nishino, ECCV 2024), exact where an object is upright, its top face
    hidden and all of it visible. Its minimum makes objects flat, so it is to fade out.

    Args:
        depth: z > 0 in metres.
        ids: 0 or the number of the pixel's object in its frame, 1 ... N.
        heights: prior heights in metres; 0 leaves the object out, as outliers should be.
        height_per_depth: h', height in the image per unit of depth, (mask rows) / f_y for a level camera:
            ``som.depth.metric_scale.objects.height_per_depth_in_rows`` or ``FrameMeasurements.height_per_depth``.
        average: ``instance`` takes the mean over the pixels of an object, over the objects of a frame, and over the
            frames that have any; ``pixel`` counts all pixels alike.

    Returns:
        scalar in metres; a differentiable 0 without any object.

    Raises:
        ValueError: the shapes disagree or ``average`` is unknown.
    """
    B, H, W = ids.shape if ids.ndim == 3 else (-1, -1, -1)
    if depth.shape != (B, 1, H, W) or heights.shape != height_per_depth.shape or heights.shape[:1] != (B,):
        shapes = ", ".join(str(tuple(x.shape)) for x in (depth, ids, heights, height_per_depth))
        raise ValueError(f"rough_height_loss needs (B,1,H,W), (B,H,W), (B,N), (B,N); got {shapes}.")
    if average not in ("instance", "pixel"):
        raise ValueError(f'average must be "instance" or "pixel", got {average!r}.')
    N = heights.shape[1]
    heights, height_per_depth = heights.detach().to(depth), height_per_depth.detach().to(depth)
    counts = ((heights > 0) & height_per_depth.isfinite()).flatten()
    frame, row, column = ids.nonzero(as_tuple=True)
    groups = frame * N + ids[frame, row, column].long() - 1
    kept = counts[groups]
    frame, row, column, groups = frame[kept], row[kept], column[kept], groups[kept]
    if len(groups) == 0:
        return (depth * 0).sum()
    error = (depth[frame, 0, row, column] * height_per_depth.flatten()[groups] - heights.flatten()[groups]).abs()
    if average == "pixel":
        return error.mean()
    area = torch.bincount(groups, minlength=B * N)
    objects = (area > 0).view(B, N).sum(1)
    with_objects = (objects > 0).sum()
    return (error / (area[groups] * objects[frame] * with_objects)).sum()


def camera_height_loss(
    depth: Float[Tensor, "b 1 h w"],
    K: Float[Tensor, "b 3 3"],
    road: Bool[Tensor, "b h w"],
    label: float | Float[Tensor, "b"],
    min_road: float = 0.01,
) -> Float[Tensor, ""]:
    """Mean of |n_p . X_p - label| over road pixels p: metres by which depth misses the camera's height above the road.

    The fine geometric loss of FUMET, n_p from the eight neighbours of p and differentiable: with detached normals a
    wrong plane confirms itself.

    Args:
        depth: z > 0 in metres; 0 = unknown does not count.
        K: intrinsics in pixels.
        road: True on the road.
        label: the camera height in metres, one or one a frame.
        min_road: frames with road on a smaller share of their pixels do not count.

    Returns:
        scalar in metres; a differentiable 0 without road.

    Raises:
        ValueError: the shapes disagree or the label is not > 0.
    """
    label = torch.as_tensor(label, dtype=depth.dtype, device=depth.device).detach()
    if label.shape not in ((), depth.shape[:1]) or not bool((label > 0).all()):
        raise ValueError(f"label must be one camera height > 0, or {depth.shape[0]} of them, got {label.tolist()}.")
    height, used = camera_heights(depth, K, road)
    enough = road.flatten(1).to(depth.dtype).mean(1) >= min_road
    used = used & enough[:, None, None]
    error = torch.where(used, (height - label.view(-1, 1, 1)).abs(), torch.zeros_like(height))
    return error.sum() / used.sum().clamp(min=1)
