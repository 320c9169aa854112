"""Point tracks: chained from flow, or read from another program's files."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flow.progress import Progress
from flow.queries import query_points
from flow.tracks import TrackingOptions, track_points
from som.preprocessing.config import TrackSettings
from som.preprocessing.importing.tracks import import_tracks
from som.preprocessing.providers.base import Clip, TrackProvider, TrackResult, given_path


@dataclass(frozen=True)
class ChainedFlow(TrackProvider):
    """Points carried along the flow, over several distances in time."""

    options = ("num_tracks", "foreground_share")

    def provide(
        self, clip: Clip, settings: TrackSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> TrackResult:
        (H, W), field = clip.size, clip.flow
        xy, times = query_points(
            settings.num_tracks,
            len(clip),
            (H, W),
            foreground=clip.moving,
            frames=torch.from_numpy(clip.images),
            foreground_share=settings.foreground_share,
            seed=seed,
        )
        scale = xy.new_tensor([W / field.width, H / field.height])
        progress("tracks", 0.0)
        strides = field.strides()
        tracks = track_points(field, xy / scale, times, TrackingOptions(strides=strides)).scaled(*scale.tolist())
        return TrackResult(tracks, method=f"chained flow over {', '.join(map(str, strides))} frames")


@dataclass(frozen=True)
class GivenTracks(TrackProvider):
    """Tracks of another program."""

    options = ("given", "given_size")

    def provide(
        self, clip: Clip, settings: TrackSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> TrackResult:
        found = import_tracks(given_path(settings), frames=clip.names, size=clip.size, source_size=settings.given_size)
        return TrackResult(found.tracks, method="given", given=True, findings=found.source, warnings=found.warnings)


CHAINED_FLOW = ChainedFlow()
GIVEN = GivenTracks()
