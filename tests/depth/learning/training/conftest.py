"""A tiny street with exact depth and poses, as the trainer takes it."""

from __future__ import annotations

import pytest
import torch

from som.data.memory import memory_sequence
from som.data.sequence import DepthSequence
from som.depth.learning.synthetic import RoadClip, RoadClipConfig, make_road_clip
from som.depth.learning.training.build import make_dataset, make_networks, network_config, resolve_pose
from som.depth.learning.training.config import Augmentation, DepthTrainingConfig, LossWeights
from som.depth.learning.training.trainer import DepthTrainer


@pytest.fixture(scope="session")
def clip() -> RoadClip:
    return make_road_clip(RoadClipConfig(frames=6, width=64, height=32))


@pytest.fixture(scope="session")
def sequence(clip: RoadClip) -> DepthSequence:
    return memory_sequence(clip.images, clip.Ks, clip.w2c)


@pytest.fixture
def make_config():
    """A configuration that trains in a fraction of a second."""

    def make(**changes) -> DepthTrainingConfig:
        weights = LossWeights(**changes.pop("weights", {"geometry": 0.0}))
        plain = dict(
            width=64, height=32, batch_size=2, steps=4, log_every=2, checkpoint_every=1000, weights=weights, workers=0
        )
        return DepthTrainingConfig(**{**plain, "augmentation": Augmentation(), **changes})

    return make


@pytest.fixture
def make_trainer(sequence: DepthSequence):
    """A trainer of that configuration on the street, with fresh networks for depths as in ``known``."""

    def make(config: DepthTrainingConfig, annotate=None, known=None, **options) -> DepthTrainer:
        pose = resolve_pose(config, [sequence])
        network = network_config(config, [sequence], pose, torch.zeros(0) if known is None else known)
        depth_net, pose_net = make_networks(config, network, pose)
        dataset = make_dataset(config, [sequence], network.initial_depth, annotate)
        return DepthTrainer(config, depth_net, dataset, pose_net=pose_net, **options)

    return make
