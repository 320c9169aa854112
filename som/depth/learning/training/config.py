"""Settings of networks, losses and training. Free of torch, so that ``--help`` answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from som.depth.errors import DepthError

PoseSource = Literal["given", "resnet18", "resnet50", "cnn", "packnet"]
"""Where relative poses come from: the data, or a pose network of this name."""
Pose = Literal["auto", PoseSource]


@dataclass
class NetworkOptions:
    """The depth network; what is None is taken from the data."""

    name: Literal["small", "resnet18", "resnet50", "packnet", "packnet_1b", "packnet_slim", "mvdepthnet"] = "small"
    """``small`` suits one clip on a CPU (1.2 million parameters), ``resnet18`` and ``resnet50`` are Monodepth2's;
    PackNet is four times slower than ResNet-18 and wants a GPU. ``mvdepthnet`` matches every target with its sources,
    which needs poses, also to predict."""
    head: Literal["sigmoid", "softplus", "ddv", "dorn"] = "sigmoid"
    """What the output means: disparity by a sigmoid in a range or by softplus without bounds, a discrete disparity
    volume, or ordinal regression."""
    upsampling: Literal["nearest", "bilinear", "subpixel", "up_projection"] = "nearest"
    """How the decoder doubles its size."""
    num_scales: int = 1
    """Depth maps that the losses act on, 1 to 4; one is fastest, Monodepth2 has four."""
    depth_range: tuple[float, float] | None = None
    """Nearest and farthest depth in scene units. None: from known depth where there is some, else by a coarse sweep
    where there are poses, else 0.1 to 100."""
    initial_depth: float | None = None
    """Depth that the untrained net predicts everywhere. None: the median of known depth; where there are only poses,
    the middle of the swept range; with a learned pose the usual random start."""
    bins: int | None = None
    """Planes of ``ddv`` (None: 64) or bins of ``dorn`` (None: 80)."""
    width: float = 0.25
    """``mvdepthnet``: its channels over the published ones (1: 33.9 million parameters, 0.25: 2.2 million)."""
    matching: Literal["census", "zncc", "absolute", "published"] = "census"
    """``mvdepthnet``: how target and sources are compared on its 64 planes. The first three are the plane sweep's
    costs; ``published`` is what its public weights were trained with."""


@dataclass
class LossWeights:
    """Weight of every term of the objective; a term with weight 0 is not computed."""

    photometric: float = 1.0
    """Difference between the target and its sources warped into it."""
    geometry: float = 0.5
    """Relative disagreement of the depths of target and sources (SC-SfMLearner). Less than 0.5 can be gamed."""
    smoothness: float = 1e-3
    """Edge-aware smoothness of disparity over its mean, halved with every coarser scale."""
    supervised: float = 0.0
    """Difference to known depth (of the data set, or of a teacher), in the form ``supervision``."""
    velocity: float = 0.0
    """Length of the predicted motion against the distance known from speeds or poses of the data set; needs a pose
    net. PackNet-SfM has 0.1."""
    rough_height: float = 0.0
    """Height of objects of known size, per pixel; falls over the epochs. FUMET has 1."""
    camera_height: float = 0.0
    """Height of the camera above the road against the camera-height label; grows over the epochs. FUMET has 0.01."""
    rigid_flow: float = 0.0
    """Flow that depth and motion cause against optical flow, in pixels, where the latter is right and nothing moves;
    needs the optical flow of a data set folder (``python -m flow video``)."""
    flow_consistency: float = 0.0
    """Flow that depth and motion cause from target to source against that from source to target, in pixels, where they
    nearly agree (GeoNet, Yin)."""
    normals: float = 0.0
    """1 - cosine between the normals of predicted and of known depth (after GeoNet, Qi); needs known depth."""
    tangent_plane: float = 0.0
    """Difference of log depth from what the neighbours' tangent planes predict (after GeoNet, Qi): bends surfaces into
    planes and leaves their slant and depth alone. Needs nothing but the prediction."""


@dataclass
class Augmentation:
    """Random changes of samples."""

    flip: float = 0.5
    """Probability of mirroring left to right."""
    max_zoom: float = 1.15
    """Images are enlarged by up to this factor and cropped."""
    jitter: float = 0.5
    """Probability that the colours of the network's inputs are changed; the losses see the colours as they are."""
    rescale: float = 1.25
    """``mvdepthnet``: depth and camera motion of a sample are multiplied by one factor between 1 / rescale and rescale,
    so that depth has to be matched and cannot be remembered."""


@dataclass
class CollapseLimits:
    """When a result counts as flat or collapsed; it is reported with its cause and not written."""

    min_depth_variation: float = 0.02
    """Depth maps whose spatial standard deviation is below this share of their median, in most frames, are flat. A
    video of a flat wall seen head-on has to lower it."""
    max_share_at_end: float = 0.9
    """Largest share of pixels that may lie at one end of the network's depth range."""
    max_ramp: float = 0.9
    """Share of the variation of log depth that one smooth ramp, the same in all frames, may explain before a warning.
    Rooms and streets have 0.3 to 0.8."""
    max_geometry: float = 0.3
    """Geometry term above which, if it rose while the photometric term fell, the masks are being gamed."""


@dataclass
class DepthTrainingConfig:
    """How a depth network is trained."""

    network: NetworkOptions = field(default_factory=NetworkOptions)
    """The depth network."""
    pose: Pose = "auto"
    """Relative poses: from the data, or by a network. auto: from the data where it has poses, else ``resnet18``."""
    pose_style: Literal["monodepth2", "sc", "packnet"] = "monodepth2"
    """Whose conventions a ResNet pose network follows; matters for loading published weights."""
    sources: Literal["auto", "consecutive", "offset", "baseline", "overlap", "two_view"] = "auto"
    """Which frames are compared with a target: neighbours in time; frames ``source_offset`` away; posed frames at a
    good baseline; posed frames that see much of the same; posed frames of the widest parallax that still do. auto:
    ``consecutive``, for ``mvdepthnet`` ``baseline``."""
    num_sources: int = 2
    """Source frames of each target."""
    source_offset: int = 1
    """Distance in frames, for ``offset``."""
    width: int = 192
    """Width of the images in pixels, a multiple of 32."""
    height: int = 96
    """Height of the images in pixels, a multiple of 32."""
    batch_size: int = 8
    """Targets per step, over all processes."""
    micro_batch: int | None = None
    """Targets that go through the network at a time; gradients add up to the whole batch. None: a process' share.
    Normalisation and masked means are taken over a micro batch: with the same number here, any number of processes
    computes the same."""
    steps: int = 2000
    """Optimisation steps."""
    learning_rate: float = 1e-3
    """Of Adam; the published big networks have 1e-4."""
    pose_learning_rate: float | None = None
    """Of the pose network; None: the same."""
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    """``step`` multiplies by 0.1 after three quarters (Monodepth2), ``cosine`` falls to a hundredth."""
    warmup: float = 0.02
    """Share of the steps over which the learning rate rises from 0."""
    weights: LossWeights = field(default_factory=LossWeights)
    """The objective."""
    photometric_form: Literal["minimum", "mean", "pairs"] = "minimum"
    """``minimum``: the best source of each pixel (Monodepth2); ``mean``: all sources; ``pairs``: both directions of
    every pair with the self-discovered mask (SC-SfMLearner)."""
    auto_mask: bool = True
    """Leave out pixels that an unwarped source explains better: what moves with the camera, or has no texture."""
    smoothness_form: Literal["first", "second", "geonet"] = "first"
    """First order over mean disparity, second order (planes are free), or GeoNet's without normalisation."""
    supervision: Literal["log", "inverse", "silog", "scale_invariant", "huber", "berhu", "head"] = "log"
    """Form of ``weights.supervised``: L1 of log depth, L1 of inverse depth, scale-invariant forms, Huber and berHu on
    depth; ``head`` is the loss on the distribution that ``ddv`` and ``dorn`` predict."""
    teacher: Literal["data", "sweep"] = "data"
    """Known depth for ``weights.supervised``: that of the data set, or what a plane sweep of every video confirms
    (needs poses), weighted by its confidence."""
    mask_moving: bool = True
    """Leave pixels out of the self-supervised terms that masks say to move, and out of all terms of ``mvdepthnet``."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How samples are varied."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the networks' arithmetic; half precisions need a GPU. Losses and geometry are always float32."""
    channels_last: bool = True
    """Memory layout of the convolutions; faster on CPUs and with half precision. PackNet does without."""
    workers: int = 0
    """Processes that load data; 0 loads in the training process. The result does not depend on it."""
    max_gradient: float = 10.0
    """Gradients are scaled down to this norm."""
    log_every: int = 20
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    keep_checkpoints: int | None = None
    """How many of these stay in the work dir, the newest; by default all."""
    collapse: CollapseLimits = field(default_factory=CollapseLimits)
    """When a result counts as collapsed."""
    seed: int = 0
    """Of every random choice; the same seed, device and version give the same result."""


def check_training(config: DepthTrainingConfig, num_processes: int = 1) -> None:
    """Refuses values that cannot work, before any work is done.

    Raises:
        DepthError: names the option, what it must be and what it is.
    """
    for name in ("width", "height"):
        value = getattr(config, name)
        if value < 32 or value % 32:
            raise DepthError(f"`{name}` must be a positive multiple of 32, got {value}.")
    for name in ("batch_size", "steps", "num_sources", "source_offset", "log_every", "checkpoint_every"):
        if getattr(config, name) < 1:
            raise DepthError(f"`{name}` must be at least 1, got {getattr(config, name)}.")
    for name, value in vars(config.weights).items():
        if not 0 <= value < math.inf:
            raise DepthError(f"`weights.{name}` must be 0 or positive, got {value}.")
    if not any(vars(config.weights).values()):
        raise DepthError("all weights of the objective are 0; there is nothing to train.")
    if not 0 <= config.warmup < 1 or config.learning_rate <= 0 or config.max_gradient <= 0:
        raise DepthError("`warmup` must lie in [0, 1), `learning_rate` and `max_gradient` must be positive.")
    if not 1 <= config.network.num_scales <= 4:
        raise DepthError(f"`network.num_scales` must be 1 to 4, got {config.network.num_scales}.")
    _check_multiview(config)
    if config.supervision == "head" and config.weights.supervised and config.network.head not in ("ddv", "dorn"):
        raise DepthError("`supervision` head needs `network.head` ddv or dorn, which predict a distribution.")
    micro = micro_batch(config, num_processes)
    if config.batch_size % (micro * num_processes):
        raise DepthError(
            f"`batch_size` {config.batch_size} must be a multiple of `micro_batch` {micro} x {num_processes} processes."
        )


def _check_multiview(config: DepthTrainingConfig) -> None:
    """Refuses what ``mvdepthnet`` cannot do."""
    options, weights = config.network, config.weights
    if config.augmentation.rescale < 1:
        raise DepthError(f"`augmentation.rescale` must be at least 1, got {config.augmentation.rescale}.")
    if options.name != "mvdepthnet":
        return
    if not 0 < options.width <= 4:
        raise DepthError(f"`network.width` must lie in (0, 4], got {options.width}.")
    if config.pose not in ("auto", "given"):
        raise DepthError(f"mvdepthnet matches posed frames and trains no pose network; leave `pose` {config.pose} out.")
    if weights.velocity or weights.rough_height or weights.camera_height:
        raise DepthError(
            "mvdepthnet has the scale of its poses; set `weights.velocity`, `weights.rough_height` and "
            "`weights.camera_height` to 0."
        )
    if options.head != "sigmoid" or options.upsampling != "nearest" or options.bins is not None:
        raise DepthError(
            "mvdepthnet has a fixed layout; leave `network.head`, `network.upsampling` and `network.bins` alone."
        )


def micro_batch(config: DepthTrainingConfig, num_processes: int) -> int:
    """Targets that go through the network at a time."""
    return config.micro_batch or max(config.batch_size // num_processes, 1)


@dataclass
class SweepOptions:
    """The plane sweep, the teacher that needs no training; see docs/plane-sweep.md for its other settings."""

    depth_range: tuple[float, float] | None = None
    """Nearest and farthest depth in the unit of the poses; None finds it from the images."""
    num_planes: int = 64
    """Depths that are tried."""
    cost: Literal["census", "zncc", "absolute"] = "census"
    """How images are compared."""
    num_sources: int = 8
    """Frames that each frame is compared with."""
    min_views: int = 3
    """Other frames that must agree on a depth, or it stays unknown."""


def student_training() -> DepthTrainingConfig:
    """What fits a small network to the sweep's depth of one clip."""
    return DepthTrainingConfig(
        weights=LossWeights(photometric=0.0, geometry=0.0, smoothness=0.02, supervised=1.0),
        augmentation=Augmentation(flip=0.0, max_zoom=1.0, jitter=0.5),
        steps=400,
        warmup=0.05,
    )


@dataclass(frozen=True)
class BlendOptions:
    """How the teacher's depth, known on some pixels, is completed by the network's."""

    reach: float = 0.02
    """How far, as a share of the longer image side, a known pixel corrects the network's depth around it."""
    half_weight_confidence: float = 0.1
    """Confidence of the teacher at which it and the network count about alike."""
    half_correction_error: float = 0.04
    """Relative difference of network and teacher at which the network is corrected by half."""
    half_confidence_error: float = 0.05
    """Relative difference of network and teacher at which the network's confidence has halved."""
    max_filled_confidence: float = 0.5
    """Largest confidence of a pixel that the teacher does not know, next to pixels where both agree."""
    moving_confidence: float = 0.05
    """Largest confidence of moving pixels: no view confirms them, and no supervision was there."""


@dataclass
class DepthConfig:
    """How the depth of one clip is estimated."""

    teacher: Literal["auto", "sweep", "none"] = "auto"
    """``sweep``: depth by plane sweep over known poses, then a network that learns from it and fills its holes.
    ``none``: self-supervised training alone. auto: ``sweep`` where poses are known."""
    sweep: SweepOptions = field(default_factory=SweepOptions)
    """The teacher."""
    refine_poses: bool = False
    """Correct the poses by the depth that the sweep confirmed, sweep again, and take both where more is confirmed then.
    The depth fits the poses of the result, not those that were given: whoever asks for it has to use them."""
    max_refinements: int = 4
    """Rounds of refined poses and another sweep."""
    min_refinement_gain: float = 1.05
    """Factor by which a round must raise the mean confidence of the sweep for its poses to be taken."""
    min_gain_to_repeat: float = 1.2
    """Factor from which on another round is tried."""
    max_side: int = 256
    """Longer side in pixels of the images that the sweep works on and that the depth is put together at."""
    student: DepthTrainingConfig = field(default_factory=student_training)
    """The network that learns from the sweep; its width and height are set by ``student_side``."""
    student_side: int = 192
    """Longer side in pixels of the network's images."""
    blend: BlendOptions = field(default_factory=BlendOptions)
    """Sweep and network in one map."""
    self_supervised: DepthTrainingConfig = field(default_factory=DepthTrainingConfig)
    """Training without a teacher; its width and height are set by ``student_side``."""
    moving: Literal["stand", "network"] = "stand"
    """Depth of moving objects, which no second view confirms: that of what lies just below them (right for what stands
    on the ground), or what the network makes of them (about the depth of what is behind them)."""
    refine_steps: int = 0
    """Steps of self-supervised training with the poses after the student has learned from the sweep."""
    seed: int = 0
    """Of every random choice."""
