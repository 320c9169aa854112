"""Puts frames that a reader found together into ``Views``: checks sizes, reduces, scales intrinsics, stacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from som.cameras.geometry import resize_intrinsics
from som.data.checks import Problems
from som.data.dataset import Views
from som.data.files import has_size, reduced_size, resize_image, resize_map

MAPS = ("valid", "foreground", "depth", "depth_confidence", "covisible")


@dataclass
class Frame:
    """One posed image as it lies on disk, at full resolution."""

    name: str
    time: int
    path: Path
    """The image file, for messages."""
    image: np.ndarray
    """(H,W,3) or (H,W,4) uint8; transparency becomes ``valid``."""
    w2c: np.ndarray
    """(4,4)"""
    K: np.ndarray
    """(3,3), pixel centres at +0.5."""
    maps: dict[str, np.ndarray | None] = field(default_factory=dict)
    """(H,W) arrays under the names in ``MAPS``; absent or None where unknown."""
    map_paths: dict[str, Path] = field(default_factory=dict)
    """Files of the maps, for messages."""


class ViewBuilder:
    """Collects the frames of one split, already reduced to ``max_side``."""

    def __init__(self, problems: Problems, max_side: int | None = None):
        self.problems = problems
        self.max_side = max_side
        self.frames: list[Frame] = []
        self.scale = (1.0, 1.0)
        """(x, y) factor by which the last frame was reduced; the same for all frames of equal size."""

    def add(self, frame: Frame) -> None:
        """Checks and reduces one frame; maps of another size are recorded as problems and left out."""
        full = frame.image.shape[:2]
        size = reduced_size(full, self.max_side)
        self.scale = (size[1] / full[1], size[0] / full[0])
        maps = {}
        for kind in MAPS:
            values = frame.maps.get(kind)
            if values is None:
                continue
            if has_size(frame.map_paths.get(kind, frame.path), values, full, self.problems, f"this {kind} map"):
                maps[kind] = resize_map(values, size)
        if frame.image.shape[2] == 4:
            opaque = resize_map(frame.image[..., 3] > 127, size)
            maps["valid"] = opaque & maps.get("valid", True)
        if self.frames and self.frames[0].image.shape[:2] != size:
            first = self.frames[0]
            found, wanted = f"{full[1]}x{full[0]}", f"{first.image.shape[1]}x{first.image.shape[0]}"
            self.problems.add(
                frame.path, f"this image is {found} (before reduction), but {first.path} gave {wanted}; resize one."
            )
            return
        K = resize_intrinsics(torch.from_numpy(frame.K), *self.scale).numpy()
        image = resize_image(np.ascontiguousarray(frame.image[..., :3]), size)
        self.frames.append(Frame(frame.name, frame.time, frame.path, image, frame.w2c, K, maps))

    def build(self) -> Views | None:
        """The views sorted by time, then name; None if no frame could be used."""
        if not self.frames:
            return None
        frames = sorted(self.frames, key=lambda f: (f.time, f.name))
        size = frames[0].image.shape[:2]
        valid = _stack(frames, "valid", np.ones(size, bool))
        return Views(
            names=[f.name for f in frames],
            times=torch.tensor([f.time for f in frames], dtype=torch.long),
            images=torch.from_numpy(np.stack([f.image for f in frames])),
            w2cs=torch.from_numpy(np.stack([f.w2c for f in frames])).float(),
            Ks=torch.from_numpy(np.stack([f.K for f in frames])).float(),
            valid=torch.ones((len(frames), *size), dtype=torch.bool) if valid is None else valid,
            foreground=self._all_or_none(frames, "foreground", "mask the moving things in every frame"),
            depths=_stack(frames, "depth", np.zeros(size, np.float32)),
            depth_confidence=_stack(frames, "depth_confidence", np.ones(size, np.float32)),
            covisible=self._all_or_none(frames, "covisible", "give it for every held-out view or for none"),
        )

    def _all_or_none(self, frames: list[Frame], kind: str, remedy: str) -> torch.Tensor | None:
        lacking = [f for f in frames if kind not in f.maps]
        if 0 < len(lacking) < len(frames):
            for frame in lacking:
                self.problems.add(frame.path, f"has no {kind} map although other frames of its split do; {remedy}.")
        return _stack(frames, kind, np.zeros(frames[0].image.shape[:2], bool))


def _stack(frames: list[Frame], kind: str, missing: np.ndarray) -> torch.Tensor | None:
    """(N,H,W) of one kind of map, None if no frame has it."""
    if all(kind not in f.maps for f in frames):
        return None
    return torch.from_numpy(np.stack([f.maps.get(kind, missing) for f in frames]))


def empty_views(height: int = 1, width: int = 1) -> Views:
    """No view at all: lets the checks report an empty split together with everything else."""
    return Views(
        names=[],
        times=torch.zeros(0, dtype=torch.long),
        images=torch.zeros((0, height, width, 3), dtype=torch.uint8),
        w2cs=torch.zeros((0, 4, 4)),
        Ks=torch.zeros((0, 3, 3)),
        valid=torch.zeros((0, height, width), dtype=torch.bool),
    )


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """(3,3) camera matrix."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
