"""From 2D tracks and depth to 3D trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.cameras.geometry import in_image, sample_depth, unproject_to_world
from som.data.dataset import VideoDataset
from som.initialization.config import InitializationConfig


@dataclass
class LiftedTracks:
    """Q trajectories; only observed positions mean anything."""

    points: Float[Tensor, "q t 3"]
    """Positions; 0 where not observed."""
    observed: Bool[Tensor, "q t"]
    """The point was seen, inside the foreground, and its depth is known and not on a depth edge."""
    weights: Float[Tensor, "q t"]
    """Confidence of the observation in [0, 1]; 0 where not observed."""

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def empty(cls, count: int, num_times: int) -> LiftedTracks:
        """Tracks without any observation."""
        shape = (count, num_times)
        return cls(torch.zeros(*shape, 3), torch.zeros(shape, dtype=torch.bool), torch.zeros(shape))

    def select(self, index: Tensor) -> LiftedTracks:
        return LiftedTracks(self.points[index], self.observed[index], self.weights[index])


def depth_range(depths: Float[Tensor, "n h w"], radius: int = 1) -> tuple[Tensor, Tensor]:
    """Smallest (+inf if none) and largest (0 if none) known depth around every pixel."""
    side, known = 2 * radius + 1, depths > 0
    far = F.max_pool2d(depths[:, None], side, stride=1, padding=radius)[:, 0]
    negated = torch.where(known, -depths, torch.full_like(depths, -torch.inf))
    return -F.max_pool2d(negated[:, None], side, stride=1, padding=radius)[:, 0], far


def depth_edges(depths: Float[Tensor, "n h w"], ratio: float) -> Bool[Tensor, "n h w"]:
    """Pixels whose 3x3 neighbourhood holds depths that differ by more than ``ratio``; unknown depths do not count."""
    near, far = depth_range(depths)
    return (depths > 0) & (far > ratio * near)


def draw_tracks(
    query_times: Int[Tensor, "q"], usable: Bool[Tensor, "q"], count: int, generator: torch.Generator
) -> Int[Tensor, "m"]:
    """At most ``count`` usable tracks, spread as evenly as possible over the query times, in ascending order."""
    order = torch.randperm(len(query_times), generator=generator)
    order = order[usable[order]]
    order = order[torch.argsort(query_times[order], stable=True)]
    times = query_times[order]
    rank_in_time = torch.arange(len(order)) - torch.searchsorted(times, times)
    return order[torch.argsort(rank_in_time, stable=True)[:count]].sort().values


def lift_tracks(dataset: VideoDataset, config: InitializationConfig, generator: torch.Generator) -> LiftedTracks:
    """World positions of up to ``config.num_tracks`` tracks wherever they are visible on the foreground.

    A track is kept if it has ``config.min_observations`` positions. A position counts if the track is visible with
    some confidence, its nearest pixel is valid foreground with known depth, and no depth edge runs through that pixel.
    """
    tracks, views = dataset.tracks, dataset.train
    num_times = dataset.num_times
    if tracks is None or len(tracks.query_times) == 0 or views.depths is None or views.foreground is None:
        return LiftedTracks.empty(0, num_times)
    needed = min(config.min_observations, len(views))
    seen = (tracks.visible & (tracks.confidence > 0)).sum(1) >= needed
    index = draw_tracks(tracks.query_times, seen, 2 * config.num_tracks, generator)
    lifted = LiftedTracks.empty(len(index), num_times)
    for view, time in enumerate(views.times.tolist()):
        xy = tracks.xy[index, time].float()
        depth = sample_depth(views.depths[view : view + 1], xy[None])[0]
        usable = views.foreground[view] & views.valid[view]
        usable = usable & ~depth_edges(views.depths[view : view + 1], config.depth_edge_ratio)[0]
        inside = in_image(xy, views.height, views.width)
        column, row = torch.where(inside[:, None], xy, torch.zeros_like(xy)).floor().long().unbind(-1)
        observed = tracks.visible[index, time] & (tracks.confidence[index, time] > 0)
        observed = observed & inside & (depth > 0) & usable[row, column]
        points = unproject_to_world(xy, depth, views.cameras.K[view], views.cameras.w2c[view])
        lifted.points[:, time] = torch.where(observed[:, None], points, torch.zeros_like(points))
        lifted.observed[:, time] = observed
        lifted.weights[:, time] = tracks.confidence[index, time].float() * observed
    enough = lifted.observed.sum(1) >= needed
    kept = draw_tracks(tracks.query_times[index], enough, config.num_tracks, generator)
    return lifted.select(kept)
