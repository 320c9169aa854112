"""One training run from its configuration: load, initialise or resume, optimise, and say what happened."""

from __future__ import annotations

import shutil
import time

import torch

from flow.video_flow import VideoFlow
from som.cli import to_plain, write_yaml
from som.correspondence import link_pixel_pairs, link_static_points, training_flow
from som.data.dataset import VideoDataset
from som.data.load import load_dataset
from som.errors import UserError
from som.initialization import initialize_scene
from som.initialization.depth_alignment import align_depth, with_aligned_depth
from som.run_config import TrainingRun, check_same_run, recorded_run
from som.runs.device import choose_device, set_up_process
from som.runs.interruption import Interrupted, stop_signals
from som.runs.progress import ProgressLine, format_seconds, say, shown_messages
from som.runs.work_dir import checkpoint_path
from som.scene.checkpoint import Checkpoint, load_checkpoint
from som.training.trainer import Callback, NonFiniteLossError, StepReport, Trainer, total_steps


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


class _LazyFlow:
    """Optical flow between the training views, computed when it is first asked for."""

    def __init__(self, run: TrainingRun, dataset: VideoDataset, device: torch.device):
        self._run, self._dataset, self._device = run, dataset, device
        self._flow = None

    def get(self) -> VideoFlow:
        if self._flow is None:
            began = time.monotonic()
            folder = self._run.work_dir / "flow"
            self._flow, method = training_flow(self._dataset, self._run.flow, folder, self._device)
            took = format_seconds(time.monotonic() - began)
            size, strides = f"{self._flow.width}x{self._flow.height}", ", ".join(map(str, self._flow.strides()))
            say(f"optical flow between training views: {method}, {size}, distances {strides} ({took})")
        return self._flow


def _align_depth(run: TrainingRun, dataset: VideoDataset, flow: _LazyFlow) -> VideoDataset:
    """The data set with its depth brought to the cameras, where the options ask for it."""
    wanted = run.align_depth
    if wanted == "auto":
        wanted = "monotone" if dataset.depth_kind == "relative" else "no"
    if wanted == "no" or dataset.train.depths is None or len(dataset.train) < 2:
        if dataset.depth_kind == "relative" and dataset.train.depths is not None:
            say("note: the depth has an unknown scale and shift in every frame and is used as it is")
        return dataset
    links = link_static_points(dataset.train, flow.get(), generator=torch.Generator().manual_seed(run.seed))
    if not len(links.source):
        raise UserError(
            f"{dataset.name}: optical flow finds no static point to align the depth of the frames with; check the "
            "foreground masks, or use the depth as it is with --align-depth no."
        )
    alignment = align_depth(dataset.train, links, wanted)
    say(
        f"depth aligned to the cameras: static points {alignment.reprojection_error:.2f} px off (median), depths of "
        f"linked frames {100 * alignment.disagreement:.1f} % apart, parallax {alignment.parallax:.1f} px"
    )
    if alignment.parallax < 1:
        say("note: hardly any parallax: the depths agree with each other, but their scale is that of the prior")
    return with_aligned_depth(dataset, alignment)


def _make_trainer(
    run: TrainingRun, dataset: VideoDataset, resume_from: Checkpoint | None, device: torch.device
) -> Trainer:
    flow = _LazyFlow(run, dataset, device)
    dataset = _align_depth(run, dataset, flow)
    links = None
    if run.training.losses.order_across_frames > 0 and dataset.train.depths is not None and len(dataset.train) > 1:
        links = link_pixel_pairs(dataset.train, flow.get())
    options = {"device": device, "seed": run.seed, "run_config": to_plain(run), "links": links}
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


def _shown(line: ProgressLine, start: int) -> Callback:
    """Shows steps, loss, PSNR, Gaussians and time left of a run that goes on from step ``start``."""
    began = time.monotonic()

    def show(report: StepReport) -> None:
        step, total, values, scene = report.step, report.total_steps, report.values, report.scene
        left = (time.monotonic() - began) / max(step - start, 1) * (total - step)
        line(
            "training",
            step / total,
            f"step {step}/{total}  loss {values['loss']:.4f}  rgb {values.get('rgb', float('nan')):.4f}  "
            f"PSNR {values['psnr']:.2f} dB  Gaussians {scene.num_foreground}+{scene.num_background}  "
            f"left {format_seconds(left)}",
        )

    return show


def train(run: TrainingRun) -> int:
    """Runs or resumes; returns the exit code (0 done, 1 the optimisation failed, 130/143 interrupted and saved).

    Raises:
        UserError: something in the options, the data set or the work dir is wrong.
    """
    set_up_process(run.threads)
    device = choose_device(run.device)
    resume_from = _resumable(run)
    dataset = load_dataset(run.data)
    say(describe(dataset))
    for note in dataset.source.get("notes", []):
        say(f"note: {note}")
    say(f"computing on {device}, preset {run.config}")
    if resume_from is None:  # not before the data set is known to be good: --overwrite must not cost a run for a typo
        _begin_work_dir(run)
    steps = total_steps(run.training, len(dataset.train))
    if resume_from is not None and resume_from.step >= steps:
        say(f"this run is complete ({resume_from.step} steps); score it with run_val.py --work-dir {run.work_dir}")
        return 0
    trainer = _make_trainer(run, dataset, resume_from, device)
    began = time.monotonic()
    try:
        with stop_signals() as stop, shown_messages() as line:
            trainer.train(_shown(line, trainer.step), stop)
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
