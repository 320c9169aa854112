"""Depth networks at work on one clip: fitted to what is known of it, and asked for all of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from flow.progress import Progress
from som.data.sequence import DepthSequence, target_size
from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.metrics import resize_by_disparity
from som.depth.networks import DepthNet
from som.depth.networks.depth_net import STRIDE


def network_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """(height, width) of network images for frames of ``size``: multiples of 32, the longer side about ``longer``."""
    height, width = target_size(size, max_side=longer)
    # up rather than down: what the network does not see it cannot distinguish
    height, width = (max(-(-(side - STRIDE // 4) // STRIDE), 1) * STRIDE for side in (height, width))
    return height, width


def at_size(config: DepthTrainingConfig, size: tuple[int, int], seed: int) -> DepthTrainingConfig:
    """A configuration for images of this size and this seed."""
    return replace(config, height=size[0], width=size[1], seed=seed)


@torch.no_grad()
def predict_depth(
    net: DepthNet,
    sequence: DepthSequence,
    size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[Float[Tensor, "t h w"], Float[Tensor, "t h w"] | None]:
    """Depth of every frame, and its relative deviation where the head predicts one.

    Args:
        sequence: at the network's image size.
        size: (height, width) of the maps, by ``resize_by_disparity``; None is that of the images.
    """
    size = sequence.size if size is None else size
    net.eval().to(device)
    depths, deviations = [], []
    for t in range(len(sequence)):
        output = net(sequence.image(t)[None].to(device))
        depths.append(resize_by_disparity(output.depths[0][0].cpu(), *size))
        if output.deviation is not None:
            resized = torch.nn.functional.interpolate(output.deviation.cpu(), size, mode="bilinear")
            deviations.append(resized[0])
        if progress is not None:
            progress("network", (t + 1) / len(sequence))
    return torch.cat(depths), torch.cat(deviations) if deviations else None
