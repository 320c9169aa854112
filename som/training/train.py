"""One training run: begin or resume it in a work dir, initialise the scene, optimise it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from flow.video_flow import VideoFlow
from som.correspondence import link_pixel_pairs, link_static_points, training_flow
from som.correspondence.config import FlowConfig
from som.data.config import CustomData
from som.data.dataset import VideoDataset
from som.data.load import load_dataset
from som.errors import UserError
from som.initialization import initialize_scene
from som.initialization.config import InitializationConfig
from som.initialization.depth_alignment import align_depth, with_aligned_depth
from som.runs.device import choose_device
from som.runs.interruption import Stop
from som.runs.progress import format_seconds
from som.runs.work_dir import begin_work_dir, checkpoint_path
from som.scene import DynamicScene
from som.scene.checkpoint import Checkpoint, load_checkpoint
from som.settings.plain import to_plain
from som.training.config import TrainingConfig
from som.training.density import Strategy
from som.training.objective import Term
from som.training.run_config import TrainingRun, check_same_run, check_training_run, recorded_run, with_presets
from som.training.trainer import Callback, StepReport, Trainer, total_steps

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """A finished run."""

    scene: DynamicScene
    """On the device of the training; its parameters want no gradients."""
    work_dir: Path
    step: int
    """Optimisation steps done, all in all."""
    started_at: int
    """The step after which this call went on: 0 in a new run, ``step`` where there was nothing left to do."""
    values: dict[str, float]
    """Of the last ``StepReport``: every term of the objective, ``loss`` and ``psnr``; empty if no step was left."""

    @property
    def checkpoint(self) -> Path:
        """The file that holds the scene."""
        return checkpoint_path(self.work_dir)


def train(
    dataset: VideoDataset,
    *,
    work_dir: str | Path,
    steps: int | None = None,
    config: TrainingConfig | None = None,
    initialization: InitializationConfig | None = None,
    flow: FlowConfig | None = None,
    preset: str = "auto",
    depth_alignment: Literal["auto", "no", "scale", "scale_shift", "monotone"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
    overwrite: bool = False,
    extra_losses: Mapping[str, Term] | None = None,
    callback: Callback | None = None,
    stop: Stop | None = None,
    strategy: Strategy | None = None,
) -> TrainingResult:
    """Optimises a scene against a data set; goes on where an earlier call with the same arguments was cut off.

    The same as the command ``som4d train``, whose results are the same bit for bit. Progress is logged to the loggers
    ``som.*`` (``logging``) and given to ``callback``; nothing is printed, and nothing of the process is changed.

    Args:
        dataset: in world units, as ``load_dataset`` gives it.
        work_dir: gets config.yaml, checkpoints/, logs/ and metrics.jsonl.
        steps: optimisation steps; ``config.steps`` where None.
        config, initialization, flow: settings; None takes those of the preset.
        preset: names in configs/ or YAML files, separated by commas; ``auto`` is ``quality`` with an NVIDIA GPU and
            ``cpu`` without.
        depth_alignment: see ``TrainingRun.align_depth``.
        device: where to compute.
        seed: of every random choice.
        overwrite: begin anew although the work dir holds a run.
        extra_losses: further terms of the objective by name: functions of a ``som.training.objective.StepContext`` that
            give a scalar, which is added to the loss and reported under this name. The work dir does not record them.
        callback: called with a ``StepReport`` every ``config.log_every`` steps and after the last.
        stop: asked after every step; a number other than 0 saves and ends the run.
        strategy: how Gaussians multiply and disappear, instead of ``config.density``.

    Raises:
        UserError: a setting, the data set or the work dir cannot be used, or the work dir holds another run.
        NonFiniteLossError: the optimisation failed; the last checkpoint is from before that.
        Interrupted: ``stop`` said so; the state was saved first, and the same call goes on from there.
    """
    if not isinstance(dataset, VideoDataset):
        raise UserError(f"`dataset` must be what som.load_dataset gives, got {type(dataset).__name__}.")
    run = TrainingRun(dataset.options or CustomData(seq_name=dataset.name))
    run = with_presets(run, preset, "quality" if choose_device(device).type == "cuda" else "cpu")
    config = config or run.training
    run = replace(
        run,
        work_dir=Path(work_dir),
        device=device,
        seed=seed,
        overwrite=overwrite,
        align_depth=depth_alignment,
        flow=flow or run.flow,
        initialization=initialization or run.initialization,
        training=config if steps is None else replace(config, steps=steps),
    )
    check_training_run(run)
    return _train(run, dataset, _is_resumed(run), callback, stop, strategy, extra_losses)


def train_from_run(run: TrainingRun, callback: Callback | None = None, stop: Stop | None = None) -> TrainingResult:
    """As ``train``, with all that a run is made from in one object, the options of its data set among them."""
    check_training_run(run)
    resumed = _is_resumed(run)  # before the data set is loaded: it says at once what differs
    return _train(run, load_dataset(run.data), resumed, callback, stop)


def describe(dataset: VideoDataset) -> str:
    """One line about a data set."""
    train = dataset.train
    parts = [f"{len(train)} training views {train.width}x{train.height}", f"{dataset.num_times} times"]
    parts.append(f"{0 if dataset.val is None else len(dataset.val)} held-out views")
    parts.append("no tracks" if dataset.tracks is None else f"{len(dataset.tracks.query_times)} tracks")
    parts.append("no depth" if train.depths is None else f"{dataset.depth_kind} depth")
    return f"data set {dataset.name}: {', '.join(parts)}"


def _is_resumed(run: TrainingRun) -> bool:
    """Whether the work dir holds this very run; looks, and changes nothing."""
    if run.work_dir.exists() and not run.work_dir.is_dir():
        raise UserError(f"`work_dir` {run.work_dir}: is a file; name a folder.")
    if run.overwrite or not checkpoint_path(run.work_dir).is_file():
        return False
    check_same_run(recorded_run(run.work_dir), run, run.work_dir)
    return True


def _train(
    run: TrainingRun,
    dataset: VideoDataset,
    resumed: bool,
    callback: Callback | None,
    stop: Stop | None,
    strategy: Strategy | None = None,
    extra_losses: Mapping[str, Term] | None = None,
) -> TrainingResult:
    device = choose_device(run.device)
    checkpoint = load_checkpoint(checkpoint_path(run.work_dir)) if resumed else None
    logger.info("%s", describe(dataset))
    for note in dataset.source.get("notes", []):
        logger.warning("%s", note)
    logger.info("computing on %s, preset %s", device, run.config)
    if checkpoint is None:  # not before the data set is known to be good: overwriting must not cost a run for a typo
        begin_work_dir(run.work_dir, run, run.overwrite)
    elif checkpoint.step >= total_steps(run.training, len(dataset.train)):
        return _result(checkpoint.scene.to(device), run, checkpoint.step, checkpoint.step, {})
    trainer = _make_trainer(run, dataset, checkpoint, device, strategy, extra_losses)
    started_at = trainer.step
    values: dict[str, float] = {}

    def report(state: StepReport) -> None:
        values.clear()
        values.update(state.values)
        if callback is not None:
            callback(state)

    trainer.train(report, stop)
    return _result(trainer.scene, run, trainer.step, started_at, values)


def _result(
    scene: DynamicScene, run: TrainingRun, step: int, started_at: int, values: dict[str, float]
) -> TrainingResult:
    return TrainingResult(scene.eval().requires_grad_(False), run.work_dir, step, started_at, values)


class _LazyFlow:
    """Optical flow between the training views, computed when it is first asked for."""

    def __init__(self, run: TrainingRun, dataset: VideoDataset, device: torch.device):
        self._run, self._dataset, self._device = run, dataset, device
        self._flow: VideoFlow | None = None

    def get(self) -> VideoFlow:
        if self._flow is None:
            began = time.monotonic()
            self._flow, method = training_flow(self._dataset, self._run.flow, self._run.work_dir / "flow", self._device)
            logger.info(
                "optical flow between training views: %s, %dx%d, distances %s (%s)",
                method,
                self._flow.width,
                self._flow.height,
                ", ".join(map(str, self._flow.strides())),
                format_seconds(time.monotonic() - began),
            )
        return self._flow


def _with_aligned_depth(run: TrainingRun, dataset: VideoDataset, flow: _LazyFlow) -> VideoDataset:
    """The data set with its depth brought to the cameras, where the settings ask for it."""
    wanted = run.align_depth
    if wanted == "auto":
        wanted = "monotone" if dataset.depth_kind == "relative" else "no"
    if wanted == "no" or dataset.train.depths is None or len(dataset.train) < 2:
        if dataset.depth_kind == "relative" and dataset.train.depths is not None:
            logger.warning("the depth has an unknown scale and shift in every frame and is used as it is")
        return dataset
    links = link_static_points(dataset.train, flow.get(), generator=torch.Generator().manual_seed(run.seed))
    if not len(links.source):
        raise UserError(
            f"{dataset.name}: optical flow finds no static point to align the depth of the frames with; check the "
            "foreground masks, or use the depth as it is with `align_depth` no."
        )
    alignment = align_depth(dataset.train, links, wanted)
    logger.info(
        "depth aligned to the cameras: static points %.2f px off (median), depths of linked frames %.1f %% apart, "
        "parallax %.1f px",
        alignment.reprojection_error,
        100 * alignment.disagreement,
        alignment.parallax,
    )
    if alignment.parallax < 1:
        logger.warning("hardly any parallax: the depths agree with each other, but their scale is that of the prior")
    return with_aligned_depth(dataset, alignment)


def _make_trainer(
    run: TrainingRun,
    dataset: VideoDataset,
    checkpoint: Checkpoint | None,
    device: torch.device,
    strategy: Strategy | None,
    extra_losses: Mapping[str, Term] | None,
) -> Trainer:
    """The trainer at the beginning of the run, or where the checkpoint was written."""
    flow = _LazyFlow(run, dataset, device)
    dataset = _with_aligned_depth(run, dataset, flow)
    links = None
    if run.training.losses.order_across_frames > 0 and dataset.train.depths is not None and len(dataset.train) > 1:
        links = link_pixel_pairs(dataset.train, flow.get())
    options: dict[str, Any] = {
        "device": device,
        "seed": run.seed,
        "run_config": to_plain(run),
        "links": links,
        "strategy": strategy,
        "extra_losses": extra_losses,
    }
    if checkpoint is not None:
        logger.info("resuming %s after step %d", run.work_dir, checkpoint.step)
        return Trainer.resume(checkpoint, dataset, run.training, run.work_dir, **options)
    scene = initialize_scene(dataset, run.initialization, run.seed)
    return Trainer(scene, dataset, run.training, run.work_dir, **options)
