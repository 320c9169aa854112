"""What every provider is given, and what it gives: one protocol and one result each for cameras, masks, tracks and
depth."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from flow.progress import Progress
from flow.tracks import PointTracks
from flow.video_flow import VideoFlow
from som.errors import UserError
from som.preprocessing.config import CameraSettings, DepthSettings, MaskSettings, TrackSettings
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.scene_cameras import SceneCameras

T = TypeVar("T")
Lazy: TypeAlias = T | Callable[[], T]
"""A value, or what reads it when it is first looked at."""


class Clip:
    """What is known of a video when a provider is asked. What its stage does not have yet is None.

    Args:
        names: of the T frames, here and in the recording.
        size: (height, width) of the frames.
        fps: frames a second.
        images: all frames.
        flow: between the frames.
        moving: what moves by itself; for the cameras and masks a first guess, afterwards the masks.
        cameras: of the frames.
        depth: z (T,H,W) in the unit of the cameras, 0 = unknown, where the cameras' provider had it too.
        tracks: of points, in pixels of the frames.
    """

    def __init__(
        self,
        names: FrameNames,
        size: tuple[int, int],
        fps: float,
        images: Lazy[UInt8[np.ndarray, "t h w 3"]],
        flow: Lazy[VideoFlow],
        *,
        moving: Lazy[Bool[Tensor, "t h w"] | None] = None,
        cameras: Lazy[SceneCameras | None] = None,
        depth: Lazy[Float[np.ndarray, "t h w"] | None] = None,
        tracks: Lazy[PointTracks | None] = None,
    ):
        self.names, self.size, self.fps = names, size, fps
        self._images, self._flow, self._moving = images, flow, moving
        self._cameras, self._depth, self._tracks = cameras, depth, tracks

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def images(self) -> UInt8[np.ndarray, "t h w 3"]:
        return _value(self._images)

    @cached_property
    def flow(self) -> VideoFlow:
        return _value(self._flow)

    @cached_property
    def moving(self) -> Bool[Tensor, "t h w"] | None:
        return _value(self._moving)

    @cached_property
    def cameras(self) -> SceneCameras | None:
        return _value(self._cameras)

    @property
    def known_cameras(self) -> SceneCameras:
        """The cameras, for stages after theirs.

        Raises:
            UserError: there are none.
        """
        if self.cameras is None:
            raise UserError("this provider needs cameras, and the clip has none yet.")
        return self.cameras

    @cached_property
    def depth(self) -> Float[np.ndarray, "t h w"] | None:
        return _value(self._depth)

    @cached_property
    def tracks(self) -> PointTracks | None:
        return _value(self._tracks)


def _value(lazy: Lazy[T]) -> T:
    return lazy() if callable(lazy) else cast(T, lazy)


@dataclass(kw_only=True)
class Result:
    """What every result says of itself."""

    method: str = ""
    """What made it, in words; by default the provider's name."""
    given: bool = False
    """Another program made it, and it was only read."""
    findings: dict[str, Any] = field(default_factory=dict)
    """Numbers and texts for the record, plain JSON."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that a person should read."""


@dataclass
class CameraResult(Result):
    """Cameras of all frames."""

    cameras: SceneCameras
    depth: Float[np.ndarray, "t h w"] | None = None
    """z in the unit of the cameras at the size of the frames, 0 = unknown, where it came with them."""


@dataclass
class MaskResult(Result):
    """What moves by itself."""

    foreground: Bool[Tensor, "t h w"] | None
    """At the size of the frames; None: nothing moves, and no masks are kept."""


@dataclass
class TrackResult(Result):
    """Point tracks."""

    tracks: PointTracks
    """In pixels of the frames."""


@dataclass
class DepthResult(Result):
    """Depth of all frames."""

    depth: Float[Tensor, "t h w"]
    """z at any size of the frames' shape, 0 = unknown. Frames without a camera are not looked at."""
    kind: Literal["metric", "scale", "relative"]
    """metres, one unknown scale for the clip, or an unknown scale and shift of every frame's disparity."""
    confidence: Float[Tensor, "t h w"] | None = None
    """In [0, 1]."""
    unit: Literal["cameras", "own"] = "own"
    """``cameras``: depth has the unit of the cameras already; ``own``: cameras and depth are brought to one scale by
    triangulated points."""
    cameras: SceneCameras | None = None
    """The cameras that the depth goes with, where they are not those of the clip."""
    moving: Literal["seen", "unknown"] = "seen"
    """``unknown``: the depth of what moves is a guess, and is worked out from what stands around it."""
    source: dict[str, Any] = field(default_factory=dict)
    """Provenance, plain JSON, for transforms.json."""


Settings = TypeVar("Settings", contravariant=True)
Found = TypeVar("Found", bound=Result, covariant=True)


@runtime_checkable
class Provider(Protocol[Settings, Found]):
    """Makes one prior of a clip. A frozen dataclass is best: its fields then count among what the result depends on."""

    options: Collection[str] = ()
    """Fields of the settings that it reads; changing any other is refused."""

    def check(self, settings: Settings) -> None:
        """Finds, before any work is done, what would fail later: packages, files, values.

        Raises:
            UserError: one sentence, what is missing and how to get it.
        """
        return

    def provide(self, clip: Clip, settings: Settings, *, device: torch.device, seed: int, progress: Progress) -> Found:
        """Makes the prior.

        Args:
            device: where networks run.
            seed: of every random choice.

        Raises:
            UserError: the clip or a file does not allow it.
        """
        ...


def given_path(settings: CameraSettings | MaskSettings | TrackSettings | DepthSettings) -> Path:
    """The path of another program's files.

    Raises:
        UserError: none is given.
    """
    if settings.given is None:
        raise UserError("the provider given needs the path of the files (`given`).")
    return settings.given


@runtime_checkable
class CameraProvider(Provider[CameraSettings, CameraResult], Protocol):
    """Makes the cameras."""

    uses_moving: bool = True
    """Whether it looks at ``clip.moving``. It is then asked twice, first without, so that the first masks have cameras
    to go by."""


@runtime_checkable
class MaskProvider(Provider[MaskSettings, MaskResult], Protocol):
    """Makes the masks of what moves by itself."""

    uses_cameras: bool = True
    """Whether it looks at ``clip.cameras``. It is then asked twice: the masks by the first cameras keep moving objects
    out of the cameras, by which the final masks are made."""


@runtime_checkable
class TrackProvider(Provider[TrackSettings, TrackResult], Protocol):
    """Makes the point tracks."""


@runtime_checkable
class DepthProvider(Provider[DepthSettings, DepthResult], Protocol):
    """Makes the depth."""
