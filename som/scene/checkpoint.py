"""Checkpoint files: the scene, the step, the configuration and what a trainer needs to go on.

A checkpoint is a ``torch.save`` of plain tensors, numbers, strings, lists and dicts, so it loads with
``weights_only=True`` and never executes code. It is written to a temporary file, flushed to disk and renamed: a file
with the final name is always complete.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch

from som.errors import UserError
from som.scene.dynamic_scene import DynamicScene

FORMAT = "som4d-checkpoint"
VERSION = 1


class CheckpointError(UserError):
    """A file is not a checkpoint of this program, is damaged, or was written by a newer version."""


@dataclass
class Checkpoint:
    """What a checkpoint file holds."""

    scene: DynamicScene
    step: int
    """Number of optimisation steps done."""
    config: dict = field(default_factory=dict)
    """The run's complete configuration (as in config.yaml)."""
    training: dict = field(default_factory=dict)
    """State of the trainer (optimisers, density statistics); empty in a scene that was only exported."""


def checkpoint_path(work_dir: Path, step: int | None = None) -> Path:
    """checkpoints/step_004000.ckpt, or checkpoints/last.ckpt without a step."""
    name = "last.ckpt" if step is None else f"step_{step:06d}.ckpt"
    return work_dir / "checkpoints" / name


def atomic_save(payload: object, path: Path) -> None:
    """``torch.save`` that leaves either the old file or the complete new one, also when the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            torch.save(payload, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_link(source: Path, path: Path) -> None:
    """Makes ``path`` another name of the file ``source`` (a copy where the file system has no hard links)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copy2(source, temporary)
    os.replace(temporary, path)
    temporary.unlink(missing_ok=True)  # renaming onto another name of the same file does nothing


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically."""
    payload = {
        "format": FORMAT,
        "version": VERSION,
        "step": int(checkpoint.step),
        "scene": {k: _to_cpu(v) for k, v in checkpoint.scene.state().items()},
        "config": checkpoint.config,
        "training": _to_cpu(checkpoint.training),
    }
    atomic_save(payload, Path(path))


def _to_cpu(value):
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {k: _to_cpu(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_cpu(v) for v in value]
    return value


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or newer than this program.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train first, or name an existing file.")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files; all mean the same to the user
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}); the file is damaged or of another kind."
        ) from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this program (expected one written by run_training.py).")
    if payload.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {payload.get('version')}, this program reads format {VERSION}; "
            "use the program version that wrote it."
        )
    try:
        scene = DynamicScene.from_state(payload["scene"])
        return Checkpoint(scene, payload["step"], payload["config"], payload["training"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: incomplete checkpoint ({error}); write it anew by training.") from error
