"""Depth of things that move: no second view confirms it, but most of them stand on something that is known."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FOOT = 0.15
"""The lowest share of a thing's height in the image is where it touches what it stands on."""
SMALLEST = 12
"""Connected parts of fewer pixels keep the depth they have."""


def stand_on_ground(
    depth: Float[Tensor, "t h w"], moving: Bool[Tensor, "t h w"]
) -> tuple[Float[Tensor, "t h w"], Bool[Tensor, "t h w"]]:
    """Puts every connected moving part at the depth of what lies just below its foot.

    What moves is nearer than what it hides, and usually touches the ground at its lower end (Ranftl et al., CVPR 2016,
    join moving parts to their surroundings on this assumption). The part becomes a flat board at that depth, where that
    is nearer than the depth there is. Right for what stands or rolls; what flies or is cut off by the lower border of
    the image stays too far. Image rows are taken to go down.

    Args:
        depth: z-depth, known everywhere; that of moving pixels is a guess.
        moving: pixels of things that move by themselves.

    Returns:
        depth, and the pixels that were set on what their part stands on.
    """
    from scipy import ndimage

    result, standing = depth.clone(), torch.zeros_like(moving)
    H, W = depth.shape[1:]
    for t in range(len(depth)):
        parts, count = ndimage.label(moving[t].cpu().numpy())
        parts = torch.from_numpy(parts).to(depth.device)
        for number in range(1, count + 1):
            part = parts == number
            if int(part.sum()) < SMALLEST:
                continue
            rows, columns = part.nonzero(as_tuple=True)
            lowest = torch.full((W,), -1, device=depth.device).scatter_reduce(0, columns, rows, "amax")
            top, bottom = int(rows.min()), int(rows.max())
            # the pixel below each column's lowest one, where that is part of the foot
            foot = (lowest >= bottom - FOOT * (bottom - top + 1)) & (lowest >= 0) & (lowest + 1 < H)
            at = foot.nonzero()[:, 0]
            below = lowest[at] + 1
            static = ~moving[t, below, at]
            if not bool(static.any()):
                continue
            contact = depth[t, below[static], at[static]].median()
            result[t] = torch.where(part, result[t].clamp(max=float(contact)), result[t])
            standing[t] |= part
    return result, standing
