"""What one optimisation step sees, as types: views, their priors, tracks and pairs of pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.cameras import Camera


@dataclass
class DepthPrior:
    """Depth known of the B views."""

    depths: Float[Tensor, "b h w"]
    """z-depth in scene units; 0 = unknown."""
    weights: Float[Tensor, "b h w"]
    """Confidence in [0, 1], 0 where the pixel is not valid."""


@dataclass
class TrackBatch:
    """P tracks per view, seen in the view and followed to its N target times."""

    source_xy: Float[Tensor, "b p 2"]
    """Image coordinates in the rendered view."""
    target_xy: Float[Tensor, "b n p 2"]
    """Image coordinates at the target times."""
    target_depth: Float[Tensor, "b n p"]
    """Depth prior at the target coordinates; 0 = unknown."""
    weight: Float[Tensor, "b n p"]
    """Confidence of source and target, 0 where the point is not seen at the target time."""


@dataclass
class Targets:
    """For each view, N other views to whose times the seen surfaces are carried."""

    times: Int[Tensor, "b n"]
    cameras: Camera
    """(B, N) cameras at those times."""
    tracks: TrackBatch | None = None
    """Tracks from the view to its targets; None without tracks."""


@dataclass
class FramePairs:
    """P pairs of pixels inside each view."""

    i: Int[Tensor, "b p"]
    """Flat index row * W + column of the first pixel."""
    j: Int[Tensor, "b p"]
    """Flat index of the second pixel."""
    signs: Float[Tensor, "b p"]
    """Order of the prior: +1 where i is farther, -1 where j is, 0 tied or unknown."""
    weights: Float[Tensor, "b p"]
    """Product of the two pixels' confidences; 0 where either may not be used."""


@dataclass
class LinkedPairs:
    """P pairs of pixels of each view that optical flow links to one other view, the first of its targets."""

    i: Int[Tensor, "b p"]
    j: Int[Tensor, "b p"]
    """Flat indices of the pixels in the view."""
    source_signs: Float[Tensor, "b p"]
    """Order of the view's own prior."""
    target_signs: Float[Tensor, "b p"]
    """Order of the other view's prior at the linked places."""
    weights: Float[Tensor, "b p"]
    """Reliability of both links; 0 where the pair may not be used."""
    target_cameras: Camera
    """B cameras of the other views."""


@dataclass
class DepthOrderBatch:
    """What the terms by order and correlation of depth need besides the views; None where a term is off."""

    pairs: FramePairs | None = None
    boxes: Int[Tensor, "b k 2"] | None = None
    linked: LinkedPairs | None = None


@dataclass
class Batch:
    """B views. Cameras and depths are in scene coordinates; images in [0, 1]."""

    times: Int[Tensor, "b"]
    cameras: Camera
    images: Float[Tensor, "b h w 3"]
    valid: Bool[Tensor, "b h w"]
    foreground: Bool[Tensor, "b h w"] | None = None
    """Pixels of moving objects; None where they are not known."""
    depth: DepthPrior | None = None
    targets: Targets | None = None
    """None where nothing is compared with other times."""
    depth_order: DepthOrderBatch = field(default_factory=DepthOrderBatch)
