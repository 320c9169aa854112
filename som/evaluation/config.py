"""Options of evaluation and of the videos. Free of torch, so that a command's help is printed at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

PathKind = Literal["arc", "lemniscate", "spiral", "wander", "fixed", "train", "stabilised"]
VideoKind = Literal["train_view", "novel_view", "novel_view_depth", "tracks"]


@dataclass
class VideoConfig:
    """Which videos are made, and along which camera path."""

    kinds: tuple[VideoKind, ...] = ("train_view", "novel_view", "novel_view_depth", "tracks")
    """Videos to write; empty for none."""
    path: PathKind = "lemniscate"
    """Camera path of the novel views. ``stabilised`` smooths the training cameras, ``train`` repeats them."""
    follow: Literal["auto", "yes", "no"] = "auto"
    """Whether the path is flown around the moving, smoothed training camera instead of around the mean camera;
    ``auto`` does so when the training camera travels further than half the distance to the scene."""
    degrees: float = 12.0
    """Full angle of the path as seen from the point it looks at."""
    turns: float = 1.0
    """How many times the path is flown during the video."""
    num_frames: int = 0
    """Frames of each video; 0 for one frame per training view."""
    fps: float = 0.0
    """Frames per second; 0 for the data set's own rate."""
    num_trails: int = 200
    """Points whose trails are drawn in the tracks video."""
    trail_length: int = 12
    """Time steps that a trail reaches back."""


@dataclass
class EvaluationConfig:
    """What is scored and written."""

    batch_size: int = 4
    """Views rendered at once; lower it when memory is short."""
    max_views: int = 0
    """Score at most so many views, evenly spread; 0 for all. What was scored is written in the report."""
    background_color: float = 1.0
    """What shows through where the scene is transparent, in [0, 1]; the value used in training."""
    lpips: Literal["auto", "cached", "off"] = "auto"
    """LPIPS needs torchvision and the weights of AlexNet: ``auto`` downloads them once if possible, ``cached`` uses
    them only if they are on disk. Where they cannot be had it is reported as unavailable."""
    track_chunk: int = 8
    """Track times rendered at once."""
    max_query_times: int = 16
    """Ground-truth tracks are scored from at most so many query times, evenly spread; 0 for all."""
    visible_depth_tolerance: float = 0.05
    """A predicted point counts as visible if its depth differs from the rendered depth by less than this fraction."""
    order_pairs: int = 20000
    """Pixel pairs per view that measure whether the order of depths is right."""
    seed: int = 0
    """Seed of the sampled pixel pairs and trails."""
    save_images: bool = True
    """Write renders, ground truth and side-by-side images."""
    videos: VideoConfig = field(default_factory=VideoConfig)
    """The videos."""
