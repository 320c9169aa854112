"""COCO segmentations: run lengths, their compressed string, and polygons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from som.depth.errors import DepthError


def decode_segmentation(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Mask (height, width) bool of a COCO ``segmentation`` entry: a list of polygons, or run lengths.

    Raises:
        DepthError: the entry is neither, or describes another image size.
    """
    if isinstance(segmentation, list):
        return fill_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or not {"counts", "size"} <= set(segmentation):
        raise DepthError("a COCO segmentation must be a list of polygons, or run lengths with counts and size.")
    if list(segmentation["size"]) != [height, width]:
        raise DepthError(f"run lengths are for size {segmentation['size']}, the image has {[height, width]}.")
    counts = segmentation["counts"]
    if isinstance(counts, str | bytes):
        counts = decompress_counts(counts)
    return decode_counts(counts, height, width)


def decode_counts(counts: Sequence[int], height: int, width: int) -> np.ndarray:
    """Mask (height, width) bool from the lengths of runs of 0, 1, 0, ... down the columns, from left to right.

    Raises:
        DepthError: a length is negative or their sum is not the number of pixels.
    """
    runs = np.asarray(counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise DepthError(f"run lengths must be >= 0 and add up to {height} x {width} pixels, got {int(runs.sum())}.")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def decompress_counts(text: str | bytes) -> list[int]:
    """Run lengths from COCO's string.

    Each character less 48 holds five bits, the lowest first, and in bit 5 whether more follow; bit 4 of the last one is
    the sign. From the fourth number on, a number is the difference from the one two places before.

    Raises:
        DepthError: a character is out of range or the string ends within a number.
    """
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    counts: list[int] = []
    value = shift = 0
    for byte in data:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise DepthError(f"compressed run lengths hold {chr(byte)!r}, which is not one of their characters.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise DepthError("compressed run lengths end within a number; the string is cut.")
    return counts


def fill_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Pixels whose centre (column + 0.5, row + 0.5) lies in any of the polygons, (height, width) bool.

    Args:
        polygons: each x0, y0, x1, y1, ... in continuous coordinates; inside is where a ray crosses an odd number of
            its edges.
        height, width: size of the image in pixels.

    Raises:
        DepthError: a polygon has fewer than three corners or an odd number of coordinates.
    """
    mask = np.zeros((height, width), bool)
    centers = np.arange(height) + 0.5
    for polygon in polygons:
        if not isinstance(polygon, list | tuple | np.ndarray) or len(polygon) < 6 or len(polygon) % 2:
            raise DepthError("a COCO polygon must be x0, y0, x1, y1, ... with at least three corners.")
        corners = np.asarray(polygon, float).reshape(-1, 2)
        (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
        # Each edge toggles all pixels to the right of where it crosses the row of centres.
        row, edge = np.nonzero((y0 <= centers[:, None]) != (y1 <= centers[:, None]))
        cross = x0[edge] + (centers[row] - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
        first = np.clip(np.ceil(cross - 0.5), 0, width).astype(int)
        toggles = np.zeros((height, width + 1), np.int64)
        np.add.at(toggles, (row, first), 1)
        mask |= toggles.cumsum(1)[:, :width] % 2 == 1
    return mask
