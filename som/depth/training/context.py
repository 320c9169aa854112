"""What the terms of the objective may look at."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from som.depth.networks import DepthNet, DepthOutput
from som.depth.training.batches import Batch
from som.depth.training.config import DepthTrainingConfig
from som.depth.training.metric import HeightState


@dataclass
class StepContext:
    """Everything that the terms of one step may look at. B targets with S sources each."""

    config: DepthTrainingConfig
    batch: Batch
    net: DepthNet
    output: DepthOutput
    depths: list[Float[Tensor, "b 1 h w"]]
    """Depth of the targets by every scale, at full size."""
    source_depths: Float[Tensor, "b s 1 h w"] | None
    """Depth of the sources, where a term compares it."""
    T_src_tgt: Float[Tensor, "b s 4 4"] | None
    T_tgt_src: Float[Tensor, "b s 4 4"] | None
    valid: Float[Tensor, "b n 1 h w"]
    """1 where a pixel of the target (n = 0) and the sources takes part in self-supervision."""
    heights: HeightState
    """What is known of the camera's height, and the epoch."""

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
