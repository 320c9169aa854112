"""Point tracks of other programs."""

from __future__ import annotations

from pathlib import Path

from flow.errors import FlowError
from flow.track_files import read_tracks
from flow.tracks import PointTracks
from som.errors import UserError
from som.preprocessing.importing.windows import Size, whole_image

OUTSIDE = 0.05
"""Share of visible points that may lie outside the image by a tracker's inaccuracy."""


def import_tracks(
    path: Path,
    *,
    names: list[str],
    size: Size,
    source_size: Size | None = None,
    max_tracks: int | None = None,
    seed: int = 0,
) -> PointTracks:
    """Reads tracks in any format of ``flow.track_files``: our own, TAPIR's pairs, CoTracker's, MoSca's.

    Args:
        names: of the T frames; there must be as many frames in the tracks, in the same order.
        size: (height, width) of the frames.
        source_size: (height, width) of the images that the tracker was given, if they were not of ``size``.
        max_tracks: more tracks than these are thinned out at random; None keeps all.
        seed: of that choice.

    Returns:
        tracks in pixels of the frames.

    Raises:
        UserError: one sentence: the file, what was expected, what to do.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: does not exist; give the file or folder of the tracks.")
    scale = (1.0, 1.0) if source_size is None else whole_image(path, source_size, size).scale
    try:
        tracks = read_tracks(path, len(names), scale=scale, max_tracks=max_tracks, seed=seed)
    except FlowError as error:
        raise UserError(str(error)) from error
    if not bool(tracks.visible.any()):
        raise UserError(f"{path}: no point is visible in any frame; track the video anew.")
    seen = tracks.xy[tracks.visible]
    inside = ((seen >= -0.5) & (seen <= seen.new_tensor([size[1] + 0.5, size[0] + 0.5]))).all(-1).float().mean()
    if float(inside) < 1 - OUTSIDE:
        x, y = seen.max(0).values.tolist()
        raise UserError(
            f"{path}: visible points reach {x:.0f}, {y:.0f} px but the frames are {size[1]}x{size[0]}; say with "
            "--tracks.given-size (height width) which size was tracked."
        )
    if float(seen.max()) <= 1:
        raise UserError(f"{path}: positions lie between 0 and 1; multiply them by the image's width and height.")
    return tracks
