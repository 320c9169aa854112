"""Several processes, started by torchrun, that train one network; without torchrun there is just one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from som.depth.errors import DepthError


@dataclass(frozen=True)
class Processes:
    """This process among all."""

    rank: int = 0
    """0 writes files and talks."""
    count: int = 1
    """Number of processes."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, everywhere."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    def largest(self, value: int, device: torch.device) -> int:
        """Largest of a number over the processes, everywhere."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, device=device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor)

    def gather(self, values: object) -> list:
        """What every process has, in order of rank, everywhere; for small plain values."""
        if self.count == 1:
            return [values]
        found: list = [None] * self.count
        dist.all_gather_object(found, values)
        return found

    def wait(self) -> None:
        """Returns once all processes have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined_processes(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Joins the processes that torchrun started (gloo on CPUs, nccl on GPUs) and leaves them at the end.

    Args:
        device: what each process computes on; for cuda each takes the GPU of its local rank.

    Raises:
        DepthError: more processes on a machine than it has GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(), device
        return
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise DepthError(
                f"torchrun started more processes here than there are GPUs ({torch.cuda.device_count()}); "
                "lower --nproc-per-node."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
