"""Depth of moving things by two facts that need no second view: they keep their size, and hide what is behind them.

Moving things first get the depth of the ground at their foot, frame by frame. That is right on average, but noisy, and
a thing whose lifted tracks grow and shrink can be carried by no rigid motion. How large it appears tells how its depth
changes: at twice the depth it appears half as large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.sparse import csgraph, csr_matrix
from torch import Tensor

STRIDES = (1, 2, 4, 8, 16)
"""Distances in frames over which sizes are compared."""
MIN_TRACKS = 12
"""Tracks that two sightings of a thing must share for their sizes to be compared."""
MIN_SPREAD = 2.0
"""Standard deviation in pixels, along both axes, of the places of these tracks."""
GROUND_ERROR = 0.3
"""Standard deviation of the first log depth of a sighting, much of it alike for all sightings of a thing."""
RIGID = 0.03
"""Residual of the affine map, as a share of the thing's extent, above which it deforms and its size says little."""
TOLERANCE = 0.05
"""Error in log size above which a comparison counts less and less (Cauchy)."""
MAX_CHANGE = np.log(4.0)
"""Largest correction of log depth."""
IN_FRONT = 0.95
"""A moving thing is taken to be nearer than this share of the depth that it hides."""


@dataclass(frozen=True)
class _Sightings:
    """Connected regions of moving pixels, numbered through the clip."""

    labels: Int[np.ndarray, "t h w"]
    """Number of the sighting that a pixel belongs to, -1 for none."""
    frame: Int[np.ndarray, "n"]


def keep_size(
    depth: Float[Tensor, "t h w"],
    moving: Bool[Tensor, "t h w"],
    xy: Float[Tensor, "q t 2"],
    visible: Bool[Tensor, "q t"],
) -> tuple[Float[Tensor, "t h w"], dict]:
    """Corrects the depth of moving things by one factor for each thing in each frame.

    With z the depth of a sighting and s the length to which a vertical unit of the thing is mapped from one sighting
    to another (by the affine map that fits their common tracks; turning about the vertical does not change it),
    z' = z / s. The factors solve these equations for all pairs of frames ``STRIDES`` apart, robustly, with a pull
    towards the first depths. An equation counts the less the worse the affine map fits: with e its median residual as
    a share of the thing's extent, its weight beside the pull's 1 is (GROUND_ERROR / 2e)^2 / (1 + (e / RIGID)^2). A car
    that drives off is held to one size; a plant that sways keeps the depth of its pot. Then each thing as a whole is
    drawn forward until it stands in front of what surrounds its upper half.

    Args:
        depth: z-depth, > 0 on moving pixels.
        moving: pixels of things that move by themselves.
        xy: tracked points in pixels of the maps; those that are never on a moving pixel do not matter.
        visible: where they are seen.

    Returns:
        the corrected depth, and what was done: ``moving_sightings``, ``moving_compared`` (pairs of sightings),
        ``moving_change`` (median absolute change of log depth), as plain numbers.
    """
    sightings = _sightings(moving.numpy())
    count = len(sightings.frame)
    z = depth.numpy()
    first = np.array([np.log(np.median(z[f][sightings.labels[f] == n])) for n, f in enumerate(sightings.frame)])
    a, b, log_size, weight = _compare(sightings, xy.numpy().astype(np.float64), visible.numpy())
    found = {"moving_sightings": count, "moving_compared": len(a)}
    if not len(a):
        return depth, found
    target = first[a] - log_size  # of the second sighting, if the first stays where it is
    change = _solve(count, a, b, target - first[b], weight)
    change += _drawn_forward(sightings, z, first + change, a, b)
    change = np.clip(change, -MAX_CHANGE, MAX_CHANGE)
    factor = np.append(np.exp(change), 1.0)[sightings.labels]
    found["moving_change"] = round(float(np.median(np.abs(change))), 4)
    return depth * torch.from_numpy(factor).to(depth), found


def _sightings(moving: np.ndarray) -> _Sightings:
    labels, frames = np.full(moving.shape, -1), []
    for t, mask in enumerate(moving):
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        labels[t] = np.where(regions > 0, regions - 1 + len(frames), -1)
        frames += [t] * count
    return _Sightings(labels, np.array(frames, np.int64))


def _compare(sightings: _Sightings, xy: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pairs of sightings (a, b) of one thing, the log of the size in b over that in a, and the weights of these."""
    T, H, W = sightings.labels.shape
    column, row = np.floor(xy[..., 0]).astype(int), np.floor(xy[..., 1]).astype(int)
    inside = visible & (column >= 0) & (column < W) & (row >= 0) & (row < H)
    times = np.broadcast_to(np.arange(T), inside.shape)
    at = np.where(inside, sightings.labels[times, row.clip(0, H - 1), column.clip(0, W - 1)], -1)
    pairs = []
    for stride in STRIDES:
        for t in range(T - stride):
            both = (at[:, t] >= 0) & (at[:, t + stride] >= 0)
            for a, b in np.unique(np.stack([at[both, t], at[both, t + stride]], 1), axis=0):
                chosen = both & (at[:, t] == a) & (at[:, t + stride] == b)
                compared = _size_ratio(xy[chosen, t], xy[chosen, t + stride])
                if compared is not None:
                    size, error = compared
                    weight = (GROUND_ERROR / (2 * max(error, 1e-3))) ** 2 / (1 + (error / RIGID) ** 2)
                    pairs.append((a, b, np.log(size), weight))
    if not pairs:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0)
    return tuple(np.array(column) for column in zip(*pairs, strict=True))


def _size_ratio(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> tuple[float, float] | None:
    """Length that a vertical unit has after the affine map from source to target, and the median residual of this map
    as a share of the target's extent; None where it cannot be told."""
    for _ in range(2):  # the second time without what fits worst
        if len(source) < MIN_TRACKS or source.std(0).min() < MIN_SPREAD or target.std(0).min() < MIN_SPREAD:
            return None
        design = np.concatenate([source - source.mean(0), np.ones((len(source), 1))], 1)
        affine = np.linalg.lstsq(design, target, rcond=None)[0]
        error = np.linalg.norm(target - design @ affine, axis=1)
        kept = error <= 2.5 * max(np.median(error), 0.1)
        source, target = source[kept], target[kept]
    size = float(np.linalg.norm(affine[1]))
    return (size, float(np.median(error) / target.std(0).mean())) if 0.25 < size < 4 else None


def _solve(
    count: int, a: np.ndarray, b: np.ndarray, difference: np.ndarray, weight: np.ndarray
) -> Float[np.ndarray, "n"]:
    """Changes u with u_b - u_a near ``difference``, by reweighted least squares with a pull of u towards 0."""
    u, edges = np.zeros(count), np.arange(len(a))
    incidence = csr_matrix(
        (np.concatenate([-np.ones(len(a)), np.ones(len(b))]), (np.tile(edges, 2), np.concatenate([a, b]))),
        shape=(len(a), count),
    ).toarray()
    for _ in range(10):
        robust = weight / (1 + ((incidence @ u - difference) / TOLERANCE) ** 2)
        normal = incidence.T @ (robust[:, None] * incidence) + np.eye(count)
        u = np.linalg.solve(normal, incidence.T @ (robust * difference))
    return u


def _drawn_forward(
    sightings: _Sightings, z: np.ndarray, log_depth: np.ndarray, a: np.ndarray, b: np.ndarray
) -> Float[np.ndarray, "n"]:
    """One change for all sightings of a thing (those that comparisons connect), which puts it in front; never > 0."""
    count = len(log_depth)
    _, thing = csgraph.connected_components(csr_matrix((np.ones(len(a)), (a, b)), (count, count)), directed=False)
    excess = np.array([log_depth[n] - _hidden(sightings, z, n) for n in range(count)])
    change = np.zeros(count)
    for number in np.unique(thing):
        known = excess[(thing == number) & np.isfinite(excess)]
        if len(known):
            change[thing == number] = min(0.0, -np.quantile(known, 0.9))
    return change


def _hidden(sightings: _Sightings, z: np.ndarray, number: int) -> float:
    """Log of the depth that a thing's upper half hides, less a margin; nan where nothing static surrounds it."""
    labels = sightings.labels[sightings.frame[number]]
    region = labels == number
    rows = np.flatnonzero(region.any(1))
    reach = max(2, max(region.shape) // 100)
    ring = ndimage.binary_dilation(region, iterations=reach) & (labels < 0)
    ring[(rows[0] + rows[-1]) // 2 :] = False
    around = z[sightings.frame[number]][ring]
    return float(np.log(IN_FRONT * np.median(around))) if len(around) else np.nan
