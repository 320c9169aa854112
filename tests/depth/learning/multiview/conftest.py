"""Clips of a textured slanted plane, drawn exactly: every seed has its own texture, slant and distance."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from som.cameras.geometry import pixel_centers
from som.data.memory import memory_sequence
from som.data.sequence import DepthSequence
from som.depth.learning.training.config import Augmentation, DepthTrainingConfig, LossWeights, NetworkOptions

SIDE, FOCAL, FRAMES, STEP = 64, 70.0, 5, 0.12
RANGE = (1.2, 12.0)
"""Nearest and farthest depth of any of the planes, with some room."""


def plane_clip(seed: int, unit: float = 1.0, moving: torch.Tensor | None = None) -> DepthSequence:
    """A camera moves sideways before the plane 1 / z = a + b x + c y of its middle frame (x, y along its rays).

    Args:
        unit: the length of a metre in the clip's unit.
    """
    g = torch.Generator().manual_seed(seed)
    a, (b, c) = 0.25 + 0.15 * torch.rand(1, generator=g), 0.4 * (torch.rand(2, generator=g) - 0.5)
    waves, phases = torch.randn(24, 2, generator=g) * 9, torch.rand(24, 3, generator=g) * 6.28
    rays = (pixel_centers(SIDE, SIDE) - SIDE / 2) / FOCAL
    images, depths, w2cs = [], [], torch.eye(4).repeat(FRAMES, 1, 1)
    for t in range(FRAMES):
        cx = (t - FRAMES // 2) * STEP
        # the point c + z (x, y, 1) lies on the plane: a Z + b X + c Y = 1
        depth = (1 - b * cx) / (a + b * rays[..., 0] + c * rays[..., 1])
        X, Y = cx + depth * rays[..., 0], depth * rays[..., 1]
        angle = X[..., None] * waves[:, 0] + Y[..., None] * waves[:, 1]
        images.append(torch.stack([(angle + phase).sin().mean(-1) for phase in phases.T]) * 1.2 + 0.5)
        depths.append(depth)
        w2cs[t, 0, 3] = -cx
    K = torch.tensor([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]]).expand(FRAMES, 3, 3)
    w2cs[:, :3, 3] *= unit
    clip = memory_sequence(torch.stack(images).clamp(0, 1), K, w2cs, moving, name=f"plane {seed}")
    frames = [
        replace(frame, depth=partial(torch.Tensor.numpy, depth * unit))
        for frame, depth in zip(clip.recording.frames, depths, strict=True)
    ]
    return DepthSequence(replace(clip.recording, frames=frames), cache_images=True)


def truth(clip: DepthSequence) -> torch.Tensor:
    """(T,H,W)"""
    return torch.stack([clip.depth(t)[0] for t in range(len(clip))])


@pytest.fixture
def make_config():
    """A configuration that trains in seconds."""

    def make(**changes) -> DepthTrainingConfig:
        network = changes.pop("network", {})
        plain = {
            "network": NetworkOptions(name="mvdepthnet", **{"width": 0.125, "depth_range": RANGE, **network}),
            "sources": "consecutive",
            "num_sources": 2,
            "width": SIDE,
            "height": SIDE,
            "batch_size": 4,
            "steps": 4,
            "learning_rate": 3e-3,
            "log_every": 2,
            "checkpoint_every": 1000,
            "weights": LossWeights(photometric=0.0, geometry=0.0, smoothness=0.0, supervised=1.0),
            "augmentation": Augmentation(flip=0.5, max_zoom=1.0, jitter=0.0),
        }
        return DepthTrainingConfig(**{**plain, **changes})

    return make
