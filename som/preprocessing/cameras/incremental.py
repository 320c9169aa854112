"""Cameras from tracks alone: a chain of rotations, then bundle adjustment that proceeds along the video.

A window of the last frames is adjusted against those before it, and everything so far whenever that has become half as
long again, so that the time grows with the number of frames and not with its square. Early on the scene reversed in
depth is tried too. The focal length is held until all frames are in: freed earlier, it runs away while there is little
parallax.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from som.cameras.geometry import triangulate
from som.preprocessing.cameras.bundle_adjustment import FocalPrior, Scene, Solution, adjust, normalized
from som.preprocessing.cameras.observations import Observations
from som.preprocessing.cameras.options import IncrementalOptions
from som.preprocessing.cameras.reversal import reversed_scene

DEFAULT = IncrementalOptions()


def build_scene(
    seen: Observations,
    num_frames: int,
    center: Float[np.ndarray, "2"],
    focal: float,
    *,
    scale: float,
    nearness: Float[np.ndarray, "p"] | None = None,
    options: IncrementalOptions = DEFAULT,
    progress: Callable[[float], None] | None = None,
) -> Scene:
    """Cameras and points at a held focal length, from nothing else.

    Args:
        seen: observations in pixels, sorted by point.
        center: principal point (x, y).
        focal: pixels.
        scale: of the robust loss, pixels.
        nearness: inverse depth of each point where its track begins, over the median of what is there; all are taken to
            be 1 where this is None.
        options: numbers of frames and points.
        progress: called with the share of the frames that are in.

    Returns:
        cameras of all frames (those that nothing links to their predecessor are turned like it), and all points.
    """
    chain = chain_rotations(seen, num_frames, center, focal, scale, min_common=options.min_common_points)
    R = chain.copy()
    t = np.zeros((num_frames, 3))
    X = np.zeros((seen.num_points, 4))
    known = np.zeros(seen.num_points, bool)
    scene = Scene(R, t, X, focal)
    end, adjusted = min(options.initial_frames, num_frames), 0
    while True:
        _place_new_points(seen, R, t, X, known, center, focal, end, nearness, options)
        if end <= options.window_frames or end >= options.full_growth * adjusted:
            _adjust_frames(scene, seen, known, 0, end, center, scale, options)
            adjusted = end
        else:
            _adjust_frames(scene, seen, known, end - options.window_frames, end, center, scale, options)
        if progress is not None:
            progress(end / num_frames)
        if end == num_frames:
            return scene
        new_end = min(end + options.frames_per_step, num_frames)
        R[end:new_end] = chain[end:new_end] @ chain[end - 1].T @ R[end - 1]
        velocity = _velocity(R, t, end)
        last = -R[end - 1].T @ t[end - 1]
        for i in range(end, new_end):
            t[i] = -R[i] @ (last + (i - end + 1) * velocity)
        end = new_end


def refine_scene(
    scene: Scene,
    seen: Observations,
    center: Float[np.ndarray, "2"],
    *,
    scales: tuple[float, ...],
    prior: FocalPrior | None,
) -> Solution:
    """Adjusts everything, the focal length too where it has a prior, and normalises the world's scale.

    Args:
        scales: of the robust loss in pixels, from tolerant to strict: a strict loss alone has too many local minima, a
            tolerant one lets a tenth of poor tracks shift the focal length by several percent.
    """
    for scale in scales:
        tolerance = 1e-4 if scale == scales[-1] else 1e-3
        solution = adjust(scene, seen, center, scale=scale, prior=prior, iterations=40, tolerance=tolerance)
        scene = normalized(solution.scene, seen)
    return replace(solution, scene=scene)


def triangulated_scene(
    seen: Observations, w2c: Float[np.ndarray, "c 4 4"], focal: float, center: Float[np.ndarray, "2"]
) -> Scene:
    """All points for known cameras, whose unit is kept."""
    rays = np.concatenate([(seen.xy - center) / focal, np.ones((len(seen.xy), 1))], 1)
    X = triangulate(rays, w2c[seen.frame], seen.point, seen.num_points)
    return Scene(w2c[:, :3, :3], w2c[:, :3, 3], X, focal)


def chain_rotations(
    seen: Observations,
    num_frames: int,
    center: Float[np.ndarray, "2"],
    focal: float,
    scale: float,
    *,
    min_common: int = DEFAULT.min_common_points,
) -> Float[np.ndarray, "t 3 3"]:
    """Orientation of every frame (the first: identity) as if the camera only turned.

    Between two frames of fewer than ``min_common`` common points it is taken not to turn.
    """
    index = np.full((num_frames, seen.num_points), -1)
    index[seen.frame, seen.point] = np.arange(len(seen.frame))
    rays = np.concatenate([(seen.xy - center) / focal, np.ones((len(seen.xy), 1))], 1)
    R = [np.eye(3)]
    for a, b in itertools.pairwise(index):
        common = (a >= 0) & (b >= 0)
        turn = _rotation(rays[a[common]], rays[b[common]], scale / focal) if common.sum() >= min_common else np.eye(3)
        R.append(turn @ R[-1])
    return np.stack(R)


def _rotation(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], scale: float) -> np.ndarray:
    """The rotation that turns rays to rays, by Wahba's problem with Cauchy weights; ``scale`` in radians."""
    source, target = (rays / np.linalg.norm(rays, axis=1, keepdims=True) for rays in (source, target))
    weight, R = np.ones(len(source)), np.eye(3)
    for _ in range(10):
        U, _, Vt = np.linalg.svd(np.einsum("n,ni,nj->ij", weight, target, source))
        R = U @ np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))]) @ Vt
        error = np.linalg.norm(target - source @ R.T, axis=1)
        weight = 1 / (1 + (error / max(scale, 1.5 * np.median(error))) ** 2)
    return R


def _adjust_frames(
    scene: Scene,
    seen: Observations,
    known: np.ndarray,
    start: int,
    end: int,
    center: np.ndarray,
    scale: float,
    options: IncrementalOptions,
) -> None:
    """Adjusts, in place, the cameras in [start, end) and the known points by what is seen there.

    A window that begins after the first frame holds its first cameras fixed; else the world's scale is set anew.
    """
    inside = (seen.frame >= start) & (seen.frame < end) & known[seen.point]
    times_seen = np.bincount(seen.point[inside], minlength=seen.num_points)
    window, points = seen.select(inside & (times_seen >= options.min_observations)[seen.point])
    window = replace(window, frame=window.frame - start)
    part = Scene(scene.R[start:end], scene.t[start:end], scene.X[points], scene.focal)
    fixed = tuple(range(options.fixed_frames)) if start else (0,)
    limit = options.max_iterations
    solution = adjust(part, window, center, scale=scale, iterations=limit, fixed=fixed)
    if start == 0 and end <= options.max_reversal_frames:
        turned = adjust(reversed_scene(solution.scene, window), window, center, scale=scale, iterations=limit)
        solution = min(solution, turned, key=lambda s: s.cost)
    part = solution.scene if start else normalized(solution.scene, window)
    scene.R[start:end], scene.t[start:end], scene.X[points] = part.R, part.t, part.X


def _place_new_points(
    seen: Observations,
    R: np.ndarray,
    t: np.ndarray,
    X: np.ndarray,
    known: np.ndarray,
    center: np.ndarray,
    focal: float,
    end: int,
    nearness: np.ndarray | None,
    options: IncrementalOptions,
) -> None:
    """Sets points queried before ``end`` on the ray of their query, at the median depth of what is known there, divided
    by their ``nearness`` where that is given."""
    at_query = seen.frame == seen.query_frame[seen.point]
    times_seen = np.bincount(seen.point[seen.frame < end], minlength=len(X))
    for frame in np.unique(seen.query_frame[seen.query_frame < end]):
        here = seen.frame == frame
        new = here & at_query & ~known[seen.point] & (times_seen[seen.point] >= options.min_observations)
        if not new.any():
            continue
        old = X[seen.point[here & known[seen.point]]]
        depth_times_w = old[:, :3] @ R[frame, 2] + old[:, 3] * t[frame, 2]
        w = np.median(old[:, 3] / np.maximum(depth_times_w, 1e-9)) if len(old) > options.min_common_points else 1.0
        rays = np.concatenate([(seen.xy[new] - center) / focal, np.ones((new.sum(), 1))], 1)
        w = w * (np.ones(len(rays)) if nearness is None else nearness[seen.point[new]])[:, None]
        points = np.concatenate([(rays - w * t[frame]) @ R[frame], w], 1)
        X[seen.point[new]] = points / np.linalg.norm(points, axis=1, keepdims=True)
        known[seen.point[new]] = True


def _velocity(R: np.ndarray, t: np.ndarray, end: int) -> np.ndarray:
    """Mean motion of the centre per frame over the last frames before ``end``."""
    span = min(3, end - 1)
    first, last = (-R[i].T @ t[i] for i in (end - 1 - span, end - 1))
    return (last - first) / max(span, 1)
