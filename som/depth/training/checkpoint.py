"""Checkpoint files of depth networks: weights, configuration, and what a trainer needs to go on.

A checkpoint is a ``torch.save`` of plain tensors, numbers, strings, lists and dicts, so that it loads with
``weights_only=True`` and never executes code. A file with the final name is always complete.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from som.depth.errors import DepthError

FORMAT = "som4d-depth-checkpoint"
VERSION = 1


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
    units: str = "relative"
    """Unit of the network's depth: ``metric``, ``scene`` (that of the poses it was trained with) or ``relative``."""
    pose: dict | None = None
    """Name and style of the pose network; None where poses were given."""
    pose_net: dict[str, Tensor] | None = None
    """Its weights."""
    training: dict = field(default_factory=dict)
    """State of the trainer; empty where only the network was kept."""


def checkpoint_path(work_dir: Path, step: int | None = None) -> Path:
    """checkpoints/step_004000.ckpt, or checkpoints/last.ckpt without a step."""
    name = "last.ckpt" if step is None else f"step_{step:06d}.ckpt"
    return Path(work_dir) / "checkpoints" / name


def save_checkpoint(path: Path, checkpoint: DepthCheckpoint) -> None:
    """Writes a checkpoint: leaves either the old file or the complete new one, also when the power fails.

    Raises:
        DepthError: the folder cannot be written.
    """
    payload = {"format": FORMAT, "version": VERSION, **_to_cpu(vars(checkpoint))}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            torch.save(payload, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DepthError(f"{path}: cannot be written ({error.strerror}); free space or name another folder.") from error
    finally:
        temporary.unlink(missing_ok=True)


def link_checkpoint(source: Path, path: Path) -> None:
    """Makes ``path`` another name of the file ``source`` (a copy where the file system has no hard links)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copy2(source, temporary)
    os.replace(temporary, path)
    temporary.unlink(missing_ok=True)  # renaming onto another name of the same file does nothing


def load_checkpoint(path: Path) -> DepthCheckpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        DepthError: the file is missing, damaged, foreign, or newer than this program.
    """
    path = Path(path)
    if not path.is_file():
        raise DepthError(f"{path}: no such checkpoint; train first, or name an existing file.")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files; all mean the same to the user
        raise DepthError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}); the file is damaged or of another kind."
        ) from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise DepthError(f"{path}: is no checkpoint of run_depth.py train; load published weights with --weights.")
    if payload.pop("version", None) != VERSION:
        raise DepthError(f"{path}: this checkpoint has another format than {VERSION}; use the version that wrote it.")
    payload.pop("format")
    try:
        return DepthCheckpoint(**payload)
    except TypeError as error:
        raise DepthError(f"{path}: incomplete checkpoint ({error}); write it anew by training.") from error


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _to_cpu(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_cpu(v) for v in value]
    return value
