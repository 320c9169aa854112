"""Depth maps, their errors and side-by-side sheets as pictures: (H,W,3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from som.depth.errors import DepthError

COLORMAPS = {
    "turbo": cv2.COLORMAP_TURBO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "inferno": cv2.COLORMAP_INFERNO,
}
UNKNOWN_RGB = (0, 0, 0)
"""Colour of pixels without depth."""
NO_TRUTH_RGB = (128, 128, 128)
"""Colour of pixels without a true depth in error maps."""
NOT_PREDICTED_RGB = (90, 0, 120)
"""Colour in error maps of pixels with a true depth but no prediction."""
GAP_PX = 4
"""Pixels between the pictures of a sheet."""

Depth = Float[Tensor | np.ndarray, "h w"]
Picture = UInt8[np.ndarray, "_ _ 3"]


def disparity_range(depth: Depth, low: float = 2.0, high: float = 98.0) -> tuple[float, float]:
    """(nearest, farthest) depth for ``color_depth``: percentiles of the disparity of known pixels, (1, 2) if none.

    Args:
        low, high: percentiles in [0, 100].
    """
    depth = _array(depth)
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        return 1.0, 2.0
    far, near = np.percentile(1 / depth[known], (low, high))
    return float(1 / near), float(1 / far)


def color_depth(
    depth: Depth,
    near_far: tuple[float, float] | None = None,
    colormap: str = "turbo",
    point_size: int = 1,
) -> Picture:
    """Depth as colours, linear in disparity; near is the bright or red end. Unknown pixels are black.

    Args:
        depth: (H,W), 0 or not finite = unknown.
        near_far: depths at the ends of the colour map; None takes ``disparity_range``. Pass one range to several maps
            to make them comparable.
        colormap: a name in ``COLORMAPS``.
        point_size: side in pixels of the square in which a known pixel is drawn, the nearest on top: for sparse maps.

    Raises:
        DepthError: unknown colour map, or a range that is not 0 < near <= far.
        ValueError: the map is not (H,W).
    """
    depth = _array(depth)
    near, far = disparity_range(depth) if near_far is None else near_far
    if not 0 < near <= far < np.inf:
        raise DepthError(f"near_far must be finite with 0 < near <= far, got ({near}, {far}).")
    known = np.isfinite(depth) & (depth > 0)
    disparity = np.where(known, 1 / np.where(known, depth, 1), 0)
    if point_size > 1:
        disparity = cv2.dilate(disparity, np.ones((point_size, point_size)))
    span = max(1 / near - 1 / far, 1e-12)
    return _paint((disparity - 1 / far) / span, disparity > 0, colormap, UNKNOWN_RGB)


def color_error(
    pred: Depth,
    target: Depth,
    valid: Bool[Tensor | np.ndarray, "h w"] | None = None,
    largest: float = 0.3,
    colormap: str = "inferno",
    point_size: int = 1,
) -> Picture:
    """Relative error |pred - target| / target as colours: dark is right, bright is ``largest`` or more.

    Grey where there is no true depth, violet where there is one but no prediction.

    Args:
        pred: (H,W), 0 or not finite = nothing predicted; already scaled.
        target: (H,W), 0 or not finite = unknown.
        valid: pixels to show, beside those with a true depth.
        largest: relative error at the end of the colour map.
        colormap: a name in ``COLORMAPS``.
        point_size: side in pixels of the square in which a pixel is drawn, the worst on top: for sparse truth.

    Raises:
        DepthError: unknown colour map, or ``largest`` not positive.
        ValueError: the maps differ in shape or are not (H,W).
    """
    pred, target = _array(pred), _array(target)
    if pred.shape != target.shape or (valid is not None and tuple(valid.shape) != target.shape):
        raise ValueError(f"color_error: pred {pred.shape}, target {target.shape} and valid must have one shape.")
    if not largest > 0:
        raise DepthError(f"largest must be a positive relative error, got {largest}.")
    true = np.isfinite(target) & (target > 0)
    if valid is not None:
        true &= np.asarray(valid, bool)
    predicted = np.isfinite(pred) & (pred > 0)
    error = np.full(target.shape, -1.0)
    both = true & predicted
    error[both] = np.minimum(np.abs(pred[both] - target[both]) / target[both] / largest, 1)
    missing = true & ~predicted
    if point_size > 1:
        kernel = np.ones((point_size, point_size))
        error = cv2.dilate(error, kernel)
        missing = cv2.dilate(missing.astype(np.uint8), kernel) > 0
    picture = _paint(error, error >= 0, colormap, NO_TRUTH_RGB)
    picture[missing & (error < 0)] = NOT_PREDICTED_RGB
    return picture


def to_bytes(image: Float[Tensor | np.ndarray, "..."]) -> Picture:
    """(3,H,W) or (H,W,3) RGB in [0, 1], or (H,W,3) uint8, as (H,W,3) uint8.

    Raises:
        ValueError: another shape.
    """
    image = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[-1] != 3:
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"an RGB picture must be (3,H,W) or (H,W,3), got {image.shape}.")
    if image.dtype != np.uint8:
        image = (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(image)


def sheet(rows: Sequence[Sequence[Picture]], labels: Sequence[str] | None = None, height: int | None = None) -> Picture:
    """Pictures side by side, one row below the other, on white.

    Args:
        rows: pictures (H,W,3) uint8; rows may differ in length.
        labels: one text per column, above the first row; ASCII.
        height: all pictures are resized to this height with their aspect kept; None takes the first one's.

    Raises:
        ValueError: no picture, one that is not (H,W,3) uint8, or more labels than columns.
    """
    pictures = [picture for row in rows for picture in row]
    if not pictures or any(p.dtype != np.uint8 or p.ndim != 3 or p.shape[2] != 3 for p in pictures):
        raise ValueError("sheet: give at least one picture, all of them (H,W,3) uint8.")
    columns = max(len(row) for row in rows)
    if labels is not None and len(labels) > columns:
        raise ValueError(f"sheet: {len(labels)} labels for {columns} columns.")
    height = pictures[0].shape[0] if height is None else height
    rows = [[_at_height(picture, height) for picture in row] for row in rows]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    lefts = np.cumsum([0, *(width + GAP_PX for width in widths)]).tolist()
    top = 0 if labels is None else 22
    canvas = np.full((top + len(rows) * (height + GAP_PX) - GAP_PX, lefts[-1] - GAP_PX, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            y = top + r * (height + GAP_PX)
            canvas[y : y + height, lefts[c] : lefts[c] + picture.shape[1]] = picture
    for c, text in enumerate(labels or ()):
        cv2.putText(canvas, text, (lefts[c] + 2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def _at_height(picture: Picture, height: int) -> Picture:
    if picture.shape[0] == height:
        return picture
    width = max(round(picture.shape[1] * height / picture.shape[0]), 1)
    shrinks = height < picture.shape[0]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _array(depth: Depth) -> np.ndarray:
    depth = (depth.detach().cpu().numpy() if isinstance(depth, Tensor) else np.asarray(depth)).astype(np.float64)
    if depth.ndim != 2:
        raise ValueError(f"a depth map must be (H,W), got {depth.shape}.")
    return depth


def _paint(share: np.ndarray, shown: np.ndarray, colormap: str, background: tuple[int, int, int]) -> Picture:
    """Colours of ``share`` in [0, 1] (clipped) where ``shown``."""
    if colormap not in COLORMAPS:
        raise DepthError(f"unknown colour map {colormap!r}; choose one of {', '.join(COLORMAPS)}.")
    levels = (np.where(shown, share, 0).clip(0, 1) * 255).round().astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(levels, COLORMAPS[colormap]), cv2.COLOR_BGR2RGB)
    picture[~shown] = background
    return picture
