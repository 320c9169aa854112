"""Where to begin long point tracks: frames spread over the video, points spread over its moving and static parts."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError

FRAMES_PER_QUERY = 8
"""By default one frame in this many is a query frame."""
MIN_SPACING_PX = 2.0
"""Points of one frame are not set closer than this many pixels; nearer ones would move as one."""
NOISE_SIGMA = 2 / 255
"""Standard deviation of image noise, with intensities in [0, 1]."""
TEXTURE_WINDOW_PX = 7
"""Side in pixels of the window whose texture locates a point."""
MAX_LOCATION_BLUR_PX = 0.25
"""Pixels by which noise alone may blur a point's position where low texture is avoided."""


def query_points(
    num_tracks: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    foreground: Tensor | None = None,
    valid: Tensor | None = None,
    frames: Tensor | None = None,
    foreground_share: float = 0.7,
    num_query_frames: int | None = None,
    margin: int = 2,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Chooses query points on jittered grids, equally dense in all query frames.

    The query frames are the middles of equal parts of the video, rather than its ends: points are tracked both ways,
    so that this keeps the distance to the nearest query shortest. Each part (moving, static) gets its share of the
    points; what does not fit into the moving part goes to the static one. Fewer than ``num_tracks`` come back where
    there is no room for more.

    Args:
        num_tracks: most points in total.
        num_frames: T.
        size: (H,W) of the image in whose pixels the points are given.
        foreground: (T,H,W) bool, moving objects; None spreads all points evenly.
        valid: (T,H,W) bool, pixels that may be used; None allows all.
        frames: (T,H,W,3) uint8, or floating point in [0, 1]; if given, points without texture are avoided.
        foreground_share: share of the points on moving objects, in [0, 1]. They carry the motion and cover far fewer
            pixels than the static part, which needs few points to be held.
        num_query_frames: None takes every eighth frame.
        margin: pixels kept from borders of masks and image, where flow mixes two motions.
        seed: of grid offsets and jitter.

    Returns:
        query_xy (Q,2) float32, continuous coordinates in pixels, and query_frames (Q,) int64 in rising order.

    Raises:
        FlowError: a number is out of range or a shape does not fit.
    """
    K = num_query_frames if num_query_frames is not None else -(-num_frames // FRAMES_PER_QUERY)
    if num_tracks < 0 or num_frames < 1 or not 1 <= K <= num_frames or not 0 <= foreground_share <= 1 or margin < 0:
        raise FlowError(
            "query_points needs num_tracks >= 0, num_frames >= 1, num_query_frames in [1, num_frames], "
            "foreground_share in [0, 1] and margin >= 0; "
            f"got {num_tracks}, {num_frames}, {K}, {foreground_share} and {margin}."
        )
    for name, value in (("foreground", foreground), ("valid", valid), ("frames", frames)):
        expected = (num_frames, *size) + ((3,) if name == "frames" else ())
        if value is not None and tuple(value.shape) != expected:
            raise FlowError(f"{name} must have shape {expected}, got {tuple(value.shape)}.")
    chosen = ((np.arange(K) + 0.5) * num_frames / K).astype(np.int64)
    moving, static = [], []
    for t in chosen:
        usable = np.ones(size, bool) if valid is None else valid[t].cpu().numpy().astype(bool)
        textured = np.ones(size, bool) if frames is None else located_by_texture(frames[t])
        front = np.zeros(size, bool) if foreground is None else foreground[t].cpu().numpy().astype(bool)
        moving.append(_eroded(front & usable, margin) & textured)
        static.append(_eroded(~front & usable, margin) & textured)
    generator = np.random.default_rng(seed)
    wanted = 0 if foreground is None else round(foreground_share * num_tracks)
    points = _spread(moving, wanted, generator)
    others = _spread(static, num_tracks - sum(map(len, points)), generator)
    per_frame = [np.concatenate(pair) for pair in zip(points, others, strict=True)]
    times = np.repeat(chosen, [len(p) for p in per_frame])
    return torch.from_numpy(np.concatenate(per_frame).astype(np.float32)), torch.from_numpy(times)


def located_by_texture(image: Tensor) -> np.ndarray:
    """(H,W) bool: pixels whose surroundings pin a point down in every direction.

    Noise of standard deviation s in both images blurs a least-squares displacement by sqrt(2 s² / m) at worst, where m
    is the smaller eigenvalue of the structure tensor summed over the window (Shi and Tomasi 1994).

    Args:
        image: (H,W,3) RGB, uint8, or floating point in [0, 1].
    """
    values = image.cpu().numpy()
    values = values.astype(np.float32) / (255 if values.dtype == np.uint8 else 1)
    gray = cv2.cvtColor(np.ascontiguousarray(values), cv2.COLOR_RGB2GRAY)
    dx, dy = (cv2.Sobel(gray, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    window = (TEXTURE_WINDOW_PX, TEXTURE_WINDOW_PX)
    xx, yy, xy = (cv2.boxFilter(v, cv2.CV_32F, window, normalize=False) for v in (dx * dx, dy * dy, dx * dy))
    smaller = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return smaller >= 2 * NOISE_SIGMA**2 / MAX_LOCATION_BLUR_PX**2


def _eroded(mask: np.ndarray, margin: int) -> np.ndarray:
    """Pixels at least ``margin`` pixels inside the mask and the image."""
    padded = np.pad(mask.astype(np.uint8), margin)
    inner = cv2.erode(padded, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)).astype(bool)
    return inner[margin : margin + mask.shape[0], margin : margin + mask.shape[1]]


def _spread(masks: list[np.ndarray], number: int, generator: np.random.Generator) -> list[np.ndarray]:
    """At most ``number`` points (x, y) in the masks together, as many in each as its share of their area."""
    areas = np.array([mask.sum() for mask in masks], np.float64)
    if number <= 0 or areas.sum() == 0:
        return [np.zeros((0, 2)) for _ in masks]
    ends = np.round(np.cumsum(areas) / areas.sum() * number).astype(int)
    counts = np.diff(ends, prepend=0)
    return [_grid(mask, int(count), generator) for mask, count in zip(masks, counts, strict=True)]


def _grid(mask: np.ndarray, number: int, generator: np.random.Generator) -> np.ndarray:
    """At most ``number`` points (x, y) of a jittered grid in the mask."""
    H, W = mask.shape
    if number == 0:
        return np.zeros((0, 2))
    spacing = max(MIN_SPACING_PX, np.sqrt(mask.sum() / number))
    while True:
        x, y = (np.arange(generator.uniform(0, spacing), side, spacing) for side in (W, H))
        points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        points = points + generator.uniform(-spacing / 4, spacing / 4, points.shape)
        points = points[(points >= 0).all(1) & (points < [W, H]).all(1)]
        column, row = points.astype(int).T
        points = points[mask[row, column]]
        if len(points) >= number:
            return points[np.sort(generator.permutation(len(points))[:number])]
        if spacing == MIN_SPACING_PX:
            return points
        spacing = max(MIN_SPACING_PX, 0.95 * spacing)
