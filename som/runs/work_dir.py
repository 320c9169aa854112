"""The work dir of a run: where its files lie, its settings, which checkpoints it holds. Free of torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from som.errors import UserError
from som.settings.plain import write_settings


def config_path(work_dir: Path) -> Path:
    """config.yaml, the settings that the run was begun with."""
    return Path(work_dir) / "config.yaml"


def checkpoint_path(work_dir: Path, step: int | None = None) -> Path:
    """checkpoints/step_004000.ckpt, or checkpoints/last.ckpt without a step."""
    name = "last.ckpt" if step is None else f"step_{step:06d}.ckpt"
    return Path(work_dir) / "checkpoints" / name


def checkpoint_steps(work_dir: Path) -> list[int]:
    """The steps of the numbered checkpoints, in order."""
    names = [path.stem.removeprefix("step_") for path in (Path(work_dir) / "checkpoints").glob("step_*.ckpt")]
    return sorted(int(name) for name in names if name.isdigit())


def find_checkpoint(work_dir: Path, model: str) -> Path:
    """The file that ``model`` means: a step of the run, ``last``, or a path.

    Raises:
        UserError: there is no such checkpoint; names those that exist.
    """
    if model == "last":
        path = checkpoint_path(work_dir)
    elif model.isdigit():
        path = checkpoint_path(work_dir, int(model))
    else:
        path = Path(model)
    if path.is_file():
        return path
    steps = ", ".join(map(str, checkpoint_steps(work_dir)))
    known = f"the run in {work_dir} has steps {steps}" if steps else f"{work_dir} holds no checkpoint"
    raise UserError(f"`model` {model}: {path} does not exist; {known}.")


def begin_work_dir(work_dir: Path, settings: Any, overwrite: bool) -> None:
    """Records the settings; with ``overwrite``, removes what an earlier run (and only a run) has left there.

    Args:
        settings: a dataclass; becomes config.yaml.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        if overwrite and config_path(work_dir).is_file():
            for name in ("checkpoints", "logs", "val"):
                shutil.rmtree(work_dir / name, ignore_errors=True)
            (work_dir / "metrics.jsonl").unlink(missing_ok=True)
        write_settings(config_path(work_dir), settings)
    except OSError as error:
        raise UserError(f"`work_dir` {work_dir}: cannot be written ({error.strerror}); name another folder.") from None
