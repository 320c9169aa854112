"""The flow fields of one video, in memory or in a folder, in a compact fixed-point form."""

from __future__ import annotations

import os
import re
import threading
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError
from flow.io.arrays import read_npz, write_npz

Pair = tuple[int, int]
"""(source, target): frame numbers."""
MIN_STEP_PX = 1 / 256
"""Flow is stored in steps of this many pixels, or of the next power of two that lets the largest vector fit."""


@dataclass(frozen=True)
class PackedFlow:
    """A flow field in fixed point: 4 bytes a pixel, at most half a step off."""

    values: np.ndarray
    """(H,W,2) int16, in steps."""
    step: float
    """Pixels per step, a power of two; 1/256 for flow up to 127 px."""

    @staticmethod
    def pack(flow: Tensor) -> PackedFlow:
        """From (H,W,2) pixels, finite. Raises FlowError otherwise."""
        if flow.ndim != 3 or flow.shape[-1] != 2:
            raise FlowError(f"flow must have shape (H,W,2), got {tuple(flow.shape)}.")
        largest = float(flow.abs().amax()) if flow.numel() else 0.0
        if not np.isfinite(largest):
            raise FlowError("flow must be finite; it holds nan or inf.")
        step = max(MIN_STEP_PX, 2.0 ** np.ceil(np.log2(max(largest, 1e-9) / 32767)))
        return PackedFlow((flow / step).round().to(torch.int16).cpu().numpy(), float(step))

    def unpack(self) -> Tensor:
        """(H,W,2) float32 pixels."""
        return torch.from_numpy(self.values).float() * self.step


def flow_path(folder: Path, source: int, target: int) -> Path:
    """File of the flow from one frame to another: ``<folder>/00003_00004.npz``."""
    return folder / f"{source:05d}_{target:05d}.npz"


def list_pairs(folder: Path) -> list[Pair]:
    """The pairs whose fields lie in a folder, in order, from one reading of its list of files; [] without a folder."""
    try:
        with os.scandir(folder) as entries:
            found = [_FLOW_NAME.fullmatch(entry.name) for entry in entries]
    except FileNotFoundError:
        return []
    return sorted((int(match[1]), int(match[2])) for match in found if match is not None)


_FLOW_NAME = re.compile(r"([0-9]{5}|[1-9][0-9]{5,})_([0-9]{5}|[1-9][0-9]{5,})\.npz")


def write_flow_file(path: Path, flow: Tensor, consistent: Tensor | None = None) -> None:
    """Writes flow (H,W,2) in pixels, and optionally where it is known to be right (H,W) bool, in one rename."""
    packed = PackedFlow.pack(flow)
    arrays = {"flow": packed.values, "step": np.array(packed.step, np.float32)}
    if consistent is not None:
        arrays["consistent"] = consistent.cpu().numpy().astype(bool)
    write_npz(path, arrays)


def read_flow_file(path: Path) -> tuple[Tensor, Tensor | None]:
    """(H,W,2) float32 flow in pixels and (H,W) bool mask, or None where the file holds no mask.

    Files of float flow without ``step`` are read too.

    Raises:
        FlowError: the file is missing, broken or holds something else.
    """
    try:
        arrays = read_npz(path)
    except FileNotFoundError:
        raise FlowError(f"{path} does not exist; compute this flow first.") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise FlowError(f"{path} is not a readable flow file ({error}); delete it and compute it again.") from error
    values = arrays.get("flow")
    if values is None or values.ndim != 3 or values.shape[-1] != 2:
        raise FlowError(f'{path} must hold "flow" of shape (H,W,2); delete it and compute it again.')
    flow = torch.from_numpy(values.astype(np.float32)) * float(arrays.get("step", 1.0))
    mask = arrays.get("consistent")
    if mask is not None and mask.shape != values.shape[:2]:
        raise FlowError(f'{path} must hold "consistent" of shape {values.shape[:2]}, found {mask.shape}.')
    return flow, None if mask is None else torch.from_numpy(mask.astype(bool))


class VideoFlow:
    """Flow fields between frames of a video, by (source, target) frame index.

    A folder is listed once, when it is first asked what it holds; ``put`` keeps the list. Fields that another object or
    program adds or removes later are seen by a new ``VideoFlow`` only.

    Attributes:
        num_frames: T.
        height, width: size of the fields in pixels.
        image_height, image_width: size of the frames that they were computed for (fields may be smaller).
        folder: where the fields lie on disk; None keeps them in memory.
    """

    def __init__(
        self,
        num_frames: int,
        size: tuple[int, int],
        image_size: tuple[int, int] | None = None,
        folder: Path | None = None,
    ):
        self.num_frames, (self.height, self.width) = num_frames, size
        self.image_height, self.image_width = image_size or size
        self.folder = folder
        self._packed: dict[Pair, PackedFlow] = {}
        self._pairs: dict[Pair, None] | None = {} if folder is None else None
        self._listing = threading.Lock()

    def __contains__(self, pair: Pair) -> bool:
        return pair in self._known_pairs()

    def pairs(self) -> list[Pair]:
        """All (source, target) that are there, in order."""
        return sorted(self._known_pairs())

    def strides(self) -> tuple[int, ...]:
        """All distances |target - source| that are there."""
        return tuple(sorted({abs(target - source) for source, target in self.pairs()}))

    def put(self, source: int, target: int, flow: Tensor) -> None:
        """Stores the field (H,W,2) from ``source`` to ``target``; safe to call from several threads."""
        if flow.shape != (self.height, self.width, 2):
            raise FlowError(f"flow must have shape {(self.height, self.width, 2)}, got {tuple(flow.shape)}.")
        if self.folder is None:
            self._packed[source, target] = PackedFlow.pack(flow)
        else:
            write_flow_file(flow_path(self.folder, source, target), flow)
        self._known_pairs()[source, target] = None

    def get(self, source: int, target: int) -> Tensor:
        """The field (H,W,2) float32 in pixels of the field's size. Raises FlowError if it was not computed."""
        if self.folder is not None:
            flow, _ = read_flow_file(flow_path(self.folder, source, target))
            if flow.shape != (self.height, self.width, 2):
                path = flow_path(self.folder, source, target)
                raise FlowError(f"{path} is {flow.shape[1]}x{flow.shape[0]}, expected {self.width}x{self.height}.")
            return flow
        if (source, target) not in self._packed:
            raise FlowError(f"no flow from frame {source} to {target}; compute stride {abs(target - source)} too.")
        return self._packed[source, target].unpack()

    def select(self, frames: Sequence[int], image_size: tuple[int, int] | None = None) -> VideoFlow:
        """The flow of a video that consists of these frames only, in this order, renumbered from 0.

        Args:
            image_size: (height, width) of the frames where they have been resized since; None leaves what it was.

        Raises:
            FlowError: a number is no frame of this video or stands twice, or the size has other proportions.
        """
        return _SelectedFlow(self, frames, image_size or (self.image_height, self.image_width))

    def _known_pairs(self) -> dict[Pair, None]:
        """The pairs that are there, as keys: unlike a set they stay nearly in order, which makes sorting fast."""
        with self._listing:
            if self._pairs is None:
                found = [] if self.folder is None else list_pairs(self.folder)
                self._pairs = {pair: None for pair in found if max(pair) < self.num_frames}
            return self._pairs


class _SelectedFlow(VideoFlow):
    """Some frames of another video's flow; holds no field of its own."""

    def __init__(self, whole: VideoFlow, frames: Sequence[int], image_size: tuple[int, int]):
        frames = [int(frame) for frame in frames]
        if len(set(frames)) != len(frames) or not all(0 <= frame < whole.num_frames for frame in frames):
            raise FlowError(f"frames must be different numbers in [0, {whole.num_frames}), got {frames}.")
        (height, width), known = image_size, (whole.image_height, whole.image_width)
        # each side may be rounded by up to a pixel
        if abs(height * known[1] - width * known[0]) > height + width + sum(known):
            raise FlowError(
                f"the flow is of frames of {known[1]}x{known[0]} px, which {width}x{height} px do not have the "
                "proportions of; compute it anew."
            )
        super().__init__(len(frames), (whole.height, whole.width), image_size, whole.folder)
        self._whole, self._frames = whole, frames

    def __contains__(self, pair: Pair) -> bool:
        return (self._frames[pair[0]], self._frames[pair[1]]) in self._whole

    def pairs(self) -> list[Pair]:
        number = {frame: i for i, frame in enumerate(self._frames)}
        return sorted((number[s], number[t]) for s, t in self._whole.pairs() if s in number and t in number)

    def put(self, source: int, target: int, flow: Tensor) -> None:
        self._whole.put(self._frames[source], self._frames[target], flow)

    def get(self, source: int, target: int) -> Tensor:
        return self._whole.get(self._frames[source], self._frames[target])
