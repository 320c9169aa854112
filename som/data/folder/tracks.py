"""tracks.npz and ground_truth_tracks.npz (docs/data-formats.md), read and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from som.data.dataset import GroundTruthTracks, Tracks
from som.files import read_arrays, write_npz


def read_tracks(path: Path) -> Tracks:
    """Long 2D tracks; without ``confidence`` it is that of being visible.

    Raises:
        UserError: the file is broken or lacks an array.
    """
    arrays = read_arrays(path, ("query_frame", "xy", "visible"), ("confidence",), "the tracks")
    visible = torch.from_numpy(arrays["visible"]).bool()
    confidence = torch.from_numpy(arrays["confidence"]).float() if "confidence" in arrays else visible.float()
    return Tracks(
        query_times=torch.from_numpy(arrays["query_frame"]).long(),
        xy=torch.from_numpy(arrays["xy"]).float(),
        visible=visible,
        confidence=confidence,
    )


def read_ground_truth_tracks(path: Path) -> GroundTruthTracks:
    """Exact 3D tracks.

    Raises:
        UserError: the file is broken or lacks an array.
    """
    arrays = read_arrays(path, ("query_frame", "xyz", "xy", "visible", "moving"), what="the ground-truth tracks")
    return GroundTruthTracks(
        query_times=torch.from_numpy(arrays["query_frame"]).long(),
        xyz=torch.from_numpy(arrays["xyz"]).float(),
        xy=torch.from_numpy(arrays["xy"]).float(),
        visible=torch.from_numpy(arrays["visible"]).bool(),
        moving=torch.from_numpy(arrays["moving"]).bool(),
    )


def write_tracks(path: Path, tracks: Tracks) -> None:
    """What ``read_tracks`` reads."""
    write_npz(
        path,
        {
            "query_frame": tracks.query_times.numpy(),
            "xy": tracks.xy.numpy().astype(np.float32),
            "visible": tracks.visible.numpy(),
            "confidence": tracks.confidence.numpy().astype(np.float32),
        },
    )


def write_ground_truth_tracks(path: Path, tracks: GroundTruthTracks) -> None:
    """What ``read_ground_truth_tracks`` reads."""
    write_npz(
        path,
        {
            "query_frame": tracks.query_times.numpy(),
            "xyz": tracks.xyz.numpy().astype(np.float32),
            "xy": tracks.xy.numpy().astype(np.float32),
            "visible": tracks.visible.numpy(),
            "moving": tracks.moving.numpy(),
        },
    )
