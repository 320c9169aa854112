"""The depth of a clip as it is handed on, and the checks of what it is made from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.data.recording import DepthKind
from som.depth.errors import DepthError
from som.depth.learning.training.checkpoint import Units
from som.depth.metric_scale import Instances

KINDS: dict[Units, DepthKind] = {"metric": "metric", "scene": "scale", "relative": "scale"}
"""``depth_kind`` of the data set folder for each unit: all depth of one clip has one scale."""


@dataclass
class DepthPrior:
    """Depth of every pixel of a clip, with how far it can be trusted."""

    depth: Float[Tensor, "t h w"]
    """z-depth, known everywhere."""
    confidence: Float[Tensor, "t h w"]
    """In [0, 1]. See docs/depth.md for how large the errors were at each confidence."""
    K: Float[Tensor, "t 3 3"]
    """Intrinsics in pixels of the maps."""
    w2c: Float[Tensor, "t 4 4"] | None
    """The poses that the depth fits, in its unit: those that were given, or refined ones where
    ``DepthConfig.refine_poses`` asked for them and ``scale_log["poses_refined"]`` is true; whoever goes on working with
    the depth takes these. None where they are not known."""
    units: Units
    """``metric``: metres; ``scene``: the unit of the poses that were given; ``relative``: one unknown unit for the
    whole clip, where poses were learned."""
    scale_log: dict = field(default_factory=dict)
    """How the depth was made and scaled: plain numbers and texts, for JSON. ``factor`` is what depth and poses were
    multiplied by, from the unit of the given poses (or of the network) to ``units``; ``warnings``, if there are any, is
    a list of sentences for the user."""
    teacher: Float[Tensor, "t _ _"] | None = None
    """What the plane sweep knew, 0 = unknown, in the unit of the given poses and at the size it worked at; None without
    a sweep."""
    network: Float[Tensor, "t _ _"] | None = None
    """What the network alone said, likewise."""


@dataclass
class Clip:
    """The checked input of an estimate."""

    frames: Float[Tensor, "t 3 h w"]
    K: Float[Tensor, "t 3 3"]
    w2c: Float[Tensor, "t 4 4"] | None
    moving: Bool[Tensor, "t h w"] | None
    valid: Bool[Tensor, "t h w"] | None = None
    road: Bool[Tensor, "t h w"] | None = None
    objects: Instances | None = None
    distances: Float[Tensor, "t"] | None = None
    """Metres from each frame to the next; the last entry is not used."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.frames.shape[-2], self.frames.shape[-1]

    def require_poses(self) -> Float[Tensor, "t 4 4"]:
        """``w2c``. Raises DepthError where the poses are not known."""
        if self.w2c is None:
            raise DepthError("this needs camera poses; give them.")
        return self.w2c

    @property
    def ignored(self) -> Bool[Tensor, "t h w"] | None:
        """Pixels that teach nothing: they move, or may not be used."""
        if self.valid is None:
            return self.moving
        return ~self.valid if self.moving is None else self.moving | ~self.valid


def check_clip(
    frames: Tensor,
    K: Tensor,
    w2c: Tensor | None,
    moving: Tensor | None,
    valid: Tensor | None,
    road: Tensor | None,
    objects: Instances | None,
    distances: Tensor | None,
) -> Clip:
    """The input as tensors of the shapes and types wanted.

    Raises:
        DepthError: names the argument, what was expected and what it is.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or not frames.dtype.is_floating_point:
        raise DepthError(f"frames must be (T,3,H,W) float in [0, 1], got {tuple(frames.shape)} {frames.dtype}.")
    T, _, H, W = frames.shape
    if T < 2:
        raise DepthError(f"depth from video needs at least two frames, got {T}.")
    if not bool(frames.isfinite().all()) or float(frames.min()) < -1e-3 or float(frames.max()) > 1 + 1e-3:
        raise DepthError("frames must lie in [0, 1]; divide bytes by 255.")
    K = K.detach().cpu().float()
    K = K.expand(T, 3, 3) if K.shape == (3, 3) else K
    if K.shape != (T, 3, 3) or not bool(K.isfinite().all()) or not bool((K[:, [0, 1], [0, 1]] > 0).all()):
        raise DepthError(f"K must be (3,3) or ({T},3,3) with positive focal lengths, in pixels of the frames.")
    if not bool(((K[:, :2, 2] > 0) & (K[:, :2, 2] < K.new_tensor([W, H]))).all()):
        raise DepthError(f"the principal point of K lies outside the frames of {W}x{H} px; scale K with the images.")
    if w2c is not None:
        w2c = _checked_poses(w2c, T)
    for name, mask in (("moving", moving), ("valid", valid), ("road", road)):
        if mask is not None and (mask.shape != (T, H, W) or mask.dtype != torch.bool):
            raise DepthError(f"{name} must be ({T},{H},{W}) bool, got {tuple(mask.shape)} {mask.dtype}.")
    if (road is None) != (objects is None):
        raise DepthError("metric scale from the road needs both road masks and objects of known height; give both.")
    if objects is not None and objects.ids.shape != (T, H, W):
        raise DepthError(f"objects must have ids ({T},{H},{W}), got {tuple(objects.ids.shape)}.")
    if distances is not None and (distances.shape != (T,) or not bool((distances >= 0).all())):
        raise DepthError(f"distances must be ({T},) metres >= 0 from each frame to the next.")
    return Clip(frames.detach().cpu().float().clamp(0, 1), K, w2c, moving, valid, road, objects, distances)


def _checked_poses(w2c: Tensor, count: int) -> Float[Tensor, "t 4 4"]:
    w2c = w2c.detach().cpu().double()
    if w2c.shape != (count, 4, 4) or not bool(w2c.isfinite().all()):
        raise DepthError(f"poses must be ({count},4,4), finite, world to camera; got {tuple(w2c.shape)}.")
    R = w2c[:, :3, :3]
    error = (R @ R.transpose(1, 2) - torch.eye(3, dtype=R.dtype)).abs().amax((1, 2))
    bad = (error > 1e-3) | (torch.linalg.det(R) < 0)
    if bool(bad.any()):
        raise DepthError(f"the pose of frame {int(bad.nonzero()[0])} is not rigid (R R^T = 1, det R = 1); correct it.")
    return w2c.float()
