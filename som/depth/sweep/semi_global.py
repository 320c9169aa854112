"""Semi-global regularisation of a cost volume: smooth depth with steps where the image has edges.

Hirschmueller, Stereo Processing by Semiglobal Matching and Mutual Information, PAMI 2008.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def semi_global(
    volume: Float[Tensor, "d h w"], grey: Float[Tensor, "h w"], small: float, large: float, edge: float = 0.1
) -> Float[Tensor, "d h w"]:
    """Mean of the cheapest path costs from the left, right, top and bottom border to every pixel and plane.

    Along a path, ``L(p, d) = C(p, d) + min(L(q, d), L(q, d +- 1) + small, min_k L(q, k) + large') - min_k L(q, k)``
    with q the pixel before p and ``large' = max(small, large exp(-|grey(p) - grey(q)| / edge))``.

    Args:
        volume: cost of each plane.
        grey: target image in [0, 1].
        small: penalty of a step by one plane, in units of cost.
        large: penalty of a larger step where the image is flat, at least ``small``.
        edge: difference of neighbouring grey values that lowers this penalty to 1/e.
    """
    costs = volume.permute(1, 2, 0)  # rows, columns, planes
    down = _paths(costs, grey, small, large, edge)
    across = _paths(costs.transpose(0, 1), grey.T, small, large, edge)
    return (down + across.transpose(0, 1)).permute(2, 0, 1) * 0.25


def _paths(
    costs: Float[Tensor, "n m d"], grey: Float[Tensor, "n m"], small: float, large: float, edge: float
) -> Tensor:
    """Sum of the path costs along the first axis in both directions, which are computed together."""
    both = torch.stack([costs, costs.flip(0)], dim=1)  # n, 2, m, d
    step = (grey[1:] - grey[:-1]).abs()
    penalty = (large * torch.exp(-step / edge)).clamp(min=small)
    penalty = torch.stack([penalty, penalty.flip(0)], dim=1)[..., None]
    for i in range(1, len(both)):
        before = both[i - 1]
        least = before.amin(-1, keepdim=True)
        reached = torch.minimum(before, least + penalty[i - 1])
        stepped = before + small
        torch.minimum(reached[..., 1:], stepped[..., :-1], out=reached[..., 1:])
        torch.minimum(reached[..., :-1], stepped[..., 1:], out=reached[..., :-1])
        both[i] += reached.sub_(least)
    return both[:, 0] + both[:, 1].flip(0)
