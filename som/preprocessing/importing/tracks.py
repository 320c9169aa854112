"""Point tracks of other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flow.track_files import pair_names, read_pair_tracks, read_tracks
from flow.tracks import PointTracks
from som.errors import UserError
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.frames import Match, match_count, match_names
from som.preprocessing.importing.windows import Size, whole_image

MAX_OUTSIDE_SHARE = 0.05
"""Share of visible points that may lie outside the image by a tracker's inaccuracy."""


@dataclass
class ImportedTracks:
    """Tracks over T frames."""

    tracks: PointTracks
    """In pixels of the frames."""
    source: dict[str, Any]
    """Provenance, plain JSON: file or folder, how frames were matched."""
    warnings: list[str]
    """Sentences that the user should read."""


def import_tracks(
    path: Path,
    *,
    frames: FrameNames,
    size: Size,
    source_size: Size | None = None,
    max_tracks: int | None = None,
    seed: int = 0,
) -> ImportedTracks:
    """Reads tracks in any format of ``flow.track_files``: our own, TAPIR's pairs, CoTracker's, MoSca's.

    Args:
        frames: names of the T frames in the order of time; ``importing.frames`` says how those of the tracks are
            matched to them. TAPIR's pairs have names, the other formats do not.
        size: (height, width) of the frames.
        source_size: (height, width) of the images that the tracker was given, if they were not of ``size``.
        max_tracks: more tracks than these are thinned out at random; None keeps all.
        seed: of that choice.

    Raises:
        UserError: one sentence: the file, what was expected, what to do.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: does not exist; give the file or folder of the tracks.")
    scale = (1.0, 1.0) if source_size is None else whole_image(path, source_size, size).scale
    tracks, match = _read(path, frames, scale, max_tracks, seed)
    if not bool(tracks.visible.any()):
        raise UserError(f"{path}: no point is visible in any frame; track the video anew.")
    seen = tracks.xy[tracks.visible]
    inside = ((seen >= -0.5) & (seen <= seen.new_tensor([size[1] + 0.5, size[0] + 0.5]))).all(-1).float().mean()
    if float(inside) < 1 - MAX_OUTSIDE_SHARE:
        x, y = seen.max(0).values.tolist()
        raise UserError(
            f"{path}: visible points reach {x:.0f}, {y:.0f} px but the frames are {size[1]}x{size[0]}; say with "
            "`tracks.given_size` (height width) which size was tracked."
        )
    if float(seen.max()) <= 1:
        raise UserError(f"{path}: positions lie between 0 and 1; multiply them by the image's width and height.")
    return ImportedTracks(tracks, {"path": str(path), "matched_by": match.by}, match.warnings)


def _read(
    path: Path, frames: FrameNames, scale: tuple[float, float], max_tracks: int | None, seed: int
) -> tuple[PointTracks, Match]:
    if path.is_dir():
        names = pair_names(path)
        match = match_names(path, names, frames, "tracked frames")
        chosen = [names[i] for i in match.chosen]
        return read_pair_tracks(path, chosen, scale=scale, max_tracks=max_tracks, seed=seed), match
    tracks = read_tracks(path, scale=scale, max_tracks=max_tracks, seed=seed)
    match = match_count(path, tracks.num_frames, frames, "tracked frames")
    return (tracks if tracks.num_frames == len(frames) else _at_frames(tracks, match.chosen)), match


def _at_frames(tracks: PointTracks, frames: list[int]) -> PointTracks:
    """Tracks over some of their frames. Where a point was chosen becomes the nearest of these that sees it; points that
    none of these sees are dropped."""
    at = torch.tensor(frames)
    visible = tracks.visible[:, at]
    distance = (at - tracks.query_frames[:, None]).abs().where(visible, tracks.num_frames)
    kept = PointTracks(distance.argmin(1), tracks.xy[:, at], visible, tracks.confidence[:, at], tracks.variance[:, at])
    return kept.select(visible.any(1))
