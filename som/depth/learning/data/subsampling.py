"""Leaves out frames of a video that show no motion: without it, depth has no signal."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from som.data.sequence import DepthSequence
from som.depth.errors import DepthError


def changed_share(image: np.ndarray, other: np.ndarray, levels: float = 10) -> float:
    """Share of the pixels of two (H,W,3) uint8 RGB images whose grey differs by more than ``levels``.

    Raises:
        ValueError: the images differ in size.
    """
    if image.shape != other.shape:
        raise ValueError(f"changed_share: images {image.shape} and {other.shape} differ in size.")
    grays = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.int16) for picture in (image, other))
    return float((np.abs(next(grays) - next(grays)) > levels).mean())


def moving_frames(
    sequence: DepthSequence, min_share: float = 0.5, levels: float = 10, indices: Sequence[int] | None = None
) -> list[int]:
    """Frames that differ enough from the one kept before, for ``DepthSequence.select``.

    A frame is dropped while less than ``min_share`` of its pixels differ by more than ``levels`` grey levels (of 255)
    from the last kept frame, as SC-Depth (Bian et al. 2021) prepares its data.

    Args:
        indices: the frames to choose from, in order; None for all.

    Raises:
        DepthError: ``min_share`` is outside [0, 1].
    """
    if not 0 <= min_share <= 1:
        raise DepthError(f"min_share must lie in [0, 1], got {min_share}.")
    kept, last = [], None
    for index in range(len(sequence)) if indices is None else indices:
        image = sequence.image_bytes(index)
        if last is None or changed_share(last, image, levels) >= min_share:
            kept.append(index)
            last = image
    return kept
