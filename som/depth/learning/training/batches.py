"""Which samples make which step, as a function of seed and step for any number of processes, and their loading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from som.depth.learning.data.dataset import DepthDataset, epoch_order

Batch = dict[str, Tensor]
"""Samples of ``DepthDataset``, stacked along a new first dimension."""


class BatchPlan:
    """The endless stream of shuffled epochs, cut into steps, micro batches and processes.

    Step s takes the ``batch_size`` samples from s * batch_size on, so that a batch may reach over the end of an epoch
    and a data set may be smaller than a batch.

    Args:
        length: samples in an epoch.
        micro: samples per micro batch; divides ``batch_size``.
        rank, count: this process among all; ``count`` divides the number of micro batches.
    """

    def __init__(self, length: int, batch_size: int, micro: int, seed: int, rank: int = 0, count: int = 1):
        self.length, self.batch_size, self.micro = length, batch_size, micro
        per_process = batch_size // micro // count
        self.micro_batches = range(rank * per_process, (rank + 1) * per_process)
        """Numbers of this process' micro batches within a step."""
        self._order = lru_cache(maxsize=2)(lambda epoch: epoch_order(length, seed, epoch))

    def epoch(self, step: int) -> int:
        """The epoch in which a step begins."""
        return step * self.batch_size // self.length

    def indices(self, step: int, micro_batch: int) -> list[tuple[int, int]]:
        """(epoch, index) of a micro batch's samples."""
        start = step * self.batch_size + micro_batch * self.micro
        return [self._order(n // self.length)[n % self.length] for n in range(start, start + self.micro)]

    def from_step(self, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
        """Index lists of this process' micro batches of the steps start ... stop - 1."""
        for step in range(start, stop):
            for micro_batch in self.micro_batches:
                yield self.indices(step, micro_batch)


def collate(samples: Sequence[Batch]) -> Batch:
    """Stacks samples."""
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def load_batches(
    dataset: DepthDataset, plan: BatchPlan, start: int, stop: int, workers: int, device: torch.device
) -> Iterator[Batch]:
    """This process' micro batches of the steps start ... stop - 1, on the device."""
    options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
    loader = DataLoader(
        dataset,
        batch_sampler=list(plan.from_step(start, stop)),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        # without one of its own the loader draws a seed from torch's, and a resumed run would differ
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    for batch in loader:
        yield {key: value.to(device, non_blocking=True) for key, value in batch.items()}
