"""Recognises a camera that stands still."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from som.preprocessing.cameras.observations import Observations

MIN_COMMON_POINTS = 10
"""Points that two frames must share to be compared."""
BORDER_SHARE = 0.2
"""The ring along the image's border has this share of its width and height on each side."""


@dataclass(frozen=True)
class Stillness:
    """How much of what is seen stays where it is. Shares are those of the frame in which least does."""

    share: float
    """Of all points."""
    border_share: float
    """Of the points in the ring along the border: a camera that follows someone keeps the middle still, not the ring;
    1 where too few points are there."""
    median_motion: float
    """Largest median over the points of a frame of the distance from where they were first chosen, in pixels."""

    @property
    def is_static(self) -> bool:
        return self.share > 0.5 and self.border_share > 0.5


def measure_stillness(seen: Observations, num_frames: int, size: tuple[int, int], limit: float) -> Stillness:
    """Compares all observations with those at the points' query frames.

    Every pair of a query frame and another frame counts by itself, so that a camera that moves and comes back is not
    mistaken for a static one, and neither is one that starts to move late.

    Args:
        seen: observations in pixels of an image of ``size`` (H,W).
        limit: points closer than this many pixels to their start stand still.
    """
    at_query = seen.frame == seen.query_frame[seen.point]
    start = np.zeros((seen.num_points, 2))
    start[seen.point[at_query]] = seen.xy[at_query]
    motion = np.linalg.norm(seen.xy - start[seen.point], axis=1)
    height, width = size
    relative = start / [width, height]
    ring = np.any((relative < BORDER_SHARE) | (relative > 1 - BORDER_SHARE), axis=1)[seen.point]
    pair = seen.query_frame[seen.point] * num_frames + seen.frame
    order = np.flatnonzero(~at_query)[np.argsort(pair[~at_query], kind="stable")]
    still, border, medians = [1.0], [1.0], [0.0]
    for here in np.split(order, np.flatnonzero(np.diff(pair[order])) + 1):
        if len(here) < MIN_COMMON_POINTS:
            continue
        still.append(float((motion[here] < limit).mean()))
        medians.append(float(np.median(motion[here])))
        if ring[here].sum() >= MIN_COMMON_POINTS:
            border.append(float((motion[here[ring[here]]] < limit).mean()))
    return Stillness(min(still), min(border), max(medians))
