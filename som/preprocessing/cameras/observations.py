"""Where points of the static scene are seen: tracks through the flow, without what moves by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from flow.frames import reduce_image
from flow.queries import query_points
from flow.tracks import TrackingOptions, track_points
from flow.video_flow import VideoFlow
from som.errors import UserError
from som.preprocessing.cameras.options import CameraOptions

MASK_MARGIN_PX = 3
"""Pixels of the flow fields kept from moving objects: flow near their outlines mixes two motions."""
MIN_FRAMES_PER_POINT = 3
"""Points seen in fewer frames constrain nothing: some depth fits any two views."""


@dataclass(frozen=True)
class Observations:
    """M observations of P points, sorted by point and frame."""

    frame: Int[np.ndarray, "m"]
    point: Int[np.ndarray, "m"]
    """Every point in [0, P) is seen at least once."""
    xy: Float[np.ndarray, "m 2"]
    """Pixels, centres at +0.5."""
    query_frame: Int[np.ndarray, "p"]
    """The frame in which the tracking of each point began, which sees the point."""

    @property
    def num_points(self) -> int:
        return len(self.query_frame)

    def select(self, keep: Bool[np.ndarray, "m"]) -> tuple[Observations, Int[np.ndarray, "p2"]]:
        """Those at ``keep``, and which of the points they show; these get new numbers in the same order."""
        points, renumbered = np.unique(self.point[keep], return_inverse=True)
        selected = Observations(self.frame[keep], renumbered, self.xy[keep], self.query_frame[points])
        return selected, points

    def thinned(self, per_frame: int) -> Observations:
        """The observations of about so many points of each query frame, spread over all that it has."""
        chosen = np.zeros(self.num_points, bool)
        for frame in np.unique(self.query_frame):
            here = np.flatnonzero(self.query_frame == frame)
            step = max(1.0, len(here) / per_frame)
            chosen[here] = np.arange(len(here)) % step < 1
        return self.select(chosen[self.point])[0]

    def scaled(self, sx: float, sy: float) -> Observations:
        """The same observations in an image resized by (sx, sy)."""
        return replace(self, xy=self.xy * [sx, sy])


def observe(
    flow: VideoFlow,
    options: CameraOptions,
    moving: Bool[np.ndarray, "t h w"] | None = None,
    frames: UInt8[np.ndarray, "t h w 3"] | None = None,
) -> Observations:
    """Tracks points of the static scene through the video.

    Args:
        flow: fields of both directions, stride 1 among them.
        moving: (T,H,W) at image size; points are neither chosen nor used there.
        frames: (T,H,W,3) RGB at image size; points without texture are avoided.

    Returns:
        observations in pixels of the flow fields, of points that are seen in three frames or more.

    Raises:
        UserError: nothing static is left to track.
    """
    T, size = flow.num_frames, (flow.height, flow.width)
    valid = None if moving is None else torch.from_numpy(~_reduced_mask(moving, size))
    images = None
    if frames is not None:
        reduced = [reduce_image(np.asarray(frame), max(size)) for frame in frames]
        images = torch.from_numpy(np.stack(reduced))
    num_queries = max(1, -(-T // options.query_stride))
    query_xy, query_frames = query_points(
        num_queries * options.points_per_query,
        T,
        size,
        valid=valid,
        frames=images,
        num_query_frames=num_queries,
        seed=options.seed,
    )
    strides = tuple(s for s in flow.strides() if s < T)
    tracking = TrackingOptions(strides=strides, reappear=False, max_variance=options.max_variance)
    tracks = track_points(flow, query_xy, query_frames, tracking)
    visible, xy = tracks.visible.numpy(), tracks.xy.numpy().astype(np.float64)
    if valid is not None:
        column, row = (np.clip(xy[..., i].astype(int), 0, size[1 - i] - 1) for i in (0, 1))
        visible &= valid.numpy()[np.arange(T), row, column]
    at_query = visible[np.arange(len(visible)), query_frames]
    visible &= ((visible.sum(1) >= MIN_FRAMES_PER_POINT) & at_query)[:, None]
    point, frame = np.nonzero(visible)
    seen = Observations(frame, point, xy[point, frame], query_frames.numpy())
    if len(frame) == 0:
        masked = "" if moving is None else " outside the moving masks (are they inverted?)"
        raise UserError(
            f"no point of the video can be followed through {MIN_FRAMES_PER_POINT} frames{masked}; "
            "check that the frames are in order, sharp and of one shot."
        )
    return seen.select(np.ones(len(frame), bool))[0]


def _reduced_mask(moving: Bool[np.ndarray, "t h w"], size: tuple[int, int]) -> Bool[np.ndarray, "t h2 w2"]:
    """Pixels of the flow fields in which anything moves, or near such."""
    kernel = np.ones((2 * MASK_MARGIN_PX + 1, 2 * MASK_MARGIN_PX + 1), np.uint8)

    def reduce(mask: np.ndarray) -> np.ndarray:
        share = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        return cv2.dilate((share > 0).astype(np.uint8), kernel).astype(bool)

    return np.stack([reduce(np.asarray(mask)) for mask in moving])
