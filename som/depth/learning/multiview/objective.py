"""The objective of multi-view training: the terms of every run, on depth that is matched from all views of a sample."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from som.cameras.geometry import invert_se3
from som.depth.learning.multiview.network import MultiViewNet
from som.depth.learning.training.batches import Batch
from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.learning.training.metric import HeightState
from som.depth.learning.training.objective import DepthObjective
from som.depth.networks import DepthOutput


class MultiViewObjective(DepthObjective):
    """Runs a multi-view network on a batch and sums the weighted terms.

    The sources of a target are its measurement frames. Where a term compares the depth of sources, each of them is
    matched with the target and the other sources.

    Args:
        depth_net: takes views, see ``MultiViewNet``.
    """

    def __init__(self, config: DepthTrainingConfig, depth_net: MultiViewNet):
        super().__init__(config, depth_net, None)

    def forward(self, batch: Batch, heights: HeightState) -> dict[str, Tensor]:
        """See ``DepthObjective``; the batch is rescaled first, and what moves teaches nothing."""
        if self.training:
            batch = rescaled(batch, random_factors(len(batch["images"]), self.config.augmentation.rescale))
        if self.config.mask_moving and "moving" in batch:
            static = ~batch["moving"][:, 0]
            known = {"depth": static[:, None], "label": static}
            batch = {**batch, **{key: batch[key] * mask for key, mask in known.items() if key in batch}}
        return super().forward(batch, heights)

    def _depth(self, batch: Batch, with_sources: bool) -> tuple[DepthOutput, Tensor | None]:
        images, K, T = batch["inputs"], batch["K"], batch["T_src_tgt"]
        moving = batch.get("moving") if self.config.mask_moving else None
        B, N = images.shape[:2]
        poses = torch.cat([torch.eye(4, device=T.device, dtype=T.dtype).expand(B, 1, 4, 4), T], dim=1)
        orders = [[k, *(j for j in range(N) if j != k)] for k in range(N if with_sources else 1)]
        views = torch.cat([images[:, order] for order in orders])
        relative = torch.cat([poses[:, order[1:]] @ invert_se3(poses[:, order[:1]]) for order in orders])
        masks = None if moving is None else torch.cat([moving[:, order] for order in orders])
        with self._autocast(images.device):
            output = self.depth_net(views, torch.cat([K[:, order] for order in orders]), relative, masks)
        if not with_sources:
            return output, None
        first = DepthOutput([d[:B] for d in output.depths], [d[:B] for d in output.disparities], None, None)
        return first, output.depths[0][B:].unflatten(0, (N - 1, B)).transpose(0, 1)


def random_factors(count: int, largest: float) -> Float[Tensor, "b"]:
    """Factors between 1 / largest and largest, even in their logarithm, from torch's global generator."""
    return torch.exp(math.log(largest) * (2 * torch.rand(count) - 1))


def rescaled(batch: Batch, factors: Float[Tensor, "b"]) -> Batch:
    """The batch in other units: motion of the cameras and known depth times one factor for each sample.

    The images stay as they are, so that only the motion determines the depth.
    """
    factors = factors.to(batch["T_src_tgt"])
    scaled = dict(batch)
    for key in ("depth", "label"):
        if key in batch:
            scaled[key] = batch[key] * factors.view(-1, *[1] * (batch[key].ndim - 1))
    for key in ("T_src_tgt", "w2c"):
        scaled[key] = batch[key].clone()
        scaled[key][..., :3, 3] *= factors[:, None, None]
    return scaled
