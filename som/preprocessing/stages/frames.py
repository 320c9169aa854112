"""Video or images to images/."""

from __future__ import annotations

from typing import Any

from flow.progress import Progress
from som.preprocessing.config import PreprocessRun
from som.preprocessing.frames.extract import check_options, extract_frames
from som.preprocessing.frames.options import FrameOptions
from som.preprocessing.stages.base import Outcome, Stage
from som.preprocessing.workspace import Workspace


class Frames(Stage):
    """Upright, square pixels, 8 bit, constant rate; repeats dropped; cuts, blur and pauses reported."""

    name = "frames"
    settings = FrameOptions
    leaves = ("images",)

    def covers(self, run: PreprocessRun) -> list[Any]:
        return [run.source, run.frames]

    def check(self, run: PreprocessRun) -> None:
        check_options(run.frames)

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        self.recall(work, progress)
        H, W = work.frames.size
        return Outcome(f"{work.num_frames} frames of {W}x{H}", "done", work.frames.findings, work.frames.warnings)

    def recall(self, work: Workspace, progress: Progress | None = None) -> None:
        work.frames = extract_frames(work.run.source, work.root / "images", work.run.frames, progress)
