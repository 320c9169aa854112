"""som4d train: optimises a 4D scene against one video."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from som.runs.device import set_up_process
from som.runs.interruption import Interrupted, NonFiniteLossError, stop_signals
from som.settings.command_line import Command, option_value
from som.training.run_config import TrainingRun, with_presets

if TYPE_CHECKING:
    from som.training.trainer import StepReport


def preset(argv: Sequence[str]) -> TrainingRun:
    """The settings of the presets that the command line names; without a data set, which no preset can name."""
    import tyro

    names, auto = option_value(argv, "--config") or "auto", None
    if "auto" in names.split(",") and "--help-all" not in argv:
        auto = "quality" if _has_cuda(option_value(argv, "--device") or "auto") else "cpu"
    return with_presets(TrainingRun(data=tyro.MISSING), names, auto)


def _has_cuda(device: str) -> bool:
    if device != "auto":
        return device == "cuda"
    import torch

    return torch.cuda.is_available()


def train(run: TrainingRun) -> int:
    """Runs or resumes; returns the exit code (0 done, 1 the optimisation failed, 130/143 interrupted and saved)."""
    from som.runs.progress import format_seconds, say, shown_messages  # torch and its kin, only after parsing
    from som.training.train import train_from_run

    set_up_process(run.threads)
    began = time.monotonic()
    with shown_messages(COMMAND.render) as line, stop_signals() as stop:

        def show(report: StepReport) -> None:
            line("training", report.step / report.total_steps, describe(report))

        try:
            result = train_from_run(run, show, stop)
        except Interrupted as interrupted:
            say(f"interrupted: saved after step {interrupted.step}; the same command resumes the run")
            return 128 + interrupted.signal_number
        except NonFiniteLossError as error:
            say(COMMAND.render(f"error: {error}"))
            return 1
    score = f"score it with som4d val --work-dir {run.work_dir}"
    if result.started_at == result.step:
        say(f"this run is complete ({result.step} steps); {score}")
    else:
        say(f"done: {result.step} steps in {format_seconds(time.monotonic() - began)}, {result.checkpoint}; {score}")
    return 0


def describe(report: StepReport) -> str:
    """Steps, loss, PSNR, Gaussians and time left in one line."""
    from som.runs.progress import format_seconds

    values, scene = report.values, report.scene
    return (
        f"step {report.step}/{report.total_steps}  loss {values['loss']:.4f}  rgb {values.get('rgb', float('nan')):.4f}"
        f"  PSNR {values['psnr']:.2f} dB  Gaussians {scene.num_foreground}+{scene.num_background}  "
        f"left {format_seconds(report.seconds_left)}"
    )


COMMAND = Command(
    TrainingRun,
    "Optimise a 4D scene against one video.",
    (
        "work_dir",
        "data.seq_name",
        "data.root_dir",
        "data.hold_out_every",
        "data.max_side",
        "config",
        "device",
        "threads",
        "training.steps",
        "seed",
        "overwrite",
    ),
    train,
    preset,
)
