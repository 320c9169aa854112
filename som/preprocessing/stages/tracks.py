"""Point tracks to tracks.npz."""

from __future__ import annotations

from typing import Any

import torch

from flow.progress import Progress
from flow.track_files import write_tracks
from flow.tracks import PointTracks
from som.errors import UserError
from som.preprocessing.config import PreprocessRun, TrackSettings
from som.preprocessing.providers import registry
from som.preprocessing.providers.base import TrackProvider, TrackResult
from som.preprocessing.stages.base import Outcome, ProvidedStage, outcome_of
from som.preprocessing.workspace import Workspace

MIN_MEAN_TRACK_FRAMES = 4
"""Frames below which the mean moving track is too short to carry motion."""


class Tracks(ProvidedStage[TrackProvider]):
    """Long point tracks, most of them on moving objects."""

    name = "tracks"
    needs = ("flow", "masks")
    settings = TrackSettings
    leaves = ("tracks.npz",)
    registry = registry.TRACKS

    def covers(self, run: PreprocessRun) -> list[Any]:
        return [*super().covers(run), run.seed]

    def check(self, run: PreprocessRun) -> None:
        if run.tracks.num_tracks < 1:
            raise UserError(f"`tracks.num_tracks`: must be at least 1, got {run.tracks.num_tracks}.")
        if not 0 <= run.tracks.foreground_share <= 1:
            raise UserError(f"`tracks.foreground_share`: must lie in [0, 1], got {run.tracks.foreground_share}.")
        super().check(run)

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        if self.name in work.run.skip:
            work.remove(*self.leaves)
            return Outcome("left out, as the options say", "skipped")
        found: TrackResult = self.ask(work, progress, moving=lambda: work.foreground, cameras=lambda: work.cameras)
        self.expect("tracks", found.tracks.visible, (None, work.num_frames))
        write_tracks(work.root / "tracks.npz", found.tracks)
        outcome = outcome_of(found)
        _judge(found.tracks, work, outcome)
        return outcome


def _judge(tracks: PointTracks, work: Workspace, outcome: Outcome) -> None:
    """Adds how many there are, and over how many frames they are seen."""
    (H, W), moving = work.frames.size, work.foreground
    seen = tracks.visible.sum(1).float()
    mean = round(float(seen.mean()), 1) if len(tracks) else 0
    outcome.findings |= {"tracks": len(tracks), "mean_visible_frames": mean}
    if moving is None or not len(tracks):
        return
    start = tracks.xy[torch.arange(len(tracks)), tracks.query_frames].floor().long()
    column, row = start[:, 0].clamp(0, W - 1), start[:, 1].clamp(0, H - 1)
    on_moving = moving[tracks.query_frames, row, column]
    length = float(seen[on_moving].mean()) if bool(on_moving.any()) else 0.0
    outcome.findings |= {"moving_tracks": int(on_moving.sum()), "mean_visible_frames_moving": round(length, 1)}
    if bool(moving.any()) and length < MIN_MEAN_TRACK_FRAMES:
        outcome.warnings.append(
            f"points on moving objects are followed over {length:.1f} frames on average, too few to learn their "
            "motion well; more frames per second, or tracks of a learned tracker (`tracks.given`), would help."
        )
