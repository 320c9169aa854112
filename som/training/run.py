"""The command that trains: runs, shows how it goes, and says what happened."""

from __future__ import annotations

import time

from som.run_config import TrainingRun
from som.runs.device import set_up_process
from som.runs.interruption import Interrupted, stop_signals
from som.runs.progress import format_seconds, say, shown_messages
from som.training.train import train_from_run
from som.training.trainer import NonFiniteLossError, StepReport


def train(run: TrainingRun) -> int:
    """Runs or resumes; returns the exit code (0 done, 1 the optimisation failed, 130/143 interrupted and saved).

    Raises:
        UserError: something in the options, the data set or the work dir is wrong.
    """
    set_up_process(run.threads)
    began = time.monotonic()
    with shown_messages() as line, stop_signals() as stop:

        def show(report: StepReport) -> None:
            line("training", report.step / report.total_steps, describe(report))

        try:
            result = train_from_run(run, show, stop)
        except Interrupted as interrupted:
            say(f"interrupted: saved after step {interrupted.step}; the same command resumes the run")
            return 128 + interrupted.signal_number
        except NonFiniteLossError as error:
            say(f"error: {error}")
            return 1
    score = f"score it with run_val.py --work-dir {run.work_dir}"
    if result.started_at == result.step:
        say(f"this run is complete ({result.step} steps); {score}")
    else:
        say(f"done: {result.step} steps in {format_seconds(time.monotonic() - began)}, {result.checkpoint}; {score}")
    return 0


def describe(report: StepReport) -> str:
    """Steps, loss, PSNR, Gaussians and time left in one line."""
    values, scene = report.values, report.scene
    return (
        f"step {report.step}/{report.total_steps}  loss {values['loss']:.4f}  rgb {values.get('rgb', float('nan')):.4f}"
        f"  PSNR {values['psnr']:.2f} dB  Gaussians {scene.num_foreground}+{scene.num_background}  "
        f"left {format_seconds(report.seconds_left)}"
    )
