"""Makes the networks and the data set of a training run from its configuration and its sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.data.augmentation import AugmentationConfig
from som.depth.learning.data.dataset import DepthDataset
from som.depth.learning.training.config import DepthTrainingConfig, PoseSource
from som.depth.learning.training.sources import source_rule
from som.depth.networks import DepthNet, NetworkConfig, PoseNet, make_depth_net, make_pose_net
from som.depth.sweep import SweepConfig, estimate_range
from som.runs.device import seeded

DEFAULT_RANGE = (0.1, 100.0)
"""Depth range of Monodepth2 and SC-SfMLearner, for a scale that is free."""
RANGE_FRAMES = 48
"""Frames from the beginning of a sequence on which its depth range is searched."""
QUANTILES = torch.tensor([0.01, 0.99])
"""Known depth beyond these quantiles is not looked at for the range."""
MAX_FAR_RATIO = 1000.0
"""Far end over near end, for heads that need one, of a scene that reaches to infinity."""
RANGE_MARGIN_FACTOR = 2.0
"""The depth range reaches this factor beyond the 1st and 99th percentile of known depth."""


def needs_poses(config: DepthTrainingConfig) -> bool:
    """Whether the network or some term of the objective needs relative poses."""
    weights = config.weights
    return config.network.name == "mvdepthnet" or any(
        (weights.photometric, weights.geometry, weights.velocity, weights.rigid_flow, weights.flow_consistency)
    )


def resolve_pose(config: DepthTrainingConfig, sequences: Sequence[DepthSequence]) -> PoseSource:
    """``given``, or the pose network's name.

    Raises:
        DepthError: poses are wanted from data that has none, or a term lacks what it needs: speeds, or optical flow.
    """
    posed = all(sequence.w2cs is not None for sequence in sequences)
    pose = config.pose
    if pose == "auto":
        multiview = config.network.name == "mvdepthnet"
        pose = "given" if posed or multiview or not needs_poses(config) else "resnet18"
    if pose == "given" and needs_poses(config) and not posed:
        name = next(sequence.name for sequence in sequences if sequence.w2cs is None)
        learn = "" if config.network.name == "mvdepthnet" else "learn them with pose resnet18, or "
        raise DepthError(f"{name} has no camera poses; {learn}give poses.")
    unknown = [sequence.name for sequence in sequences if not sequence.has_flow]
    if config.weights.rigid_flow and unknown:
        raise DepthError(
            f"{unknown[0]}: weights.rigid_flow needs optical flow, which only a data set folder with flow/ has; fill "
            "it with python -m flow video, or set the weight to 0."
        )
    if config.weights.velocity:
        if pose == "given":
            raise DepthError("weights.velocity supervises a pose network, but poses are given; set pose to resnet18.")
        timed = all(s.speeds is not None and s.timestamps is not None for s in sequences)
        if not (posed or timed):
            raise DepthError("weights.velocity needs poses in metres, or speeds and timestamps; the data has neither.")
    return pose


def known_depth(
    sequences: Sequence[DepthSequence], labels: Sequence[Tensor] | None = None, max_frames: int = 30
) -> Tensor:
    """A sample of the depths known of the sequences (of a teacher, else of the data sets), (N) and maybe empty."""
    parts = []
    for k, sequence in enumerate(sequences):
        every = max(len(sequence) // max_frames, 1)
        for t in range(0, len(sequence), every):
            if labels is not None:
                parts.append(labels[k][t].flatten())
            elif sequence.has_depth[t]:
                parts.append(sequence.depth(t)[0].flatten())
    values = torch.cat(parts) if parts else torch.zeros(0)
    return values[values > 0]


def swept_range(sequence: DepthSequence) -> tuple[float, float]:
    """Near and far of a posed sequence, found by a coarse plane sweep of some of its frames.

    Raises:
        DepthError: the camera does not move enough to determine it.
    """
    if sequence.Ks is None or sequence.w2cs is None:
        raise DepthError(f"{sequence.name}: a depth range is found by intrinsics and poses, which are not known.")
    chosen = list(range(min(len(sequence), RANGE_FRAMES)))
    masks = [mask for t in chosen if (mask := sequence.moving(t)) is not None]
    moving = torch.stack(masks) if masks else None
    K, w2c = sequence.Ks[chosen].double(), sequence.w2cs[chosen].double()
    return estimate_range(sequence.images(chosen), K, w2c, moving, SweepConfig())


def network_config(
    config: DepthTrainingConfig, sequences: Sequence[DepthSequence], pose: str, depth: Tensor
) -> NetworkConfig:
    """The network's configuration with everything that was left to the data.

    Args:
        pose: see ``resolve_pose``.
        depth: known depths (N), maybe empty; used where the network's scale is theirs.

    Raises:
        DepthError: the camera does not move, so that its poses do not determine the scale.
    """
    options = config.network
    initial, span = options.initial_depth, options.depth_range
    scaled = pose == "given" or config.weights.supervised > 0 or config.weights.velocity > 0
    if scaled and len(depth):
        initial = float(depth.median()) if initial is None else initial
        if span is None:
            low, high = torch.quantile(_thinned(depth).double(), QUANTILES.double()).tolist()
            span = (low / RANGE_MARGIN_FACTOR, high * RANGE_MARGIN_FACTOR)
    elif pose == "given" and needs_poses(config) and (initial is None or span is None):
        near, far = swept_range(sequences[0])
        initial = 2 / (1 / near + 1 / far) if initial is None else initial
        span = (near / RANGE_MARGIN_FACTOR, far * RANGE_MARGIN_FACTOR) if span is None else span
    span = DEFAULT_RANGE if span is None else span
    if span[1] == math.inf and options.head in ("ddv", "dorn"):
        span = (span[0], MAX_FAR_RATIO * span[0])  # these heads spread their bins over the range
    if initial is not None and not span[0] < initial < span[1]:
        initial = math.sqrt(span[0] * min(span[1], 1e6))
    if options.name == "mvdepthnet":
        raise DepthError("mvdepthnet is made by som.depth.learning.multiview, not from single images.")
    return NetworkConfig(
        name=options.name,
        head=options.head,
        upsampling=options.upsampling,
        num_scales=options.num_scales,
        depth_range=span,
        initial_depth=initial,
        bins=options.bins,
    )


def _thinned(values: Tensor, most: int = 1_000_000) -> Tensor:
    return values if len(values) <= most else values[:: len(values) // most + 1]


def make_networks(
    config: DepthTrainingConfig, network: NetworkConfig, pose: PoseSource
) -> tuple[DepthNet, PoseNet | None]:
    """Networks with the random weights of the configuration's seed; torch's own generator is left as it was."""
    with seeded(config.seed, torch.device("cpu")):
        depth_net = make_depth_net(network)
        pose_net = None
        if pose != "given" and needs_poses(config):
            style = "monodepth2" if pose == "cnn" else "packnet" if pose == "packnet" else config.pose_style
            pose_net = make_pose_net(pose, style=style, num_sources=config.num_sources)
    return depth_net, pose_net


def make_dataset(
    config: DepthTrainingConfig,
    sequences: Sequence[DepthSequence],
    scene_depth: float | None,
    annotate: Callable[[DepthSequence, int], dict[str, Tensor]] | None = None,
    with_depth: bool = False,
) -> DepthDataset:
    """The samples of a run. Where no term looks at sources, any other frame stands for them.

    Raises:
        DepthError: the rule of the sources lacks what it needs, or intrinsics are not known.
    """
    for sequence in sequences:
        if (needs_poses(config) or config.weights.normals or config.weights.tangent_plane) and sequence.Ks is None:
            raise DepthError(f"{sequence.name}: the camera's intrinsics are not known; give them.")
    changes = config.augmentation
    return DepthDataset(
        list(sequences),
        source_rule(config, list(sequences), scene_depth) if needs_poses(config) else _any_other,
        augmentation=AugmentationConfig(flip=changes.flip, max_zoom=changes.max_zoom, jitter=changes.jitter),
        seed=config.seed,
        with_depth=with_depth,
        with_flow=config.weights.rigid_flow > 0,
        annotate=annotate,
    )


def _any_other(sequence: DepthSequence, target: int) -> list[int] | None:
    return [target - 1 if target else 1] if len(sequence) > 1 else None
