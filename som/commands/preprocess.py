"""som4d preprocess: turns a video into a data set folder."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from som.errors import UserError
from som.preprocessing.config import PreprocessRun
from som.runs.device import set_up_process
from som.runs.interruption import sigterm_as_keyboard_interrupt
from som.settings.command_line import Command

if TYPE_CHECKING:
    from som.preprocessing.record import StageRecord

REPORT_EVERY_SECONDS = 20.0
"""Seconds between lines of progress where the output is no terminal."""


def preprocess(run: PreprocessRun) -> int:
    """Runs all stages that are not done and says how they went; returns the exit code.

    0: done; 1: the folder that came out has problems; 130 or 143: interrupted.
    """
    # numpy's BLAS gains nothing from threads on the small systems of the camera estimate, and its idle threads spin:
    # beside another busy process they made it fifteen times slower
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from som.preprocessing.check import render_check  # torch and its kin, only after parsing
    from som.preprocessing.pipeline import preprocess
    from som.runs.progress import ProgressLine, say

    set_up_process(run.threads)
    states = []

    def end(stage: StageRecord, reused: bool) -> None:
        states.append(stage.state)
        line.end(COMMAND.render("\n".join(describe(stage, reused))))

    try:
        with sigterm_as_keyboard_interrupt(), ProgressLine(REPORT_EVERY_SECONDS) as line:
            result = preprocess(run, progress=line, on_stage=end)
    except UserError:
        page = run.output / "report.html"
        if "failed" in states and page.is_file():
            say(f"what was found until then: {page}")
        raise
    except KeyboardInterrupt as stop:
        say("interrupted: the stages that are done are kept; the same command goes on from there")
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    if result.check is None:
        return 0
    say(COMMAND.render(render_check(result.check)))
    if result.ok:
        say(f"next: som4d train --work-dir out data:custom --data.root-dir {run.output}")
    return 0 if result.ok else 1


def describe(stage: StageRecord, reused: bool) -> list[str]:
    """How a stage ended, in lines for the person who waits."""
    from som.runs.progress import format_seconds

    if reused:
        return [f"{stage.name:8} done before ({stage.method})"]
    if stage.state == "failed":  # why is said once, at the end
        return [f"{stage.name:8} failed after {format_seconds(stage.seconds)}"]
    took = "" if stage.state == "skipped" else f" ({format_seconds(stage.seconds)})"
    return [f"{stage.name:8} {stage.method}{took}", *(f"  warning: {text}" for text in stage.warnings)]


COMMAND = Command(
    PreprocessRun,
    "Turn a video into a data set folder; see docs/preprocessing.md.",
    (
        "source",
        "output",
        "frames.start",
        "frames.end",
        "frames.fps",
        "frames.max_side",
        "cameras.given",
        "masks.given",
        "tracks.given",
        "depth.given",
        "skip",
        "device",
        "threads",
    ),
    preprocess,
)
