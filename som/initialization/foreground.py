"""Moving Gaussians from foreground pixels of all frames, carried to the canonical frame."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

from som.cameras.geometry import in_image, project_from_world
from som.data.dataset import Views
from som.initialization.background import LiftedPixels, dilate, isotropic_gaussians, lift_pixels
from som.initialization.clustering import kmeans
from som.initialization.config import InitializationConfig
from som.initialization.lifting import depth_edges
from som.initialization.motion_bases import MIN_BASIS_WEIGHT
from som.initialization.motion_optimization import FittedMotion
from som.initialization.thinning import thin_points
from som.scene.gaussians import Gaussians
from som.scene.motion import MotionBases

NUM_VOTING_TRACKS = 8
"""Tracks that vote on how a pixel moves."""
MAX_CHECKED_VIEWS = 8
"""Frames in which the carried points are compared with what is seen."""
OCCLUDING_DEPTH_RATIO = 0.95
"""A point nearer than this share of the observed depth should have hidden what was observed."""


def foreground_pixels(
    views: Views, config: InitializationConfig, generator: torch.Generator
) -> LiftedPixels:
    """Foreground pixels of all views; those on edges of depth or mask only if there is hardly anything else."""
    moving, depths = views.require_foreground(), views.require_depths()
    clean = dilate(moving, -1) & ~depth_edges(depths, config.depth_edge_ratio)
    count = int(config.oversampling * config.num_foreground)
    usable = moving & views.valid & (depths > 0)
    enough = (clean & usable).sum() > 0.1 * usable.sum()
    return lift_pixels(views, moving & clean if enough else moving, clean, count, generator)


def pixel_weights(pixels: LiftedPixels, motion: FittedMotion) -> tuple[Float[Tensor, "n k"], Tensor]:
    """Motion weights and rigid part (N,) of pixels, from the tracks that are nearest at the pixel's time.

    The part is elected by distance-weighted votes; only tracks of that part then give their motion weights. At times
    when few tracks are seen, all tracks, carried to that time, may vote.
    """
    track_weights, labels = motion.coefs.softmax(-1), motion.labels
    weights = pixels.points.new_zeros(len(pixels), track_weights.shape[1])
    parts = torch.zeros(len(pixels), dtype=torch.long)
    num_labels = int(labels.max()) + 1
    for time in pixels.times.unique().tolist():
        asking = (pixels.times == time).nonzero()[:, 0]
        voters = motion.tracks.observed[:, time].nonzero()[:, 0]
        places = motion.tracks.points[voters, time]
        if len(voters) < NUM_VOTING_TRACKS:
            voters = torch.arange(len(labels))
            R, transl = motion.bases.poses(track_weights, torch.tensor([time]))
            places = (R[0] @ motion.positions[..., None])[..., 0] + transl[0]
        k = min(NUM_VOTING_TRACKS, len(voters))
        distance, found = cKDTree(places.numpy()).query(
            pixels.points[asking].numpy(), k=np.arange(1, k + 1), workers=-1
        )
        found = voters[torch.from_numpy(found)]  # (n, k)
        votes = 1 / (torch.from_numpy(distance).to(weights) + 1e-3 * pixels.footprints[asking, None] + 1e-9)
        ballot = votes.new_zeros(len(asking), num_labels).scatter_add_(1, labels[found], votes)
        elected = ballot.argmax(1)
        votes = votes * (labels[found] == elected[:, None])
        weights[asking] = (track_weights[found] * votes[..., None]).sum(1) / votes.sum(1, keepdim=True)
        parts[asking] = elected
    return weights, parts


def to_canonical(
    pixels: LiftedPixels, weights: Float[Tensor, "n k"], bases: MotionBases
) -> Float[Tensor, "n 3"]:
    """Undoes the motion between the canonical frame and each pixel's own time."""
    canonical = torch.zeros_like(pixels.points)
    for time in pixels.times.unique().tolist():
        mine = pixels.times == time
        R, transl = bases.poses(weights[mine], torch.tensor([time]))
        canonical[mine] = ((pixels.points[mine] - transl[0])[:, None] @ R[0])[:, 0]
    return canonical


def never_in_front(
    canonical: Float[Tensor, "n 3"], weights: Float[Tensor, "n k"], bases: MotionBases, views: Views
) -> Bool[Tensor, "n"]:
    """Whether a carried point seldom lies in front of static surfaces that were seen, as a wrong motion makes it do."""
    wrong, checked = torch.zeros(len(canonical)), torch.zeros(len(canonical))
    margin, depths = dilate(views.require_foreground(), 2), views.require_depths()
    for i in np.unique(np.linspace(0, len(views) - 1, MAX_CHECKED_VIEWS).round().astype(int)).tolist():
        R, transl = bases.poses(weights, views.times[i : i + 1].long())
        carried = (R[0] @ canonical[..., None])[..., 0] + transl[0]
        xy, z = project_from_world(carried, views.cameras.K[i], views.cameras.w2c[i])
        inside = in_image(xy, views.height, views.width) & (z > 0)
        column, row = torch.where(inside[:, None], xy, torch.zeros_like(xy)).floor().long().unbind(-1)
        seen = depths[i, row, column]
        known = inside & (seen > 0) & views.valid[i, row, column]
        checked += known
        wrong += known & ~margin[i, row, column] & (z < OCCLUDING_DEPTH_RATIO * seen)
    return wrong <= 0.25 * checked


def static_motion(
    points: Float[Tensor, "n 3"], num_times: int, num_bases: int, generator: torch.Generator
) -> tuple[MotionBases, Float[Tensor, "n k"]]:
    """Bases at rest, and logits that divide the points among them by place, so that they can learn to differ."""
    sample = points[torch.randperm(len(points), generator=generator)[:20_000]]
    _, centers = kmeans(sample, num_bases, generator)
    squared = torch.cdist(points, centers) ** 2
    nearest = squared.min(1).values
    logits = -(squared - nearest[:, None]) / (2 * nearest.mean().clamp(min=1e-12))
    rots = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(len(centers), num_times, 1)
    return MotionBases(rots, torch.zeros(len(centers), num_times, 3)), logits.clamp(min=float(np.log(MIN_BASIS_WEIGHT)))


@torch.no_grad()
def initialize_foreground(
    views: Views, motion: FittedMotion | None, num_times: int, config: InitializationConfig, generator: torch.Generator
) -> tuple[Gaussians, MotionBases] | None:
    """Moving Gaussians in the coordinates of ``views``, with their bases; None if no foreground pixel has depth.

    Args:
        motion: the fitted motion; None lets everything rest.
    """
    pixels = foreground_pixels(views, config, generator)
    if len(pixels) == 0:
        return None
    if motion is None:
        pixels = pixels.select(thin_points(pixels.points, pixels.footprints, config.num_foreground))
        bases, logits = static_motion(pixels.points, num_times, config.num_motion_bases, generator)
        return isotropic_gaussians(pixels, config.opacity, logits), bases
    weights, parts = pixel_weights(pixels, motion)
    pixels.points = to_canonical(pixels, weights, motion.bases)
    good = never_in_front(pixels.points, weights, motion.bases, views)
    if good.any():
        pixels, weights, parts = pixels.select(good), weights[good], parts[good]
    kept = thin_points(pixels.points, pixels.footprints, config.num_foreground, parts)
    logits = weights[kept].clamp(min=MIN_BASIS_WEIGHT).log()
    return isotropic_gaussians(pixels.select(kept), config.opacity, logits), motion.bases
