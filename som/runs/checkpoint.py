"""Checkpoint files of every kind: a tag, a version, and plain values.

A checkpoint is a ``torch.save`` of plain tensors, numbers, strings, lists and dicts, so it loads with
``weights_only=True`` and never executes code. It is flushed to disk before it gets its name: a file with the final name
is always complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from flow.io.atomic import atomic_path, link_file
from som.errors import UserError
from som.runs.work_dir import checkpoint_path, checkpoint_steps

Kind = Literal["scene", "depth network"]
FORMATS: dict[Kind, tuple[str, int]] = {
    "scene": ("som4d-checkpoint", 1),
    "depth network": ("som4d-depth-checkpoint", 1),
}
"""Tag and version that files of each kind carry."""


class CheckpointError(UserError):
    """A file is not a checkpoint of the wanted kind, is damaged, incomplete, or of another version."""


def write_checkpoint(path: str | Path, kind: Kind, payload: Mapping[str, Any]) -> None:
    """Writes a checkpoint: leaves either the old file or the complete new one, also when the power fails.

    Args:
        payload: plain values; tensors are moved to the CPU.

    Raises:
        CheckpointError: the file cannot be written.
    """
    tag, version = FORMATS[kind]
    content = {"format": tag, "version": version, **_to_cpu(dict(payload))}
    try:
        with atomic_path(path, durable=True) as temporary, open(temporary, "wb") as stream:
            torch.save(content, stream)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error}); free space or name another folder."
        ) from error


def read_checkpoint(path: str | Path, kind: Kind) -> dict[str, Any]:
    """What ``write_checkpoint`` was given, on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or of another version than this program's.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train first, or name an existing file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files; all mean the same to the user
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}); the file is damaged or of another kind."
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    tag, version = FORMATS[kind]
    if found != tag:
        kinds: dict[Any, str] = {tag: f"a checkpoint of a {kind}" for kind, (tag, _) in FORMATS.items()}
        raise CheckpointError(
            f"{path}: is {kinds.get(found, 'no checkpoint of this program')}, expected a checkpoint of a {kind}."
        )
    if content.get("version") != version:
        raise CheckpointError(
            f"{path}: checkpoint format {content.get('version')}, this program reads format {version}; "
            "use the program version that wrote it."
        )
    return {key: value for key, value in content.items() if key not in ("format", "version")}


def incomplete(path: str | Path, error: Exception) -> CheckpointError:
    """The error for a file of the right kind that lacks something."""
    return CheckpointError(f"{path}: incomplete checkpoint ({error}); write it anew by training.")


def save_step(
    work_dir: Path, step: int, kind: Kind, payload: Mapping[str, Any], *, numbered: bool, keep: int | None = None
) -> Path:
    """Writes last.ckpt of a work dir, with ``numbered`` as another name of step_XXXXXX.ckpt; returns the path.

    Args:
        keep: so many numbered checkpoints stay, the newest; None keeps all.
    """
    last = checkpoint_path(work_dir)
    if not numbered:
        write_checkpoint(last, kind, payload)
        return last
    path = checkpoint_path(work_dir, step)
    write_checkpoint(path, kind, payload)
    link_file(path, last)
    if keep is not None:
        for old in checkpoint_steps(work_dir)[: -max(keep, 1)]:
            checkpoint_path(work_dir, old).unlink(missing_ok=True)
    return path


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _to_cpu(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_cpu(v) for v in value]
    return value
