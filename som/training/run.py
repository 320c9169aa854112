"""One training run from its configuration: load, initialise or resume, optimise, and say what happened."""

from __future__ import annotations

import shutil
import sys
import time

import torch

from som.cli import to_plain, write_yaml
from som.data.dataset import VideoDataset
from som.data.load import load_dataset
from som.device import choose_device
from som.errors import UserError
from som.initialization import initialize_scene
from som.run_config import TrainingRun, check_same_run, recorded_run
from som.scene.checkpoint import Checkpoint, checkpoint_path, load_checkpoint
from som.training.logging import format_seconds
from som.training.trainer import Interrupted, NonFiniteLossError, Trainer


def say(text: str) -> None:
    """A line for the person who waits; results go to standard output, progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def describe(dataset: VideoDataset) -> str:
    """One line about a data set."""
    train = dataset.train
    parts = [f"{len(train)} training views {train.width}x{train.height}", f"{dataset.num_times} times"]
    parts.append(f"{0 if dataset.val is None else len(dataset.val)} held-out views")
    parts.append("no tracks" if dataset.tracks is None else f"{len(dataset.tracks.query_times)} tracks")
    parts.append("no depth" if train.depths is None else f"{dataset.depth_kind} depth")
    return f"data set {dataset.name}: {', '.join(parts)}"


def _resumable(run: TrainingRun) -> Checkpoint | None:
    """The checkpoint to resume from, if the work dir holds this very run; looks, and changes nothing."""
    work_dir, last = run.work_dir, checkpoint_path(run.work_dir)
    if work_dir.exists() and not work_dir.is_dir():
        raise UserError(f"--work-dir {work_dir}: is a file; name a folder.")
    if run.overwrite or not last.is_file():
        return None
    check_same_run(recorded_run(work_dir), run, work_dir)
    return load_checkpoint(last)


def _begin_work_dir(run: TrainingRun) -> None:
    """Writes the configuration; with --overwrite, removes what an earlier run (and only a run) has left there."""
    work_dir = run.work_dir
    try:
        if run.overwrite and (work_dir / "config.yaml").is_file():
            for name in ("checkpoints", "logs", "val"):
                shutil.rmtree(work_dir / name, ignore_errors=True)
            (work_dir / "metrics.jsonl").unlink(missing_ok=True)
        write_yaml(work_dir / "config.yaml", run)
    except OSError as error:
        raise UserError(f"--work-dir {work_dir}: cannot be written ({error.strerror}); name another folder.") from None


def _make_trainer(
    run: TrainingRun, dataset: VideoDataset, resume_from: Checkpoint | None, device: torch.device
) -> Trainer:
    options = {"device": device, "seed": run.seed, "run_config": to_plain(run)}
    if resume_from is not None:
        trainer = Trainer.resume(resume_from, dataset, run.training, run.work_dir, **options)
        say(f"resuming {run.work_dir} after step {trainer.step}")
        return trainer
    began = time.monotonic()
    scene = initialize_scene(dataset, run.initialization, run.seed)
    say(
        f"initial scene: {scene.num_foreground} foreground and {scene.num_background} background Gaussians "
        f"({format_seconds(time.monotonic() - began)})"
    )
    return Trainer(scene, dataset, run.training, run.work_dir, **options)


def train(run: TrainingRun) -> int:
    """Runs or resumes; returns the exit code (0 done, 1 the optimisation failed, 130/143 interrupted and saved).

    Raises:
        UserError: something in the options, the data set or the work dir is wrong.
    """
    device = choose_device(run.device, run.threads)
    resume_from = _resumable(run)
    dataset = load_dataset(run.data)
    say(describe(dataset))
    for note in dataset.source.get("notes", []):
        say(f"note: {note}")
    if dataset.depth_kind == "relative":
        say("note: the depth has an unknown scale and shift in every frame and is used as it is; align it first")
    say(f"computing on {device}, preset {run.config}")
    if resume_from is None:  # not before the data set is known to be good: --overwrite must not cost a run for a typo
        _begin_work_dir(run)
    trainer = _make_trainer(run, dataset, resume_from, device)
    if trainer.step >= trainer.total_steps:
        say(f"this run is complete ({trainer.step} steps); score it with run_val.py --work-dir {run.work_dir}")
        return 0
    began = time.monotonic()
    try:
        trainer.train()
    except Interrupted as stop:
        say(f"interrupted: saved after step {stop.step}; the same command resumes the run")
        return 128 + stop.signal_number
    except NonFiniteLossError as error:
        say(f"error: {error}")
        return 1
    say(
        f"done: {trainer.total_steps} steps in {format_seconds(time.monotonic() - began)}, "
        f"{checkpoint_path(run.work_dir)}; score it with run_val.py --work-dir {run.work_dir}"
    )
    return 0
