"""The settings of som4d depth. Free of torch, so that ``--help`` answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from som.depth.errors import DepthError
from som.depth.learning.training.config import DepthConfig, DepthTrainingConfig, SweepOptions
from som.settings.numbers import Number

Device = Literal["auto", "cpu", "cuda"]


@dataclass
class ReaderOptions:
    """What a layout does not say by itself; an option that the layout at hand does not have is refused."""

    split: Literal["train", "val"] | None = None
    """Which frames; None: train."""
    seq_name: str | None = None
    """shape_of_motion, davis: which sequence, where the folder holds several."""
    camera: int | None = None
    """KITTI: 0 to 3; None: 2, the left colour camera."""
    truth: Literal["camera", "eigen"] | None = None
    """KITTI: how laser scans become depth: exactly as the camera sees them, or as the literature's ground truth has
    it."""
    root: Path | None = None
    """eigen: folder of KITTI raw."""
    improved: Path | None = None
    """eigen: folder of KITTI's accumulated ground truth, in place of the scans."""
    depth_unit: Number | None = None
    """plain: metres per step of integer depth maps, such as 0.001 or 1/256."""
    center_offset: Number | None = None
    """plain, 7scenes: added to cx and cy; 0 if pixel centres lie at +0.5 already; None: 0.5."""
    world_scale: Literal["metric", "arbitrary"] | None = None
    """plain: unit of the poses; None: metric."""
    fps: Number | None = None
    """plain, folder, video: frames per second, where they are not known."""

    def given(self) -> dict[str, object]:
        """Those that are given, as keywords of the reader.

        Raises:
            DepthError: a unit or rate that is not positive.
        """
        found = {name: value for name, value in vars(self).items() if value is not None}
        for name in ("depth_unit", "fps"):
            if not 0 < found.get(name, 1) < math.inf:
                raise DepthError(f"`reader.{name}`: must be positive, got {found[name]:g}.")
        if not math.isfinite(found.get("center_offset", 0)):
            raise DepthError(f"`reader.center_offset`: must be a number, got {self.center_offset}.")
        return found


@dataclass
class InputOptions:
    """Which video, and what is known of its camera."""

    data: tuple[Path, ...]
    """Videos: a folder of frames, a video file, a data set folder, a KITTI raw drive or odometry sequence, a 7-Scenes
    sequence, a folder with images/ and K.txt, or a list of test images (.txt). Training takes several."""
    kind: str = "auto"
    """Layout, where it is not to be recognised: native, endonerf, iphone, davis, colmap, kitti_raw, kitti_odometry,
    7scenes, plain, shape_of_motion, folder, video, eigen."""
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    """What the layout's reader is given; see docs/depth-data.md."""
    start: int = 0
    """First frame."""
    end: int | None = None
    """Frame after the last one."""
    every: int = 1
    """Use every n-th frame."""
    moving: Path | None = None
    """Folder with a png per frame, 255 = moves by itself."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels of the stored images (pixel centres at +0.5), where the data has none."""
    fov: float | None = None
    """Horizontal field of view in degrees, instead of intrinsics."""


@dataclass
class MetricOptions:
    """What determines the scale in metres."""

    road: Path | None = None
    """Road masks: .npz or folder of png; together with ``objects``."""
    objects: Path | None = None
    """Objects of known height: .npz, COCO .json, or a folder of Cityscapes instance png."""
    priors: Path | None = None
    """JSON with mean and std of every class' height in metres; by default cars and persons of KITTI."""
    speed: float | None = None
    """Metres per second of the camera, where it is constant and the data does not say; needs the frame rate."""


@dataclass
class TrainCommand:
    """Train a depth network on videos."""

    input: Annotated[InputOptions, tyro.conf.arg(name="")]
    """Which videos."""
    work_dir: Path = Path("out_depth")
    """Gets config.yaml, checkpoints/ and metrics.jsonl; a run that was interrupted goes on from here."""
    training: DepthTrainingConfig = field(default_factory=DepthTrainingConfig)
    """How it is trained."""
    metric: Annotated[MetricOptions, tyro.conf.arg(name="")] = field(default_factory=MetricOptions)
    """Road and objects, for the terms rough_height and camera_height; one video only."""
    weights: Path | None = None
    """Pretrained weights of the depth network: a checkpoint of this program, a published file, or an encoder."""
    pose_weights: Path | None = None
    """Pretrained weights of the pose network."""
    device: Device = "auto"
    """Where to compute; auto: cuda if there is one."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""
    overwrite: bool = False
    """Start anew although the work dir holds a run (its checkpoints are deleted)."""


@dataclass
class ModelOptions:
    """Which network predicts."""

    model: Path | None = None
    """A checkpoint, or the work dir, of som4d depth train."""
    weights: Path | None = None
    """Published weights, for ``network``; see docs/depth-networks.md."""
    network: Literal["small", "resnet18", "resnet50", "packnet", "packnet_1b", "packnet_slim", "mvdepthnet"] = (
        "resnet18"
    )
    """Network that ``weights`` belong to."""
    depth_range: tuple[float, float] = (0.1, 100.0)
    """Depth range that ``weights`` were trained with."""
    scene_range: tuple[float, float] | None = None
    """``mvdepthnet``: nearest and farthest depth of the scene in the unit of its poses; None: found by a coarse
    sweep."""
    scale: float = 1.0
    """Factor on the network's depth, such as 5.4 for stereo-trained Monodepth2."""
    width: int | None = None
    """Width of the network's images; by default that of its training, or 640."""
    height: int | None = None
    """Height of the network's images; by default that of its training, or 192."""


@dataclass
class PredictCommand:
    """Write depth and confidence of a video: by a trained network or, without one, by a sweep and its own network."""

    input: Annotated[InputOptions, tyro.conf.arg(name="")]
    """Which video."""
    output: Path | None = None
    """Folder that gets depth/, depth_confidence/, depth.json and pictures/. By default a data set folder gets the
    depth itself, as its prior."""
    model: Annotated[ModelOptions, tyro.conf.arg(name="")] = field(default_factory=ModelOptions)
    """The network; without ``model`` and ``weights`` one is fitted to this video."""
    clip: DepthConfig = field(default_factory=DepthConfig)
    """How depth is estimated without a given network."""
    metric: Annotated[MetricOptions, tyro.conf.arg(name="")] = field(default_factory=MetricOptions)
    """What determines the scale in metres."""
    budget_s: float | None = None
    """Seconds that the estimate may take."""
    png_unit: float | None = None
    """Write 16-bit png in this unit instead of float32 npy."""
    pictures: int = 8
    """Number of frames of which a picture is written."""
    device: Device = "auto"
    """Where to compute; auto: cuda if there is one."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""
    overwrite: bool = False
    """Replace depth that is there already."""


@dataclass
class ScoreCommand:
    """Score depth against the true depth of a data set."""

    input: Annotated[InputOptions, tyro.conf.arg(name="")]
    """Videos or test lists with true depth."""
    depth: Path | None = None
    """Folder with the depth to score, as som4d depth predict writes it."""
    model: Annotated[ModelOptions, tyro.conf.arg(name="")] = field(default_factory=ModelOptions)
    """Or the network to score."""
    protocol: Literal["eigen", "eigen_improved", "rgbd", "plain"] = "plain"
    """Which pixels count: KITTI's Eigen protocol, KITTI's improved truth, indoor sensors, or everything."""
    scales: tuple[Literal["none", "median", "sequence", "affine"], ...] = ("none", "median")
    """How scale is treated; one row of the table each."""
    flip: bool = False
    """Average the network's prediction with that for the mirrored image."""
    static_only: bool = False
    """Leave out pixels that masks say to move."""
    output: Path | None = None
    """Folder that gets scores.json, scores.md and error maps."""
    pictures: int = 8
    """Number of frames of which an error map is written."""
    device: Device = "auto"
    """Where to compute; auto: cuda if there is one."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""


@dataclass
class FuseCommand:
    """Fuse depth maps and poses into a coloured point cloud."""

    input: Annotated[InputOptions, tyro.conf.arg(name="")]
    """A video with poses."""
    output: Path = Path("cloud.ply")
    """The point cloud."""
    depth: Path | None = None
    """Folder with the depth, as som4d depth predict writes it; by default the data's own."""
    max_side: int = 320
    """Depth and images are reduced to this many pixels."""
    min_confidence: float = 0.1
    """Pixels of less confidence are left out."""
    min_views: int = 2
    """Other views that must agree on a point."""
    max_depth_error: float = 0.02
    """Relative difference of depth up to which another view agrees."""
    voxel: float | None = None
    """Side of the cubes in which points are merged, in the unit of the poses; None: the median size of a pixel on the
    surface; 0 merges none."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""


@dataclass
class SweepCommand:
    """Write the depth that a plane sweep finds, without any training; unknown where views do not agree."""

    input: Annotated[InputOptions, tyro.conf.arg(name="")]
    """A video with poses."""
    output: Path = Path("out_sweep")
    """Folder that gets depth/, depth_confidence/, depth.json and pictures/."""
    sweep: SweepOptions = field(default_factory=SweepOptions)
    """The sweep."""
    max_side: int = 256
    """Images are reduced to this many pixels."""
    pictures: int = 8
    """Number of frames of which a picture is written."""
    device: Device = "auto"
    """Where to compute; auto: cuda if there is one."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""

