"""Depth of moving objects from the four cues that one camera has.

The ground below an object gives its distance; its apparent size, how this distance changes; structure from motion on
its tracks, if it is rigid, its shape and motion up to one factor; and what it occludes must be behind it.
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
from som.preprocessing.moving.objects import find_objects
from som.preprocessing.moving.options import MovingDepthOptions
from som.preprocessing.moving.segments import Segments
from som.preprocessing.moving.shape import Shape
from som.preprocessing.moving.size import Comparisons, compare_sizes

DEFAULT = MovingDepthOptions()


@dataclass(frozen=True)
class _RigidObject:
    """The shape of an object, and the log depth of its foot in each of its segments in the same unit."""

    shape: Shape
    segments: Int[np.ndarray, "k"]
    foot: Float[np.ndarray, "k"]


def moving_depth(
    depth: Float[Tensor, "t h w"],
    confidence: Float[Tensor, "t h w"],
    moving: Bool[Tensor, "t h w"],
    xy: Float[Tensor, "q t 2"],
    visible: Bool[Tensor, "q t"],
    K: Float[Tensor, "t 3 3"],
    options: MovingDepthOptions = DEFAULT,
) -> tuple[Float[Tensor, "t h w"], dict]:
    """Corrects the depth of moving objects.

    The log depths of all segments solve a robust least-squares problem: each is that of the ground below its foot, or
    nearer (by the confidence there); from one segment to the next it changes little, as the object's size does
    (``compare_sizes``) or, if the object is rigid, as its shape says (``find_shape``). Then each object as a whole is
    moved forward until it is in front of what surrounds its upper half. Rigid objects get the interpolated depth of
    their points; the others keep the depth variation that they have.

    Args:
        depth: z-depth, > 0 on moving pixels and around.
        confidence: in [0, 1].
        moving: pixels of objects that move by themselves.
        xy: tracked points in pixels of the maps; those that are never on a moving pixel do not matter.
        visible: where they are seen.
        K: intrinsics of every frame in pixels of the maps.

    Returns:
        the corrected depth, and what was done: ``moving_objects``, ``moving_segments``, ``moving_compared`` (pairs of
        segments), ``moving_rigid`` (share of the moving pixels that belong to rigid objects) and ``moving_change``
        (median absolute change of log depth), as plain numbers.
    """
    positions = xy.double().numpy()
    if not bool(moving.any()):
        return depth, {"moving_objects": 0, "moving_segments": 0}
    segments, shapes = find_objects(moving.numpy(), positions, visible.numpy(), K.double().numpy(), options)
    z = depth.numpy()
    first = np.array([np.log(np.median(z[t][segments.region(n)])) for n, t in enumerate(segments.frame)])
    rigid_objects = _rigid_objects(segments, shapes, positions, options)
    sizes = compare_sizes(segments, positions, options)
    compared = _all_comparisons(segments, sizes, rigid_objects, options)
    log_z = _solve(first, *_ground(segments, depth, confidence, moving, options), compared, options)
    log_z += _occlusion_shift(segments, z, log_z, options.in_front)
    log_z = first + np.clip(log_z - first, -options.max_change, options.max_change)
    result = z * np.append(np.exp(log_z - first), 1.0)[segments.labels].astype(z.dtype)
    for rigid in rigid_objects:
        _fill(result, segments, rigid, positions, float(np.median(log_z[rigid.segments] - rigid.foot)))
    numbers = [number for rigid in rigid_objects for number in rigid.segments]
    found = {
        "moving_objects": len(np.unique(segments.object_id)),
        "moving_segments": len(segments),
        "moving_compared": len(sizes.a),
        "moving_rigid": round(float(np.isin(segments.labels, numbers).sum() / moving.sum()), 3),
        "moving_change": round(float(np.median(np.abs(log_z - first))), 4),
    }
    return torch.from_numpy(result).to(depth), found


def _ground(
    segments: Segments, depth: Tensor, confidence: Tensor, moving: Tensor, options: MovingDepthOptions
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Log depth below the foot of each segment, nan where nothing static is seen there, and its deviation."""
    below = np.full((len(segments), 2), np.nan)
    for n, t in enumerate(segments.frame):
        part = torch.from_numpy(segments.region(n))
        z = depth_below(depth[t], moving[t], part)
        if z > 0:
            below[n] = np.log(z), depth_below(confidence[t], moving[t], part)
    sigma = np.exp(np.interp(below[:, 1], (0, options.full_confidence), np.log(options.ground_sigma)))
    return below[:, 0], sigma


def _rigid_objects(
    segments: Segments, shapes: dict[int, Shape], xy: np.ndarray, options: MovingDepthOptions
) -> list[_RigidObject]:
    """Objects of known shape, where enough of their points are seen."""
    found = []
    for object_id, shape in shapes.items():
        numbers, feet = [], []
        for n in np.flatnonzero(segments.object_id == object_id).tolist():
            here = _points_of(shape, segments, n)
            if here.sum() < options.min_points or np.ptp(xy[shape.track[here], segments.frame[n]], axis=0).max() < 1:
                continue
            rows = np.flatnonzero(segments.region(n).any(1))
            low = xy[shape.track[here], segments.frame[n], 1] >= rows[-1] + 1 - options.foot_share * len(rows)
            chosen = shape.log_z[here][low] if low.sum() >= 3 else shape.log_z[here]
            numbers.append(n)
            feet.append(np.median(chosen))
        found.append(_RigidObject(shape, np.array(numbers, np.int64), np.array(feet)))
    return [rigid for rigid in found if len(rigid.segments)]


def _points_of(shape: Shape, segments: Segments, number: int) -> Bool[np.ndarray, "m"]:
    """Which observations of an object's points are on one of its segments."""
    here = shape.frame == segments.frame[number]
    here[here] = segments.of_track[shape.track[here], segments.frame[number]] == number
    return here


def _all_comparisons(
    segments: Segments, sizes: Comparisons, rigid_objects: list[_RigidObject], options: MovingDepthOptions
) -> Comparisons:
    """Comparisons by shape for the segments that have one, by size for the others, and with the segment before."""
    has_shape = np.zeros(len(segments), bool)
    for rigid in rigid_objects:
        has_shape[rigid.segments] = True
    kept = ~(has_shape[sizes.a] & has_shape[sizes.b])
    rows = [np.stack([sizes.a, sizes.b, sizes.change, np.maximum(sizes.sigma, options.size_sigma)], 1)[kept]]
    for object_id in np.unique(segments.object_id):
        numbers = np.flatnonzero(segments.object_id == object_id)
        steps = np.maximum(np.diff(segments.frame[numbers]), 1)
        rows.append(np.stack([numbers[:-1], numbers[1:], np.zeros(len(steps)), options.motion_sigma * steps], 1))
    for rigid in rigid_objects:
        start, rest = np.full(len(rigid.segments) - 1, rigid.segments[0]), rigid.segments[1:]
        sigma = np.full(len(rest), options.shape_sigma)
        rows.append(np.stack([start, rest, rigid.foot[1:] - rigid.foot[0], sigma], 1))
    a, b, change, sigma = np.concatenate(rows).T
    return Comparisons(a.astype(np.int64), b.astype(np.int64), change, sigma)


def _solve(
    first: Float[np.ndarray, "n"],
    ground: Float[np.ndarray, "n"],
    ground_sigma: Float[np.ndarray, "n"],
    compared: Comparisons,
    options: MovingDepthOptions,
) -> Float[np.ndarray, "n"]:
    """Log depths of all segments, by reweighted least squares."""
    seen = np.isfinite(ground)
    target, sigma = np.where(seen, ground, first), np.where(seen, ground_sigma, options.prior_sigma)
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
        # nearer than the ground is no contradiction, as objects fly and leap; behind it is one
        above = np.maximum(target - u, 0) / (options.nearer_sigmas * sigma)
        pull = 1 / (sigma**2 * (1 + above**2))
        error = (incidence @ u - compared.change) / np.maximum(compared.sigma, options.size_tolerance)
        weight = 1 / (compared.sigma**2 * (1 + error**2))
        normal = incidence.T @ incidence.multiply(weight[:, None]) + identity(count).multiply(pull)
        u = spsolve(normal.tocsc(), incidence.T @ (weight * compared.change) + pull * target)
    return np.atleast_1d(u)


def _occlusion_shift(
    segments: Segments, z: np.ndarray, log_depth: Float[np.ndarray, "n"], in_front: float
) -> Float[np.ndarray, "n"]:
    """One change for all segments of an object, which puts it in front of what it hides; never > 0."""
    excess = np.array([log_depth[n] - _occluded_depth(segments, z, n, in_front) for n in range(len(log_depth))])
    change = np.zeros(len(log_depth))
    for object_id in np.unique(segments.object_id):
        known = excess[(segments.object_id == object_id) & np.isfinite(excess)]
        if len(known):
            change[segments.object_id == object_id] = min(0.0, -np.quantile(known, 0.9))
    return change


def _occluded_depth(segments: Segments, z: np.ndarray, number: int, in_front: float) -> float:
    """Log of the depth that an object's upper half hides, less a margin; nan where nothing static surrounds it."""
    labels = segments.labels[segments.frame[number]]
    region = labels == number
    rows = np.flatnonzero(region.any(1))
    reach = max(2, max(region.shape) // 100)
    ring = ndimage.binary_dilation(region, iterations=reach) & (labels < 0)
    ring[(rows[0] + rows[-1]) // 2 :] = False
    around = z[segments.frame[number]][ring]
    return float(np.log(in_front * np.median(around))) if len(around) else np.nan


def _fill(depth: np.ndarray, segments: Segments, rigid: _RigidObject, xy: np.ndarray, offset: float) -> None:
    """Writes the depth of a rigid object's points to its segments: interpolated, beyond them that of the nearest."""
    shape = rigid.shape
    for n in rigid.segments.tolist():
        t, here = segments.frame[n], _points_of(shape, segments, n)
        positions, values = xy[shape.track[here], t], shape.log_z[here]
        # the median of neighbours: a point that slides along an edge is no spike
        values = np.median(values[KDTree(positions).query(positions, k=min(5, len(positions)))[1]], 1)
        region = segments.region(n)
        pixels = np.argwhere(region)[:, ::-1] + 0.5
        # joggled (QJ), as points may lie on one line
        found = LinearNDInterpolator(Delaunay(positions, qhull_options="QJ"), values)(pixels)
        outside = ~np.isfinite(found)
        found[outside] = NearestNDInterpolator(positions, values)(pixels[outside])
        depth[t][region] = np.exp(found + offset)
