"""Runs the stages from a video to a data set folder: what is done is not done again, and an interruption costs only the
stage that it falls into."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow.progress import Progress
from som.data.folder import HEADER
from som.errors import UserError
from som.preprocessing.check import CheckResult, check_folder
from som.preprocessing.config import PreprocessRun
from som.preprocessing.record import Record, StageRecord, fingerprint
from som.preprocessing.stages import STAGES, Stage
from som.preprocessing.workspace import Workspace

OnStage = Callable[[StageRecord, bool], None]
"""Called with how a stage ended, and whether it did so in an earlier run."""


@dataclass
class PreprocessResult:
    """What preprocessing made."""

    folder: Path
    """The data set folder."""
    stages: dict[str, StageRecord]
    """How each stage ended, by name."""
    check: CheckResult | None
    """What is wrong with the data set or looks doubtful; None where the stages that make it one were not asked for."""

    @property
    def ok(self) -> bool:
        """Whether the folder can be used, as far as it was asked for."""
        return self.check is None or self.check.ok

    @property
    def warnings(self) -> list[str]:
        """Those of all stages, in their order."""
        return [warning for stage in self.stages.values() for warning in stage.warnings]

    @property
    def report(self) -> Path | None:
        """The page of pictures, if there is one."""
        path = self.folder / "report.html"
        return path if path.is_file() else None


def preprocess(
    source: str | Path | PreprocessRun,
    output: str | Path | None = None,
    *,
    progress: Progress | None = None,
    on_stage: OnStage | None = None,
    **options: Any,
) -> PreprocessResult:
    """Makes a data set folder of a video, with all stages that are not done.

    An interruption, such as a ``KeyboardInterrupt``, keeps the stages that are done; the same call goes on from there.

    Args:
        source: a video that ffmpeg reads, or a folder of images; or all settings, without ``output`` and ``options``.
        output: the folder.
        progress: is called while a stage runs.
        on_stage: is called when a stage has ended.
        options: fields of ``PreprocessRun``, such as ``depth=DepthSettings(provider="layout")``.

    Raises:
        UserError: something in the settings, the video or a given file is wrong, or a stage cannot go on. What was
            found until then is kept and shown in report.html.
    """
    run = source if isinstance(source, PreprocessRun) else _run_of(source, output, options)
    check_run(run)
    if run.source.resolve() == run.output.resolve():
        raise UserError(f"`output` {run.output}: holds the recording itself; name another folder.")
    try:
        run.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`output` {run.output}: cannot be made ({error.strerror}); name another folder.") from None
    record = Record.load(run.output)
    record.source = {"path": str(run.source), "name": run.name}
    asked = STAGES[: [stage.name for stage in STAGES].index(run.stop_after) + 1]
    _run_stages(asked, Workspace(run, record), progress or _silent, on_stage or _silent)
    is_whole = any(HEADER in stage.leaves for stage in asked)
    return PreprocessResult(run.output, record.stages, check_folder(run.output) if is_whole else None)


def check_run(run: PreprocessRun) -> None:
    """Refuses what cannot work, before any work is done.

    Raises:
        UserError: names the setting, what it must be and what it is.
    """
    if run.threads < 0:
        raise UserError(f"`threads`: must be 0 or positive, got {run.threads}.")
    for stage in STAGES:
        stage.check(run)


def _run_of(source: str | Path, output: str | Path | None, options: dict[str, Any]) -> PreprocessRun:
    if output is None:
        raise UserError("`output` is missing: the folder in which the data set is made.")
    return PreprocessRun(source=Path(source), output=Path(output), **options)


def _silent(*_: object) -> None:
    """Nobody watches."""


def _run_stages(asked: tuple[Stage, ...], work: Workspace, progress: Progress, on_stage: OnStage) -> None:
    run, record = work.run, work.record
    prints: dict[str, str] = {}
    stale: set[str] = set()
    for stage in asked:
        prints[stage.name] = fingerprint(stage.name, stage.covers(run), [prints[need] for need in stage.needs])
        anew = stage.name in run.redo or any(need in stale for need in stage.needs)
        if record.is_done(stage.name, prints[stage.name]) and not anew:
            stage.recall(work)
            on_stage(record.stages[stage.name], True)
            continue
        stale.add(stage.name)
        _run_stage(stage, work, prints[stage.name], progress, on_stage)


def _run_stage(stage: Stage, work: Workspace, print_: str, progress: Progress, on_stage: OnStage) -> None:
    """Runs one stage and records how it ended; a failure is reported with all that was found before."""
    record, began, name = work.record, time.monotonic(), stage.name
    for later in (stage, *(other for other in STAGES if name in other.needs)):
        record.stages.pop(later.name, None)

    def note(entry: StageRecord) -> None:
        record.stages[name] = entry
        record.save(work.root)
        on_stage(entry, False)

    try:
        outcome = stage.run(work, lambda text, share: progress(f"{name:8} {text}", share))
    except UserError as error:
        seconds = round(time.monotonic() - began, 2)
        note(StageRecord(name, "failed", "failed", seconds, print_, {}, [str(error)]))
        if stage.needs and stage is not STAGES[-1]:
            STAGES[-1].run(work, lambda text, share: None)
        raise
    work.forget(stage.leaves)
    seconds = round(time.monotonic() - began, 2)
    findings = plain(outcome.findings)
    note(StageRecord(name, outcome.state, outcome.method, seconds, print_, findings, outcome.warnings))


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
