"""The similarity between the data set's world and the coordinates in which a scene is optimised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from som.cameras import Camera
from som.data.dataset import VideoDataset, Views


@dataclass(frozen=True)
class Normalization:
    """``x_scene = (x_world - center) / scale``: brings the scene to about unit size around the origin.

    Learning rates, thresholds and motion bases that rotate about the origin then mean the same in every data set.
    """

    center: Float[Tensor, "3"]
    scale: float

    def points_to_scene(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
        return (points - self.center.to(points)) / self.scale

    def points_to_world(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
        return points * self.scale + self.center.to(points)

    def cameras_to_scene(self, cameras: Camera) -> Camera:
        """Cameras that see the scene as ``cameras`` see the world: R unchanged, t' = (R center + t) / scale."""
        w2c = cameras.w2c.clone()
        w2c[..., :3, 3] = (w2c[..., :3, :3] @ self.center.to(w2c) + w2c[..., :3, 3]) / self.scale
        return replace(cameras, w2c=w2c)

    def views_to_scene(self, views: Views) -> Views:
        depths = None if views.depths is None else views.depths / self.scale
        return replace(views, cameras=self.cameras_to_scene(views.cameras), depths=depths)

    def dataset_to_scene(self, dataset: VideoDataset) -> VideoDataset:
        """The same data set in scene coordinates (cameras, depths, ground-truth tracks)."""
        truth = dataset.ground_truth_tracks
        if truth is not None:
            truth = replace(truth, xyz=self.points_to_scene(truth.xyz))
        val = None if dataset.val is None else self.views_to_scene(dataset.val)
        return replace(dataset, train=self.views_to_scene(dataset.train), val=val, ground_truth_tracks=truth)

    @staticmethod
    def from_points(points: Float[Tensor, "n 3"]) -> Normalization:
        """Centre = mean, scale = half the largest 5-95 % extent over the axes (at least 1e-6)."""
        low, high = (torch.stack([points[:, i].float().quantile(q) for i in range(3)]) for q in (0.05, 0.95))
        scale = max(float((high - low).max()) / 2, 1e-6)
        return Normalization(center=points.mean(0), scale=scale)
