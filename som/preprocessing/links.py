"""Points that stand still, seen in two views: what the cameras and the depth maps of a data set make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flow.consistency import check_consistency
from flow.video_flow import VideoFlow
from som.data.dataset import VideoDataset, Views
from som.preprocessing.facts import camera_centers, on_foreground

MIN_LINKED_POINTS = 50
"""Linked points below which nothing is said about cameras or depth."""
MIN_FRAME_DISTANCE = 4
"""Links span at least this many times, where the video is long enough, so that the camera has moved."""
MAX_ERROR_PX = 1e4
NUM_PAIRS, POINTS_PER_SIDE = 12, 24
"""So many pairs of frames, and points per side of a frame, are linked by flow."""


@dataclass
class Links:
    """Points that stand still, each seen in two views, and what cameras make of them."""

    prior: np.ndarray
    """(N,) depth that the depth map gives, 0 = none."""
    depth: np.ndarray
    """(N,) depth that explains both views best, in world units."""
    parallax: np.ndarray
    """(N,) pixels between the second view's point at that depth and at infinity."""
    error: np.ndarray
    """(N,) pixels by which the second view is missed at that depth; inf where the point lies behind a camera."""

    @property
    def median_error(self) -> float:
        """Pixels; the largest finite error where most points lie behind a camera."""
        return float(np.median(np.minimum(self.error, MAX_ERROR_PX)))

    @property
    def median_parallax(self) -> float:
        """Pixels."""
        return float(np.median(np.minimum(self.parallax, MAX_ERROR_PX)))

    def facts(self) -> dict:
        """Plain JSON."""
        return {"points": len(self.error), "error": self.median_error, "parallax": self.median_parallax}


def link_background(dataset: VideoDataset, flow: VideoFlow | None) -> Links | None:
    """Links by flow where it is there, otherwise by tracks; None if there is too little of both."""
    return (None if flow is None else link_by_flow(dataset, flow)) or link_by_tracks(dataset)


def link_by_tracks(dataset: VideoDataset) -> Links | None:
    """Links every background track's query with the view farthest from it in space; None if there are too few."""
    tracks, train = dataset.tracks, dataset.train
    moving = None if tracks is None else on_foreground(tracks, dataset)
    if tracks is None or moving is None or len(tracks.query_times) < MIN_LINKED_POINTS or len(train) < 2:
        return None
    index = dataset.train_index_of_time.numpy()
    centers = np.full((dataset.num_times, 3), np.nan)
    centers[train.times.numpy()] = camera_centers(train)
    query = tracks.query_times.numpy()
    seen = tracks.visible.numpy() & (index >= 0)[None]
    frame_distance = np.abs(np.arange(dataset.num_times)[None] - query[:, None])
    seen &= frame_distance >= min(MIN_FRAME_DISTANCE, dataset.num_times // 2)
    distance = np.linalg.norm(centers[None] - centers[query][:, None], axis=-1)
    target = np.where(seen, np.nan_to_num(distance, nan=-1.0), -1.0).argmax(1)
    usable = np.flatnonzero(seen.any(1) & (index[query] >= 0) & ~moving.numpy())
    xy = tracks.xy.numpy().astype(np.float64)
    from_xy, to_xy = xy[usable, query[usable]], xy[usable, target[usable]]
    return _make_links(train, index[query[usable]], index[target[usable]], from_xy, to_xy)


def link_by_flow(dataset: VideoDataset, flow: VideoFlow) -> Links | None:
    """Links a grid of background points of some frames by the longest flow that is there in both directions."""
    train, index = dataset.train, dataset.train_index_of_time.numpy()
    strides = [s for s in flow.strides() if s <= max(dataset.num_times // 2, 1)]
    for stride in reversed(strides):
        times = [t for t in range(min(flow.num_frames, dataset.num_times) - stride) if min(index[[t, t + stride]]) >= 0]
        pairs = [(t, t + stride) for t in times if (t, t + stride) in flow and (t + stride, t) in flow]
        chosen = pairs[:: max(1, len(pairs) // NUM_PAIRS)]
        found = [(*index[list(pair)], *_grid_points(train, int(index[pair[0]]), flow, pair)) for pair in chosen]
        if sum(len(points) for _, _, points, _ in found) >= MIN_LINKED_POINTS:
            source, target = (np.repeat([f[k] for f in found], [len(f[2]) for f in found]) for k in (0, 1))
            return _make_links(train, source, target, *(np.concatenate([f[k] for f in found]) for k in (2, 3)))
    return None


def _grid_points(train: Views, view: int, flow: VideoFlow, pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(P,2) points of a frame that stand still, and where consistent flow leads them, in pixels of the images."""
    forward, backward = flow.get(*pair), flow.get(*pair[::-1])
    consistent = check_consistency(forward, backward)[0].consistent
    row = ((torch.arange(POINTS_PER_SIDE) + 0.5) / POINTS_PER_SIDE * flow.height).long()
    column = ((torch.arange(POINTS_PER_SIDE) + 0.5) / POINTS_PER_SIDE * flow.width).long()
    row, column = (grid.flatten() for grid in torch.meshgrid(row, column, indexing="ij"))
    scale = torch.tensor([train.width / flow.width, train.height / flow.height], dtype=torch.float64)
    from_xy = (torch.stack([column, row], -1) + 0.5) * scale
    to_xy = from_xy + forward[row, column].double() * scale
    keep = consistent[row, column] & ~_moving_at(train, view, from_xy)
    return from_xy[keep].numpy(), to_xy[keep].numpy()


def _moving_at(train: Views, view: int, xy: Tensor) -> Tensor:
    if train.foreground is None:
        return torch.zeros(len(xy), dtype=torch.bool)
    return train.foreground[view, xy[:, 1].long().clamp(0, train.height - 1), xy[:, 0].long().clamp(0, train.width - 1)]


def _make_links(train: Views, source: np.ndarray, target: np.ndarray, from_xy: np.ndarray, to_xy: np.ndarray):
    """From (N,) views and (N,2) points; None if there are too few."""
    if len(source) < MIN_LINKED_POINTS:
        return None
    depth, parallax, error = _triangulate(train, source, target, from_xy, to_xy)
    prior = np.zeros(len(source))
    if train.depths is not None:
        column = from_xy[:, 0].astype(int).clip(0, train.width - 1)
        row = from_xy[:, 1].astype(int).clip(0, train.height - 1)
        prior = train.depths.numpy()[source, row, column].astype(np.float64)
    return Links(prior, depth, parallax, error)


def _triangulate(
    train: Views, source: np.ndarray, target: np.ndarray, from_xy: np.ndarray, to_xy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth along the first ray that meets the second view's point best (linear), its parallax and its error.

    In the second camera the point at depth z is z a + b, a = R K^-1 x and b the translation. With the normalised
    coordinates u of the point there, z (a_xy - u a_z) = u b_z - b_xy is solved by least squares.
    """
    w2c, K = train.cameras.w2c.double().numpy(), train.cameras.K.double().numpy()
    relative = w2c[target] @ np.linalg.inv(w2c[source])
    ray = np.einsum("nij,nj->ni", np.linalg.inv(K[source]), _homogeneous(from_xy))
    a, b = np.einsum("nij,nj->ni", relative[:, :3, :3], ray), relative[:, :3, 3]
    u = np.einsum("nij,nj->ni", np.linalg.inv(K[target]), _homogeneous(to_xy))[:, :2]
    left, right = a[:, :2] - u * a[:, 2:], u * b[:, 2:] - b[:, :2]
    moves = np.linalg.norm(b, axis=1) > 1e-9
    depth = np.where(moves, (left * right).sum(1) / np.maximum((left * left).sum(1), 1e-18), 1.0)
    behind = depth <= 0
    point = np.where(behind, 1e9, depth)[:, None] * a + b
    projected, infinite = (_project(K[target], p) for p in (point, a))
    error = np.where(point[:, 2] > 0, np.linalg.norm(projected - to_xy, axis=1), np.inf)
    return np.where(behind, 0.0, depth), np.linalg.norm(projected - infinite, axis=1), error


def _homogeneous(xy: np.ndarray) -> np.ndarray:
    return np.concatenate([xy, np.ones((len(xy), 1))], 1)


def _project(K: np.ndarray, point: np.ndarray) -> np.ndarray:
    image = np.einsum("nij,nj->ni", K, point)
    return image[:, :2] / np.where(np.abs(image[:, 2:]) < 1e-12, 1e-12, image[:, 2:])
