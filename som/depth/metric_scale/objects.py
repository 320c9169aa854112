"""Scale from objects of known height: extent in the image, height above the road, and which to refuse."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from som.cameras.geometry import unproject
from som.depth.errors import DepthError
from som.depth.metric_scale.road import (
    RoadPlane,
    camera_heights,
    check_frames,
    fit_road_plane,
    horizon,
    horizon_distance,
    horizon_scale,
)
from som.depth.metric_scale.statistics import group_extreme, group_quantile, masked_quantile


class ObjectStatus(IntEnum):
    """What became of an object of a frame."""

    USED = 0
    """Its scale counts."""
    ABSENT = 1
    """No such object: the frame has fewer, or no pixel carries the id."""
    NO_PRIOR = 2
    """Neither the object nor its class has a known height."""
    NO_ROAD = 3
    """The frame shows too little road."""
    SMALL = 4
    """Fewer pixels high than ``min_extent``."""
    CUT = 5
    """It touches the upper or lower border of the image, so its height is not seen."""
    NO_DEPTH = 6
    """Depth is known on less than a quarter of its mask, and the form needs it."""
    HORIZON = 7
    """Its height by the horizon contradicts its prior: another class, not on the road, truncated, or a wrong mask."""


@dataclass(frozen=True)
class FrameConfig:
    """How frames and objects are measured."""

    scale_from: Literal["horizon", "box", "silhouette"] = "horizon"
    """``horizon``: extent in the image over the foot's distance from the horizon, times the camera height; needs the
    road's plane but no depth of the object. ``box``: extent times a representative depth; right on hills too, but the
    depth of a car's rear is not that of the wheels it stands on (a tenth at 8 m). ``silhouette``: top of the mask above
    the road plane; needs sharp depth at the object's upper edge."""
    foot_share: float = 1 / 3
    """The box form takes its depth from this lowest share of the object's extent: the depth of the part that stands on
    the road, where smeared edges do not mix in the background. 1 takes the whole mask, as published."""
    depth_quantile: float = 0.5
    """Quantile of those depths that represents the object; 0.25 is the earlier practice."""
    extent: Literal["upright", "rows"] = "upright"
    """Height in the image measured across the horizon (right under roll and pitch), or in rows, as published."""
    height_from: Literal["plane", "normals"] = "plane"
    """Camera height of a frame: from the robust plane through its road, or the median over its pixels' own normals."""
    plane_iterations: int = 10
    """Reweightings of the plane fit; 0 is plain least squares."""
    max_height_error: float | None = 0.2
    """An object is refused if its height by the horizon differs from its prior by this share; None refuses none."""
    min_road: float = 0.01
    """Frames with road of known depth on a smaller share of their pixels are not used."""
    min_extent: float = 10.0
    """Objects of fewer pixels in height are not used: a pixel more or less would matter."""
    refuse_cut: bool = True
    """Refuse objects whose mask reaches the upper or lower border of the image."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("scale_from", ("horizon", "box", "silhouette")),
            ("extent", ("upright", "rows")),
            ("height_from", ("plane", "normals")),
        ):
            if getattr(self, name) not in choices:
                raise DepthError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        if not 0 < self.foot_share <= 1:
            raise DepthError(f"foot_share must lie in (0, 1], got {self.foot_share}.")
        if not 0 <= self.depth_quantile <= 1:
            raise DepthError(f"depth_quantile must lie in [0, 1], got {self.depth_quantile}.")
        if self.max_height_error is not None and self.max_height_error <= 0:
            raise DepthError(f"max_height_error must be > 0, or None for no test, got {self.max_height_error}.")


@dataclass(frozen=True)
class FrameMeasurements:
    """What a batch of frames says before any metric camera height is known. All tensors are detached."""

    normal: Float[Tensor, "b 3"]
    """Road normals, down; nan without road."""
    camera_height: Float[Tensor, "b"]
    """Camera height in units of depth; nan without road."""
    height_per_depth: Float[Tensor, "b n"]
    """Height in the image as height per unit of depth: an upright object at depth z is z times this high; nan where
    absent."""
    height_ratio: Float[Tensor, "b n"]
    """Object height over camera height by the horizon alone, without depth; inf for objects that end above it."""
    scale: Float[Tensor, "b n"]
    """Metres per unit of depth by each object's prior; nan where there is none."""
    status: Int[Tensor, "b n"]
    """``ObjectStatus``, before the test against the horizon; what ends above it is refused already."""
    heights: Float[Tensor, "b n"]
    """The prior heights that were given."""


def height_per_depth_in_rows(
    ids: Int[Tensor, "b h w"], K: Float[Tensor, "b 3 3"], num_objects: int
) -> Float[Tensor, "b n"]:
    """Rows that each object's mask spans, over f_y: times depth its height, for a level camera. nan where absent."""
    masks = _Masks(ids, num_objects)
    rows = masks.pixels[1].to(K.dtype)
    return (masks.extreme(rows, True) - masks.extreme(rows, False) + 1) / K[:, 1, 1, None]


class _Masks:
    """The pixels of all objects of a batch as one list, with the object that each belongs to."""

    def __init__(self, ids: Int[Tensor, "b h w"], num_objects: int):
        self.shape = (ids.shape[0], num_objects)
        self.count = ids.shape[0] * num_objects
        self.pixels = ids.nonzero(as_tuple=True)
        self.owner = self.pixels[0] * num_objects + ids[self.pixels].long() - 1

    def extreme(self, values: Float[Tensor, "p"], largest: bool, among: Tensor | slice = slice(None)) -> Tensor:
        """Largest or smallest value of each object, (B,N)."""
        return group_extreme(values[among], self.owner[among], self.count, largest).view(self.shape)

    def quantile(self, values: Float[Tensor, "p"], quantile: float, among: Tensor) -> Tensor:
        return group_quantile(values[among], self.owner[among], self.count, quantile).view(self.shape)

    def area(self, among: Tensor | slice = slice(None)) -> Tensor:
        return torch.bincount(self.owner[among], minlength=self.count).view(self.shape)

    def spread(self, of_objects: Real[Tensor, "b n"]) -> Real[Tensor, "p"]:
        """Each pixel's value of its object."""
        return of_objects.flatten()[self.owner]


@torch.no_grad()
def measure_frames(
    depth: Float[Tensor, "b 1 h w"],
    K: Float[Tensor, "b 3 3"],
    road: Bool[Tensor, "b h w"],
    ids: Int[Tensor, "b h w"],
    heights: Float[Tensor, "b n"],
    config: FrameConfig = FrameConfig(),
) -> FrameMeasurements:
    """Camera height of each frame and scale of each object, s = h_prior / h with h in units of depth:

    - horizon: h = H e / b, H the camera height, e the extent and b the distance of the foot below the horizon;
    - box: h = z h', z the depth at the object's foot and h' its height in the image per unit of depth;
    - silhouette: with y = n . X - H over the mask (0 on the road, negative above it) h = -min y where the object ends
      above the road, else max y - min y (FUMET).

    Args:
        depth: z in any unit, 0 = unknown.
        K: intrinsics in pixels.
        road: True on the road.
        ids: 0 or the object's number in its frame, as ``Instances.ids``.
        heights: prior heights in metres, 0 = unknown.
        config: how to measure.

    Raises:
        ValueError: the shapes disagree.
    """
    check_frames(depth, K, road)
    B, _, H, W = depth.shape
    if ids.shape != (B, H, W) or heights.ndim != 2 or heights.shape[0] != B:
        expected = f"{(B, H, W)} and ({B},N)"
        raise ValueError(f"ids and heights must be {expected}, got {tuple(ids.shape)} and {tuple(heights.shape)}.")
    depth, K, heights = depth.detach().float(), K.float(), heights.float()
    plane = fit_road_plane(depth, K, road, config.plane_iterations, config.min_road)
    camera_height = plane.height
    if config.height_from == "normals":
        values, used = camera_heights(depth, K, road)
        median = masked_quantile(values.flatten(1), used.flatten(1))
        camera_height = torch.where(plane.height.isnan(), plane.height, median)

    masks = _Masks(ids, heights.shape[1])
    below, top, bottom = _span(masks, plane, K, H, W)
    rows = masks.pixels[1].to(depth.dtype)
    first, last = masks.extreme(rows, False), masks.extreme(rows, True)
    if config.extent == "upright":
        extent, unit = bottom - top, horizon_scale(plane.normal, K)[:, None]
    else:
        extent, unit = last - first + 1, 1 / K[:, 1, 1, None]
    if config.scale_from == "horizon":
        measured = extent / bottom * camera_height[:, None]
    elif config.scale_from == "box":
        foot = below >= masks.spread(bottom - config.foot_share * (bottom - top))
        measured = _foot_depth(masks, depth, foot, config.depth_quantile) * extent * unit
    else:
        measured = _silhouette(masks, depth, K, plane)

    scale = torch.where((measured > 0) & (heights > 0), heights / measured, torch.full_like(measured, torch.nan))
    area = masks.area()
    known_area = masks.area(depth[:, 0][masks.pixels] > 0)
    status = torch.full_like(area, ObjectStatus.USED)
    for reason, applies in (
        (ObjectStatus.HORIZON, ~scale.isfinite()),
        (ObjectStatus.NO_DEPTH, (known_area * 4 < area) & (config.scale_from != "horizon")),
        (ObjectStatus.CUT, ((first == 0) | (last == H - 1)) & config.refuse_cut),
        (ObjectStatus.SMALL, extent < config.min_extent),
        (ObjectStatus.NO_ROAD, camera_height.isnan()[:, None]),
        (ObjectStatus.NO_PRIOR, heights <= 0),
        (ObjectStatus.ABSENT, area == 0),
    ):
        status = torch.where(applies, torch.full_like(status, reason), status)
    ratio = torch.where(bottom > 0, (bottom - top) / bottom, torch.full_like(bottom, torch.inf))
    return FrameMeasurements(plane.normal, camera_height, extent * unit, ratio, scale, status, heights)


def _foot_depth(masks: _Masks, depth: Tensor, foot: Bool[Tensor, "p"], quantile: float) -> Float[Tensor, "b n"]:
    """Quantile of the known depths at each object's foot; of its whole mask where the foot has none."""
    z = depth[:, 0][masks.pixels]
    known = z > 0
    chosen = torch.where(masks.spread(masks.area(foot & known)) > 0, foot & known, known)
    return masks.quantile(z, quantile, chosen)


def _silhouette(masks: _Masks, depth: Tensor, K: Tensor, plane: RoadPlane) -> Float[Tensor, "b n"]:
    """Height of each mask's top above the road plane."""
    frame, row, column = masks.pixels
    z = depth[:, 0][masks.pixels]
    centers = torch.stack([column, row], dim=-1).to(z.dtype) + 0.5
    points = unproject(centers[:, None], z[:, None], K[frame].to(z))[:, 0]
    y = (points * plane.normal[frame]).sum(-1) - plane.height[frame]
    known = z > 0
    low, high = masks.extreme(y, False, known), masks.extreme(y, True, known)
    return torch.where(high < 0, -low, high - low)


def _span(masks: _Masks, plane: RoadPlane, K: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distance of every mask pixel's centre below the horizon, and of each object's top and bottom edge, (B,N).

    An edge lies (1 - r)^2 / 2 pixels beyond the outermost centres, r the number of pixel phases, at most 1, that it
    runs through across the object: half a pixel if it is parallel to the rows, nothing if it is slanted enough to meet
    a pixel's centre somewhere. Without that, small objects under roll measure some per cent too tall.
    """
    line = horizon(plane.normal.nan_to_num(), K)
    below = horizon_distance(line, height, width)[masks.pixels]
    columns = masks.pixels[2].to(below.dtype)
    across = masks.extreme(columns, True) - masks.extreme(columns, False) + 1
    phases = (across * (line[:, 0] / line[:, 1]).abs()[:, None]).clamp(max=1)
    beyond = (1 - phases).square() / 2
    return below, masks.extreme(below, False) - beyond, masks.extreme(below, True) + beyond


def horizon_outliers(
    height_ratio: Float[Tensor, "*n"], heights: Float[Tensor, "*n"], camera_height: float, max_error: float
) -> Bool[Tensor, "*n"]:
    """Objects whose height by the horizon, ratio x camera height, differs from the prior by ``max_error`` of it.

    After Scale Field (Lee et al., CVPR 2023), Eq. 2: heights are in the ratio of (bottom to horizon) to (bottom to
    top). An object that ends above the horizon cannot stand on the road and is an outlier.
    """
    return ~((height_ratio * camera_height - heights).abs() < max_error * heights)


def apply_horizon_test(
    measured: FrameMeasurements, camera_height: float | None, config: FrameConfig
) -> Int[Tensor, "b n"]:
    """``ObjectStatus`` after the test against the horizon; as measured while no metric camera height is known."""
    if camera_height is None or config.max_height_error is None:
        return measured.status
    outlier = horizon_outliers(measured.height_ratio, measured.heights, camera_height, config.max_height_error)
    refused = (measured.status == ObjectStatus.USED) & outlier
    return torch.where(refused, torch.full_like(measured.status, ObjectStatus.HORIZON), measured.status)


def metric_camera_heights(measured: FrameMeasurements, status: Int[Tensor, "b n"]) -> Float[Tensor, "b"]:
    """Metric camera height of each frame: the median of its used objects' scales times its camera height in units of
    depth; nan in frames without a used object."""
    return masked_quantile(measured.scale, status == ObjectStatus.USED) * measured.camera_height
