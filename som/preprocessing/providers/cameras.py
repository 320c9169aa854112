"""Cameras: estimated from the flow, or read from another program's files."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from flow.progress import Progress
from som.errors import UserError
from som.preprocessing.cameras.estimate import Method, estimate_cameras
from som.preprocessing.cameras.global_mapping import is_available
from som.preprocessing.cameras.options import CameraOptions
from som.preprocessing.config import CameraSettings, part
from som.preprocessing.importing.cameras import import_cameras
from som.preprocessing.providers.base import CameraProvider, CameraResult, Clip, given_path
from som.preprocessing.scene_cameras import SceneCameras


@dataclass(frozen=True)
class EstimatedCameras(CameraProvider):
    """``estimate_cameras``."""

    method: Method

    options = tuple(option.name for option in fields(CameraOptions))

    def check(self, settings: CameraSettings) -> None:
        if self.method == "global_mapping" and not is_available():
            raise UserError(
                "`cameras.provider` global-mapping needs pycolmap 4 or later; pip install 'som4d[cameras]', or choose "
                "bundle-adjustment."
            )

    def provide(
        self, clip: Clip, settings: CameraSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> CameraResult:
        found = estimate_cameras(
            clip.flow,
            method=self.method,
            moving=None if clip.moving is None else clip.moving.numpy(),
            frames=clip.images,
            options=part(settings, CameraOptions),
            progress=progress,
        )
        cameras = SceneCameras.from_estimate(found)
        return CameraResult(cameras, method=found.method, findings=found.findings, warnings=found.warnings)


@dataclass(frozen=True)
class GivenCameras(CameraProvider):
    """Cameras of another program."""

    options = ("given", "given_kind", "given_size", "allow_pickle", "focal", "fov")
    uses_moving = False

    def provide(
        self, clip: Clip, settings: CameraSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> CameraResult:
        found = import_cameras(
            given_path(settings),
            frames=clip.names,
            size=clip.size,
            kind=settings.given_kind,
            focal=settings.focal,
            fov=settings.fov,
            source_size=settings.given_size,
            allow_pickle=settings.allow_pickle,
        )
        return CameraResult(
            SceneCameras.from_import(found),
            found.depth,
            method="given",
            given=True,
            findings=found.source,
            warnings=found.warnings,
        )


ESTIMATE = EstimatedCameras("auto")
BUNDLE_ADJUSTMENT = EstimatedCameras("bundle_adjustment")
GLOBAL_MAPPING = EstimatedCameras("global_mapping")
STATIC = EstimatedCameras("static")
GIVEN = GivenCameras()
