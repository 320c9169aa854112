"""Reads what lies in a data set folder for the report; whatever cannot be read becomes a sentence in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from flow.consistency import check_consistency
from flow.track_files import read_tracks
from flow.tracks import PointTracks
from flow.video_flow import flow_path, read_flow_file
from som.data.checks import Problems
from som.data.folder import HEADER, FrameEntry, Header, read_header
from som.files import image_size, list_images, read_arrays, read_image, read_json, read_map, read_mask


class ShotCamera(NamedTuple):
    """Pose and intrinsics of a frame."""

    w2c: np.ndarray
    """(4,4)"""
    K: np.ndarray
    """(3,3)"""


@dataclass
class Shot:
    """One frame and the files that belong to it."""

    name: str
    time: int
    image: Path
    foreground: Path | None = None
    depth: Path | None = None
    confidence: Path | None = None
    camera: ShotCamera | None = None
    """None where it is not known."""


@dataclass
class FlowField:
    """The flow from one frame to a later one."""

    source: int
    target: int
    flow: torch.Tensor
    """(H,W,2) pixels of the field."""
    consistent: torch.Tensor | None
    """(H,W) bool; None where the flow back is not there."""


@dataclass
class Folder:
    """A data set folder, finished or not."""

    root: Path
    problems: Problems = field(init=False)

    def __post_init__(self):
        self.problems = Problems(self.root)

    def json(self, name: str) -> dict:
        """The content of a JSON file; empty where there is none."""
        path = self.root / name
        content = self.problems.attempt(read_json, path) if path.is_file() else None
        return content if isinstance(content, dict) else {}

    @cached_property
    def header(self) -> Header | None:
        """transforms.json, None where there is none that can be read."""
        return read_header(self.root, self.problems) if (self.root / HEADER).is_file() else None

    @cached_property
    def shots(self) -> list[Shot]:
        """The training frames in the order of time; the files of images/ where there is no transforms.json yet."""
        if self.header is None:
            paths = list_images(self.root / "images")
            return [self._bare_shot(path, t) for t, path in enumerate(paths)]
        return [self._shot(entry) for entry in self.header.of_split("train")]

    def image(self, shot: Shot) -> np.ndarray | None:
        """(H,W,3) uint8 RGB."""
        return self.problems.attempt(read_image, shot.image)

    def mask(self, shot: Shot) -> np.ndarray | None:
        """(H,W) bool, True where something moves."""
        return None if shot.foreground is None else self.problems.attempt(read_mask, shot.foreground)

    def depth(self, shot: Shot) -> np.ndarray | None:
        """(H,W) float32, 0 unknown."""
        if shot.depth is None or self.header is None:
            return None
        return self.problems.attempt(read_map, shot.depth, self.header.depth_unit)

    def confidence(self, shot: Shot) -> np.ndarray | None:
        """(H,W) float32 in [0, 1]."""
        if shot.confidence is None:
            return None
        return self.problems.attempt(read_map, shot.confidence, 1 / 255, None, "this confidence map")

    @cached_property
    def tracks(self) -> PointTracks | None:
        path = self.root / "tracks.npz"
        if not path.is_file():
            return None
        return self.problems.attempt(read_tracks, path)

    @cached_property
    def cameras(self) -> dict[str, np.ndarray]:
        """The arrays of cameras.npz: w2c, K, registered, points; empty where there is no such file."""
        path = self.root / "cameras.npz"
        needed = ("w2c", "K", "registered")
        if not path.is_file():
            return {}
        return self.problems.attempt(read_arrays, path, needed, ("points",), "the cameras") or {}

    @cached_property
    def points(self) -> np.ndarray | None:
        """(P,3) triangulated points, None where there are none."""
        points = self.cameras.get("points", np.zeros((0, 3)))
        points = points[np.isfinite(points).all(1)] if points.ndim == 2 else points[:0]
        return points if len(points) else None

    def flow_fields(self, count: int, stride: int = 1) -> list[FlowField]:
        """Evenly spread fields over a distance in time; fewer, or none, where they are not there."""
        folder = self.root / "flow"
        last = max((round(shot.time) for shot in self.shots), default=0)
        pairs = [(t, t + stride) for t in range(last + 1) if flow_path(folder, t, t + stride).is_file()]
        chosen = [pairs[i] for i in spread(len(pairs), count)]
        return self.problems.attempt(lambda: [self._flow_field(folder, *pair) for pair in chosen]) or []

    def _flow_field(self, folder: Path, source: int, target: int) -> FlowField:
        flow, consistent = read_flow_file(flow_path(folder, source, target))
        back = flow_path(folder, target, source)
        if consistent is None and back.is_file():
            consistent = check_consistency(flow, read_flow_file(back)[0])[0].consistent
        return FlowField(source, target, flow, consistent)

    def _bare_shot(self, path: Path, time: int) -> Shot:
        mask = self.root / "foreground" / f"{path.stem}.png"
        shot = Shot(path.stem, time, path, mask if mask.is_file() else None)
        if self.cameras and time < len(self.cameras["w2c"]) and self.cameras["registered"][time]:
            K = self.cameras["K"]
            shot.camera = ShotCamera(self.cameras["w2c"][time], K if K.ndim == 2 else K[time])
        return shot

    def _shot(self, entry: FrameEntry) -> Shot:
        shot = Shot(entry.name, entry.time, entry.image, entry.foreground, entry.depth, entry.confidence)
        size = entry.size or self._stored_size(entry)
        if entry.w2c is not None and size is not None:
            shot.camera = ShotCamera(entry.w2c, entry.K(size))
        return shot

    def _stored_size(self, entry: FrameEntry) -> tuple[int, int] | None:
        """(height, width) of the image of a frame that does not say; None if it cannot be read."""
        return self.problems.attempt(image_size, entry.image)


def spread(total: int, count: int) -> list[int]:
    """Up to ``count`` indices below ``total``, evenly spread, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))}) if total else []
