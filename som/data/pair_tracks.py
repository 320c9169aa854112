"""The pairwise TAPIR/BootsTAPIR track files of Shape-of-Motion, as tracks of a data set."""

from __future__ import annotations

from pathlib import Path

import torch

from flow.track_files import read_pair_tracks as read_files
from som.data.dataset import Tracks


def read_pair_tracks(folder: Path, names: list[str], times: list[int], num_times: int) -> Tracks:
    """Joins the files ``{query}_{target}.npy`` into tracks.

    Args:
        names, times: file stems of the frames and their time indices.
        num_times: T of the result; times without a frame are invisible.

    Raises:
        UserError: files are missing or broken.
    """
    tracks = read_files(folder, names)
    at = torch.tensor(times, dtype=torch.long)
    xy = torch.zeros(len(tracks), num_times, 2)
    visible = torch.zeros(len(tracks), num_times, dtype=torch.bool)
    confidence = torch.zeros(len(tracks), num_times)
    xy[:, at], visible[:, at], confidence[:, at] = tracks.xy, tracks.visible, tracks.confidence
    return Tracks(at[tracks.query_frames], xy, visible, confidence)
