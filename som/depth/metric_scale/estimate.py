"""Metric scale of a finished depth sequence in one step: one global factor from objects of known height."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.metric_scale.consensus import agree, height_candidates
from som.depth.metric_scale.instances import Instances
from som.depth.metric_scale.objects import (
    FrameConfig,
    FrameMeasurements,
    ObjectStatus,
    apply_horizon_test,
    measure_frames,
    metric_camera_heights,
)
from som.depth.metric_scale.priors import DEFAULT_PRIORS, HeightPriors

_PIXELS_AT_ONCE = 4_000_000
_REASONS = {
    ObjectStatus.NO_PRIOR: "have no height prior",
    ObjectStatus.NO_ROAD: "stand in frames without road",
    ObjectStatus.SMALL: "are too small",
    ObjectStatus.CUT: "are cut by the image's border",
    ObjectStatus.NO_DEPTH: "lack depth",
    ObjectStatus.HORIZON: "contradict the horizon",
}


@dataclass(frozen=True)
class MetricScaleConfig:
    """How a sequence's scale is found."""

    frame: FrameConfig = field(default_factory=FrameConfig)
    """How frames and objects are measured."""
    known_camera_height: float | None = None
    """Metres, if it was measured: then no object is needed. None estimates it from the objects."""

    def __post_init__(self) -> None:
        if self.known_camera_height is not None and not self.known_camera_height > 0:
            raise DepthError(f"known_camera_height must be > 0 m, or None, got {self.known_camera_height}.")


@dataclass(frozen=True)
class FrameScale:
    """One frame's part in the result; nan where the frame has no say."""

    camera_height: float
    """Camera height in units of the given depth."""
    metric_camera_height: float
    """The same in metres, by the frame's own objects."""
    scale: float
    """Metres per unit of depth that would bring this frame's camera height to the result's."""


@dataclass(frozen=True)
class ObjectScale:
    """One object of one frame."""

    frame: int
    """The frame."""
    number: int
    """Its id in the frame's id image, from 1."""
    label: str
    """Its class."""
    scale: float
    """Metres per unit of depth by its prior; nan where it could not be measured."""
    status: ObjectStatus
    """Whether it was used, or why not."""


@dataclass(frozen=True)
class MetricScale:
    """Metres per unit of depth for a whole sequence."""

    scale: float
    """Multiply depth, and the translations of the camera poses, by this to get metres."""
    relative_deviation: float
    """Spread of the frames' metric camera heights: half of the range between their quantiles of 16 and 84 %, over the
    median."""
    depth_deviation: float
    """The same of the frames' camera heights in units of depth: how far the depth's own scale wanders. Where it is
    large, no single factor is right."""
    camera_height: float
    """Height of the camera above the road in metres."""
    per_frame: list[FrameScale]
    """One entry a frame."""
    used: list[ObjectScale]
    """Objects that the result rests on."""
    rejected: list[ObjectScale]
    """Objects that were left out, each with its reason."""


def metric_scale(
    depth: Float[Tensor, "t h w"],
    Ks: Float[Tensor, "t 3 3"],
    road: Bool[Tensor, "t h w"],
    instances: Instances,
    priors: HeightPriors = DEFAULT_PRIORS,
    config: MetricScaleConfig = MetricScaleConfig(),
) -> MetricScale:
    """One factor from depth units to metres, from objects of known height on a road under a camera of constant height.

    Each object gives a scale, scale times the frame's camera height above its road plane gives a metric camera height,
    and their robust location over all frames is the camera's. Objects that contradict it by the horizon are refused and
    the location is taken again, until the set of objects stays the same. The factor is the metric camera height over
    the median camera height of all frames with road, those without objects included. No metric depth is used.

    Args:
        depth: z in any unit that is the same in all frames, 0 = unknown.
        Ks: intrinsics in pixels.
        road: True on the road.
        instances: the objects of the same frames.
        priors: heights by class in metres.
        config: options.

    Raises:
        DepthError: shapes disagree, depth is not finite, or there is no road or no usable object.
    """
    _check_sequence(depth, Ks, road, instances)
    measured = _measure_sequence(depth, Ks, road, instances, instances.class_heights(priors)[0], config.frame)
    with_road = measured.camera_height[measured.camera_height.isfinite()]
    if len(with_road) == 0:
        share = f"{100 * config.frame.min_road:g} %"
        raise DepthError(
            f"no metric scale: no frame shows road of known depth on {share} of its pixels; check the road masks."
        )
    status = measured.status.clone()
    if config.known_camera_height is None:
        camera_height, kept = agree(height_candidates(measured), config.frame.max_height_error)
        usable = status == ObjectStatus.USED
        status[usable] = torch.where(kept, status[usable], int(ObjectStatus.HORIZON))
        if camera_height is None:
            raise DepthError(f"no metric scale: no object can be used; {_why(status)}.")
    else:
        camera_height = config.known_camera_height
        status = apply_horizon_test(measured, camera_height, config.frame)
    heights = metric_camera_heights(measured, status)
    unit_height = float(with_road.double().quantile(0.5))
    objects = _list_objects(measured, status, instances)
    return MetricScale(
        scale=camera_height / unit_height,
        relative_deviation=_relative_deviation(heights[heights.isfinite()]),
        depth_deviation=_relative_deviation(with_road),
        camera_height=camera_height,
        per_frame=[
            FrameScale(float(unit), float(metric), camera_height / float(unit))
            for unit, metric in zip(measured.camera_height, heights, strict=True)
        ],
        used=[item for item in objects if item.status == ObjectStatus.USED],
        rejected=[item for item in objects if item.status != ObjectStatus.USED],
    )


def _list_objects(measured: FrameMeasurements, status: Tensor, instances: Instances) -> list[ObjectScale]:
    """All objects of all frames."""
    objects = []
    for t, n in (status != ObjectStatus.ABSENT).nonzero().tolist():
        label, scale = instances.classes[int(instances.labels[t, n])], float(measured.scale[t, n])
        objects.append(ObjectScale(t, n + 1, label, scale, ObjectStatus(int(status[t, n]))))
    return objects


def _why(status: Tensor) -> str:
    """Counts of the reasons for which objects were left out."""
    counts = Counter(ObjectStatus(value) for value in status.flatten().tolist())
    reasons = [f"{counts[reason]} {text}" for reason, text in _REASONS.items() if counts[reason]]
    return ", ".join(reasons) if reasons else "the instances hold no object"


def _relative_deviation(values: Tensor) -> float:
    """Half of the range between the quantiles of 16 and 84 % (one standard deviation), over the median; or nan."""
    if len(values) == 0:
        return float("nan")
    low, center, high = values.double().quantile(values.new_tensor([0.16, 0.5, 0.84], dtype=torch.float64))
    return float((high - low) / (2 * center))


def _measure_sequence(depth, Ks, road, instances, heights, config) -> FrameMeasurements:
    """``measure_frames`` over all frames, some at a time to bound memory."""
    T, H, W = depth.shape
    at_once = max(1, _PIXELS_AT_ONCE // (H * W))
    parts = []
    for start in range(0, T, at_once):
        some = slice(start, start + at_once)
        parts.append(
            measure_frames(depth[some, None], Ks[some], road[some], instances.ids[some], heights[some], config)
        )
    names = FrameMeasurements.__dataclass_fields__
    return FrameMeasurements(**{name: torch.cat([getattr(part, name) for part in parts]).cpu() for name in names})


def _check_sequence(depth: Tensor, Ks: Tensor, road: Tensor, instances: Instances) -> None:
    if depth.ndim != 3 or depth.shape[0] == 0:
        raise DepthError(f"depth must be (T,H,W) with at least one frame, got {tuple(depth.shape)}.")
    T, H, W = depth.shape
    for name, shape, expected in (
        ("Ks", Ks.shape, (T, 3, 3)),
        ("road", road.shape, (T, H, W)),
        ("ids of the instances", instances.ids.shape, (T, H, W)),
    ):
        if tuple(shape) != expected:
            raise DepthError(f"{name} must be {expected} like depth, got {tuple(shape)}; resize or choose frames.")
    if road.dtype != torch.bool:
        raise DepthError(f"road must be bool, got {road.dtype}.")
    if not bool(depth.isfinite().all()) or bool((depth < 0).any()):
        raise DepthError("depth must be finite and >= 0 (0 = unknown).")
