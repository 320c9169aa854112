"""The network's unit: clips are scaled so that their nearest depth lies at its nearest plane.

A network that matches has no use for metres: only ratios of baseline, depth and planes show in its input. So one
network serves clips of any scale, metric or not, and its result is in the unit of their poses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from som.data.recording import FrameRecord
from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.training.build import swept_range
from som.depth.networks.mvdepthnet import MIN_PLANE_DEPTH


@dataclass(frozen=True)
class ClipScale:
    """How a clip fits the network's planes."""

    unit: float
    """Scene units per network unit."""
    middle: float
    """A typical depth in the network's unit, for the choice of measurement frames: the middle of the range in
    inverse depth."""


def clip_scale(sequence: DepthSequence, depth_range: tuple[float, float] | None = None) -> ClipScale:
    """The scale of a posed clip.

    Args:
        depth_range: nearest and farthest depth of the scene in the unit of the poses; None finds it by a coarse sweep.

    Raises:
        DepthError: no intrinsics or poses, an empty range, or a camera that does not move enough to find it.
    """
    if sequence.Ks is None or sequence.w2cs is None:
        what = "intrinsics" if sequence.Ks is None else "camera poses"
        raise DepthError(f"{sequence.name} has no {what}, and mvdepthnet matches posed frames; give them.")
    near, far = swept_range(sequence) if depth_range is None else depth_range
    if not 0 < near < far:
        raise DepthError(f"the depth range must be 0 < nearest < farthest, got {near:g} and {far:g}.")
    unit = near / MIN_PLANE_DEPTH
    return ClipScale(unit, 2 / (1 / near + 1 / far) / unit)


def in_network_units(sequence: DepthSequence, unit: float) -> DepthSequence:
    """The same clip with poses and depth divided by ``unit``."""
    frames = [_scaled(frame, unit) for frame in sequence.recording.frames]
    recording = replace(sequence.recording, frames=frames, world_scale="arbitrary")
    return DepthSequence(recording, size=sequence.size, cache_images=True)


def _scaled(frame: FrameRecord, unit: float) -> FrameRecord:
    w2c = None if frame.w2c is None else frame.w2c.copy()
    if w2c is not None:
        w2c[:3, 3] /= unit
    return replace(frame, w2c=w2c, depth=None if frame.depth is None else _divided(frame.depth, unit))


def _divided(read: Callable[[], np.ndarray], unit: float) -> Callable[[], np.ndarray]:
    return lambda: read() / np.float32(unit)
