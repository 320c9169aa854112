"""Where the images that another program worked on lie in ours: it may have resized and cropped them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from som.data.layouts.shape_of_motion import droid_scale
from som.errors import UserError

MAX_ASPECT_DIFFERENCE = 0.04
"""Relative difference of aspect ratios that rounding a side to a multiple of 14 or 16 pixels explains."""
DUST3R_SIDE_PX = 512
"""DUSt3R and MonST3R resize the longer side to this, then crop."""

Size = tuple[int, int]
"""(height, width)"""


@dataclass(frozen=True)
class Window:
    """Maps continuous coordinates of the program's image to ours: ``(xy + offset) * scale``."""

    scale: tuple[float, float]
    """(x, y): our pixels per pixel of the program's image."""
    offset: tuple[float, float] = (0.0, 0.0)
    """(x, y) of the upper left corner of the program's image in its uncropped image, in its pixels."""

    def intrinsics(self, K: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3 3"]:
        """K in our pixels: the offset is added to the principal point, then both rows are scaled."""
        K = np.array(K, np.float64)
        K[..., :2, 2] += self.offset
        K[..., :2, :] *= np.array(self.scale)[:, None]
        return K

    def place(self, maps: Shaped[np.ndarray, "*t h w"], size: Size) -> Shaped[np.ndarray, "*t H W"]:
        """Maps at our size by taking the nearest pixel, which never mixes two surfaces; 0 where the crop left none."""
        if maps.shape[-2:] == tuple(size) and self == Window((1.0, 1.0)):
            return maps
        rows, seen_rows = self._sources(size[0], maps.shape[-2], axis=1)
        columns, seen_columns = self._sources(size[1], maps.shape[-1], axis=0)
        placed = maps[..., rows[:, None], columns]
        placed[..., ~(seen_rows[:, None] & seen_columns)] = 0
        return placed

    def _sources(self, count: int, available: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Index of the program's row or column under each of ours, and whether there is one."""
        at = np.floor((np.arange(count) + 0.5) / self.scale[axis] - self.offset[axis]).astype(int)
        return at.clip(0, available - 1), (at >= 0) & (at < available)


def whole_image(path: Path, found: Size, size: Size) -> Window:
    """The window of a program that resized whole images to ``found`` (height, width).

    Raises:
        UserError: the aspect ratio differs by more than rounding, so that images were cropped or are others.
    """
    if abs(found[1] * size[0] / (found[0] * size[1]) - 1) > MAX_ASPECT_DIFFERENCE:
        raise UserError(
            f"{path}: was made for images of {found[1]}x{found[0]}, another aspect ratio than that of the frames "
            f"({size[1]}x{size[0]}); run that program on the whole frames, without cropping."
        )
    return Window((size[1] / found[1], size[0] / found[0]))


def droid_image(path: Path, found: Size, size: Size, source_size: Size | None = None) -> Window:
    """The window of DROID-SLAM and MegaSaM: resized to about 384·512 pixels, cropped right and below to multiples of 8.

    Args:
        found: (height, width) of the program's images.
        size: of ours.
        source_size: of the images that the program was given; None is ``size``.

    Raises:
        UserError: ``found`` has another aspect ratio than these images.
    """
    source = source_size or size
    whole_image(path, source, size)
    x, y = droid_scale(np.array(found), *source)  # from the images before cropping to those that it was given
    reduced = round(source[0] / y), round(source[1] / x)
    if reduced == tuple(found):
        return whole_image(path, found, size)
    return Window((size[1] / reduced[1], size[0] / reduced[0]))


def dust3r_image(path: Path, found: Size | None, size: Size, source_size: Size | None = None) -> Window:
    """The window of DUSt3R and MonST3R: long side 512 px, then the centre is cropped to multiples of 16 (square: 4:3).

    Arguments as ``droid_image``; ``found`` is only checked, and None is not.

    Raises:
        UserError: ``found`` is not what images of that size give.
    """
    source = source_size or size
    whole_image(path, source, size)
    height, width = (round(n * DUST3R_SIDE_PX / max(source)) for n in source)
    half_height, half_width = (2 * (n // 2) // 16 * 8 for n in (height, width))
    if height == width:
        half_height = 3 * half_width // 4
    cropped = 2 * half_height, 2 * half_width
    if found is not None and found != cropped:
        raise UserError(
            f"{path}: was made for images of {found[1]}x{found[0]}, but images of {source[1]}x{source[0]} become "
            f"{cropped[1]}x{cropped[0]} there; say with given-size (height width) what it was given."
        )
    offset = float(width // 2 - half_width), float(height // 2 - half_height)
    return Window((size[1] / width, size[0] / height), offset)
