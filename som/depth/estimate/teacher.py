"""What is measured of a clip's depth before any network learns: the plane sweep, with poses refined if that helps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import resize_intrinsics
from som.data.memory import memory_sequence
from som.data.sequence import target_size
from som.depth.errors import DepthError
from som.depth.estimate.clock import Clock
from som.depth.estimate.prior import Clip
from som.depth.estimate.student import Progress
from som.depth.learning.training.config import DepthConfig, SweepOptions
from som.depth.sweep import SweepConfig, SweepResult, plane_sweep, refine_poses
from som.depth.sweep.pose_refinement import RefinementConfig
from som.files import resize_map

MAX_SWEEP_BUDGET_SHARE = 0.6
"""Share of a time budget that the sweep may take."""
MIN_SIDE_PX = 64
"""A sweep that is too slow is not reduced below this many pixels."""
REFINEMENT_TIME_RATIO = 1.6
"""Refining poses and sweeping again takes about this many times as long as one sweep."""


@dataclass(frozen=True)
class Teacher:
    """Depth that several views confirm."""

    depth: Float[Tensor, "t h w"]
    """z-depth, 0 = unknown."""
    confidence: Float[Tensor, "t h w"]
    """In [0, 1], 0 where depth is unknown."""
    w2c: Float[Tensor, "t 4 4"]
    """The poses that the depth fits: those of the clip, or refined ones."""
    range: tuple[float, float]
    """Nearest and farthest depth that was tried; the farthest may be infinite."""
    log: dict
    """For the prior's log, where poses were to be refined: ``poses_refined``, whether ``w2c`` are refined ones, and
    ``refinement_gains``, the factors by which every round that was taken raised the mean confidence."""


def sweep_teacher(clip: Clip, config: DepthConfig, device: torch.device, clock: Clock, progress: Progress) -> Teacher:
    """Sweeps at a size that the budget allows; with ``config.refine_poses`` again under refined poses.

    Refined poses are taken only where their sweep is confirmed better than the one before: its mean confidence over
    all pixels grows by ``MIN_CONFIDENCE_GAIN``. Poses that are exact already gain nothing and stay.

    Raises:
        NoParallaxError: the camera stands still, only turns, or hardly moves.
        DepthError: the budget is too short.
    """
    w2c = clip.require_poses()
    side = min(config.max_side, max(clip.size))
    while True:
        sweep = _Sweep(clip, config, target_size(clip.size, max_side=side), device, clock, progress)
        began = clock.elapsed()
        try:
            first = sweep(w2c, "sweep", limited=True)
            break
        except _TooSlow as slow:
            allowed = MAX_SWEEP_BUDGET_SHARE * (clock.left() or 0.0)
            side = min(int(side * math.sqrt(max(allowed / slow.projected, 0.01))), side - 1)
            if side < MIN_SIDE_PX:
                raise DepthError(
                    f"a budget of {clock.budget_s:g} s is too short for a sweep of {len(clip.K)} frames; "
                    "give more time or fewer frames."
                ) from None
    if not config.refine_poses:
        return _teacher(first, w2c, {})
    return _refined(sweep, w2c, first, clock.elapsed() - began, config)


def _refined(sweep: _Sweep, w2c: Tensor, first: SweepResult, took: float, config: DepthConfig) -> Teacher:
    """The sweep under poses that are refined as long as each round confirms more, and the budget allows.

    Args:
        w2c: poses of the first sweep.
        took: seconds that it took.
        config: how many rounds, and what is a gain.
    """
    best, gains = first, list[float]()
    while len(gains) < config.max_refinements and (not gains or gains[-1] >= config.min_gain_to_repeat):
        left = sweep.clock.left()
        if int((best.depth > 0).flatten(1).sum(1).max()) < RefinementConfig().min_points:
            break
        if left is not None and REFINEMENT_TIME_RATIO * took > MAX_SWEEP_BUDGET_SHARE * left:
            break
        sweep.progress("refinement of poses", 0.0)
        refined = refine_poses(sweep.images, sweep.K, w2c, best.depth, best.sources, sweep.ignored).to(w2c)
        sweep.progress("refinement of poses", 1.0)
        again = sweep(refined, "sweep with refined poses", limited=False)
        gain = float(again.confidence.mean() / best.confidence.mean().clamp(min=1e-9))
        if gain < config.min_refinement_gain:
            break
        best, w2c = again, refined
        gains.append(gain)
    return _teacher(best, w2c, {"poses_refined": bool(gains), "refinement_gains": gains})


def _teacher(sweep: SweepResult, w2c: Tensor, log: dict) -> Teacher:
    return Teacher(sweep.depth.cpu(), sweep.confidence.cpu(), w2c, sweep.range, log)


class _TooSlow(Exception):
    """The sweep would not end within its share of the budget."""

    def __init__(self, projected: float):
        super().__init__()
        self.projected = projected


class _Sweep:
    """A plane sweep of the clip at one size, for any poses."""

    def __init__(
        self,
        clip: Clip,
        config: DepthConfig,
        size: tuple[int, int],
        device: torch.device,
        clock: Clock,
        progress: Progress,
    ):
        H, W = clip.size
        self.clip, self.clock, self.progress, self.size = clip, clock, progress, size
        self.settings = sweep_config(config.sweep)
        self.images = memory_sequence(clip.frames, clip.K, size=size).images().to(device)
        self.K = resize_intrinsics(clip.K, size[1] / W, size[0] / H)
        self.ignored: Bool[Tensor, "t h w"] | None = None
        if clip.ignored is not None:
            self.ignored = nearest_maps(clip.ignored, size).to(device)

    def __call__(self, w2c: Tensor, stage: str, limited: bool) -> SweepResult:
        """Sweeps; with ``limited`` raises _TooSlow after two frames if all would take too long."""
        began = time.monotonic()

        def watch(_: str, share: float) -> None:
            self.progress(stage, share)
            left = self.clock.left()
            if limited and left is not None and round(share * len(self.images)) == 2:
                projected = (time.monotonic() - began) / share
                if projected > MAX_SWEEP_BUDGET_SHARE * left and max(self.size) > MIN_SIDE_PX:
                    raise _TooSlow(projected)

        return plane_sweep(self.images, self.K, w2c, self.settings, self.ignored, watch)


def sweep_config(options: SweepOptions) -> SweepConfig:
    """The sweep's own configuration."""
    near, far = options.depth_range or (None, None)
    return SweepConfig(
        num_planes=options.num_planes,
        near=near,
        far=far,
        cost=options.cost,
        num_sources=options.num_sources,
        min_views=options.min_views,
    )


def nearest_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(T,H,W) masks or weights at another size: each pixel takes the value under its centre."""
    return torch.stack([torch.from_numpy(resize_map(m.cpu().numpy(), size)) for m in maps])
