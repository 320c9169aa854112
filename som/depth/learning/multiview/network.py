"""MVDepthNet as the trainer takes it: a configuration, views in, depth out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.learning.multiview.volume import matching_volume
from som.depth.networks import DepthOutput, MVDepthNet
from som.depth.networks.depth_net import INITIAL_WEIGHT_SCALE, DepthModule, check_images
from som.depth.networks.mvdepthnet import (
    MAX_DEPTH,
    MAX_DISPARITY,
    MIN_PLANE_DEPTH,
    normalize_images,
    plane_disparities,
)

Matching = Literal["census", "zncc", "absolute", "published"]


@dataclass(frozen=True)
class MultiViewConfig:
    """A multi-view network."""

    name: str = "mvdepthnet"
    """The layout; there is one."""
    width: float = 0.25
    """Its channels over the published ones; 1 has 33.9 million parameters, 0.25 has 2.2 million."""
    matching: Matching = "census"
    """How views are compared: a cost of the plane sweep, or ``published``, the arithmetic of the public weights."""
    num_scales: int = 4
    """Number of depth maps, 1 to 4: at full size, 1/2, 1/4, 1/8."""
    initial_depth: float | None = 1.5
    """Depth in the network's unit that it predicts, roughly, before it is trained, > 0.5. None leaves the published
    start, which saturates."""


class MultiViewNet(DepthModule):
    """Depth of a reference frame from it and any number of posed measurement frames.

    It works in a unit of its own, in which the planes lie between depth 0.5 and 50 and even in 1 / depth; see
    ``som.depth.learning.multiview.units``.

    Raises:
        DepthError: the configuration cannot be met.
    """

    def __init__(self, config: MultiViewConfig = MultiViewConfig()):
        super().__init__()
        if config.name != "mvdepthnet":
            raise DepthError(f"unknown multi-view network {config.name!r}; there is mvdepthnet.")
        if config.matching not in get_args(Matching):
            raise DepthError(f"unknown matching {config.matching!r}; choose one of {', '.join(get_args(Matching))}.")
        if config.num_scales not in (1, 2, 3, 4):
            raise DepthError(f"num_scales must be 1, 2, 3 or 4, got {config.num_scales}.")
        if config.initial_depth is not None and not MIN_PLANE_DEPTH < config.initial_depth < math.inf:
            raise DepthError(
                f"initial_depth must lie above {MIN_PLANE_DEPTH}, the nearest plane, got {config.initial_depth}."
            )
        self.config = config
        self.net = MVDepthNet(config.width)
        if config.initial_depth is not None:
            share = 1 / (config.initial_depth * MAX_DISPARITY)
            with torch.no_grad():
                for level in range(1, 5):
                    output = getattr(self.net, f"disp{level}")[0]
                    output.weight.mul_(INITIAL_WEIGHT_SCALE)
                    output.bias.fill_(math.log(share / (1 - share)))

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    def forward(
        self,
        images: Float[Tensor, "b n 3 h w"],
        K: Float[Tensor, "b n 3 3"],
        T_meas_ref: Float[Tensor, "b m 4 4"],
        moving: Bool[Tensor, "b n h w"] | None = None,
    ) -> DepthOutput:
        """Depth of the references, in the unit of the poses, which has to be the network's.

        Args:
            images: RGB in [0, 1], sides multiples of 32; index 0 is the reference, the others its measurement frames.
            K: intrinsics in pixels, centres at +0.5.
            T_meas_ref: maps points of the reference camera into each of the m = n - 1 measurement cameras.
            moving: True where something moves; not looked at by ``published``.

        Raises:
            DepthError: shapes that do not fit, or no measurement frame.
        """
        check_images(images[:, 0])
        if self.config.matching == "published":
            output = self.net(images[:, 0], images[:, 1:], K[:, 0], T_meas_ref, K[:, 1:])
            count = self.config.num_scales
            return DepthOutput(output.depths[:count], output.disparities[:count], None, None)
        planes = plane_disparities(device=images.device)
        with torch.autocast(images.device.type, enabled=False):
            volume = matching_volume(images, K, T_meas_ref, planes, self.config.matching, moving)
        disparities = self.net.decode(normalize_images(images[:, 0]), volume)[: self.config.num_scales]
        disparities = [disparity.float() for disparity in disparities]
        return DepthOutput([1 / d.clamp(min=1 / MAX_DEPTH) for d in disparities], disparities, None, None)
