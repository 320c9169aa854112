"""Masks of what moves by itself to foreground/."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from flow.progress import Progress
from som.preprocessing.config import MaskSettings, PreprocessRun
from som.preprocessing.providers import registry
from som.preprocessing.providers.base import MaskProvider, MaskResult
from som.preprocessing.stages.base import Outcome, ProvidedStage, outcome_of
from som.preprocessing.workspace import Workspace


class Masks(ProvidedStage[MaskProvider]):
    """What moves by itself, judged with the cameras."""

    name = "masks"
    needs = ("flow", "cameras")
    settings = MaskSettings
    leaves = ("foreground",)
    registry = registry.MASKS

    def provider_name(self, run: PreprocessRun) -> str:
        return "none" if self.name in run.skip else super().provider_name(run)

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        found: MaskResult = self.ask(work, progress, moving=lambda: work.motion, cameras=lambda: work.cameras)
        if found.foreground is None:
            work.remove(*self.leaves)
            return Outcome(found.method, "skipped")
        self.expect("masks", found.foreground, (work.num_frames, *work.frames.size))
        work.write_masks("foreground", found.foreground)
        outcome = outcome_of(found)
        shares = found.foreground.flatten(1).float().mean(1)
        outcome.findings["foreground_share"] = [round(float(share), 4) for share in shares]
        return outcome

    def before_cameras(self, work: Workspace) -> Bool[Tensor, "t h w"] | None:
        """What is known to move before there are cameras: the first masks, or those that need no cameras."""
        if self.provider(work.run).uses_cameras:
            return work.motion
        found: MaskResult = self.ask(work, lambda text, share: None)
        return found.foreground


MASKS = Masks()
