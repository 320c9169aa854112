"""Reads DAVIS sequences with the priors of Shape-of-Motion: JPEGImages/480p/{sequence}, Annotations/480p/{sequence}."""

from __future__ import annotations

from pathlib import Path

from som.data.config import DavisData
from som.data.dataset import VideoDataset
from som.data.shape_of_motion import Layout, read_shape_of_motion

EROSION = 3
"""Side of the square by which DAVIS masks are eroded; they are drawn by hand."""


def read_davis(root: Path, config: DavisData) -> VideoDataset:
    """Reads a sequence of a DAVIS folder.

    Raises:
        DatasetError: lists every missing, broken or inconsistent part.
    """
    layout = Layout(
        images="JPEGImages",
        masks="Annotations",
        resolution=config.resolution,
        depth=config.depth_folder,
        tracks=(config.track_folder,),
    )
    return read_shape_of_motion(root, config.seq_name, config.max_side, layout)
