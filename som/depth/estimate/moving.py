"""Depth of objects that move: no second view confirms it, but most of them stand on something that is known."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FOOT_HEIGHT_SHARE = 0.15
"""The lowest share of an object's height in the image is where it touches what it stands on."""
MIN_REGION_PIXELS = 12
"""Connected parts of fewer pixels keep the depth they have."""
WINDOW_FRAMES = 2
"""Frames before and after a part in which the same object's contact is looked up: masks lose a foot now and then, and a
step or a jump lifts it."""


def stand_on_ground(
    depth: Float[Tensor, "t h w"], moving: Bool[Tensor, "t h w"]
) -> tuple[Float[Tensor, "t h w"], Bool[Tensor, "t h w"]]:
    """Puts every connected moving part at the depth of what lies just below its foot.

    What moves is nearer than what it hides, and usually touches the ground at its lower end (Ranftl et al., CVPR 2016,
    join moving parts to their surroundings on this assumption). The part becomes a flat board at that depth, the median
    of the depths found in the frames around where moving parts overlap it, if that is nearer than the depth there is.
    Right for what stands or rolls; what flies or is cut off by the lower border of the image stays too far. Image rows
    are taken to go down.

    Args:
        depth: z-depth, known everywhere; that of moving pixels is a guess.
        moving: pixels of objects that move by themselves.

    Returns:
        depth, and the pixels that were set on what their part stands on.
    """
    contact = below_feet(depth, moving)
    result, standing = depth.clone(), torch.zeros_like(moving)
    for t, mask in enumerate(moving):
        around = contact[max(t - WINDOW_FRAMES, 0) : t + WINDOW_FRAMES + 1]
        for part in _parts(mask):
            found = [z[part & (z > 0)].median() for z in around if bool((part & (z > 0)).any())]
            if found:
                nearest = float(torch.stack(found).quantile(0.5))
                result[t] = torch.where(part, result[t].clamp(max=nearest), result[t])
                standing[t] |= part
    return result, standing


def below_feet(values: Float[Tensor, "t h w"], moving: Bool[Tensor, "t h w"]) -> Float[Tensor, "t h w"]:
    """On every moving part the median of some map (depth, or its confidence) just below the part's foot in that frame;
    0 where that is not seen, on parts of fewer than ``MIN_REGION_PIXELS`` pixels, and where nothing moves."""
    found = torch.zeros_like(values)
    for t, mask in enumerate(moving):
        for part in _parts(mask):
            found[t][part] = depth_below(values[t], mask, part)
    return found


def _parts(moving: Bool[Tensor, "h w"]) -> Iterator[Bool[Tensor, "h w"]]:
    """The connected parts that are not too small."""
    from scipy import ndimage

    numbers = torch.from_numpy(ndimage.label(moving.cpu().numpy())[0]).to(moving.device)
    for number, area in enumerate(torch.bincount(numbers.flatten()).tolist()):
        if number and area >= MIN_REGION_PIXELS:
            yield numbers == number


def depth_below(values: Float[Tensor, "h w"], moving: Bool[Tensor, "h w"], part: Bool[Tensor, "h w"]) -> float:
    """Median of a map (depth, or its confidence) over the static pixels just below the foot of one moving part; 0 where
    there are none."""
    H, W = values.shape
    rows, columns = part.nonzero(as_tuple=True)
    lowest = torch.full((W,), -1, device=values.device).scatter_reduce(0, columns, rows, "amax")
    top, bottom = int(rows.min()), int(rows.max())
    # the pixel below each column's lowest one, where that is part of the foot
    foot = (lowest >= bottom - FOOT_HEIGHT_SHARE * (bottom - top + 1)) & (lowest >= 0) & (lowest + 1 < H)
    at = foot.nonzero()[:, 0]
    below = lowest[at] + 1
    static = ~moving[below, at]
    return float(values[below[static], at[static]].median()) if bool(static.any()) else 0.0
