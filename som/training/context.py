"""What the terms of the objective may look at."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from som.scene import DynamicScene, SceneRender
from som.training.batch import Batch, Targets, TrackBatch
from som.training.config import DepthOrderConfig


@dataclass
class CarriedTracks:
    """The surface seen at each track's source pixel, at every target time."""

    points: Float[Tensor, "b n p 3"]
    """In scene coordinates."""
    weight: Float[Tensor, "b n p"]
    tracks: TrackBatch
    """Where the tracks go."""
    targets: Targets


@dataclass
class StepContext:
    """Everything the terms of one step may look at. A term that lacks what it needs is 0."""

    scene: DynamicScene
    batch: Batch
    render: SceneRender
    num_times: int
    has_background: bool
    depth_order: DepthOrderConfig
    around: Float[Tensor, "b 3 g 3"] | None
    """Positions of some foreground Gaussians before, at and after each rendered time (None with fewer than 3 times)."""
    carried: CarriedTracks | None
    """None without tracks, or where no term looks at them."""

    def zero(self) -> Float[Tensor, ""]:
        """The value of a term that lacks what it needs."""
        return self.render.rgb.new_zeros(())
