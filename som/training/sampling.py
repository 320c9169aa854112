"""Draws what one optimisation step sees: views, their priors, and tracks that link them to other times.

Every random choice is a function of (seed, step) alone, so a resumed run draws what the uninterrupted one would have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from som.cameras.geometry import in_image, sample_depth
from som.data.dataset import VideoDataset
from som.training.batch import Batch, DepthPrior, Targets, TrackBatch
from som.training.depth_order import DepthOrderSampler


def step_generator(seed: int, step: int, stream: int) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments (``stream`` separates uses within a step)."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 16 + stream)


class BatchSampler:
    """Draws batches from a data set in scene coordinates, kept on the device in compact form.

    Args:
        dataset: in scene coordinates (``Normalization.dataset_to_scene``).
        batch_size: views a batch; views are visited in a fresh random order every epoch.
        track_targets: N, reduced to the number of other training times where there are fewer; 0 turns tracks off.
        tracks_per_view: P.
        depth_order: draws what the depth terms by order and correlation need; None where all of them are off.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        batch_size: int,
        track_targets: int,
        tracks_per_view: int,
        seed: int,
        device: torch.device,
        depth_order: DepthOrderSampler | None = None,
    ):
        views = dataset.train
        self.depth_order = depth_order
        self.seed, self.batch_size, self.device = seed, batch_size, device
        self.num_views, self.tracks_per_view = len(views), tracks_per_view
        self.images, self.valid = views.images.to(device), views.valid.to(device)
        self.times, self.cameras = views.times.to(device), views.cameras.to(device)
        self.foreground = None if views.foreground is None else views.foreground.to(device)
        self.depths = None if views.depths is None else views.depths.to(device)
        self.depth_confidence = None if views.depth_confidence is None else views.depth_confidence.to(device)
        self.track_targets = min(track_targets, len(views) - 1)
        self._prepare_tracks(dataset)

    def _prepare_tracks(self, dataset: VideoDataset) -> None:
        """Per-view lists of usable tracks, and the depth prior under every track point."""
        tracks, views = dataset.tracks, dataset.train
        self.visible_tracks: list[Tensor] = []
        if tracks is None or len(tracks.query_times) == 0 or self.track_targets < 1:
            self.track_targets = 0
            return
        xy = tracks.xy[:, views.times]  # (Q, n, 2): training views only
        confidence = tracks.confidence[:, views.times] * tracks.visible[:, views.times]
        confidence = confidence * in_image(xy, views.height, views.width)
        if views.depths is None:
            depth = torch.zeros(confidence.shape)
        else:
            depth = sample_depth(views.depths, xy.transpose(0, 1)).T
        usable = confidence > 0.05
        self.visible_tracks = [torch.nonzero(usable[:, i])[:, 0] for i in range(len(views))]
        self.track_xy, self.track_depth, self.track_confidence = (
            value.to(self.device) for value in (xy, depth, confidence * usable)
        )

    def view_indices(self, step: int) -> list[int]:
        """The views of a step: consecutive pieces of one random permutation per epoch."""
        indices = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(position, self.num_views)
            order = torch.randperm(self.num_views, generator=step_generator(self.seed, epoch, 1))
            indices.append(int(order[place]))
        return indices

    def sample(self, step: int) -> Batch:
        """The batch of an optimisation step (0-based)."""
        indices = self.view_indices(step)
        index = torch.tensor(indices, device=self.device)
        batch = Batch(
            times=self.times[index],
            cameras=self.cameras[index],
            images=self.images[index].float() / 255.0,
            valid=self.valid[index],
            foreground=None if self.foreground is None else self.foreground[index],
            depth=self._depth_prior(index),
        )
        linked = None
        if self.depth_order is not None:
            generator = step_generator(self.seed, step, 3)
            links = self.depth_order.draw_linked_views(indices, generator)
            batch.depth_order = self.depth_order.sample(indices, links, generator)
            linked = None if links is None else torch.tensor(links[1])
        batch.targets = self._targets(indices, linked, step_generator(self.seed, step, 2))
        return batch

    def _depth_prior(self, index: Tensor) -> DepthPrior | None:
        if self.depths is None:
            return None
        weights = self.valid[index].float()
        if self.depth_confidence is not None:
            weights = weights * self.depth_confidence[index]
        return DepthPrior(self.depths[index], weights)

    def _targets(self, indices: list[int], linked: Tensor | None, generator: torch.Generator) -> Targets | None:
        """Other views to whose times the seen surfaces are carried: the linked view first, if any, then random ones."""
        views = None
        if self.track_targets:
            views = torch.stack([self._draw_targets(i, generator) for i in indices])  # (B, N)
        if linked is not None:
            views = linked[:, None] if views is None else torch.cat([linked[:, None], views[:, 1:]], 1)
        if views is None:
            return None
        views = views.to(self.device)
        tracks = self._tracks(indices, views, generator) if self.track_targets else None
        return Targets(self.times[views], self.cameras[views], tracks)

    def _tracks(self, indices: list[int], targets: Tensor, generator: torch.Generator) -> TrackBatch:
        B, P = len(indices), self.tracks_per_view
        chosen, usable = torch.zeros(B, P, dtype=torch.long), torch.zeros(B, 1)
        for b, i in enumerate(indices):
            candidates = self.visible_tracks[i]
            if len(candidates):
                chosen[b] = candidates[torch.randint(len(candidates), (P,), generator=generator)]
                usable[b] = 1.0
        chosen, usable = chosen.to(self.device), usable.to(self.device)
        view = torch.tensor(indices, device=self.device)[:, None]
        query, target = chosen[:, None, :], targets[:, :, None]  # broadcast to (B, N, P)
        source_confidence = self.track_confidence[chosen, view] * usable
        return TrackBatch(
            source_xy=self.track_xy[chosen, view],
            target_xy=self.track_xy[query, target],
            target_depth=self.track_depth[query, target],
            weight=self.track_confidence[query, target] * source_confidence[:, None],
        )

    def _draw_targets(self, view: int, generator: torch.Generator) -> Tensor:
        """N different views other than ``view``."""
        order = torch.randperm(self.num_views - 1, generator=generator)[: self.track_targets]
        return order + (order >= view)
