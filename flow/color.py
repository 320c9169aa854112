"""Flow fields as pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flow.errors import FlowError

SECTORS = (
    # number of colours up to the next corner, corner
    (15, (1.0, 0.0, 0.0)),  # red, right
    (6, (1.0, 1.0, 0.0)),  # yellow, a little past down
    (4, (0.0, 1.0, 0.0)),  # green
    (11, (0.0, 1.0, 1.0)),  # cyan, a little before left
    (13, (0.0, 0.0, 1.0)),  # blue
    (6, (1.0, 0.0, 1.0)),  # magenta
)
"""The wheel's corners in the order of the angle from right over down (Baker et al., IJCV 2011)."""


def color_wheel() -> Tensor:
    """(55,3) colours in [0, 1] of the Middlebury wheel, from right over down, left and up."""
    colors = []
    for i, (count, corner) in enumerate(SECTORS):
        start, end = torch.tensor(corner), torch.tensor(SECTORS[(i + 1) % len(SECTORS)][1])
        steps = torch.arange(count)[:, None] / count
        colors.append(start + steps * (end - start))
    return torch.cat(colors)


def flow_to_rgb(flow: Tensor, valid: Tensor | None = None, max_magnitude: float | None = None) -> Tensor:
    """The usual picture of a flow field: hue is the direction, saturation the length (Baker et al., IJCV 2011).

    No motion is white; motion to the right is red, down is yellowish, left is cyan-blue, up is violet.

    Args:
        flow: (...,H,W,2) in pixels.
        valid: (...,H,W) bool; other pixels are black, as are those that are not finite. None shows all.
        max_magnitude: length in pixels of full saturation, longer vectors are darkened; None takes the longest shown
            vector of all fields given.

    Returns:
        (...,H,W,3) uint8.

    Raises:
        FlowError: shapes do not fit, or ``max_magnitude`` is not positive.
    """
    if flow.ndim < 3 or flow.shape[-1] != 2:
        raise FlowError(f"flow must have shape (...,H,W,2), got {tuple(flow.shape)}.")
    if valid is not None and valid.shape != flow.shape[:-1]:
        raise FlowError(f"valid must have shape {tuple(flow.shape[:-1])}, got {tuple(valid.shape)}.")
    if max_magnitude is not None and not max_magnitude > 0:
        raise FlowError(f"max_magnitude must be > 0 pixels, got {max_magnitude}.")
    shown = flow.isfinite().all(-1)
    if valid is not None:
        shown = shown & valid
    u, v = torch.where(shown[..., None], flow, torch.zeros_like(flow)).double().unbind(-1)
    length = torch.hypot(u, v)
    if max_magnitude is None:
        max_magnitude = (float(length.amax()) if length.numel() else 0.0) or 1.0
    length = (length / max_magnitude)[..., None]

    wheel = color_wheel().to(flow.device, torch.float64)
    position = (torch.atan2(-v, -u) / math.pi + 1) / 2 * (len(wheel) - 1)
    below = position.floor().long()
    fraction = (position - below)[..., None]
    hue = (1 - fraction) * wheel[below] + fraction * wheel[(below + 1) % len(wheel)]
    color = torch.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    return (255 * color * shown[..., None]).floor().to(torch.uint8)
