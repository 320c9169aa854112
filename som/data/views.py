"""Loads a recording whole: reads, checks and reduces its images and maps, and stacks them into a ``VideoDataset``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from som.cameras import Camera
from som.data.checks import Problems, check_dataset, check_recording
from som.data.dataset import GroundTruthTracks, Tracks, VideoDataset, Views
from som.data.recording import SPLITS, FrameRecord, Recording, scaled_intrinsics
from som.data.sequence import resize_depth, target_size
from som.files import resize_image, resize_map

AnyTracks = TypeVar("AnyTracks", Tracks, GroundTruthTracks)
DEFAULT_FPS = 24.0
MAPS = ("valid", "moving", "depth", "confidence", "covisible")
"""The maps of a frame."""


def load_recording(recording: Recording, problems: Problems, max_side: int | None = None) -> VideoDataset:
    """The data set of a recording.

    Args:
        problems: what has been found so far; everything else that is wrong with the recording joins it.
        max_side: larger images are reduced so that the longer side has this many pixels.

    Raises:
        DatasetError: lists every missing, broken or inconsistent part.
    """
    check_recording(recording, problems)
    bare = [frame for frame in recording.frames if frame.K is None or frame.w2c is None]
    if bare and not problems.found:
        problems.add(recording.root, f"{len(bare)} of {len(recording.frames)} frames have no camera; give their "
                                     "intrinsics and poses, or run `som4d preprocess` on the images.")  # fmt: skip
    views = {split: _views(recording.of_split(split).frames, problems, max_side) for split in SPLITS}
    train = views["train"]
    if train is not None and train.depths is not None and recording.farthest is not None:
        train.depths.clamp_(max=recording.farthest * train.depths.flatten(1).amax(1).median())
    dataset = VideoDataset(
        name=recording.name,
        num_times=recording.count_times(),
        train=_no_views() if train is None else train,
        val=views["val"],
        fps=DEFAULT_FPS if recording.fps is None else recording.fps,
        depth_kind=recording.depth_kind,
        world_scale=recording.world_scale,
        has_background=recording.has_background,
        source=dict(recording.source),
    )
    scale = _reduction(recording.of_split("train").frames, max_side)
    dataset.tracks = _scaled(recording.tracks, scale, problems)
    dataset.ground_truth_tracks = _scaled(recording.ground_truth_tracks, scale, problems)
    dataset.flow = None if recording.flow is None else problems.attempt(recording.flow)
    if train is not None or not problems.found:
        check_dataset(dataset, problems, recording.root)
    problems.raise_if_any()
    _add_notes(dataset, recording.notes)
    return dataset


@dataclass
class _Frame:
    """One frame at its final size."""

    record: FrameRecord
    w2c: np.ndarray
    image: np.ndarray
    maps: dict[str, np.ndarray] = field(default_factory=dict)


def _views(records: list[FrameRecord], problems: Problems, max_side: int | None) -> Views | None:
    """The views sorted by time, then name; None if no frame could be used."""
    frames: list[_Frame] = []
    for record in sorted(records, key=lambda r: (r.time, r.name)):
        frame = _read_frame(record, problems, max_side)
        if frame is None:
            continue
        if frames and frames[0].image.shape != frame.image.shape:
            problems.add(record.where, f"this image has another size than {frames[0].record.where}; resize one.")
            continue
        frames.append(frame)
    if not frames:
        return None
    size = frames[0].image.shape[:2]
    valid = _stack(frames, "valid", np.ones(size, bool))
    return Views(
        names=[f.record.name for f in frames],
        times=torch.tensor([f.record.time for f in frames], dtype=torch.long),
        images=torch.from_numpy(np.stack([f.image for f in frames])),
        cameras=Camera.from_arrays(
            [scaled_intrinsics(f.record, size) for f in frames], [f.w2c for f in frames], size[1], size[0]
        ),
        valid=torch.ones((len(frames), *size), dtype=torch.bool) if valid is None else valid,
        foreground=_stack(frames, "moving", np.zeros(size, bool)),
        depths=_stack(frames, "depth", np.zeros(size, np.float32)),
        depth_confidence=_stack(frames, "confidence", np.ones(size, np.float32)),
        covisible=_stack(frames, "covisible", np.zeros(size, bool)),
    )


def _read_frame(record: FrameRecord, problems: Problems, max_side: int | None) -> _Frame | None:
    """Reads the files of a frame; what cannot be read is recorded. None if its image or camera is unusable."""
    image = problems.attempt(record.read_image)
    maps = {kind: problems.attempt(read) for kind in MAPS if (read := getattr(record, kind)) is not None}
    if image is None or record.K is None or record.w2c is None:
        return None
    size = target_size(image.shape[:2], max_side=max_side)
    resized = {}
    for kind, values in maps.items():
        if values is not None:
            sparse = kind == "depth" and values.shape != image.shape[:2]
            resized[kind] = resize_depth(values, size) if sparse else resize_map(values, size)
    return _Frame(record, record.w2c, resize_image(image, size), resized)


def _stack(frames: list[_Frame], kind: str, missing: np.ndarray) -> torch.Tensor | None:
    """(N,H,W) of one kind of map, None if no frame has it."""
    if all(kind not in f.maps for f in frames):
        return None
    return torch.from_numpy(np.stack([f.maps.get(kind, missing) for f in frames]))


def _no_views() -> Views:
    """No view at all: lets the checks report an empty split together with everything else."""
    return Views(
        names=[],
        times=torch.zeros(0, dtype=torch.long),
        images=torch.zeros((0, 1, 1, 3), dtype=torch.uint8),
        cameras=Camera(torch.zeros((0, 3, 3)), torch.zeros((0, 4, 4)), 1, 1),
        valid=torch.zeros((0, 1, 1), dtype=torch.bool),
    )


def _reduction(records: list[FrameRecord], max_side: int | None) -> np.ndarray:
    """(2) factor (x, y) by which the images are reduced."""
    if not records:
        return np.ones(2, np.float32)
    stored = records[0].size
    size = target_size(stored, max_side=max_side)
    return np.array([size[1] / stored[1], size[0] / stored[0]], np.float32)


def _scaled(read: Callable[[], AnyTracks] | None, scale: np.ndarray, problems: Problems) -> AnyTracks | None:
    """Tracks with image coordinates times ``scale``; other shapes are passed on for the checks to report."""
    tracks = None if read is None else problems.attempt(read)
    if tracks is not None and tracks.xy.ndim and tracks.xy.shape[-1] == 2:
        tracks.xy = tracks.xy * torch.from_numpy(scale)
    return tracks


def _add_notes(dataset: VideoDataset, found: list[str]) -> None:
    """Says in ``source["notes"]`` what a data set lacks and what follows from it."""
    train, notes = dataset.train, list(found)
    if train.foreground is None or not bool(train.foreground.any()):
        notes.append("no foreground pixel: the scene is taken as purely static")
    elif dataset.tracks is None:
        notes.append("no tracks: motion can only be learned from the images")
    if train.depths is None:
        notes.append("no depth: give depth maps for supervision and initialisation")
    if notes:
        dataset.source["notes"] = [*dataset.source.get("notes", []), *notes]
