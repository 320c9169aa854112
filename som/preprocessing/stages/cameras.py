"""Cameras to cameras.npz."""

from __future__ import annotations

from flow.progress import Progress
from som.errors import UserError
from som.preprocessing.config import CameraSettings
from som.preprocessing.providers import registry
from som.preprocessing.providers.base import CameraProvider, CameraResult
from som.preprocessing.stages.base import Outcome, ProvidedStage, outcome_of
from som.preprocessing.stages.masks import MASKS
from som.preprocessing.workspace import DEPTH_OF_CAMERAS, Workspace

REMEDY = "give a part in which the camera moves steadily (`frames.start`, `frames.end`), or `cameras.given`."


class Cameras(ProvidedStage[CameraProvider]):
    """A pose for every frame, and its intrinsics."""

    name = "cameras"
    needs = ("flow", "motion")
    settings = CameraSettings
    leaves = ("cameras.npz", DEPTH_OF_CAMERAS)
    registry = registry.CAMERAS

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        found: CameraResult = self.ask(work, progress, moving=lambda: MASKS.before_cameras(work))
        cameras, T = found.cameras, work.num_frames
        self.expect("poses", cameras.w2c, (T, 4, 4))
        self.expect("intrinsics", cameras.K, (T, 3, 3))
        count = int(cameras.registered.sum())
        if count < 2:
            raise UserError(f"cameras: only {count} of {T} frames have a camera; {REMEDY}")
        cameras.save(work.root / "cameras.npz")
        work.write_depth_of_cameras(found.depth)
        outcome = outcome_of(found)
        outcome.findings |= {
            "frames": T,
            "registered": count,
            "static": bool(cameras.static),
            "focal": [round(float(f), 2) for f in cameras.K[0, [0, 1], [0, 1]]],
        }
        return outcome


CAMERAS = Cameras()
