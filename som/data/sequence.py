"""A video for depth learning: images, cameras, and what is known of depth and motion, read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.data.recording import Recording, Size, scaled_intrinsics
from som.errors import UserError
from som.files import resize_image, resize_map


def target_size(stored: Size, size: Size | None = None, max_side: int | None = None, multiple: int = 1) -> Size:
    """The size at which images are given out.

    Args:
        stored: (height, width) of the file.
        size: exactly this; None keeps the stored size or reduces it to ``max_side``.
        max_side: larger images are reduced so that the longer side has this many pixels.
        multiple: both sides are rounded to the nearest multiple of it, at least one. This changes the aspect slightly,
            which K follows.

    Raises:
        UserError: a number is not positive, or both ``size`` and ``max_side`` are given.
    """
    if multiple < 1 or (max_side is not None and max_side < 1) or (size is not None and min(size) < 1):
        raise UserError(f"size, max_side and multiple must be positive, got {size}, {max_side}, {multiple}.")
    if size is not None and max_side is not None:
        raise UserError("give size or max_side, not both.")
    height, width = stored if size is None else size
    if max_side is not None and max(height, width) > max_side:
        scale = max_side / max(height, width)
    else:
        scale = 1.0
    rows, columns = (max(round(side * scale / multiple), 1) * multiple for side in (height, width))
    return rows, columns


class DepthSequence:
    """Frames of one video (or one list of test images) at one size; files are read when a frame is asked for.

    Args:
        recording: frames of one split; see ``som.data.load.open_sequence``.
        size, max_side, multiple: see ``target_size``.
        cache_images: keeps every image, as uint8 at the final size, once it was read.

    Attributes:
        name, layout, depth_kind, world_scale, fps, notes: as in ``Recording``.
        names: T names, unique.
        size: (H, W) of the images given out.
        Ks: (T,3,3) float32 for that size, pixel centres at +0.5; None where unknown.
        w2cs: (T,4,4) float32 world to camera, OpenCV axes; None where unknown.
        timestamps: (T) float64 seconds, or None. speeds: (T) float32 metres per second, or None.
        has_depth: (T) list of bool.
        has_flow: whether there is optical flow from every frame to some other.
        has_moving: whether there are masks of moving pixels. has_valid: whether some frame has a mask of usable ones.

    Raises:
        UserError: no frame, names that repeat, or images of several sizes and no ``size``.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        size: Size | None = None,
        max_side: int | None = None,
        multiple: int = 1,
        cache_images: bool = False,
    ) -> None:
        frames = recording.frames
        if not frames:
            raise UserError(f"{recording.name}: there is no frame; check the folder and the range of frames.")
        sizes = {target_size(frame.size, size, max_side, multiple) for frame in frames}
        if len(sizes) > 1:
            found = ", ".join(sorted(f"{w}x{h}" for h, w in {frame.size for frame in frames}))
            raise UserError(f"{recording.name}: images have several sizes ({found}); give size=(height, width).")
        self.recording = recording
        self.name, self.layout, self.fps = recording.name, recording.layout, recording.fps
        self.depth_kind, self.world_scale = recording.depth_kind, recording.world_scale
        self.notes = list(recording.notes)
        self.size: Size = sizes.pop()
        self.names = [frame.name for frame in frames]
        if len(set(self.names)) < len(self.names):
            repeated = next(name for name in self.names if self.names.count(name) > 1)
            raise UserError(f"{recording.name}: several frames are named {repeated}; names must be unique.")
        self.Ks = self._stack([None if f.K is None else scaled_intrinsics(f, self.size) for f in frames])
        self.w2cs = self._stack([frame.w2c for frame in frames])
        self.timestamps = self._stack([frame.timestamp for frame in frames], torch.float64)
        self.speeds = self._stack([frame.speed for frame in frames])
        self.has_depth = [frame.depth is not None for frame in frames]
        self.has_moving = all(frame.moving is not None for frame in frames)
        self.has_valid = any(frame.valid is not None for frame in frames)
        self.has_flow = all(frame.flow is not None for frame in frames)
        self._cache: dict[int, np.ndarray] | None = {} if cache_images else None

    @staticmethod
    def _stack(values: list, dtype: torch.dtype = torch.float32) -> Tensor | None:
        known = all(value is not None for value in values)
        return torch.from_numpy(np.stack([np.asarray(v, np.float64) for v in values])).to(dtype) if known else None

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        height, width = self.size
        return f"DepthSequence({self.name}: {self.layout}, {len(self)} frames of {width}x{height})"

    def cameras(self) -> tuple[Float[Tensor, "t 3 3"], Float[Tensor, "t 4 4"]]:
        """``Ks`` and ``w2cs``. Raises UserError where either is unknown."""
        if self.Ks is None or self.w2cs is None:
            raise UserError(f"{self.name} has no {'intrinsics' if self.Ks is None else 'camera poses'}; give them.")
        return self.Ks, self.w2cs

    def image(self, index: int) -> Float[Tensor, "3 H W"]:
        """Image ``index``, RGB in [0, 1].

        Raises:
            UserError: the file is missing, broken, or not of the size of the first image.
        """
        return torch.from_numpy(self.image_bytes(index)).permute(2, 0, 1).float() / 255

    def image_bytes(self, index: int) -> np.ndarray:
        """Image ``index`` as (H,W,3) uint8 RGB; errors as ``image``. Not to be written to."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        image = resize_image(self.recording.frames[index].read_image(), self.size)
        if self._cache is not None:
            self._cache[index] = image
        return image

    def images(self, indices: Sequence[int] | None = None) -> Float[Tensor, "t 3 H W"]:
        """Several images (all if None), as ``image``."""
        return torch.stack([self.image(i) for i in (range(len(self)) if indices is None else indices)])

    def depth(self, index: int) -> tuple[Float[Tensor, "h w"], Float[Tensor, "3 3"] | None]:
        """Depth of frame ``index`` at its own size, 0 = unknown, and K for that size (None if unknown).

        Raises:
            UserError: this frame has none (``has_depth``), or its file is missing or broken.
        """
        frame = self.recording.frames[index]
        if frame.depth is None:
            raise UserError(f"{self.name}: frame {frame.name} has no depth; ask has_depth first.")
        depth = frame.depth()
        K = None if frame.K is None else torch.from_numpy(scaled_intrinsics(frame, depth.shape)).float()
        return torch.from_numpy(depth), K

    def depth_at_image_size(self, index: int) -> Float[Tensor, "H W"]:
        """Depth of frame ``index`` at the images' size, by ``resize_depth``; errors as ``depth``."""
        return torch.from_numpy(resize_depth(self.depth(index)[0].numpy(), self.size))

    def moving(self, index: int) -> Bool[Tensor, "H W"] | None:
        """Pixels of objects that move by themselves, by nearest pixel; None if there are no masks.

        Raises:
            UserError: the mask is missing or broken.
        """
        return self._map(self.recording.frames[index].moving)

    def moving_masks(self, indices: Sequence[int] | None = None) -> Bool[Tensor, "t H W"] | None:
        """Several masks (all if None), as ``moving``; None unless all frames have one."""
        chosen = range(len(self)) if indices is None else indices
        masks = [mask for i in chosen if (mask := self.moving(i)) is not None] if self.has_moving else []
        return torch.stack(masks) if len(masks) == len(chosen) else None

    def valid(self, index: int) -> Bool[Tensor, "H W"] | None:
        """Pixels that may be used at all; None for all. Errors as ``moving``."""
        return self._map(self.recording.frames[index].valid)

    def confidence(self, index: int) -> Float[Tensor, "H W"] | None:
        """Confidence in [0, 1] of the depth, by nearest pixel; None if there is none. Errors as ``moving``."""
        return self._map(self.recording.frames[index].confidence)

    def flow(self, index: int, other: int) -> tuple[Float[Tensor, "2 H W"], Bool[Tensor, "H W"]]:
        """Optical flow (right, down) from one frame to another in pixels of the images given out, by nearest pixel, and
        where it is right: everywhere if the data does not say, nowhere if there is no such flow.

        Raises:
            UserError: the file is broken.
        """
        start, end = self.recording.frames[index], self.recording.frames[other]
        found = start.flow(end.time) if start.flow is not None and end.time is not None else None
        if found is None:
            return torch.zeros(2, *self.size), torch.zeros(self.size, dtype=torch.bool)
        flow, right = found
        height, width = flow.shape[:2]
        scale = (self.size[1] / width, self.size[0] / height)
        parts = [resize_map(flow[..., k], self.size) * scale[k] for k in range(2)]
        known = np.ones(self.size, bool) if right is None else resize_map(right, self.size)
        return torch.from_numpy(np.stack(parts)).float(), torch.from_numpy(known)

    def _map(self, read: Callable[[], np.ndarray | None] | None) -> Tensor | None:
        values = None if read is None else read()
        return None if values is None else torch.from_numpy(resize_map(values, self.size))

    def select(self, indices: Sequence[int]) -> DepthSequence:
        """The sequence of these frames, in this order, at the same size."""
        chosen = replace(self.recording, frames=[self.recording.frames[i] for i in indices])
        return DepthSequence(chosen, size=self.size, cache_images=self._cache is not None)

    def resized(self, size: Size | None = None, max_side: int | None = None, multiple: int = 1) -> DepthSequence:
        """The same frames at another size, from the stored images; arguments as ``target_size``."""
        cache = self._cache is not None
        return DepthSequence(self.recording, size=size, max_side=max_side, multiple=multiple, cache_images=cache)


def resize_depth(depth: np.ndarray, size: Size) -> np.ndarray:
    """(h,w) depth at another size without mixing surfaces.

    Each pixel takes the depth under its centre; where that is unknown, the nearest of the depths that fall into it, so
    that sparse points survive when the map shrinks.
    """
    if depth.shape == tuple(size):
        return depth
    resized = resize_map(depth, size).copy()
    known = np.nonzero(depth)
    closest = np.full(size, np.inf, depth.dtype)
    cell = tuple(((i + 0.5) * new / old).astype(int) for i, new, old in zip(known, size, depth.shape, strict=True))
    np.minimum.at(closest, cell, depth[known])
    filled = (resized == 0) & np.isfinite(closest)
    resized[filled] = closest[filled]
    return resized
