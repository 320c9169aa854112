"""DAVIS sequences with the priors of Shape-of-Motion: JPEGImages/480p/{sequence}, Annotations/480p/{sequence}."""

from __future__ import annotations

from pathlib import Path

from som.data.checks import Problems
from som.data.layouts.layout import Layout
from som.data.layouts.shape_of_motion import Folders, only_sequence, read_sequence
from som.data.recording import Recording

RESOLUTIONS = ("480p", "1080p", "Full-Resolution")


def read(
    root: Path,
    problems: Problems,
    *,
    seq_name: str = "",
    resolution: str | None = None,
    depth_folder: str = "aligned_depth_anything",
    track_folder: str = "bootstapir",
) -> Recording:
    """Reads a sequence of a DAVIS folder.

    Args:
        seq_name: the sequence; may be left out where there is only one.
        resolution: name of the resolution's folder; None takes the first there is of 480p, 1080p, Full-Resolution.
        depth_folder: folder of the disparity maps.
        track_folder: folder of the pairwise tracks.
    """
    images = root / "JPEGImages"
    if resolution is None:
        resolution = next((name for name in RESOLUTIONS if (images / name).is_dir()), "")
    folders = Folders("JPEGImages", "Annotations", resolution, depth_folder, (track_folder,))
    return read_sequence(root, problems, seq_name or only_sequence(images / resolution, root), folders, "davis")


LAYOUT = Layout(
    "davis", "DAVIS", "JPEGImages/", lambda root: (root / "JPEGImages").is_dir(), read, mask_erosion=3
)
