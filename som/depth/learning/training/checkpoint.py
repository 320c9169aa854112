"""Checkpoint files of depth networks: weights, configuration, and what a trainer needs to go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from som.runs.checkpoint import incomplete, read_checkpoint, write_checkpoint

Units = Literal["metric", "scene", "relative"]


@dataclass
class DepthCheckpoint:
    """What a checkpoint file holds."""

    step: int
    """Number of optimisation steps done."""
    network: dict
    """The depth network's ``NetworkConfig`` in plain values, every choice made."""
    depth_net: dict[str, Tensor]
    """Its weights."""
    config: dict
    """The run's ``DepthTrainingConfig`` in plain values."""
    units: Units = "relative"
    """Unit of the network's depth: ``metric``, ``scene`` (that of the poses it was trained with) or ``relative``."""
    pose: dict | None = None
    """Name and style of the pose network; None where poses were given."""
    pose_net: dict[str, Tensor] | None = None
    """Its weights."""
    training: dict = field(default_factory=dict)
    """State of the trainer; empty where only the network was kept."""


def save_checkpoint(path: str | Path, checkpoint: DepthCheckpoint) -> None:
    """Writes a checkpoint atomically.

    Raises:
        CheckpointError: the file cannot be written.
    """
    write_checkpoint(path, "depth network", vars(checkpoint))


def load_checkpoint(path: str | Path) -> DepthCheckpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or newer than this program.
    """
    try:
        return DepthCheckpoint(**read_checkpoint(path, "depth network"))
    except TypeError as error:
        raise incomplete(path, error) from error
