"""Reads the pairwise TAPIR/BootsTAPIR track files of Shape-of-Motion: one .npy per ordered pair of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from som.data.checks import Problems
from som.data.dataset import Tracks
from som.data.files import attempt


def read_pair_tracks(
    folder: Path, names: list[str], times: list[int], num_times: int, scale: tuple[float, float], problems: Problems
) -> Tracks | None:
    """Joins the files ``{query}_{target}.npy`` into tracks; None if the folder does not exist or files are broken.

    Each file has (P,4) numbers: x, y (pixel centres at integers, full resolution), occlusion logit, logit of the
    expected distance. The P points of one query frame are the same in all its files.

    Args:
        names, times: file stems of the frames and their time indices.
        num_times: T of the result; times without a frame are invisible.
        scale: (x, y) factor by which the images were reduced.
    """
    if not folder.is_dir():
        return None
    missing = [f"{q}_{t}.npy" for q in names for t in names if not (folder / f"{q}_{t}.npy").is_file()]
    if missing:
        problems.add(
            folder,
            f"{len(missing)} of {len(names) ** 2} pairwise track files are missing, the first is {missing[0]}; "
            "track every frame against every frame, or remove the folder.",
        )
        return None
    parts = []
    for query, query_time in zip(names, times, strict=True):
        arrays = [_read_pair(folder / f"{query}_{target}.npy", problems) for target in names]
        if any(a is None for a in arrays):
            continue
        counts = sorted({len(a) for a in arrays})
        if len(counts) > 1:
            problems.add(folder, f"the files of query frame {query} hold {counts} points, expected equal numbers.")
            continue
        parts.append(_join(np.stack(arrays, axis=1), query_time, times, num_times, scale))
    if not parts:
        return None
    fields = ("query_times", "xy", "visible", "confidence")
    return Tracks(**{name: torch.cat([getattr(part, name) for part in parts]) for name in fields})


def _read_pair(path: Path, problems: Problems) -> np.ndarray | None:
    values = attempt(path, problems, lambda p: np.load(p, allow_pickle=False), "this track file")
    if values is not None and (values.ndim != 2 or values.shape[1] != 4):
        problems.add(path, f"must have shape (points, 4), found {values.shape}; track this pair anew.")
        return None
    return values


def _join(
    values: np.ndarray, query_time: int, times: list[int], num_times: int, scale: tuple[float, float]
) -> Tracks:
    """Tracks of one query frame from (P, frames, 4)."""
    points = values.shape[0]
    visible, confidence = visibility_from_logits(values[..., 2], values[..., 3])
    xy = np.zeros((points, num_times, 2), np.float32)
    seen, sure = np.zeros((points, num_times), bool), np.zeros((points, num_times), np.float32)
    xy[:, times] = (values[..., :2] + 0.5) * np.array(scale)
    seen[:, times], sure[:, times] = visible, confidence
    return Tracks(
        query_times=torch.full((points,), query_time, dtype=torch.long),
        xy=torch.from_numpy(xy),
        visible=torch.from_numpy(seen),
        confidence=torch.from_numpy(sure),
    )


def visibility_from_logits(occlusion: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TAPIR's decision: visible where P(visible) P(accurate) > 0.5; confidence P(accurate) where it is decided at all.

    With v = 1 - sigmoid(occlusion), c = 1 - sigmoid(distance): visible = v c > 0.5, hidden = (1 - v) c > 0.5.
    """
    v, c = _sigmoid(-occlusion.astype(np.float64)), _sigmoid(-distance.astype(np.float64))
    visible, hidden = v * c > 0.5, (1 - v) * c > 0.5
    return visible, np.where(visible | hidden, c, 0.0)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
