"""Depth: estimated from the clip, guessed, or read from another program's files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flow.frames import reduce_image
from flow.progress import Progress
from som.cameras.geometry import resize_intrinsics
from som.depth.errors import NoParallaxError
from som.depth.estimate import DepthPrior, check_weights, estimate_depth, guess_layout
from som.depth.learning.training.collapse import CollapseError
from som.depth.learning.training.config import DepthConfig
from som.errors import UserError
from som.preprocessing.config import DepthSettings
from som.preprocessing.importing.depth import import_depth
from som.preprocessing.providers.base import Clip, DepthProvider, DepthResult, given_path
from som.preprocessing.scene_cameras import SceneCameras


@dataclass(frozen=True)
class EstimatedDepth(DepthProvider):
    """Plane sweep with the cameras, and a network that learns from it."""

    options = ("max_side", "refine_poses", "weights", "budget_s", "moving")

    def check(self, settings: DepthSettings) -> None:
        if settings.weights is not None:
            check_weights(settings.weights, _config(settings, 0))

    def provide(
        self, clip: Clip, settings: DepthSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> DepthResult:
        try:
            return _measured(clip, _Frames.of(clip, settings.max_side), settings, device, seed, progress)
        except _NotMeasurable as reason:
            raise UserError(
                f"`depth.provider` estimate: {reason}; choose auto or layout, or give depth (`depth.given`)."
            ) from None


@dataclass(frozen=True)
class GuessedLayout(DepthProvider):
    """Level ground and a wall, for clips whose camera does not travel."""

    options = ("max_side", "moving")

    def provide(
        self, clip: Clip, settings: DepthSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> DepthResult:
        return _guessed(clip, _Frames.of(clip, settings.max_side))


@dataclass(frozen=True)
class AutomaticDepth(EstimatedDepth):
    """What came with the cameras; else the estimate where the clip allows it; else a guess, with a warning."""

    def provide(
        self, clip: Clip, settings: DepthSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> DepthResult:
        if clip.depth is not None:
            return DepthResult(
                torch.from_numpy(clip.depth),
                "metric" if clip.known_cameras.world_scale == "metric" else "scale",
                unit="cameras",
                source={"program": clip.known_cameras.method},
                method="given with the cameras",
                given=True,
            )
        frames = _Frames.of(clip, settings.max_side)
        try:
            return _measured(clip, frames, settings, device, seed, progress)
        except _NotMeasurable as reason:
            guess = _guessed(clip, frames)
            guess.warnings.insert(
                0,
                f"depth cannot be measured ({reason}); a guess is used, level ground and a wall with moving objects "
                "standing on it. Views from where the camera was are right, views from elsewhere are not; depth of "
                "another program (`depth.given`) would help.",
            )
            return guess


@dataclass(frozen=True)
class GivenDepth(DepthProvider):
    """Depth or disparity of another program."""

    options = ("given", "given_kind", "given_values", "given_unit", "given_size")

    def provide(
        self, clip: Clip, settings: DepthSettings, *, device: torch.device, seed: int, progress: Progress
    ) -> DepthResult:
        found = import_depth(
            given_path(settings),
            frames=clip.names,
            size=clip.size,
            kind=settings.given_kind,
            values=settings.given_values,
            unit=settings.given_unit,
            source_size=settings.given_size,
        )
        return DepthResult(
            found.depth,
            found.kind,
            found.confidence,
            source=found.source,
            method="given",
            given=True,
            findings=dict(found.source),
            warnings=list(found.warnings),
        )


AUTO = AutomaticDepth()
ESTIMATE = EstimatedDepth()
LAYOUT = GuessedLayout()
GIVEN = GivenDepth()


class _NotMeasurable(Exception):
    """Why the clip does not show its depth."""


@dataclass(frozen=True)
class _Frames:
    """The frames that have a camera, at the size that depth is estimated at."""

    used: Int[np.ndarray, "n"]
    images: Float[Tensor, "n 3 h w"]
    K: Float[Tensor, "n 3 3"]
    w2c: Float[Tensor, "n 4 4"]
    moving: Bool[Tensor, "n h w"] | None
    points: Float[Tensor, "n h w"]
    """z of the triangulated points whose depth is sure, 0 elsewhere."""
    all_points: Float[Tensor, "n h w"]

    @staticmethod
    def of(clip: Clip, max_side: int) -> _Frames:
        cameras, size = clip.known_cameras, clip.size
        used = np.flatnonzero(cameras.registered)
        images = np.stack([reduce_image(clip.images[i], max_side) for i in used])
        small = images.shape[1:3]
        K = torch.from_numpy(cameras.K[used]).float()
        return _Frames(
            used=used,
            images=torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
            K=resize_intrinsics(K, small[1] / size[1], small[0] / size[0]),
            w2c=torch.from_numpy(cameras.w2c[used]).float(),
            moving=None if clip.moving is None else reduce_masks(clip.moving[used], small),
            points=torch.from_numpy(cameras.sparse_maps(size, small)[used]),
            all_points=torch.from_numpy(cameras.sparse_maps(size, small, all_points=True)[used]),
        )


def reduce_masks(masks: Bool[Tensor, "n h w"], size: tuple[int, int]) -> Bool[Tensor, "n h2 w2"]:
    """Masks at a smaller size: True where any pixel is."""
    return torch.nn.functional.adaptive_max_pool2d(masks.float()[:, None], size)[:, 0] > 0.5


def _config(settings: DepthSettings, seed: int) -> DepthConfig:
    return DepthConfig(max_side=settings.max_side, seed=seed, refine_poses=settings.refine_poses)


def _measured(
    clip: Clip, frames: _Frames, settings: DepthSettings, device: torch.device, seed: int, progress: Progress
) -> DepthResult:
    """The estimate.

    Raises:
        _NotMeasurable: the clip does not show its depth.
    """
    if clip.known_cameras.static:
        raise _NotMeasurable("the camera stands still")
    try:
        prior = estimate_depth(
            frames.images,
            frames.K,
            frames.w2c,
            frames.moving,
            sparse=frames.points if bool((frames.points > 0).any()) else None,
            weights=settings.weights,
            config=_config(settings, seed),
            device=device,
            budget_s=settings.budget_s,
            progress=progress,
        )
    except (NoParallaxError, CollapseError) as error:
        raise _NotMeasurable(str(error).rstrip(".")) from None
    return _result(clip, frames, prior, replaced_poses=bool(prior.scale_log.get("poses_refined")))


def _guessed(clip: Clip, frames: _Frames) -> DepthResult:
    prior = guess_layout(frames.images, frames.K, frames.moving, w2c=frames.w2c, sparse=frames.all_points)
    # a unit of its own, in which the little that the cameras travel would be arbitrary
    return _result(clip, frames, prior, replaced_poses=prior.units == "relative")


def _result(clip: Clip, frames: _Frames, prior: DepthPrior, replaced_poses: bool) -> DepthResult:
    log = {key: value for key, value in prior.scale_log.items() if value is not None}
    return DepthResult(
        _of_all(prior.depth, frames.used, len(clip)),
        "metric" if prior.units == "metric" else "scale",  # a guessed layout has one unit for the whole clip, too
        _of_all(prior.confidence, frames.used, len(clip)),
        unit="cameras",
        cameras=_with_poses(clip.known_cameras, frames.used, prior) if replaced_poses else None,
        moving="unknown",
        method=str(log.get("method", "estimated")),
        source=log,
        findings=dict(log),
        warnings=list(log.get("warnings", [])),
    )


def _of_all(maps: Float[Tensor, "n h w"], used: Int[np.ndarray, "n"], count: int) -> Float[Tensor, "t h w"]:
    """0 for the other frames."""
    full = maps.new_zeros((count, *maps.shape[1:]))
    full[used] = maps
    return full


def _with_poses(cameras: SceneCameras, used: Int[np.ndarray, "n"], prior: DepthPrior) -> SceneCameras:
    """The poses that the depth goes with, and their unit."""
    w2c = cameras.w2c.copy()
    if prior.w2c is not None:
        w2c[used] = prior.w2c.double().numpy()
    scale = "arbitrary" if prior.units == "relative" else cameras.world_scale
    return dataclasses.replace(cameras, w2c=w2c, world_scale=scale)
