"""Runs the stages from a video to a data set folder: what is done is not done again, and an interruption costs only the
stage that it falls into."""

from __future__ import annotations

import signal
import time
from typing import Any

from flow.errors import FlowError
from flow.progress import Progress
from som.depth.errors import DepthError
from som.errors import UserError
from som.preprocessing import stages
from som.preprocessing.check import check_folder, render_check
from som.preprocessing.config import STAGES, PreprocessRun, StageName, check_run
from som.preprocessing.depth_stage import depth
from som.preprocessing.record import Record, StageRecord, fingerprint
from som.preprocessing.report import write_report
from som.preprocessing.stages import Outcome, Stage
from som.preprocessing.workspace import Workspace
from som.runs.device import set_up_process
from som.runs.interruption import sigterm_as_keyboard_interrupt
from som.runs.progress import ProgressLine, format_seconds, say

NEEDS: dict[StageName, tuple[StageName, ...]] = {
    "frames": (),
    "flow": ("frames",),
    "motion": ("flow",),
    "cameras": ("flow", "motion"),
    "masks": ("flow", "cameras"),
    "tracks": ("flow", "masks"),
    "depth": ("cameras", "masks", "tracks"),
    "report": ("depth",),
}
"""What each stage is made from."""
REPORT_EVERY = 20.0
"""Seconds between lines of progress where the output is no terminal."""


def preprocess(run: PreprocessRun) -> int:
    """Runs all stages that are not done; returns the exit code.

    0: done; 1: the folder that came out has problems; 130 or 143: interrupted.

    Raises:
        UserError: something in the options, the video or a given file is wrong, or a stage cannot go on.
    """
    check_run(run)
    try:
        run.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {run.output}: cannot be made ({error.strerror}); name another folder.") from None
    set_up_process(run.threads)
    record = Record.load(run.output)
    record.source = {"path": str(run.source), "name": run.name}
    work = Workspace(run, record)
    try:
        with sigterm_as_keyboard_interrupt(), ProgressLine(REPORT_EVERY) as line:
            _run_stages(work, line)
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        say("interrupted: the stages that are done are kept; the same command goes on from there")
        return 128 + int(number)
    if STAGES.index(run.stop_after) < STAGES.index("depth"):
        return 0
    result = check_folder(run.output)
    say(render_check(result))
    if result.ok:
        say(f"next: python run_training.py --work-dir out data:custom --data.root-dir {run.output}")
    return 0 if result.ok else 1


def _run_stages(work: Workspace, line: ProgressLine) -> None:
    run, record = work.run, work.record
    prints, stale = {}, set()
    for name in STAGES[: STAGES.index(run.stop_after) + 1]:
        prints[name] = fingerprint(name, _settings(run, name), [prints[need] for need in NEEDS[name]])
        if name == "report" and "report" in run.skip:
            continue
        anew = name in run.redo or any(need in stale for need in NEEDS[name])
        if record.is_done(name, prints[name]) and not anew:
            if name == "frames":
                stages.frames(work, lambda text, share: None)  # finds what is there
            say(f"{name:8} done before ({record.stages[name].method})")
            continue
        stale.add(name)
        _run_stage(work, name, prints[name], line)


def _run_stage(work: Workspace, name: StageName, print_: str, line: ProgressLine) -> None:
    """Runs one stage and records how it ended; a failure is reported with all that was found before."""
    record, began = work.record, time.monotonic()
    record.stages.pop(name, None)
    for later in STAGES[STAGES.index(name) + 1 :]:
        if name in NEEDS[later]:
            record.stages.pop(later, None)
    try:
        outcome = STAGE_FUNCTIONS[name](work, lambda text, share: line(f"{name:8} {text}", share))
    except (UserError, FlowError, DepthError) as error:
        seconds = time.monotonic() - began
        record.stages[name] = StageRecord(name, "failed", "failed", round(seconds, 2), print_, {}, [str(error)])
        record.save(work.root)
        line.end(f"{name:8} failed after {format_seconds(seconds)}")
        if name not in ("frames", "report") and "report" not in work.run.skip:
            say(f"what was found until then: {write_report(work.root)}")
        raise error if isinstance(error, UserError) else UserError(f"{name}: {error}") from error
    seconds = time.monotonic() - began
    record.stages[name] = StageRecord(
        name, outcome.state, outcome.method, round(seconds, 2), print_, plain(outcome.findings), outcome.warnings
    )
    record.save(work.root)
    took = "" if outcome.state == "skipped" else f" ({format_seconds(seconds)})"
    line.end(f"{name:8} {outcome.method}{took}")
    for warning in outcome.warnings:
        say(f"  warning: {warning}")


def _settings(run: PreprocessRun, name: StageName) -> list:
    """What a stage's result depends on, besides the stages before it."""
    options = {
        "frames": [run.source, run.frames],
        "flow": [run.flow],
        "motion": [run.masks, "masks" in run.skip, run.cameras],
        "cameras": [run.cameras, run.masks.given],
        "masks": [run.masks, "masks" in run.skip],
        "tracks": [run.tracks, "tracks" in run.skip, run.seed],
        "depth": [run.depth, "depth" in run.skip, run.seed, run.name],
        "report": [],
    }
    return options[name]


def _report(work: Workspace, progress: Progress) -> Outcome:
    return Outcome(str(write_report(work.root)))


STAGE_FUNCTIONS: dict[StageName, Stage] = {
    "frames": stages.frames,
    "flow": stages.flow,
    "motion": stages.motion,
    "cameras": stages.cameras,
    "masks": stages.masks,
    "tracks": stages.tracks,
    "depth": depth,
    "report": _report,
}


def plain(value: Any) -> Any:
    """Findings as JSON has them: no numpy numbers, no nan."""
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value - value != 0:
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
