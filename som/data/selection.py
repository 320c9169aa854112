"""What the options do to a data set that has been read: use some times only, hold views out, erode masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_erosion

from som.cameras import Camera
from som.data.config import SequenceData
from som.data.dataset import GroundTruthTracks, Tracks, VideoDataset, Views
from som.errors import UserError


def apply_options(dataset: VideoDataset, config: SequenceData, default_erosion: int = 0) -> VideoDataset:
    """The data set that the options ask for.

    Args:
        default_erosion: side of the eroding square where ``config.mask_erosion`` is None.

    Raises:
        UserError: an option is out of range or leaves no training view.
    """
    if config.start != 0 or config.end is not None or config.every != 1:
        dataset = select_times(dataset, config.start, config.end, config.every)
    if config.hold_out_every is not None:
        dataset = hold_out(dataset, config.hold_out_every)
    erosion = default_erosion if config.mask_erosion is None else config.mask_erosion
    if erosion < 0:
        raise UserError(f"`data.mask_erosion`: must be 0 or positive, got {erosion}.")
    return erode_masks(dataset, erosion) if erosion > 1 else dataset


def select_times(dataset: VideoDataset, start: int, end: int | None, every: int) -> VideoDataset:
    """Only the times start, start + every, ... before end, counted anew from 0; views and tracks elsewhere go.

    Raises:
        UserError: fewer than two training views would be left.
    """
    if start < 0 or every < 1:
        raise UserError(f"`data.start` must be at least 0 and `data.every` at least 1, got {start} and {every}.")
    times = list(range(dataset.num_times))[start:end:every]
    new_time = {old: new for new, old in enumerate(times)}
    train = _at_times(dataset.train, new_time)
    if train is None or len(train) < 2:
        raise UserError(
            f"`data.start` {start}, `data.end` {end}, `data.every` {every}: leaves "
            f"{0 if train is None else len(train)} of {len(dataset.train)} training views, at least 2 are needed."
        )
    val = None if dataset.val is None else _at_times(dataset.val, new_time)
    return replace(
        dataset,
        num_times=len(times),
        fps=dataset.fps / every,
        train=train,
        val=val,
        tracks=_track_times(dataset.tracks, new_time, ("xy", "visible", "confidence")),
        ground_truth_tracks=_track_times(dataset.ground_truth_tracks, new_time, ("xyz", "xy", "visible")),
        flow=None if dataset.flow is None else dataset.flow.select(times),
    )


def _at_times(views: Views, new_time: dict[int, int]) -> Views | None:
    """The views at the chosen times, None if there are none."""
    kept = [i for i, t in enumerate(views.times.tolist()) if t in new_time]
    if not kept:
        return None
    picked = views.select(kept)
    picked.times = torch.tensor([new_time[t] for t in picked.times.tolist()])
    return picked


def _track_times(tracks, new_time: dict[int, int], over_time: tuple[str, ...]):
    """Tracks queried at the chosen times, there only."""
    if tracks is None:
        return None
    columns = torch.tensor(list(new_time))
    kept = torch.isin(tracks.query_times, columns)
    changes = {name: getattr(tracks, name)[kept][:, columns] for name in over_time}
    renamed = torch.tensor([new_time[t] for t in tracks.query_times[kept].tolist()], dtype=torch.long)
    if isinstance(tracks, GroundTruthTracks):
        changes["moving"] = tracks.moving[kept]
    return replace(tracks, query_times=renamed, **changes)


def hold_out(dataset: VideoDataset, every: int) -> VideoDataset:
    """Moves the training views at times 0, every, 2 every, ... to the held-out views.

    Tracks queried there go and the others are invisible there, so nothing of the held-out pictures is trained on.

    Raises:
        UserError: ``every`` is below 2, or fewer than two training views would be left.
    """
    if every < 2:
        raise UserError(f"`data.hold_out_every`: must be at least 2, got {every}.")
    out = (dataset.train.times % every == 0).tolist()
    kept = [i for i, held in enumerate(out) if not held]
    if len(kept) < 2:
        raise UserError(f"`data.hold_out_every` {every}: leaves {len(kept)} training views, at least 2 are needed.")
    held = dataset.train.select([i for i, is_held in enumerate(out) if is_held])
    val = held if dataset.val is None else join_views(dataset.val, held)
    tracks = None if dataset.tracks is None else hide_times(dataset.tracks, held.times.tolist())
    return replace(dataset, train=dataset.train.select(kept), val=val, tracks=tracks)


def hide_times(tracks: Tracks, times: list[int]) -> Tracks:
    """Tracks that know nothing of some times: those queried there go, the others are invisible there."""
    keep = ~torch.isin(tracks.query_times, torch.tensor(times, dtype=torch.long))
    visible, confidence = tracks.visible[keep].clone(), tracks.confidence[keep].clone()
    visible[:, times] = False
    confidence[:, times] = 0
    return Tracks(tracks.query_times[keep], tracks.xy[keep], visible, confidence)


def join_views(a: Views, b: Views) -> Views:
    """Both lists of views, sorted by time; a map that only one of them has is dropped."""
    joined: dict[str, Any] = {}
    for name, value in vars(a).items():
        other = getattr(b, name)
        if value is None or other is None:
            joined[name] = None
        elif name == "names":
            joined[name] = value + other
        else:
            joined[name] = (Camera.cat if name == "cameras" else torch.cat)([value, other])
    both = Views(**joined)
    return both.select(torch.argsort(both.times, stable=True).tolist())


def erode_masks(dataset: VideoDataset, side: int) -> VideoDataset:
    """Makes the band between eroded foreground and eroded background of the training views invalid.

    Masks are least reliable at their border. Invalid pixels take part in no loss, the mask loss included.
    """
    train = dataset.train
    if train.foreground is None:
        return dataset
    return replace(dataset, train=replace(train, valid=_without_band(train.valid, train.foreground, side)))


def _without_band(valid: torch.Tensor, foreground: torch.Tensor, side: int) -> torch.Tensor:
    square = np.ones((side, side), bool)
    valid = valid.clone()
    for i, mask in enumerate(foreground.numpy()):
        sure = binary_erosion(mask, square, border_value=1) | binary_erosion(~mask, square, border_value=1)
        valid[i] &= torch.from_numpy(sure)
    return valid
