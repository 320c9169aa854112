"""A trained scene from its files, ready to be rendered."""

from __future__ import annotations

from pathlib import Path

import torch

from som.errors import UserError
from som.runs.device import choose_device
from som.runs.work_dir import find_checkpoint
from som.scene.checkpoint import load_checkpoint
from som.scene.dynamic_scene import DynamicScene


def load_scene(path: str | Path, *, step: int | None = None, device: str | torch.device = "auto") -> DynamicScene:
    """The scene of a run; its parameters want no gradients (``scene.requires_grad_()`` changes that).

    Args:
        path: the work dir of a run, or a checkpoint file.
        step: which checkpoint of the work dir; the last by default.
        device: ``auto`` (an NVIDIA GPU if there is one), ``cpu``, ``cuda`` or a ``torch.device``.

    Raises:
        UserError: there is no such checkpoint, it cannot be read, or the device is not there.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such work dir or checkpoint.")
    if path.is_file() and step is not None:
        raise UserError(f"{path}: is a checkpoint and holds one step; name its work dir to choose another.")
    file = path if path.is_file() else find_checkpoint(path, "last" if step is None else str(step))
    return load_checkpoint(file).scene.to(choose_device(device)).eval().requires_grad_(False)
