"""The settings of preprocessing. Free of torch, OpenCV and pycolmap, so that ``--help`` answers at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from som.preprocessing.cameras.options import CameraOptions
from som.preprocessing.frames.options import FrameOptions
from som.preprocessing.masks.options import MaskOptions
from som.preprocessing.moving.options import MovingDepthOptions

StageName = Literal["frames", "flow", "motion", "cameras", "masks", "tracks", "depth", "report"]
"""Of ``som.preprocessing.stages.STAGES``, in the order in which they run."""
SourceSize = tuple[int, int]


@dataclass(frozen=True)
class FlowSettings:
    """Optical flow between the frames, in both directions."""

    estimator: Literal["auto", "dis", "raft-large", "raft-small"] = "auto"
    """``auto``: the RAFT model that ``weights`` holds, or OpenCV's DIS, which needs no weights."""
    weights: Path | None = None
    """Checkpoint of RAFT, princeton-vl's or torchvision's."""
    strides: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Distances in frames over which flow is computed."""
    max_side: int = 480
    """Flow is computed on images reduced to at most this many pixels on the longer side."""


@dataclass(frozen=True)
class CameraSettings(CameraOptions):
    """Cameras: estimated from the flow, or given."""

    provider: str = "auto"
    """Who makes them. auto, estimate: recognises a static camera, else adjusts from several focal lengths, takes the
    best and, where few points fit, asks pycolmap too, if it is installed; bundle-adjustment: the flow alone;
    global-mapping: pycolmap; static: every frame has the same camera; given."""
    given: Path | None = None
    """Cameras of another program, instead of an estimate; see docs/bring-your-own-priors.md for the formats."""
    given_kind: Literal["auto", "colmap", "nerfstudio", "megasam", "posed_depth", "droid", "tum", "monst3r"] = "auto"
    """Format of ``given`` where its files do not show it."""
    given_size: SourceSize | None = None
    """Height and width of the images that the other program was given, if they were not of the frames' size."""
    allow_pickle: bool = False
    """Open a pickled file (DROID-SLAM, Shape of Motion); only for files that you trust."""


@dataclass(frozen=True)
class MaskSettings(MaskOptions):
    """Masks of what moves by itself: found from motion, or given."""

    provider: str = "auto"
    """Who makes them. auto, motion: by homography and multi-view geometry together once there are cameras that fit, and
    by plain flow where the camera stands still; homography: what does not follow the homography of most of the picture
    moves; multi-view: what no static point at any depth explains under the estimated cameras; none: nothing moves;
    given."""
    given: Path | None = None
    """Masks of another program (SAM 2, track-anything, DAVIS): a folder of png files, or an array file."""
    given_objects: tuple[int, ...] | None = None
    """Numbers of the objects that move, where ``given`` holds several; by default all of them."""
    given_size: SourceSize | None = None
    """Height and width of the images that the other program was given, if they were not of the frames' size."""


@dataclass(frozen=True)
class TrackSettings:
    """Long point tracks: chained from flow, or given."""

    provider: str = "auto"
    """Who makes them. auto, chained-flow: points are carried along the flow; given."""
    given: Path | None = None
    """Tracks of another program (TAPIR, BootsTAPIR, CoTracker): an .npz file or a folder of pairwise .npy files."""
    given_size: SourceSize | None = None
    """Height and width of the images that the tracker was given, if they were not of the frames' size."""
    num_tracks: int = 6000
    """Most tracks."""
    foreground_share: float = 0.7
    """Share of the tracks that start on moving objects."""


@dataclass(frozen=True)
class DepthSettings:
    """Depth: estimated from the clip, or given."""

    provider: str = "auto"
    """Who makes it. estimate: plane sweep with the cameras and a network that learns from it; layout: a guess, level
    ground and a wall, for clips whose camera does not travel; auto: depth that came with given cameras, else the first
    where the clip allows it, else the second, with a warning; given."""
    given: Path | None = None
    """Depth or disparity of another program: a folder with a file a frame, or one array file."""
    given_kind: Literal["auto", "metric", "scale", "relative"] = "auto"
    """What the numbers mean: metres, one unknown scale for the clip, or an unknown scale and shift in every frame."""
    given_values: Literal["auto", "depth", "disparity"] = "auto"
    """Which of the two the numbers are."""
    given_unit: float | None = None
    """Metres per step of integer files, such as 0.001 for millimetres."""
    given_size: SourceSize | None = None
    """Height and width of the images that the other program was given, if they were not of the frames' size."""
    max_side: int = 384
    """Longer side in pixels of the images that depth is estimated on."""
    refine_poses: bool = False
    """Correct the cameras by the depth that several views confirm, where more of it is confirmed then. Helps given
    cameras that are a little off; those estimated here gain nothing, and it takes three times as long."""
    weights: Path | None = None
    """Pretrained weights that the network starts from; see docs/depth-networks.md."""
    budget_s: float | None = None
    """Seconds that the estimate may take; only then does the result depend on the machine's speed."""
    moving: MovingDepthOptions = field(default_factory=MovingDepthOptions)
    """Correction of the depth of moving objects."""


@dataclass(frozen=True)
class PreprocessRun:
    """Settings of preprocessing."""

    source: tyro.conf.Positional[Path]
    """A video that ffmpeg reads, or a folder of images."""
    output: Path
    """The data set folder that is made. Look at its report.html."""
    name: str = ""
    """Name of the data set; by default that of the folder."""
    frames: FrameOptions = field(default_factory=FrameOptions)
    """Which frames, at which size."""
    flow: FlowSettings = field(default_factory=FlowSettings)
    """Optical flow."""
    cameras: CameraSettings = field(default_factory=CameraSettings)
    """Cameras."""
    masks: MaskSettings = field(default_factory=MaskSettings)
    """What moves by itself."""
    tracks: TrackSettings = field(default_factory=TrackSettings)
    """Point tracks."""
    depth: DepthSettings = field(default_factory=DepthSettings)
    """Depth."""
    skip: tuple[Literal["masks", "tracks", "depth", "report"], ...] = ()
    """Stages to leave out; a data set without masks is taken for a scene in which nothing moves."""
    stop_after: StageName = "report"
    """Last stage to run; the same command without it goes on from there."""
    redo: tuple[StageName, ...] = ()
    """Stages to run anew although they are done, with all that follow from them."""
    threads: int = 0
    """CPU threads of the command; 0: as many as torch takes by itself."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto: cuda if there is one."""
    seed: int = 0
    """Of every random choice."""


@dataclass(frozen=True)
class CheckRun:
    """Settings of the check."""

    folder: tyro.conf.Positional[Path]
    """Data set folder of any layout that training reads."""
    seq_name: str = ""
    """The sequence, where a folder of the Shape-of-Motion or DAVIS layout holds several."""


T = TypeVar("T")


def part(options: Any, kind: type[T]) -> T:
    """The fields of ``options`` that its base class ``kind`` has."""
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: getattr(options, name) for name in names})
