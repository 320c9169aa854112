"""What every reader produces and everything downstream consumes: one video with its cameras and priors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from flow.video_flow import VideoFlow
from som.cameras import Camera
from som.data.config import CustomData, DavisData, DemoData, IphoneData
from som.data.recording import DepthKind, WorldScale
from som.errors import UserError


@dataclass
class Views:
    """N posed images of one split. All tensors live on the CPU until the trainer moves them."""

    names: list[str]
    """File stem of each view; unique within the split."""
    times: Int[Tensor, "n"]
    """Integer frame index of each view in [0, num_times)."""
    images: UInt8[Tensor, "n h w 3"]
    """RGB, 8 bit."""
    cameras: Camera
    """N pinhole cameras of the images' size."""
    valid: Bool[Tensor, "n h w"]
    """Pixels that may be used at all (False: tool, border, unknown)."""
    foreground: Bool[Tensor, "n h w"] | None = None
    """Pixels of moving objects; None when unknown (scoring views)."""
    depths: Float[Tensor, "n h w"] | None = None
    """z-depth in world units (see VideoDataset.depth_kind); 0 = unknown."""
    depth_confidence: Float[Tensor, "n h w"] | None = None
    """Confidence of the depth in [0, 1]; None = 1 everywhere."""
    covisible: Bool[Tensor, "n h w"] | None = None
    """Scoring views: pixels whose surface enough training views have seen (DyCheck's masked metrics)."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def height(self) -> int:
        return self.images.shape[1]

    @property
    def width(self) -> int:
        return self.images.shape[2]

    def require_depths(self) -> Float[Tensor, "n h w"]:
        """``depths``. Raises UserError where there are none."""
        if self.depths is None:
            raise UserError("these views have no depth, which is needed here; make it with `som4d preprocess`.")
        return self.depths

    def require_foreground(self) -> Bool[Tensor, "n h w"]:
        """``foreground``. Raises UserError where there is none."""
        if self.foreground is None:
            raise UserError("these views have no foreground masks, which are needed here.")
        return self.foreground

    def select(self, indices: list[int]) -> Views:
        """The views at ``indices``, in that order."""
        index = torch.as_tensor(indices, dtype=torch.long)
        picked: dict[str, Any] = {
            name: value[index] for name, value in vars(self).items() if isinstance(value, Tensor | Camera)
        }
        return replace(self, names=[self.names[i] for i in indices], **picked)


@dataclass
class Tracks:
    """Q long-range point tracks in 2D, each defined at the frame of its query."""

    query_times: Int[Tensor, "q"]
    """Time index at which each track was queried."""
    xy: Float[Tensor, "q t 2"]
    """Continuous image coordinates (pixel centres at +0.5) at every time index; arbitrary where not confident."""
    visible: Bool[Tensor, "q t"]
    """The point is seen at that time. Always False at times without a training view."""
    confidence: Float[Tensor, "q t"]
    """Confidence in [0, 1] of position and visibility; 0 where neither is known."""


@dataclass
class GroundTruthTracks:
    """Exact 3D tracks for scoring; never seen in training."""

    query_times: Int[Tensor, "q"]
    """A time at which the point is visible in the training view of that time."""
    xyz: Float[Tensor, "q t 3"]
    """World positions."""
    xy: Float[Tensor, "q t 2"]
    """Image coordinates in the training view of each time."""
    visible: Bool[Tensor, "q t"]
    """Visible in the training view of each time."""
    moving: Bool[Tensor, "q"]
    """Whether the point belongs to a moving object."""


@dataclass
class VideoDataset:
    """One video, its cameras, masks, depth priors and tracks; ``train`` is optimised against, ``val`` only scored."""

    name: str
    num_times: int
    """T; every time index lies in [0, T)."""
    train: Views
    """At most one view per time index, sorted by time."""
    val: Views | None = None
    """Held-out views: other cameras, other times, or both."""
    tracks: Tracks | None = None
    ground_truth_tracks: GroundTruthTracks | None = None
    fps: float = 24.0
    depth_kind: DepthKind = "metric"
    """metric: metres; scale: one unknown scale per sequence; relative: unknown scale and shift of disparity a frame."""
    world_scale: WorldScale = "arbitrary"
    """Whether world units are metres."""
    has_background: bool = True
    """False when everything moves (EndoNeRF): no static Gaussians are made."""
    flow: VideoFlow | None = None
    """Optical flow between the times of the video, where the data set brings it; frame numbers are time indices."""
    source: dict = field(default_factory=dict)
    """Provenance of images, cameras and every prior, for people and for config.yaml."""
    options: DemoData | CustomData | DavisData | IphoneData | None = None
    """What ``load_dataset`` was called with, so that a run can record it; None in a data set of another origin."""

    @property
    def train_index_of_time(self) -> Int[Tensor, "t"]:
        """(T,) index into ``train`` of the view at each time, -1 where there is none."""
        index = torch.full((self.num_times,), -1, dtype=torch.long)
        index[self.train.times] = torch.arange(len(self.train))
        return index
