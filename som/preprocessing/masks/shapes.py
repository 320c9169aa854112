"""From raw decisions per pixel to clean regions with the outlines of the image."""

from __future__ import annotations

import cv2
import numpy as np

from som.preprocessing.masks.options import MaskOptions

REFERENCE_SIDE_PX = 427
"""Longer side in px of the fields that diameters of the options are for."""
GRABCUT_ITERATIONS = 3
"""More change few pixels."""
GRABCUT_FOREGROUND_SHARES = (0.001, 0.9)
"""Share of foreground outside of which there is too little colour to learn from: the mask stays as it is."""


def disk(diameter: int) -> np.ndarray:
    """Structuring element: a disk of this odd diameter in px."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))


def scaled(diameter: int, mask: np.ndarray) -> int:
    """A diameter for fields of the reference size, scaled to those of ``mask``; odd, at least 1."""
    size = diameter * max(mask.shape) / REFERENCE_SIDE_PX
    return max(1, 2 * round((size - 1) / 2) + 1)


def dilate(mask: np.ndarray, diameter: int) -> np.ndarray:
    """(H,W) bool grown by a disk."""
    return cv2.dilate(mask.astype(np.uint8), disk(diameter)) > 0


def erode(mask: np.ndarray, diameter: int) -> np.ndarray:
    """(H,W) bool shrunk by a disk; the image's border does not shrink it."""
    return cv2.erode(mask.astype(np.uint8), disk(diameter)) > 0


def clean(mask: np.ndarray, options: MaskOptions) -> np.ndarray:
    """(H,W) bool without specks and small regions, with gaps bridged and small holes filled."""
    result = mask.astype(np.uint8)
    for operation, diameter in ((cv2.MORPH_OPEN, options.open_px), (cv2.MORPH_CLOSE, options.close_px)):
        result = cv2.morphologyEx(result, operation, disk(scaled(diameter, mask))).astype(np.uint8)
    return fill_holes(drop_small(result > 0, options.min_component), options.max_hole)


def drop_small(mask: np.ndarray, share: float) -> np.ndarray:
    """(H,W) bool without 8-connected regions of less than this share of all pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= share * mask.size
    large[0] = False
    return large[labels]


def fill_holes(mask: np.ndarray, share: float) -> np.ndarray:
    """(H,W) bool with those holes filled that do not touch the border and take less than this share of all pixels."""
    height, width = mask.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    x, y, w, h, area = stats.T
    hole = (x > 0) & (y > 0) & (x + w < width) & (y + h < height) & (area < share * mask.size)
    hole[0] = False
    return mask | hole[labels]


def fit_outline(image: np.ndarray, mask: np.ndarray, doubtful: np.ndarray, options: MaskOptions) -> np.ndarray:
    """The mask with its outline moved to where the colours change (GrabCut, Rother et al., SIGGRAPH 2004).

    Args:
        image: (H,W,3) uint8 RGB.
        mask: (H,W) bool; its eroded inside is foreground and all outside its dilation background for sure.
        doubtful: (H,W) bool, pixels that the colours may add to the mask although they lie outside that dilation.
    """
    if not GRABCUT_FOREGROUND_SHARES[0] <= mask.mean() <= GRABCUT_FOREGROUND_SHARES[1]:
        return mask
    labels = np.full(mask.shape, cv2.GC_BGD, np.uint8)
    labels[dilate(mask, scaled(options.grabcut_dilate_px, mask))] = cv2.GC_PR_BGD
    labels[doubtful & dilate(mask, scaled(options.doubt_px, mask))] = cv2.GC_PR_BGD
    labels[mask] = cv2.GC_PR_FGD
    labels[erode(mask, scaled(options.grabcut_erode_px, mask))] = cv2.GC_FGD
    if not (labels == cv2.GC_BGD).any():
        return mask
    cv2.setRNGSeed(0)
    whole, background, foreground = (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65))  # the rectangle is not used
    cv2.grabCut(image, labels, whole, background, foreground, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def enlarge(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H,W) bool at another size, with smooth outlines."""
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
