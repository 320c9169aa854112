"""Objects seen in the frames of a clip: one id image per frame, and a class or a height of its own for every object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.metric_scale.priors import HeightPriors


@dataclass(frozen=True)
class Instances:
    """Objects of T frames, at most N in one frame.

    Raises:
        DepthError: shapes disagree, an id has no label, or a label has no class.
    """

    ids: Int[Tensor, "t h w"]
    """int32; 0 is no object, n is object n of *this* frame, described in column n - 1 of the tables."""
    labels: Int[Tensor, "t n"]
    """int64; index into ``classes``; -1 where the frame has fewer objects."""
    classes: tuple[str, ...]
    """Names of the classes, as the height priors name them."""
    heights: Float[Tensor, "t n"] | None = None
    """Height in metres where one is known for the object itself (a learned prior); 0 means: use its class."""

    def __post_init__(self) -> None:
        ids, labels = self.ids, self.labels
        if ids.ndim != 3 or labels.ndim != 2 or ids.shape[0] != labels.shape[0]:
            raise DepthError(
                f"instances need ids (T,H,W) and labels (T,N), got {tuple(ids.shape)} and {tuple(labels.shape)}."
            )
        if self.heights is not None:
            if self.heights.shape != labels.shape:
                expected = tuple(labels.shape)
                raise DepthError(f"heights of instances must be {expected}, got {tuple(self.heights.shape)}.")
            if not bool((self.heights.isfinite() & (self.heights >= 0)).all()):
                raise DepthError("heights of instances must be finite and >= 0 (0 = use the class).")
        if labels.numel() and not (int(labels.min()) >= -1 and int(labels.max()) < len(self.classes)):
            raise DepthError(f"labels of instances must lie in -1 ... {len(self.classes) - 1}, one for each class.")
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) <= labels.shape[1]):
            raise DepthError(f"ids of instances must lie in 0 ... {labels.shape[1]}, the columns of their labels.")

    def class_heights(self, priors: HeightPriors) -> tuple[Float[Tensor, "t n"], Float[Tensor, "t n"]]:
        """Mean and standard deviation of each object's height in metres; 0 where neither it nor its class has one.

        An object with a height of its own gets its class' deviation, or 0 without a class prior.
        """
        rows = [(priors[name].mean, priors[name].std) if name in priors else (0.0, 0.0) for name in self.classes]
        # The last row serves label -1.
        table = torch.tensor([*rows, (0.0, 0.0)], device=self.labels.device)
        mean, std = table[self.labels].unbind(-1)
        if self.heights is not None:
            mean = torch.where(self.heights > 0, self.heights.to(mean.dtype), mean)
        return mean, std

    def to(self, device: torch.device | str) -> Instances:
        """The same on another device."""
        heights = None if self.heights is None else self.heights.to(device)
        return replace(self, ids=self.ids.to(device), labels=self.labels.to(device), heights=heights)

    def frames(self, index: slice | Sequence[int] | Tensor) -> Instances:
        """Some of the frames."""
        heights = None if self.heights is None else self.heights[index]
        return replace(self, ids=self.ids[index], labels=self.labels[index], heights=heights)

    def resized(self, height: int, width: int) -> Instances:
        """The same for frames of another size: each new pixel takes the old pixel that its centre lies in."""
        return replace(self, ids=resize_nearest(self.ids, height, width))


def resize_nearest(images: Tensor, height: int, width: int) -> Tensor:
    """Integer or bool images (T,H,W) resampled to (T,height,width) by the pixel that each new centre lies in."""
    H, W = images.shape[-2:]
    rows = ((torch.arange(height, device=images.device) + 0.5) * H / height).floor().long()
    columns = ((torch.arange(width, device=images.device) + 0.5) * W / width).floor().long()
    return images[..., rows[:, None], columns]


def instances_from_masks(
    frames: Sequence[Sequence[tuple[str, np.ndarray]]], height: int, width: int, classes: Sequence[str] | None = None
) -> Instances:
    """Instances from lists of masks.

    Args:
        frames: for each frame its objects as (class name, mask (height, width) bool). Where masks overlap, the later
            object of the list wins; one that is covered altogether is left out.
        height, width: size of the frames in pixels.
        classes: the class names; None takes those that occur, sorted.

    Raises:
        DepthError: a mask has another size, or a class is not in ``classes``.
    """
    names = sorted({name for objects in frames for name, _ in objects}) if classes is None else list(classes)
    ids = np.zeros((len(frames), height, width), np.int32)
    labels: list[list[int]] = []
    for t, objects in enumerate(frames):
        drawn = np.zeros((height, width), np.int32)
        for k, (name, mask) in enumerate(objects):
            if name not in names:
                raise DepthError(f"frame {t} has an object of class {name!r}, which is not one of {', '.join(names)}.")
            if mask.shape != (height, width):
                raise DepthError(f"frame {t}: a mask is {mask.shape}, its frame {(height, width)} (rows, columns).")
            drawn[mask.astype(bool)] = k + 1
        kept = np.unique(drawn[drawn > 0])
        number = np.zeros(len(objects) + 1, np.int32)
        number[kept] = np.arange(1, len(kept) + 1)
        ids[t] = number[drawn]
        labels.append([names.index(objects[k - 1][0]) for k in kept])
    table = np.full((len(frames), max(map(len, labels), default=0)), -1, np.int64)
    for t, row in enumerate(labels):
        table[t, : len(row)] = row
    return Instances(torch.from_numpy(ids), torch.from_numpy(table), tuple(names))


def remove_fragments(instances: Instances, min_share: float = 0.1) -> Instances:
    """Clears stray fragments: 8-connected parts smaller than ``min_share`` of their object's largest part.

    Panoptic segmenters sometimes give a few pixels far away to an object, which would make it metres taller. Parts
    above the share stay, so that a car behind a pole keeps both halves.
    """
    from scipy import ndimage

    ids = instances.ids.cpu().numpy().copy()
    for image in ids:
        for number, box in enumerate(ndimage.find_objects(image), start=1):
            if box is None:
                continue
            parts, count = ndimage.label(image[box] == number, structure=np.ones((3, 3)))
            if count < 2:
                continue
            areas = np.bincount(parts.ravel())
            areas[0] = areas[1:].max()
            image[box][(areas < min_share * areas[0])[parts]] = 0
    return replace(instances, ids=torch.from_numpy(ids).to(instances.ids.device))
