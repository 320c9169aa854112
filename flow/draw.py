"""Pictures of point tracks."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError
from flow.tracks import PointTracks

SUBPIXEL_BITS = 4
"""OpenCV draws at 1/2^SUBPIXEL_BITS pixel."""


def track_colors(tracks: PointTracks) -> np.ndarray:
    """(Q,3) uint8 RGB, a rainbow over the places of the queries: hue from left to right, paler towards the bottom."""
    if len(tracks) == 0:
        return np.zeros((0, 3), np.uint8)
    place = tracks.xy[torch.arange(len(tracks)), tracks.query_frames].numpy().astype(np.float64)
    low, high = place.min(0), place.max(0)
    share = (place - low) / np.maximum(high - low, 1e-6)
    hsv = np.stack([share[:, 0] * 150, 255 - 110 * share[:, 1], np.full(len(place), 255)], -1)
    return cv2.cvtColor(hsv.round().astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]


def draw_tracks(
    frame: Tensor | np.ndarray,
    tracks: PointTracks,
    t: int,
    *,
    trail: int = 8,
    radius: float = 2.0,
    hidden: bool = False,
) -> np.ndarray:
    """The points of frame t and the way they came, over the frame.

    Args:
        frame: (H,W,3) RGB, uint8, or floating point in [0, 1].
        tracks: in pixels of ``frame``.
        t: frame index in [0, T).
        trail: frames back to which a point's path is drawn; parts with an unseen end are left out.
        radius: of the dots, in pixels.
        hidden: also draw unseen points, as hollow rings.

    Returns:
        (H,W,3) uint8 RGB.

    Raises:
        FlowError: t is no frame of the tracks, or the frame is not RGB.
    """
    if not 0 <= t < tracks.num_frames:
        raise FlowError(f"t must lie in [0, {tracks.num_frames}), got {t}.")
    image = frame.cpu().numpy() if isinstance(frame, Tensor) else frame
    if image.ndim != 3 or image.shape[-1] != 3:
        raise FlowError(f"frame must be RGB, (H,W,3), got shape {image.shape}.")
    if image.dtype != np.uint8:
        image = (image * 255).round().clip(0, 255).astype(np.uint8)
    image = np.array(image, order="C")
    # OpenCV puts pixel centres at integers; points far outside the image would overflow its fixed-point numbers.
    limit = 4 * max(image.shape)
    places = ((tracks.xy.numpy().clip(-limit, limit) - 0.5) * 2**SUBPIXEL_BITS).round().astype(int)
    visible = tracks.visible.numpy()
    size = round(radius * 2**SUBPIXEL_BITS)
    for place, seen, color in zip(places, visible, track_colors(tracks).tolist(), strict=True):
        for s in range(max(0, t - trail), t):
            if seen[s] and seen[s + 1]:
                cv2.line(image, place[s].tolist(), place[s + 1].tolist(), color, 1, cv2.LINE_AA, SUBPIXEL_BITS)
        if seen[t]:
            cv2.circle(image, place[t].tolist(), size, color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)
        elif hidden:
            cv2.circle(image, place[t].tolist(), size, color, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    return image
