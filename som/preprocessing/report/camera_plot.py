"""The cameras' path and the points of the scene, from above and from the side."""

from __future__ import annotations

import cv2
import numpy as np

BACKGROUND, GRID, TEXT = (24, 26, 31), (44, 48, 56), (170, 176, 188)
POINT, FEW_POINTS = (150, 160, 176), 8000
SUBPIXEL_BITS = 4
"""OpenCV draws at 1/2^SUBPIXEL_BITS pixel."""


def level_axes(w2c: np.ndarray) -> np.ndarray:
    """(3,3) rows right, up and forward of the mean camera, up as upright as the cameras are: (N,4,4) poses."""
    up = -w2c[:, 1, :3].mean(0)
    up /= max(np.linalg.norm(up), 1e-12)
    forward = w2c[:, 2, :3].mean(0)
    forward -= up * (forward @ up)
    if np.linalg.norm(forward) < 1e-6:
        forward = np.cross(w2c[0, 0, :3], up)
    forward /= max(np.linalg.norm(forward), 1e-12)
    return np.stack([np.cross(forward, up), up, forward])


def plot_cameras(
    w2c: np.ndarray,
    points: np.ndarray | None,
    colors: np.ndarray | None,
    *,
    view: str,
    size: tuple[int, int] = (420, 560),
    half_fov: float = 0.5,
) -> np.ndarray:
    """A plan of the path; blue is its begin, red its end.

    Args:
        w2c: (N,4,4).
        points: (P,3) of the scene, or None for the path alone, which then fills the plan.
        colors: (P,3) uint8 RGB of the points, or None.
        view: ``above`` or ``side``.
        size: (height, width) in pixels.
        half_fov: tangent of half the angle that the cameras see.

    Returns:
        (H,W,3) uint8 RGB.
    """
    axes = level_axes(w2c)[[0, 2] if view == "above" else [2, 1]]
    c2w = np.linalg.inv(w2c)
    centers, ahead = c2w[:, :3, 3] @ axes.T, c2w[:, :3, 2] @ axes.T
    plane = None if points is None or not len(points) else points @ axes.T
    to_pixels, scale = _fit(centers, plane, size)
    image = np.full((*size, 3), BACKGROUND, np.uint8)
    _draw_grid(image, to_pixels, scale)
    if plane is not None:
        _draw_points(image, to_pixels(plane), colors)
    pixels = to_pixels(centers)
    ramp = _ramp(len(centers))
    for a, b, color in zip(pixels[:-1], pixels[1:], ramp, strict=False):
        cv2.line(image, _fixed(a), _fixed(b), color, 2, cv2.LINE_AA, SUBPIXEL_BITS)
    for i in _marked(len(centers)):
        direction = ahead[i] * [1, -1]
        _draw_frustum(image, pixels[i], direction, half_fov, ramp[i])
    for at, color in zip(pixels, ramp, strict=True):
        cv2.circle(image, _fixed(at), round(2.5 * 2**SUBPIXEL_BITS), color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)
    return image


def _fit(centers: np.ndarray, plane: np.ndarray | None, size: tuple[int, int]):
    """World to pixels so that the path and most points fit, and pixels per world unit."""
    shown = centers if plane is None else np.concatenate([centers, _inner(plane)])
    low, high = shown.min(0), shown.max(0)
    middle, extent = (low + high) / 2, np.maximum(high - low, 1e-6 + 0.02 * (high - low).max())
    scale = min(0.84 * size[1] / extent[0], 0.84 * size[0] / extent[1])

    def to_pixels(xy: np.ndarray) -> np.ndarray:
        return np.stack([size[1] / 2 + (xy[:, 0] - middle[0]) * scale, size[0] / 2 - (xy[:, 1] - middle[1]) * scale], 1)

    return to_pixels, scale


def _inner(plane: np.ndarray) -> np.ndarray:
    """The points without the outermost 4 % of each axis, which are often far off."""
    low, high = np.percentile(plane, (4, 96), axis=0)
    return plane[((plane >= low) & (plane <= high)).all(1)]


def _draw_grid(image: np.ndarray, to_pixels, scale: float) -> None:
    """Lines at a round distance, which is written in the corner."""
    height, width = image.shape[:2]
    step = 10.0 ** np.floor(np.log10(max(width, height) / 4 / scale))
    step *= next(m for m in (5, 2, 1) if m * step * scale <= max(width, height) / 4)
    origin = to_pixels(np.zeros((1, 2)))[0]
    for axis, length in ((0, width), (1, height)):
        first = origin[axis] % (step * scale)
        for at in np.arange(first, length, step * scale):
            start, end = ((round(at), 0), (round(at), height)) if axis == 0 else ((0, round(at)), (width, round(at)))
            cv2.line(image, start, end, GRID, 1, cv2.LINE_AA)
    label = f"grid {step:g}"
    cv2.putText(image, label, (8, height - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.42, TEXT, 1, cv2.LINE_AA)


def _draw_points(image: np.ndarray, pixels: np.ndarray, colors: np.ndarray | None) -> None:
    """One pixel each; four where there are few."""
    height, width = image.shape[:2]
    place = np.floor(pixels.clip(-1e6, 1e6)).astype(int)
    side = 2 if len(place) < FEW_POINTS else 1
    inside = (place >= 0).all(1) & (place[:, 0] <= width - side) & (place[:, 1] <= height - side)
    place = place[inside]
    for dy in range(side):
        for dx in range(side):
            image[place[:, 1] + dy, place[:, 0] + dx] = POINT if colors is None else colors[inside]


def _draw_frustum(image: np.ndarray, at: np.ndarray, direction: np.ndarray, half_fov: float, color: tuple) -> None:
    """A triangle that opens where the camera looks."""
    length = 0.06 * max(image.shape[:2])
    across = np.array([-direction[1], direction[0]]) * half_fov
    if np.linalg.norm(across) < 1e-6:
        return
    corners = np.stack([at, at + (direction + across) * length, at + (direction - across) * length])
    outline = (corners * 2**SUBPIXEL_BITS).round().astype(np.int32)
    cv2.polylines(image, [outline], True, color, 1, cv2.LINE_AA, SUBPIXEL_BITS)


def _marked(count: int) -> list[int]:
    """Cameras whose viewing angle is drawn."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, 9))})


def _ramp(count: int) -> list[tuple[int, int, int]]:
    """From blue over green and yellow to red."""
    levels = np.linspace(30, 235, max(count, 1)).round().astype(np.uint8)[None]
    return [tuple(color) for color in cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[0, :, ::-1].tolist()]


def _fixed(xy: np.ndarray) -> tuple[int, int]:
    x, y = ((xy.clip(-1e4, 1e4) - 0.5) * 2**SUBPIXEL_BITS).round().astype(int).tolist()
    return x, y
