"""The options of run_preprocess.py. Free of torch, OpenCV and pycolmap, so that ``--help`` answers at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from som.errors import UserError
from som.preprocessing.cameras.options import CameraOptions
from som.preprocessing.frames.options import FrameOptions
from som.preprocessing.masks.options import MaskOptions

StageName = Literal["frames", "flow", "motion", "cameras", "masks", "tracks", "depth", "report"]
STAGES: tuple[StageName, ...] = ("frames", "flow", "motion", "cameras", "masks", "tracks", "depth", "report")
"""In the order in which they run. Each needs only those before it."""
SourceSize = tuple[int, int]


@dataclass(frozen=True)
class FlowStage:
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
class CameraStage(CameraOptions):
    """Cameras: estimated from the flow, or given."""

    given: Path | None = None
    """Cameras of another program, instead of an estimate; see docs/bring-your-own-priors.md for the formats."""
    given_kind: str = "auto"
    """Format of ``given`` where it cannot be told by its files: colmap, nerfstudio, megasam, posed_depth, droid, tum or
    monst3r."""
    given_size: SourceSize | None = None
    """Height and width of the images that the other program was given, if they were not of the frames' size."""
    allow_pickle: bool = False
    """Open a pickled file (DROID-SLAM, Shape of Motion); only for files that you trust."""


@dataclass(frozen=True)
class MaskStage(MaskOptions):
    """Masks of what moves by itself: found from motion, or given."""

    given: Path | None = None
    """Masks of another program (SAM 2, track-anything, DAVIS): a folder of png files, or an array file."""
    given_objects: tuple[int, ...] | None = None
    """Numbers of the objects that move, where ``given`` holds several; by default all of them."""
    given_size: SourceSize | None = None
    """Height and width of the images that the other program was given, if they were not of the frames' size."""


@dataclass(frozen=True)
class TrackStage:
    """Long point tracks: chained from flow, or given."""

    given: Path | None = None
    """Tracks of another program (TAPIR, BootsTAPIR, CoTracker): an .npz file or a folder of pairwise .npy files."""
    given_size: SourceSize | None = None
    """Height and width of the images that the tracker was given, if they were not of the frames' size."""
    num_tracks: int = 6000
    """Most tracks."""
    foreground_share: float = 0.7
    """Share of the tracks that start on moving things."""


@dataclass(frozen=True)
class DepthStage:
    """Depth: estimated from the clip, or given."""

    method: Literal["auto", "estimate", "layout"] = "auto"
    """``estimate``: plane sweep with the cameras and a network that learns from it; ``layout``: a guess, level ground
    and a wall, for clips whose camera does not travel; auto: the first where the clip allows it, else the second, with
    a warning."""
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


@dataclass(frozen=True)
class PreprocessRun:
    """Options of run_preprocess.py."""

    source: tyro.conf.Positional[Path]
    """A video that ffmpeg reads, or a folder of images."""
    output: Path
    """The data set folder that is made. Look at its report.html."""
    name: str = ""
    """Name of the data set; by default that of the folder."""
    frames: FrameOptions = field(default_factory=FrameOptions)
    """Which frames, at which size."""
    flow: FlowStage = field(default_factory=FlowStage)
    """Optical flow."""
    cameras: CameraStage = field(default_factory=CameraStage)
    """Cameras."""
    masks: MaskStage = field(default_factory=MaskStage)
    """What moves by itself."""
    tracks: TrackStage = field(default_factory=TrackStage)
    """Point tracks."""
    depth: DepthStage = field(default_factory=DepthStage)
    """Depth."""
    skip: tuple[Literal["masks", "tracks", "depth", "report"], ...] = ()
    """Stages to leave out; a data set without masks is taken for a scene in which nothing moves."""
    stop_after: StageName = "report"
    """Last stage to run; the same command without it goes on from there."""
    redo: tuple[StageName, ...] = ()
    """Stages to run anew although they are done, with all that follow from them."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto: cuda if there is one."""
    seed: int = 0
    """Of every random choice."""


@dataclass(frozen=True)
class CheckRun:
    """Options of run_preprocess.py check."""

    folder: tyro.conf.Positional[Path]
    """Data set folder of any layout that run_training.py reads."""
    seq_name: str = ""
    """The sequence, where a folder of the Shape-of-Motion or DAVIS layout holds several."""


def check_run(run: PreprocessRun) -> None:
    """Refuses values that cannot work, before any work is done.

    Raises:
        UserError: names the option, what it must be and what it is.
    """
    if not run.flow.strides or min(run.flow.strides) < 1 or 1 not in run.flow.strides:
        raise UserError(f"--flow.strides: distances >= 1 with 1 among them are expected, got {run.flow.strides}.")
    at_least = {"flow.max-side": (run.flow.max_side, 64), "depth.max-side": (run.depth.max_side, 64)}
    at_least |= {"tracks.num-tracks": (run.tracks.num_tracks, 1)}
    for name, (value, low) in at_least.items():
        if value < low:
            raise UserError(f"--{name}: must be at least {low}, got {value}.")
    if not 0 <= run.tracks.foreground_share <= 1:
        raise UserError(f"--tracks.foreground-share: must lie in [0, 1], got {run.tracks.foreground_share}.")
    for name, value in (("budget-s", run.depth.budget_s), ("given-unit", run.depth.given_unit)):
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--depth.{name}: must be positive, got {value}.")
    if run.threads < 0:
        raise UserError(f"--threads: must be 0 or positive, got {run.threads}.")
    for name in ("cameras", "masks", "tracks", "depth"):
        given = getattr(run, name).given
        if given is not None and not given.exists():
            raise UserError(f"--{name}.given {given}: does not exist.")
        if given is not None and name in run.skip:
            raise UserError(f"--skip {name} and --{name}.given contradict each other; leave one of them out.")
    for name in ("flow", "depth"):
        weights = getattr(run, name).weights
        if weights is not None and not weights.is_file():
            raise UserError(f"--{name}.weights {weights}: no such file.")


def part(options: object, kind: type) -> object:
    """The fields of ``options`` that its base class ``kind`` has."""
    return kind(**{f.name: getattr(options, f.name) for f in dataclasses.fields(kind)})
