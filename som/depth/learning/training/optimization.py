"""The optimiser, its learning-rate schedule, and batch statistics that do not depend on how a batch is divided."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.learning.training.distributed import Processes

FINAL_RATE_SHARE = 0.01
"""Learning rate of ``cosine`` at the end, as a share of the first."""


def rate_factor(config: DepthTrainingConfig, progress: float) -> float:
    """Learning rate over its configured value at a share of the run in [0, 1)."""
    if progress < config.warmup:
        return max(progress / config.warmup, 0.01)
    if config.schedule == "step":
        return 1.0 if progress < 0.75 else 0.1
    if config.schedule == "cosine":
        share = (progress - config.warmup) / (1 - config.warmup)
        return FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * (1 + math.cos(math.pi * share)) / 2
    return 1.0


def make_optimizer(config: DepthTrainingConfig, depth_net: nn.Module, pose_net: nn.Module | None) -> torch.optim.Adam:
    """Adam with one group for each network."""
    first = list(depth_net.parameters())
    groups: list[dict[str, Any]] = [{"params": first, "base": config.learning_rate}]
    if pose_net is not None:
        base = config.pose_learning_rate or config.learning_rate
        # a pose net may share its encoder with the depth net
        own = {id(p) for p in first}
        groups.append({"params": [p for p in pose_net.parameters() if id(p) not in own], "base": base})
    return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate is its configured one times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor


class RunningStatistics:
    """Running means and variances of batch normalisation, averaged over the micro batches of a step.

    Each micro batch starts from the statistics of the step's beginning, and the step ends with the mean of what they
    arrive at. So the result is the same whether one process or several work on them, and needs no communication within
    the networks; it is what batch normalisation over micro batches means.
    """

    def __init__(self, module: nn.Module):
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        self.buffers: list[Tensor] = [
            buffer
            for part in module.modules()
            if isinstance(part, norms) and part.track_running_stats
            for buffer in (part.running_mean, part.running_var)
            if buffer is not None
        ]

    @contextmanager
    def averaged(self, count: int, processes: Processes) -> Iterator[_Average]:
        """Runs one step with ``count`` micro batches in this process; call ``micro_batch`` before each."""
        average = _Average(self.buffers)
        yield average
        average.finish(count, processes)


class _Average:
    def __init__(self, buffers: list[Tensor]):
        self.buffers = buffers
        self.start = _flat(buffers)
        self.sum = torch.zeros_like(self.start)
        self.begun = 0

    def micro_batch(self) -> None:
        """Starts a micro batch from the statistics of the step's beginning."""
        if self.buffers and self.begun:
            self.sum += _flat(self.buffers)
            _unflatten(self.start, self.buffers)
        self.begun += 1

    def finish(self, count: int, processes: Processes) -> None:
        if self.buffers:
            self.sum += _flat(self.buffers)
            _unflatten(processes.mean(self.sum / count), self.buffers)


def _flat(buffers: list[Tensor]) -> Tensor:
    return torch.cat([buffer.flatten() for buffer in buffers]) if buffers else torch.zeros(0)


def _unflatten(values: Tensor, buffers: list[Tensor]) -> None:
    with torch.no_grad():
        for buffer, part in zip(buffers, values.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))
