"""Masks of what moves by itself: from motion, or read from another program's files."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from flow.progress import Progress
from som.preprocessing.config import MaskSettings, part
from som.preprocessing.importing.masks import import_masks
from som.preprocessing.masks.estimate import Method, estimate_masks
from som.preprocessing.masks.options import MaskOptions
from som.preprocessing.providers.base import Clip, MaskProvider, MaskResult, given_path


@dataclass(frozen=True)
class MotionMasks(MaskProvider):
    """``estimate_masks``."""

    method: Method

    options = tuple(option.name for option in fields(MaskOptions))

    def provide(
        self, clip: Clip, settings: MaskSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> MaskResult:
        cameras = clip.cameras
        # without cameras, as for the first masks of a clip that has none yet, the picture's own motion has to do
        method = "homography" if self.method == "multi_view" and cameras is None else self.method
        known = {} if cameras is None else {"K": cameras.K[0], "w2c": cameras.w2c, "registered": cameras.registered}
        found = estimate_masks(
            clip.flow,
            torch.from_numpy(clip.images),
            **known,
            method=method,
            options=part(settings, MaskOptions),
            progress=progress,
        )
        return MaskResult(found.foreground, method=found.method, findings=found.findings, warnings=found.warnings)


@dataclass(frozen=True)
class NoMasks(MaskProvider):
    """Nothing moves."""

    uses_cameras = False

    def provide(
        self, clip: Clip, settings: MaskSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> MaskResult:
        return MaskResult(None, method="nothing moves, as the options say")


@dataclass(frozen=True)
class GivenMasks(MaskProvider):
    """Masks of another program."""

    options = ("given", "given_objects", "given_size")
    uses_cameras = False

    def provide(
        self, clip: Clip, settings: MaskSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> MaskResult:
        found = import_masks(
            given_path(settings),
            frames=clip.names,
            size=clip.size,
            object_ids=settings.given_objects,
            source_size=settings.given_size,
        )
        return MaskResult(found.foreground, method="given", given=True, findings=found.source, warnings=found.warnings)


MOTION = MotionMasks("auto")
HOMOGRAPHY = MotionMasks("homography")
MULTI_VIEW = MotionMasks("multi_view")
NONE = NoMasks()
GIVEN = GivenMasks()
