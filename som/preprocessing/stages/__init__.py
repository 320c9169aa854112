"""The stages from a video to a data set folder, in the order in which they run."""

from som.preprocessing.stages.base import Outcome, Stage
from som.preprocessing.stages.cameras import CAMERAS
from som.preprocessing.stages.depth import Depth
from som.preprocessing.stages.flow import Flow
from som.preprocessing.stages.frames import Frames
from som.preprocessing.stages.masks import MASKS
from som.preprocessing.stages.motion import Motion
from som.preprocessing.stages.report import Report
from som.preprocessing.stages.tracks import Tracks

STAGES: tuple[Stage, ...] = (Frames(), Flow(), Motion(), CAMERAS, MASKS, Tracks(), Depth(), Report())
"""Each needs only those before it; the last one shows what was found, also where one before it failed."""

__all__ = ["STAGES", "Outcome", "Stage"]
