"""What small pictures of the frames show: repeats, a picture that never changes, cuts; and how sharp a frame is."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

THUMBNAIL_CELLS = 96
"""Thumbnails are squares of this many cells; a cell is the mean of the pixels that it covers."""
COMPRESSION_NOISE_LEVELS = 6.0
"""Grey levels of 255 by which compression alone changes a neighbourhood of 3x3 cells (measured: 2 to 6 with x264)."""
MAX_REPEAT_CHANGE_LEVELS, MAX_REPEAT_CHANGE_RATIO = 10.0, 0.1
"""A repeat changes a neighbourhood by at most this, and by less than this share of what frames usually change by."""
MAX_REPEATS = 4
"""Converters repeat a frame at most this often; a picture that stays longer is a pause of the recording itself."""
MIN_CUT_CHANGE_LEVELS, MIN_CUT_CHANGE_RATIO = 18.0, 4.0
"""A cut changes the mean cell by this many grey levels, and this many times as much as most frames around."""
SHARPNESS_SIDE_PX = 640
"""Longer side at which sharpness is measured, so that it does not depend on the size of the images."""
MIN_SHARPNESS_RATIO = 0.4
"""A blurred frame has less than this share of the sharpness of the frames around it."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(THUMBNAIL_CELLS, THUMBNAIL_CELLS) uint8 grey of an image (H,W,3) uint8 RGB, by area."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (THUMBNAIL_CELLS, THUMBNAIL_CELLS), interpolation=cv2.INTER_AREA)


def is_still(thumbnails: np.ndarray) -> bool:
    """Whether no frame differs from the first: thumbnails (N,h,w) uint8."""
    return all(_change(thumbnails[0], other) <= COMPRESSION_NOISE_LEVELS for other in thumbnails)


def find_repeats(thumbnails: np.ndarray) -> np.ndarray:
    """(N,) bool: the frame shows the same picture as the one before, within what compression changes.

    Converters to a higher rate and screen recorders insert such frames. They stand out from the usual change.
    """
    change = np.array([_change(a, b) for a, b in pairwise(thumbnails)])
    usual = float(np.percentile(change, 90)) if len(change) else 0.0
    return np.concatenate([[False], change <= min(MAX_REPEAT_CHANGE_LEVELS, MAX_REPEAT_CHANGE_RATIO * usual)])


def find_pauses(repeats: np.ndarray) -> np.ndarray:
    """(N,) bool: the repeats that belong to a stretch of more than ``MAX_REPEATS``."""
    edges = np.flatnonzero(np.diff(repeats.astype(np.int8), prepend=0, append=0))
    pauses = np.zeros_like(repeats)
    for first, last in edges.reshape(-1, 2):
        pauses[first:last] = last - first > MAX_REPEATS
    return pauses


def find_cuts(thumbnails: np.ndarray) -> list[int]:
    """Indices of frames at which another shot begins: the picture changes at once, before and after it does not."""
    change = np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in pairwise(thumbnails)])
    cuts = []
    for i in np.flatnonzero(change > MIN_CUT_CHANGE_LEVELS):
        around = np.concatenate([change[max(0, i - 6) : i], change[i + 1 : i + 7]])
        if len(around) and change[i] > MIN_CUT_CHANGE_RATIO * np.percentile(around, 80):
            cuts.append(int(i) + 1)
    return cuts


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian of the grey image (H,W,3) uint8 RGB (Pech-Pacheco et al., ICPR 2000)."""
    scale = SHARPNESS_SIDE_PX / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def find_blurred(values: np.ndarray) -> np.ndarray:
    """(N,) bool: much less sharp than the median of the fifteen frames around."""
    usual = np.array([np.median(values[max(0, i - 7) : i + 8]) for i in range(len(values))])
    return values < MIN_SHARPNESS_RATIO * usual


def _change(a: np.ndarray, b: np.ndarray) -> float:
    """Grey levels by which the most changed neighbourhood of 3x3 cells differs in the mean."""
    return float(cv2.blur(cv2.absdiff(a, b).astype(np.float32), (3, 3)).max())
