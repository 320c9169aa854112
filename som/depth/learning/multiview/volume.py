"""The network's second input: how well the measurement frames fit the reference on every plane."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.sweep.costs import CostName, make_cost
from som.depth.sweep.volume import cost_volume

COST_WINDOW_PX = 3
"""Side in pixels of the window that costs are summed over: the network sums over larger ones by itself."""
KEPT_FRAMES_SHARE = 0.75
"""Share of the measurement frames with the lowest costs that counts, as in the plane sweep."""
COST_SCALE = 4.0
"""Costs are divided by this share of the difference between wrong and right, which brings them to about -1 ... 3."""


@torch.no_grad()
def matching_volume(
    images: Float[Tensor, "b n 3 h w"],
    K: Float[Tensor, "b n 3 3"],
    T_meas_ref: Float[Tensor, "b m 4 4"],
    disparities: Float[Tensor, "p"],
    cost: CostName,
    moving: Bool[Tensor, "b n h w"] | None = None,
) -> Float[Tensor, "b p h w"]:
    """The plane sweep's cost volume (``som.depth.sweep.volume``) of several references, without any regularisation.

    Unlike the published volume it samples at pixel centres, leaves out what lies outside of a measurement frame or
    moves there, and of many frames those that fit worst, since something may hide the point from them.

    Args:
        images: RGB in [0, 1]; index 0 of each is the reference, the m = n - 1 others are its measurement frames.
        K: intrinsics in pixels of each image, centres at +0.5.
        T_meas_ref: maps points of the reference camera into each measurement camera.
        disparities: 1 / depth of each plane.
        cost: how images are compared.
        moving: True where something moves.

    Returns:
        costs, 0 where a pixel says nothing; the same at all planes where no frame sees it. No gradient.

    Raises:
        DepthError: shapes disagree, or there is no measurement frame.
    """
    B, N = images.shape[:2]
    if N < 2 or K.shape != (B, N, 3, 3) or T_meas_ref.shape != (B, N - 1, 4, 4):
        shapes = f"{tuple(images.shape)}, {tuple(K.shape)} and {tuple(T_meas_ref.shape)}"
        raise DepthError(f"images, K and T_meas_ref must be (B,N,3,H,W), (B,N,3,3), (B,N-1,4,4), N > 1; got {shapes}.")
    compare = make_cost(cost, COST_WINDOW_PX)
    identity = torch.eye(4, dtype=torch.float64, device=images.device)[None]
    planes = disparities.to(images.device)[:, None, None]
    volumes = []
    for b in range(B):
        w2c = torch.cat([identity, T_meas_ref[b].double()])
        masks = None if moving is None else moving[b]
        features = compare.features(images[b].float())
        volumes.append(cost_volume(compare, features, K[b], w2c, 0, range(1, N), planes, masks, KEPT_FRAMES_SHARE)[0])
    return COST_SCALE * (torch.stack(volumes) - compare.neutral) / compare.smoothness
