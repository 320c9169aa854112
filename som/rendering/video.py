"""Videos: rendering a scene along a path, colouring depth, drawing trails, and writing H.264 files.

Frames are (H, W, 3) NumPy arrays, uint8 or float in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import imageio.v2 as imageio
import numpy as np
import torch
from imageio.core import Format
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from som.cameras import Camera
from som.files import atomic_path

if TYPE_CHECKING:
    from som.scene import DynamicScene


@dataclass
class PathFrame:
    """One rendered frame, on the CPU."""

    rgb: Float[np.ndarray, "h w 3"]
    """Colour in [0, 1]."""
    depth: Float[np.ndarray, "h w"]
    """z-depth in scene units, 0 where nothing is hit."""
    alpha: Float[np.ndarray, "h w"]
    """Opacity in [0, 1]."""
    foreground: Float[np.ndarray, "h w"]
    """Part of ``alpha`` that moving Gaussians contribute."""


def render_path_video(
    scene: DynamicScene,
    cameras: Camera,
    times: Int[Tensor, "n"],
    *,
    batch_size: int = 4,
    background_color: float = 1.0,
) -> Iterator[PathFrame]:
    """Yields the frames of a path one by one, rendering ``batch_size`` at a time.

    Args:
        cameras: N of them, in scene coordinates.
        times: time index of every frame.
    """
    if len(times) != len(cameras):
        raise ValueError(f"render_path_video: {len(cameras)} cameras but {len(times)} times.")
    device = scene.device
    for start in range(0, len(cameras), batch_size):
        part = slice(start, start + batch_size)
        some = cameras[part].to(device)
        with torch.no_grad():
            out = scene.rasterize_views(
                some.w2c, some.K, times[part].to(device), some.width, some.height, background_color=background_color
            )
        maps = [m.float().cpu().numpy() for m in (out.rgb.clamp(0, 1), out.depth, out.alpha, out.foreground)]
        for row in zip(*maps, strict=True):
            yield PathFrame(*row)


def to_uint8(frame: np.ndarray | Tensor) -> UInt8[np.ndarray, "h w 3"]:
    """8-bit RGB, rounded; grey images get three channels."""
    image = frame.detach().cpu().numpy() if isinstance(frame, Tensor) else np.asarray(frame)
    if image.dtype == bool:
        image = image.astype(np.float32)
    if image.dtype != np.uint8:
        image = np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def pad_to_even(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Repeats the last row and column where a side is odd; yuv420p knows even sizes only."""
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")


class VideoWriter:
    """Writes an H.264 (yuv420p) file that browsers and players open; the file appears only when complete.

    A context manager: leaving it normally finishes the file, leaving it by an exception discards it.

    Args:
        quality: 0 (worst) to 10 (best).
    """

    def __init__(self, path: Path | str, fps: float, quality: float = 8.0):
        self.path = Path(path)
        self.count = 0
        self._fps, self._quality = float(fps), quality
        self._writer: Format.Writer | None = None
        self._shape: tuple[int, ...] = ()
        self._opened = ExitStack()

    def append(self, frame: np.ndarray | Tensor) -> None:
        """Adds a frame. All have one size; odd sides are padded by one pixel.

        Raises:
            ValueError: the size differs from the first frame's.
        """
        image = to_uint8(frame)
        if self._writer is None:
            self._shape, self._writer = image.shape, self._open()
        if image.shape != self._shape:
            raise ValueError(f"{self.path}: frame {self.count} has shape {image.shape}, the first one {self._shape}.")
        self._writer.append_data(np.ascontiguousarray(pad_to_even(image)))
        self.count += 1

    def _open(self) -> Format.Writer:
        writer = imageio.get_writer(
            self._opened.enter_context(atomic_path(self.path, keep_suffix=True)),
            format="FFMPEG",
            fps=self._fps,
            quality=self._quality,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=1,
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart"],
        )
        self._opened.callback(writer.close)
        return writer

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._opened.__exit__(exception_type, exception, traceback)
        if self._writer is None and exception_type is None:
            raise ValueError(f"{self.path}: no frames to write.")


def write_video(path: Path | str, frames: Iterable[np.ndarray | Tensor], fps: float, quality: float = 8.0) -> int:
    """Writes all frames with a :class:`VideoWriter` and returns how many there were.

    Raises:
        ValueError: no frames, or frames of different sizes.
    """
    with VideoWriter(path, fps, quality) as writer:
        for frame in frames:
            writer.append(frame)
    return writer.count


def depth_range(
    depths: Iterable[Float[np.ndarray, "h w"]], percentiles: tuple[float, float] = (2.0, 98.0)
) -> tuple[float, float]:
    """Near and far depth that hold the given percentiles of all known depths (> 0); (1, 2) where none is known.

    Take it once for a whole video: colours that are scaled per frame flicker.
    """
    known = [d[(d > 0) & np.isfinite(d)] for d in depths]
    values = np.concatenate(known) if known else np.empty(0)
    if len(values) == 0:
        return 1.0, 2.0
    near, far = np.percentile(values, percentiles)
    return float(near), float(max(far, near * 1.001))


def colorize_depth(
    depth: Float[np.ndarray, "h w"], near: float, far: float, alpha: Float[np.ndarray, "h w"] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Turbo colours of inverse depth, near red and far blue; black where the depth is unknown (0) or alpha < 0.5."""
    known = (depth > 0) & np.isfinite(depth)
    if alpha is not None:
        known &= alpha >= 0.5
    disparity = 1 / np.where(known, depth, far)
    level = np.clip((disparity - 1 / far) / (1 / near - 1 / far), 0, 1)
    colors = cv2.applyColorMap(np.rint(level * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(known[..., None], colors, 0).astype(np.uint8)


def colorize_error(error: Float[np.ndarray, "h w"], maximum: float = 0.5) -> UInt8[np.ndarray, "h w 3"]:
    """Turbo colours of an error from 0 (dark blue) to ``maximum`` and beyond (red)."""
    level = np.rint(np.clip(np.nan_to_num(error) / maximum, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1])


def side_by_side(*frames: np.ndarray | Tensor, gap: int = 2) -> UInt8[np.ndarray, "h w 3"]:
    """Frames of one height next to each other, separated by white."""
    images = [to_uint8(f) for f in frames]
    space = np.full((images[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, space)][:-1], axis=1)


def overlay_mask(
    frame: np.ndarray | Tensor,
    mask: Bool[np.ndarray, "h w"],
    color: tuple[int, int, int] = (255, 64, 64),
    opacity: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame tinted where ``mask`` holds."""
    image = to_uint8(frame)
    tinted = np.rint(image * (1 - opacity) + np.array(color) * opacity).astype(np.uint8)
    return np.where(np.asarray(mask, bool)[..., None], tinted, image)


def rainbow(values: Float[np.ndarray, "n"]) -> UInt8[np.ndarray, "n 3"]:
    """A colour per value, by its rank, so that neighbours differ a little and extremes a lot."""
    rank = np.argsort(np.argsort(values)) / max(len(values) - 1, 1)
    levels = np.rint(rank * 255).astype(np.uint8)[:, None]
    return cv2.applyColorMap(levels, cv2.COLORMAP_RAINBOW)[:, 0, ::-1]


def draw_trails(
    frame: np.ndarray | Tensor,
    xy: Float[np.ndarray, "l n 2"],
    colors: UInt8[np.ndarray, "n 3"],
    visible: Sequence[bool] | Bool[np.ndarray, "n"] | None = None,
    drawable: Bool[np.ndarray, "l n"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws where N points have been, older parts fainter, and a dot where they are now.

    Args:
        xy: image coordinates (pixel centres at +0.5), the last row being now.
        visible: points to draw; all by default.
        drawable: positions that exist in the image plane (in front of the camera).
    """
    image = np.ascontiguousarray(to_uint8(frame)).copy()
    steps, count = xy.shape[:2]
    drawable = np.ones((steps, count), bool) if drawable is None else drawable
    drawable = drawable & np.isfinite(xy).all(-1) & (np.abs(xy) < 1e5).all(-1)
    shown = [i for i in range(count) if visible is None or visible[i]]
    shift = 4  # cv2 draws at 1/16 pixel; its integer coordinates are pixel centres
    points = np.rint(np.where(drawable[..., None], xy - 0.5, 0) * (1 << shift)).astype(np.int64)
    thickness = max(1, round(image.shape[0] / 480))
    for step in range(steps - 1):
        layer = image.copy()
        for i in shown:
            if drawable[step, i] and drawable[step + 1, i]:
                start, end = (tuple(map(int, points[step + k, i])) for k in (0, 1))
                cv2.line(layer, start, end, tuple(map(int, colors[i])), thickness, cv2.LINE_AA, shift)
        age = (step + 1) / (steps - 1)
        image = cv2.addWeighted(layer, age, image, 1 - age, 0)
    radius = max(1, round(image.shape[0] / 240)) << shift
    for i in shown:
        if drawable[-1, i]:
            center = tuple(map(int, points[-1, i]))
            cv2.circle(image, center, radius, tuple(map(int, colors[i])), -1, cv2.LINE_AA, shift)
    return image
