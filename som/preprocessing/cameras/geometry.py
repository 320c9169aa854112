"""Triangulation, parallax and interpolation of camera poses, in numpy and double precision."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation, Slerp


def triangulate(
    rays: Float[np.ndarray, "m 3"],
    w2c: Float[np.ndarray, "m 4 4"],
    point: Int[np.ndarray, "m"],
    num_points: int,
) -> Float[np.ndarray, "p 4"]:
    """Homogeneous points of norm 1 that are nearest to their rays in the least-squares sense (DLT).

    Each ray d of a camera [R | t] gives d × (R x[:3] + x[3] t) = 0 (Hartley and Zisserman 2003, section 12.2). Signs
    are such that most of the cameras have the point in front of them.

    Args:
        rays: directions of the observations in camera axes.
        w2c: camera of each observation.
        point: which point each observes.
    """
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    P = w2c[:, :3]
    equations = np.cross(rays[:, :, None], P, axisa=1, axisb=1, axisc=1)
    normal = np.zeros((num_points, 4, 4))
    np.add.at(normal, point, np.einsum("mij,mik->mjk", equations, equations))
    X = np.linalg.eigh(normal)[1][:, :, 0]
    z = np.einsum("mj,mj->m", P[:, 2], X[point])
    votes = np.bincount(point, np.sign(z), minlength=num_points)
    return X * np.where(votes < 0, -1.0, 1.0)[:, None]


def max_parallax(
    points: Float[np.ndarray, "p 3"],
    centers: Float[np.ndarray, "t 3"],
    frame: Int[np.ndarray, "m"],
    point: Int[np.ndarray, "m"],
) -> Float[np.ndarray, "p"]:
    """About the widest angle in degrees at which each point is seen: twice over, the ray farthest from another one.

    From the first ray to the one farthest from it, from there to the farthest again: never more than the true widest
    angle, and at least half of it.
    """
    rays = points[point] - centers[frame]
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-30)
    first = np.full(len(points), -1)
    first[point[::-1]] = np.arange(len(point))[::-1]
    reference = np.where(first >= 0, first, 0)
    angle = np.zeros(len(points))
    for _ in range(2):
        # sin(a/2) from the chord, exact for small angles where arccos is not
        chord = np.linalg.norm(rays - rays[reference[point]], axis=1)
        order = np.lexsort((chord, point))
        last = np.flatnonzero(np.append(point[order][1:] != point[order][:-1], True)) if len(order) else order
        farthest = order[last]
        reference[point[farthest]] = farthest
        angle[point[farthest]] = np.degrees(2 * np.arcsin(np.clip(chord[farthest] / 2, 0, 1)))
    return angle


def interpolate_poses(w2c: Float[np.ndarray, "t 4 4"], known: Bool[np.ndarray, "t"]) -> Float[np.ndarray, "t 4 4"]:
    """Poses of all frames: between known ones the centre moves evenly along a line and the rotation turns evenly about
    one axis; before the first and after the last known frame the camera stands still.

    Raises:
        ValueError: no frame is known.
    """
    times = np.flatnonzero(known)
    if len(times) == 0:
        raise ValueError("interpolate_poses needs at least one known frame.")
    result = w2c.copy()
    wanted = np.clip(np.arange(len(w2c)), times[0], times[-1])
    R = np.repeat(w2c[times, :3, :3], len(w2c), 0)
    if len(times) > 1:
        R = Slerp(times, Rotation.from_matrix(w2c[times, :3, :3]))(wanted).as_matrix()
    centers = -np.einsum("tji,tj->ti", w2c[times, :3, :3], w2c[times, :3, 3])
    centers = np.stack([np.interp(wanted, times, centers[:, i]) for i in range(3)], 1)
    missing = ~known
    result[missing, :3, :3] = R[missing]
    result[missing, :3, 3] = -np.einsum("tij,tj->ti", R, centers)[missing]
    return result
