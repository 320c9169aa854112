"""The check, and one page of pictures: report.html and report.png."""

from __future__ import annotations

from typing import Any

from flow.progress import Progress
from som.preprocessing.config import PreprocessRun
from som.preprocessing.report import write_report
from som.preprocessing.stages.base import Outcome, Stage
from som.preprocessing.workspace import Workspace


class Report(Stage):
    """Shows what is there, finished or not."""

    name = "report"
    needs = ("depth",)
    leaves = ("report.html", "report.png")

    def covers(self, run: PreprocessRun) -> list[Any]:
        return [self.name in run.skip]

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        if self.name in work.run.skip:
            return Outcome("left out, as the options say", "skipped")
        return Outcome(str(write_report(work.root)))
