"""The trainer of a multi-view run from its configuration and its clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flow.progress import Progress
from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.data.augmentation import AugmentationConfig
from som.depth.learning.data.dataset import DepthDataset
from som.depth.learning.multiview.network import MultiViewConfig, MultiViewNet
from som.depth.learning.multiview.objective import MultiViewObjective
from som.depth.learning.multiview.units import ClipScale, clip_scale, in_network_units
from som.depth.learning.training.build import known_depth, resolve_pose
from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.learning.training.sources import rule_name, source_frames, time_offsets
from som.depth.learning.training.teacher import swept_labels
from som.depth.learning.training.trainer import DepthTrainer
from som.depth.networks.mvdepthnet import MIN_PLANE_DEPTH
from som.depth.views import SourceConfig
from som.runs.device import seeded

INITIAL_DEPTH_RATIO = 1.05
"""Depth that the untrained network predicts is at least this many times its nearest depth."""


@dataclass(frozen=True)
class ScaledClip:
    """A clip in the network's unit."""

    sequence: DepthSequence
    scale: ClipScale


def scaled_clips(config: DepthTrainingConfig, sequences: Sequence[DepthSequence]) -> list[ScaledClip]:
    """The clips in the network's unit, each with a scale of its own.

    Raises:
        DepthError: as ``clip_scale``.
    """
    scales = [clip_scale(sequence, config.network.depth_range) for sequence in sequences]
    return [
        ScaledClip(in_network_units(sequence, scale.unit), scale)
        for sequence, scale in zip(sequences, scales, strict=True)
    ]


def make_network(config: DepthTrainingConfig, clips: Sequence[ScaledClip], known: Tensor) -> MultiViewNet:
    """The network with the random weights of the configuration's seed; torch's own generator is left as it was.

    Args:
        known: known depths in the network's unit (N), maybe empty.
    """
    options = config.network
    if options.initial_depth is not None:
        initial = options.initial_depth / clips[0].scale.unit
    elif len(known):
        initial = float(known.median())
    else:
        initial = clips[0].scale.middle
    with seeded(config.seed, torch.device("cpu")):
        return MultiViewNet(
            MultiViewConfig(
                width=options.width,
                matching=options.matching,
                num_scales=options.num_scales,
                initial_depth=max(initial, INITIAL_DEPTH_RATIO * MIN_PLANE_DEPTH),
            )
        )


def make_samples(
    config: DepthTrainingConfig,
    clips: Sequence[ScaledClip],
    annotate: Callable[[DepthSequence, int], dict[str, Tensor]] | None = None,
    with_depth: bool = False,
) -> DepthDataset:
    """Targets with their measurement frames, which are the configuration's sources.

    Raises:
        DepthError: as ``source_frames`` and ``DepthDataset``.
    """
    tables = {id(clip.sequence): source_frames(config, clip.sequence, clip.scale.middle).tolist() for clip in clips}

    def rule(sequence: DepthSequence, target: int) -> list[int] | None:
        row = tables[id(sequence)][target]
        return None if row[0] < 0 else row

    changes = config.augmentation
    return DepthDataset(
        [clip.sequence for clip in clips],
        rule,
        augmentation=AugmentationConfig(flip=changes.flip, max_zoom=changes.max_zoom, jitter=changes.jitter),
        seed=config.seed,
        with_depth=with_depth,
        with_flow=config.weights.rigid_flow > 0,
        annotate=annotate,
    )


def measurement_rule(config: DepthTrainingConfig) -> SourceConfig:
    """The rule of the sources of a training run, to predict by the same; the ends of a clip have fewer."""
    name = rule_name(config)
    if name == "consecutive" or name == "offset":
        step = config.source_offset if name == "offset" else 1
        return SourceConfig("index", offsets=time_offsets(config.num_sources, step))
    return SourceConfig(name, count=config.num_sources)


def make_multiview_trainer(
    config: DepthTrainingConfig,
    sequences: Sequence[DepthSequence],
    fill: Callable[[MultiViewNet], None] | None = None,
    progress: Progress | None = None,
    **options,
) -> DepthTrainer:
    """A trainer at its beginning.

    Args:
        sequences: posed clips at the size of training, in units of their own.
        fill: sets pretrained weights.
        progress: called while the teacher works.
        options: of ``DepthTrainer``: work_dir, device, processes, budget_s.

    Raises:
        DepthError: poses, intrinsics or known depth are lacking, or a camera does not move.
    """
    config = replace(config, pose=resolve_pose(config, sequences))
    clips = scaled_clips(config, sequences)
    scaled = [clip.sequence for clip in clips]
    wanted = [name for name in ("supervised", "normals") if getattr(config.weights, name) > 0]
    supervised, labels, known = bool(wanted), None, torch.zeros(0)
    if supervised and config.teacher == "sweep":
        labels, known = swept_labels(scaled, progress)
    elif supervised:
        known = known_depth(scaled)
        if not len(known):
            raise DepthError(
                f"weights.{wanted[0]} needs known depth, but the data has none; set teacher to sweep, or the weight "
                "to 0."
            )
    net = make_network(config, clips, known)
    if fill is not None:
        fill(net)
    dataset = make_samples(config, clips, labels, with_depth=supervised and labels is None)
    return DepthTrainer(config, net, dataset, units="scene", objective=MultiViewObjective(config, net), **options)
