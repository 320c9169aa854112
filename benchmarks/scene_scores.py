"""What the usual metrics do not say about a scene's geometry: flicker of depth in time, and floaters."""

from __future__ import annotations

import torch
from torch import Tensor

from som.cameras.geometry import project_from_world, sample_depth, unproject_to_world
from som.data.dataset import VideoDataset, Views
from som.rendering import rasterize
from som.scene import DynamicScene

IN_FRONT = 0.9
"""A Gaussian nearer than this share of the true depth under its centre floats in front of the surface."""


@torch.no_grad()
def rendered_depths(scene: DynamicScene, views: Views) -> Tensor:
    """(n,H,W) z-depth in world units; 0 where nothing is hit."""
    in_scene = scene.normalization.cameras_to_scene(views.cameras)
    cameras = zip(in_scene.w2c.split(4), in_scene.K.split(4), views.times.split(4), strict=True)
    depths = [scene.rasterize_views(*some, views.width, views.height).depth for some in cameras]
    return torch.cat(depths) * scene.normalization.scale


def depth_flicker(scene: DynamicScene, truth: VideoDataset, points: int = 2000, seed: int = 0) -> float:
    """Standard deviation over time of log(rendered / true depth) at static surface points, mean over the points.

    Points are static pixels of the middle training view, followed with the true cameras and depths; a time counts
    where the point is truly visible. A constant bias of a point is no flicker.
    """
    views = truth.train
    middle = len(views) // 2
    static = (views.depths[middle] > 0) & ~views.foreground[middle]
    row, column = static.nonzero().unbind(1)
    picked = torch.randint(len(row), (points,), generator=torch.Generator().manual_seed(seed))
    xy = torch.stack([column[picked], row[picked]], 1) + 0.5
    depth = views.depths[middle, row[picked], column[picked]]
    world = unproject_to_world(xy, depth, views.cameras.K[middle], views.cameras.w2c[middle])
    rendered, logs, seen = rendered_depths(scene, views), [], []
    for i in range(len(views)):
        at, z = project_from_world(world, views.cameras.K[i], views.cameras.w2c[i])
        true = sample_depth(views.depths[i : i + 1], at[None])[0]
        ours = sample_depth(rendered[i : i + 1], at[None])[0]
        moving = sample_depth(views.foreground[i : i + 1].float() + 1, at[None])[0] > 1.01
        seen.append((true > 0) & (ours > 0) & ((true - z).abs() < 0.01 * z) & ~moving)
        logs.append(torch.where(seen[-1], (ours / z).clamp(min=1e-6).log(), torch.zeros_like(z)))
    seen, logs = torch.stack(seen).double(), torch.stack(logs).double()
    count = seen.sum(0)
    mean = logs.sum(0) / count.clamp(min=1)
    variance = ((logs - mean).square() * seen).sum(0) / count.clamp(min=1)
    return float(variance.sqrt()[count >= 3].mean())


@torch.no_grad()
def floater_share(scene: DynamicScene, views: Views) -> float:
    """Share of the rendered alpha that Gaussians well in front of the true surface contribute, mean over views.

    A Gaussian counts as in front if its depth is below ``IN_FRONT`` times the true depth at the pixel of its centre.
    """
    cameras, shares = scene.normalization.cameras_to_scene(views.cameras), []
    for i in range(len(views)):
        means, quats, scales, opacities = scene.gaussians_at(views.times[i : i + 1])
        xy, z = cameras[i : i + 1].project(means)
        true = sample_depth(views.depths[i : i + 1], xy) / scene.normalization.scale
        floating = ((true > 0) & (z > 0) & (z < IN_FRONT * true)).float()[..., None]
        rendered, alpha, _ = rasterize(
            means, quats, scales, opacities, floating, cameras.w2c[i : i + 1, None], cameras.K[i : i + 1, None],
            views.width, views.height, rasterize_mode=scene.rasterize_mode,
        )  # fmt: skip
        shares.append(float(rendered.sum() / alpha.sum()))
    return sum(shares) / len(shares)
