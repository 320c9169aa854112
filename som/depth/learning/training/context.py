"""What the terms of the objective may look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from som.depth.learning.training.batches import Batch
from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.learning.training.metric import HeightState
from som.depth.networks import DepthModule, DepthOutput

T = TypeVar("T")


@dataclass
class StepContext:
    """Everything that the terms of one step may look at. B targets with S sources each."""

    config: DepthTrainingConfig
    batch: Batch
    net: DepthModule
    output: DepthOutput
    depths: list[Float[Tensor, "b 1 h w"]]
    """Depth of the targets by every scale, at full size."""
    predicted_source_depths: Float[Tensor, "b s 1 h w"] | None
    """Depth of the sources, where a term compares it."""
    motion: tuple[Float[Tensor, "b s 4 4"], Float[Tensor, "b s 4 4"]] | None
    """Relative poses target to sources, and sources to target, where a term needs them."""
    valid: Float[Tensor, "b n 1 h w"]
    """1 where a pixel of the target (n = 0) and the sources takes part in self-supervision."""
    heights: HeightState
    """What is known of the camera's height, and the epoch."""

    @property
    def source_depths(self) -> Float[Tensor, "b s 1 h w"]:
        return _asked_for(self.predicted_source_depths)

    @property
    def T_src_tgt(self) -> Float[Tensor, "b s 4 4"]:
        return _asked_for(self.motion)[0]

    @property
    def T_tgt_src(self) -> Float[Tensor, "b s 4 4"]:
        return _asked_for(self.motion)[1]

    @property
    def target(self) -> Float[Tensor, "b 3 h w"]:
        return self.batch["images"][:, 0]

    @property
    def sources(self) -> Float[Tensor, "b s 3 h w"]:
        return self.batch["images"][:, 1:]

    def pairs(self, x: Tensor) -> Tensor:
        """Something of the targets (B,...) beside each of their sources (B*S,...)."""
        S = self.batch["images"].shape[1] - 1
        return x[:, None].expand(len(x), S, *x.shape[1:]).flatten(0, 1)


def _asked_for(value: T | None) -> T:
    """The objective predicts only what its active terms look at; a term that looks at more is a mistake of ours."""
    if value is None:
        raise ValueError("this term is not listed among those that need sources or poses.")
    return value
