"""Shape and motion of one rigid object, by structure from motion on the tracks that are on it.

To a rigid object the camera moves like to a small world of its own, so what finds the cameras of a scene finds both
(Ozden, Schindler and Van Gool, "Multibody structure-from-motion in practice", 2010). One factor stays open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from som.cameras.geometry import interpolate_poses
from som.preprocessing.cameras.bundle_adjustment import Scene, adjust, camera_coordinates, residuals
from som.preprocessing.cameras.incremental import build_scene, refine_scene, triangulated_scene
from som.preprocessing.cameras.observations import Observations
from som.preprocessing.moving.options import ShapeOptions
from som.preprocessing.moving.segments import Segments

DEFAULT = ShapeOptions()


@dataclass(frozen=True)
class Shape:
    """A rigid object by the depth of its points in all M observations of them, up to one common factor."""

    track: Int[np.ndarray, "m"]
    frame: Int[np.ndarray, "m"]
    log_z: Float[np.ndarray, "m"]
    times: Int[np.ndarray, "c"]
    """Frames in which its pose is known."""
    w2c: Float[np.ndarray, "c 4 4"]
    """From the object's coordinates to the camera's in these frames."""
    focal: float
    """Pixels; focal length of the one camera that repositions those of all frames."""
    extent: float
    """Standard deviation of the positions of its points across the line of sight, over their distance."""


@dataclass(frozen=True)
class _Problem:
    """The tracks on an object as observations of a camera with focal length ``focal`` and principal point 0."""

    seen: Observations
    tracks: Int[np.ndarray, "p"]
    times: Int[np.ndarray, "c"]
    """Frame of the clip of each camera."""
    focal: float
    inside: Float[np.ndarray, "m"]
    """Distance of each observation to the outline, as a share of the largest in its frame."""

    @property
    def num_frames(self) -> int:
        return len(self.times)

    def every(self, step: int) -> _Problem:
        """Of observations of every so many frames only, with these numbered anew."""
        seen = self.seen
        first = np.full(seen.num_points, seen.frame.max(initial=0))
        np.minimum.at(first, seen.point, seen.frame)
        kept = Observations(seen.frame // step, seen.point, seen.xy, first // step)
        return replace(self, seen=kept, times=self.times[::step])

    def thinned(self, per_frame: int) -> _Problem:
        """Some of the points of each first frame."""
        chosen = np.zeros(self.seen.num_points, bool)
        for frame in np.unique(self.seen.query_frame):
            here = np.flatnonzero(self.seen.query_frame == frame)
            chosen[here[np.linspace(0, len(here) - 1, min(len(here), per_frame)).round().astype(int)]] = True
        return self.select(chosen[self.seen.point])

    def select(self, keep: Bool[np.ndarray, "m"]) -> _Problem:
        seen, points = self.seen.select(keep)
        return _Problem(seen, self.tracks[points], self.times, self.focal, self.inside[keep])


def find_shape(
    segments: Segments,
    object_id: int,
    xy: Float[np.ndarray, "q t 2"],
    K: Float[np.ndarray, "t 3 3"],
    options: ShapeOptions = DEFAULT,
) -> Shape | None:
    """Depth of the points of an object in all observations; None if it is not rigid or does not turn enough.

    Two halves of the tracks are solved separately. They agree where the tracks determine the shape; where the object
    deforms, or moves such that every shape explains it, they do not. Of a solution and its Necker reversal that fit
    equally well, the one whose middle is nearer than its outline is chosen: most objects are convex.

    Args:
        segments: as ``find_segments`` found them on the same tracks.
        object_id: its number.
        xy: tracked points in pixels of the masks.
        K: intrinsics of every frame, in the same pixels.
    """
    problem = _observations(segments, object_id, xy, K, options)
    if problem is None:
        return None
    halves = [_motion(problem.select(problem.seen.point % 2 == half), options) for half in (0, 1)]
    scenes = [_points(problem, w2c, options) for w2c in halves if w2c is not None]
    if len(scenes) < 2:
        return None
    a, b = scenes
    error, (za, zb) = _errors(problem, a), (_log_depth(problem, scene) for scene in (a, b))
    usable = (error < options.inlier_error) & np.isfinite(za) & np.isfinite(zb)
    if usable.mean() < 0.5 or np.median(error) > options.max_median_error:
        return None
    difference = (za - zb)[usable]
    spread = float(np.median(np.abs(difference - np.median(difference))))
    if spread > max(options.max_disagreement * _extent(problem), options.always_agreeing):
        return None
    final = refine_scene(a, problem.seen, np.zeros(2), scales=options.loss_scales[1:], prior=None).scene
    log_z = _log_depth(problem, final)
    kept = (_errors(problem, final) < options.inlier_error) & np.isfinite(log_z)
    seen = problem.seen
    return Shape(
        track=problem.tracks[seen.point[kept]],
        frame=problem.times[seen.frame[kept]],
        log_z=log_z[kept],
        times=problem.times,
        w2c=final.w2c(),
        focal=final.focal,
        extent=_extent(problem),
    )


def misfits(
    shape: Shape,
    on: Bool[np.ndarray, "q t"],
    xy: Float[np.ndarray, "q t 2"],
    K: Float[np.ndarray, "t 3 3"],
    options: ShapeOptions = DEFAULT,
) -> Float[np.ndarray, "q"]:
    """How badly further tracks follow the motion of a rigid object_id: mean reprojection error in pixels.

    Args:
        shape: of the object.
        on: observations of the tracks in question.
        xy, K: as for ``find_shape``.

    Returns:
        inf for tracks that do not follow it, are not where it is in depth, or have too few observations.
    """
    result = np.full(len(on), np.inf)
    tracks = np.flatnonzero(on[:, shape.times].sum(1) >= options.min_observations)
    if not len(tracks):
        return result
    point, camera = np.nonzero(on[tracks][:, shape.times])
    frame = shape.times[camera]
    positions = _normalized(xy[tracks[point], frame], K[frame], shape.focal)
    seen = Observations(camera, point, positions, on[tracks][:, shape.times].argmax(1))
    problem = _Problem(seen, tracks, shape.times, shape.focal, np.zeros(len(point)))
    scene = _points(problem, shape.w2c, options)
    low, high = np.full(len(shape.times), np.inf), np.full(len(shape.times), -np.inf)
    at = np.searchsorted(shape.times, shape.frame)
    np.minimum.at(low, at, shape.log_z)
    np.maximum.at(high, at, shape.log_z)
    log_z, error = _log_depth(problem, scene), _errors(problem, scene)
    fits = (error < options.inlier_error) & (log_z > low[camera] - shape.extent) & (log_z < high[camera] + shape.extent)
    number = np.bincount(point, minlength=len(tracks))
    follows = np.bincount(point, fits, len(tracks)) >= options.min_inlier_share * number
    clipped = np.minimum(error, options.inlier_error)
    result[tracks[follows]] = (np.bincount(point, clipped, len(tracks)) / number)[follows]
    return result


def _observations(
    segments: Segments, object_id: int, xy: np.ndarray, K: np.ndarray, options: ShapeOptions
) -> _Problem | None:
    numbers = np.flatnonzero(segments.object_id == object_id).tolist()
    on = np.isin(segments.of_track, numbers)
    on[:, on.sum(0) < options.min_tracks_per_frame] = False
    tracks = np.flatnonzero(on.sum(1) >= 3)
    on = on[tracks]
    times = np.flatnonzero(on.any(0))
    if len(tracks) < options.min_points or len(times) < options.min_frames:
        return None
    point, camera = np.nonzero(on[:, times])
    frame = times[camera]
    focal = float(K[:, [0, 1], [0, 1]].mean())
    inside = np.zeros(len(point))
    for number in numbers:
        t = segments.frame[number]
        distance = ndimage.distance_transform_edt(segments.region(number))
        here = frame == t
        column, row = np.floor(xy[tracks[point[here]], t]).astype(int).T
        inside[here] = np.maximum(inside[here], distance[row, column] / max(distance.max(), 1.0))
    seen = Observations(camera, point, _normalized(xy[tracks[point], frame], K[frame], focal), on[:, times].argmax(1))
    return _Problem(seen, tracks, times, focal, inside)


def _normalized(xy: np.ndarray, K: np.ndarray, focal: float) -> Float[np.ndarray, "m 2"]:
    """Pixels of a camera with one focal length and principal point 0."""
    return (xy - K[:, :2, 2]) * focal / K[:, [0, 1], [0, 1]]


def _motion(problem: _Problem, options: ShapeOptions) -> Float[np.ndarray, "c 4 4"] | None:
    """Pose of the object in every frame, from some of the tracks; None where too few of them are left, or where the
    shape comes out concave."""
    step = -(-problem.num_frames // options.max_frames)
    keyed = problem.seen.frame % step == 0
    keyed &= np.bincount(problem.seen.point[keyed], minlength=problem.seen.num_points)[problem.seen.point] >= 3
    if not keyed.any():
        return None
    keys = problem.select(keyed).every(step).thinned(options.points_per_frame)
    seen, center = keys.seen, np.zeros(2)
    count = keys.num_frames
    fewest = np.bincount(seen.frame, minlength=count).min()
    if seen.num_points < options.min_points // 2 or fewest < options.min_tracks_per_frame // 4:
        return None
    begins = seen.frame == seen.query_frame[seen.point]
    nearness = np.ones(seen.num_points)
    nearness[seen.point[begins]] += options.initial_bulge * _extent(keys) * (2 * keys.inside[begins] - 1)
    scene = build_scene(seen, count, center, keys.focal, scale=options.loss_scales[0], nearness=nearness)
    solved = refine_scene(scene, seen, center, scales=options.loss_scales, prior=None)
    turned = refine_scene(necker_reversal(solved.scene), seen, center, scales=options.loss_scales, prior=None)
    lowest = min(solved.cost, turned.cost)
    possible = [solution.scene for solution in (solved, turned) if solution.cost <= options.max_cost_ratio * lowest]
    best = max(possible, key=lambda scene: _convexity(keys, scene))
    if _convexity(keys, best) <= 0:
        return None
    return _at_all_frames(problem, best.w2c(), _well_posed(keys, best, options), step, options)


def necker_reversal(scene: Scene) -> Scene:
    """The same object with near and far exchanged, turning the other way, which under weak perspective looks alike.

    About the middle of its points c, in the axes of the first camera: X' = c + D (X - c), R' = D R D with
    D = diag(1, 1, -1), while c stays where it is in every camera (the Necker reversal; Koenderink and van Doorn,
    "Affine structure from motion", 1991).
    """
    D = np.diag([1.0, 1.0, -1.0])
    positions = scene.X[:, :3] / np.where(np.abs(scene.X[:, 3:]) > 1e-9, scene.X[:, 3:], 1e-9)
    positions = positions @ scene.R[0].T + scene.t[0]
    R = scene.R @ scene.R[0].T
    t = scene.t - R @ scene.t[0]
    c = np.median(positions, 0)
    turned = D @ R @ D
    X = np.concatenate([c + (positions - c) @ D, np.ones((len(positions), 1))], 1)
    return replace(scene, R=turned, t=R @ c + t - turned @ c, X=X / np.linalg.norm(X, axis=1, keepdims=True))


def _well_posed(problem: _Problem, scene: Scene, options: ShapeOptions) -> Bool[np.ndarray, "c"]:
    """Frames whose inlier share is as usual; the first one, to which all others refer, may have kept a wrong pose."""
    count = np.bincount(problem.seen.frame, minlength=problem.num_frames)
    inliers = np.bincount(problem.seen.frame, _errors(problem, scene) < options.inlier_error, problem.num_frames)
    share = inliers / np.maximum(count, 1)
    return share >= options.min_inlier_ratio * np.median(share)


def _at_all_frames(
    problem: _Problem,
    keys: Float[np.ndarray, "k 4 4"],
    well_posed: Bool[np.ndarray, "k"],
    step: int,
    options: ShapeOptions,
) -> Float[np.ndarray, "c 4 4"]:
    """Poses of all frames from those of every ``step``-th; the others, and wrong ones, start interpolated."""
    known = np.zeros(problem.num_frames, bool)
    known[::step] = well_posed
    w2c = np.broadcast_to(np.eye(4), (problem.num_frames, 4, 4)).copy()
    w2c[::step] = keys
    if known.all():
        return w2c
    w2c = interpolate_poses(w2c, known)
    seen = problem.seen.thinned(options.points_per_frame)
    start, held = triangulated_scene(seen, w2c, problem.focal, np.zeros(2)), int(np.flatnonzero(known)[0])
    return adjust(start, seen, np.zeros(2), scale=options.loss_scales[0], iterations=15, fixed=(held,)).scene.w2c()


def _points(problem: _Problem, w2c: Float[np.ndarray, "c 4 4"], options: ShapeOptions) -> Scene:
    """All points of the object in the unit of its poses in all frames, which are held."""
    scene = triangulated_scene(problem.seen, w2c, problem.focal, np.zeros(2))
    held = tuple(range(problem.num_frames))
    return adjust(scene, problem.seen, np.zeros(2), scale=options.loss_scales[1], iterations=10, fixed=held).scene


def _errors(problem: _Problem, scene: Scene) -> Float[np.ndarray, "m"]:
    return np.sqrt(residuals(scene, problem.seen, np.zeros(2))[1])


def _log_depth(problem: _Problem, scene: Scene) -> Float[np.ndarray, "m"]:
    """nan for points that are not in front of the camera."""
    z, w = camera_coordinates(scene, problem.seen)[:, 2], scene.X[problem.seen.point, 3]
    front = (z > 0) & (w > 1e-9)
    return np.log(np.where(front, z / np.where(front, w, 1.0), np.nan))


def _extent(problem: _Problem) -> float:
    """Median over the frames of the standard deviation of the positions of the points, in units of their distance."""
    frame, count = problem.seen.frame, np.bincount(problem.seen.frame, minlength=problem.num_frames)
    variance = np.zeros(problem.num_frames)
    for xy in problem.seen.xy.T:
        mean = np.bincount(frame, xy, problem.num_frames) / np.maximum(count, 1)
        variance += np.bincount(frame, (xy - mean[frame]) ** 2, problem.num_frames) / np.maximum(count, 1) / 2
    return float(np.sqrt(np.median(variance[count > 0])) / problem.focal)


def _convexity(problem: _Problem, scene: Scene) -> float:
    """Correlation in [-1, 1] of nearness within a frame with distance to the outline."""
    log_z, frame, count = _log_depth(problem, scene), problem.seen.frame, problem.num_frames
    ok = np.isfinite(log_z)
    if not ok.any():
        return -1.0

    def centered(values: np.ndarray) -> np.ndarray:
        mean = np.bincount(frame[ok], values[ok], count) / np.maximum(np.bincount(frame[ok], minlength=count), 1)
        return values[ok] - mean[frame[ok]]

    near, inside = centered(-log_z), centered(problem.inside)
    near = np.clip(near, *np.quantile(near, (0.02, 0.98)))
    scale = near.std() * inside.std()
    return float((near * inside).mean() / scale) if scale > 0 else 0.0
