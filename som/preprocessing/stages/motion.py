"""First masks to motion/, by first cameras: they keep moving objects out of the cameras.

A large moving object can be mistaken for near ground by a camera that hardly travels; what moves can only be
distinguished with the help of cameras. So both are found twice.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flow.progress import Progress
from som.errors import UserError
from som.preprocessing.config import PreprocessRun
from som.preprocessing.stages.base import Outcome, Stage
from som.preprocessing.stages.cameras import CAMERAS
from som.preprocessing.stages.masks import MASKS
from som.preprocessing.workspace import Workspace


class Motion(Stage):
    """Cameras from everything, and by them the first masks."""

    name = "motion"
    needs = ("flow",)
    leaves = ("motion",)

    def covers(self, run: PreprocessRun) -> list[Any]:
        return [MASKS.covers(run), CAMERAS.covers(run)]

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        run = work.run
        if not MASKS.provider(run).uses_cameras or not CAMERAS.provider(run).uses_moving:
            work.remove(*self.leaves)
            return Outcome("not needed", "skipped")
        quick = dataclasses.replace(run.cameras, focal_starts=(run.cameras.default_focal,))
        found, cameras = {}, None
        try:
            asked = CAMERAS.ask(work, lambda text, share: progress(text, 0.6 * share), settings=quick)
            cameras = asked.cameras
        except UserError as error:
            found["cameras"] = str(error)  # masks from the picture's own motion may help the next attempt
        masks = MASKS.ask(work, lambda text, share: progress(text, 0.6 + 0.4 * share), cameras=cameras)
        if masks.foreground is None:
            work.remove(*self.leaves)
            return Outcome(masks.method, "skipped", masks.findings | found)
        work.write_masks("motion", masks.foreground)
        return Outcome(masks.method, "done", masks.findings | found)
