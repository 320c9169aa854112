"""Depth of moving things from all that one camera can know of it.

What lies below its foot tells where a thing stands; the size at which it appears, how its depth changes; its points, if
it is rigid, its shape and its way up to one factor; and that it hides what is behind it, where it cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import spsolve
from scipy.spatial import Delaunay, KDTree
from torch import Tensor

from som.depth.estimate.moving import depth_below
from som.preprocessing.moving.shape import Shape
from som.preprocessing.moving.sightings import Sightings
from som.preprocessing.moving.size import Comparisons, compare_sizes
from som.preprocessing.moving.things import find_things

GROUND = (0.3, 0.03)
"""Standard deviation of the log depth below a foot where its confidence is 0, and where it is ``SURE`` or more."""
SURE = 0.5
UNSEEN = 1.0
"""Standard deviation of the log depth that a sighting starts with, where nothing is seen below its foot."""
ABOVE = 2.0
"""A thing may be nearer than what is seen below it, as when it flies: this many standard deviations nearer, the ground
counts half."""
SIZE = 0.1
"""Least standard deviation of a comparison of sizes: things stretch and bend, and views overlap in time."""
TOLERANCE = 0.05
"""Error in log size above which a comparison counts less and less (Cauchy)."""
CONTINUOUS = 0.1
"""Standard deviation of the change of a thing's log depth from one frame to the next."""
SHAPED = 0.003
"""Standard deviation of the change of log depth that the shape of a rigid thing tells."""
FOOT = 0.2
"""The foot of a rigid thing is the lowest share of its height."""
MIN_POINTS = 8
"""Points of a rigid thing, a pixel or more apart, from which the depth of a sighting is interpolated."""
MAX_CHANGE = np.log(4.0)
"""Largest correction of log depth."""
IN_FRONT = 0.95
"""A moving thing is taken to be nearer than this share of the depth that it hides."""


@dataclass(frozen=True)
class _Solid:
    """The shape of a thing, and the log depth of its foot in each of its sightings in the same unit."""

    shape: Shape
    sightings: Int[np.ndarray, "k"]
    foot: Float[np.ndarray, "k"]


def moving_depth(
    depth: Float[Tensor, "t h w"],
    confidence: Float[Tensor, "t h w"],
    moving: Bool[Tensor, "t h w"],
    xy: Float[Tensor, "q t 2"],
    visible: Bool[Tensor, "q t"],
    K: Float[Tensor, "t 3 3"],
) -> tuple[Float[Tensor, "t h w"], dict]:
    """Corrects the depth of moving things.

    The log depths of all sightings of things solve, in the sense of robust least squares: each is that of the ground
    below its foot, or nearer (``GROUND``, by the confidence there); from one sighting to the next it changes little
    (``CONTINUOUS``), as the thing's size does (``compare_sizes``) or, if the thing is rigid, as its shape tells
    (``find_shape``). Then each thing as a whole is drawn forward until it stands in front of what surrounds its upper
    half. Rigid things get the depth of their points, interpolated; others keep the relief they have.

    Args:
        depth: z-depth, > 0 on moving pixels and around.
        confidence: in [0, 1].
        moving: pixels of things that move by themselves.
        xy: tracked points in pixels of the maps; those that are never on a moving pixel do not matter.
        visible: where they are seen.
        K: intrinsics of every frame in pixels of the maps.

    Returns:
        the corrected depth, and what was done: ``moving_things``, ``moving_sightings``, ``moving_compared`` (pairs of
        sightings), ``moving_rigid`` (share of the moving pixels that belong to rigid things) and ``moving_change``
        (median absolute change of log depth), as plain numbers.
    """
    places = xy.double().numpy()
    if not bool(moving.any()):
        return depth, {"moving_things": 0, "moving_sightings": 0}
    sightings, shapes = find_things(moving.numpy(), places, visible.numpy(), K.double().numpy())
    z = depth.numpy()
    first = np.array([np.log(np.median(z[t][sightings.region(n)])) for n, t in enumerate(sightings.frame)])
    solids = _solids(sightings, shapes, places)
    sizes = compare_sizes(sightings, places)
    compared = _joined(sightings, sizes, solids)
    log_z = _solve(first, *_ground(sightings, depth, confidence, moving), compared)
    log_z += _drawn_forward(sightings, z, log_z)
    log_z = first + np.clip(log_z - first, -MAX_CHANGE, MAX_CHANGE)
    result = z * np.append(np.exp(log_z - first), 1.0)[sightings.labels].astype(z.dtype)
    for solid in solids:
        _fill(result, sightings, solid, places, float(np.median(log_z[solid.sightings] - solid.foot)))
    rigid = np.isin(sightings.labels, np.concatenate([s.sightings for s in solids])) if solids else np.zeros(1)
    found = {
        "moving_things": len(np.unique(sightings.thing)),
        "moving_sightings": len(sightings),
        "moving_compared": len(sizes.a),
        "moving_rigid": round(float(rigid.sum() / moving.sum()), 3),
        "moving_change": round(float(np.median(np.abs(log_z - first))), 4),
    }
    return torch.from_numpy(result).to(depth), found


def _ground(
    sightings: Sightings, depth: Tensor, confidence: Tensor, moving: Tensor
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Log depth below the foot of each sighting, nan where nothing static is seen there, and its deviation."""
    below = np.full((len(sightings), 2), np.nan)
    for n, t in enumerate(sightings.frame):
        part = torch.from_numpy(sightings.region(n))
        z = depth_below(depth[t], moving[t], part)
        if z > 0:
            below[n] = np.log(z), depth_below(confidence[t], moving[t], part)
    return below[:, 0], np.exp(np.interp(below[:, 1], (0, SURE), np.log(GROUND)))


def _solids(sightings: Sightings, shapes: dict[int, Shape], xy: np.ndarray) -> list[_Solid]:
    """Things of known shape, where enough of their points are seen."""
    solids = []
    for thing, shape in shapes.items():
        numbers, feet = [], []
        for n in np.flatnonzero(sightings.thing == thing):
            here = _points_of(shape, sightings, n)
            if here.sum() < MIN_POINTS or np.ptp(xy[shape.track[here], sightings.frame[n]], axis=0).max() < 1:
                continue
            rows = np.flatnonzero(sightings.region(n).any(1))
            low = xy[shape.track[here], sightings.frame[n], 1] >= rows[-1] + 1 - FOOT * len(rows)
            chosen = shape.log_z[here][low] if low.sum() >= 3 else shape.log_z[here]
            numbers.append(n)
            feet.append(np.median(chosen))
        solids.append(_Solid(shape, np.array(numbers, np.int64), np.array(feet)))
    return [solid for solid in solids if len(solid.sightings)]


def _points_of(shape: Shape, sightings: Sightings, number: int) -> Bool[np.ndarray, "m"]:
    """Which sightings of a thing's points are on one of its sightings."""
    here = shape.frame == sightings.frame[number]
    here[here] = sightings.of_track[shape.track[here], sightings.frame[number]] == number
    return here


def _joined(sightings: Sightings, sizes: Comparisons, solids: list[_Solid]) -> Comparisons:
    """Comparisons by shape for the sightings that have one, by size for the others, and with the sighting before."""
    solid = np.zeros(len(sightings), bool)
    for s in solids:
        solid[s.sightings] = True
    kept = ~(solid[sizes.a] & solid[sizes.b])
    rows = [np.stack([sizes.a, sizes.b, sizes.change, np.maximum(sizes.sigma, SIZE)], 1)[kept]]
    for thing in np.unique(sightings.thing):
        numbers = np.flatnonzero(sightings.thing == thing)
        steps = np.maximum(np.diff(sightings.frame[numbers]), 1)
        rows.append(np.stack([numbers[:-1], numbers[1:], np.zeros(len(steps)), CONTINUOUS * steps], 1))
    for s in solids:
        count = len(s.sightings) - 1
        start = np.full(count, s.sightings[0])
        rows.append(np.stack([start, s.sightings[1:], s.foot[1:] - s.foot[0], np.full(count, SHAPED)], 1))
    a, b, change, sigma = np.concatenate(rows).T
    return Comparisons(a.astype(np.int64), b.astype(np.int64), change, sigma)


def _solve(
    first: Float[np.ndarray, "n"],
    ground: Float[np.ndarray, "n"],
    ground_sigma: Float[np.ndarray, "n"],
    compared: Comparisons,
) -> Float[np.ndarray, "n"]:
    """Log depths of all sightings, by reweighted least squares."""
    seen = np.isfinite(ground)
    target, sigma = np.where(seen, ground, first), np.where(seen, ground_sigma, UNSEEN)
    count, edges = len(first), np.arange(len(compared.a))
    incidence = csr_matrix(
        (
            np.concatenate([-np.ones(len(edges)), np.ones(len(edges))]),
            (np.tile(edges, 2), np.concatenate([compared.a, compared.b])),
        ),
        shape=(len(edges), count),
    )
    u = target.copy()
    for _ in range(30):
        # nearer than the ground is no contradiction, as things fly and leap; behind it is one
        above = np.maximum(target - u, 0) / (ABOVE * sigma)
        pull = 1 / (sigma**2 * (1 + above**2))
        error = (incidence @ u - compared.change) / np.maximum(compared.sigma, TOLERANCE)
        weight = 1 / (compared.sigma**2 * (1 + error**2))
        normal = incidence.T @ incidence.multiply(weight[:, None]) + identity(count).multiply(pull)
        u = spsolve(normal.tocsc(), incidence.T @ (weight * compared.change) + pull * target)
    return np.atleast_1d(u)


def _drawn_forward(sightings: Sightings, z: np.ndarray, log_depth: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """One change for all sightings of a thing, which puts it in front of what it hides; never > 0."""
    excess = np.array([log_depth[n] - _hidden(sightings, z, n) for n in range(len(log_depth))])
    change = np.zeros(len(log_depth))
    for thing in np.unique(sightings.thing):
        known = excess[(sightings.thing == thing) & np.isfinite(excess)]
        if len(known):
            change[sightings.thing == thing] = min(0.0, -np.quantile(known, 0.9))
    return change


def _hidden(sightings: Sightings, z: np.ndarray, number: int) -> float:
    """Log of the depth that a thing's upper half hides, less a margin; nan where nothing static surrounds it."""
    labels = sightings.labels[sightings.frame[number]]
    region = labels == number
    rows = np.flatnonzero(region.any(1))
    reach = max(2, max(region.shape) // 100)
    ring = ndimage.binary_dilation(region, iterations=reach) & (labels < 0)
    ring[(rows[0] + rows[-1]) // 2 :] = False
    around = z[sightings.frame[number]][ring]
    return float(np.log(IN_FRONT * np.median(around))) if len(around) else np.nan


def _fill(depth: np.ndarray, sightings: Sightings, solid: _Solid, xy: np.ndarray, offset: float) -> None:
    """Writes the depth of a rigid thing's points to its sightings: interpolated, beyond them that of the nearest."""
    shape = solid.shape
    for n in solid.sightings:
        t, here = sightings.frame[n], _points_of(shape, sightings, n)
        places, values = xy[shape.track[here], t], shape.log_z[here]
        # the median of neighbours: a point that slides along an edge is no spike
        values = np.median(values[KDTree(places).query(places, k=min(5, len(places)))[1]], 1)
        region = sightings.region(n)
        pixels = np.argwhere(region)[:, ::-1] + 0.5
        # joggled (QJ), as points may lie on one line
        found = LinearNDInterpolator(Delaunay(places, qhull_options="QJ"), values)(pixels)
        outside = ~np.isfinite(found)
        found[outside] = NearestNDInterpolator(places, values)(pixels[outside])
        depth[t][region] = np.exp(found + offset)
