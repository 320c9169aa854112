"""Shape and motion of one rigid thing, by structure from motion on the tracks that are on it.

To a rigid thing the camera moves like to a small world of its own, so what finds the cameras of a scene finds both
(Ozden, Schindler and Van Gool, "Multibody structure-from-motion in practice", 2010). One factor stays open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from som.preprocessing.cameras.bundle_adjustment import Scene, adjust, camera_coordinates, residuals
from som.preprocessing.cameras.geometry import interpolate_poses
from som.preprocessing.cameras.growing import build_scene, refine_scene, triangulated_scene
from som.preprocessing.cameras.observations import Observations
from som.preprocessing.moving.sightings import Sightings

MIN_FRAMES = 6
MIN_POINTS = 60
"""Tracks on a thing, each seen in three frames or more, below which its shape is not tried."""
PER_FRAME = 16
"""Tracks that a frame must show, to take part."""
POINTS_PER_FRAME = 50
"""Tracks used of those that begin in one frame; the others are triangulated afterwards."""
MAX_FRAMES = 40
"""Frames from which the motion is found; those between are added afterwards."""
SCALES = (1.0, 0.4)
"""Of the robust loss in pixels, from tolerant to strict."""
RESIDUAL = 0.8
"""Median reprojection error in pixels above which a thing is not rigid."""
LEFT_BEHIND = 0.6
"""Share of the usual one: a frame in which fewer points fit has a wrong pose."""
INLIER = 1.0
"""Reprojection error in pixels below which a sighting of a point counts."""
MIN_SIGHTINGS = 4
"""A further track must be seen so often to tell whether it follows a thing; three views are met by many a depth."""
FOLLOWS = 0.7
"""and this share of its sightings must fit."""
BULGE = 1.0
"""Relief to start from: how much nearer the middle of a thing is than its outline, in standard deviations of the places
of its points."""
ALMOST_EQUAL = 2.0
"""Costs within this factor of each other cannot tell a thing from its reversal in depth."""
REPEATABLE = 0.15
"""Median difference of log depth from two halves of the tracks, as a share of the thing's extent over its distance,
above which its shape is not known."""
FLOOR = 0.003
"""The same difference below which it is known anyway: what is flat has no extent in depth to be a share of."""


@dataclass(frozen=True)
class Shape:
    """A rigid thing at all M sightings of its points, up to one factor of depth."""

    track: Int[np.ndarray, "m"]
    frame: Int[np.ndarray, "m"]
    log_z: Float[np.ndarray, "m"]
    times: Int[np.ndarray, "c"]
    """Frames in which its pose is known."""
    w2c: Float[np.ndarray, "c 4 4"]
    """From the thing to the camera in these frames."""
    focal: float
    """Pixels, of the camera that stands for those of all frames."""
    extent: float
    """Standard deviation of the places of its points across the line of sight, over their distance."""


@dataclass(frozen=True)
class _Problem:
    """The tracks on a thing as observations of a camera with focal length ``focal`` and principal point 0."""

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
    sightings: Sightings,
    thing: int,
    xy: Float[np.ndarray, "q t 2"],
    K: Float[np.ndarray, "t 3 3"],
) -> Shape | None:
    """Depth of the points of a thing wherever they are seen, or None if the thing is not rigid or does not turn enough.

    Two halves of the tracks are solved apart. They agree where the tracks determine the shape; where the thing deforms,
    or moves such that every shape explains it, they do not. Of a solution and its reversal in depth that fit alike, the
    one whose middle is nearer than its outline is chosen: things bulge.

    Args:
        sightings: as ``find_sightings`` found them on the same tracks.
        thing: its number.
        xy: tracked points in pixels of the masks.
        K: intrinsics of every frame, in the same pixels.
    """
    problem = _observations(sightings, thing, xy, K)
    if problem is None:
        return None
    halves = [_motion(problem.select(problem.seen.point % 2 == half)) for half in (0, 1)]
    if any(half is None for half in halves):
        return None
    a, b = (_points(problem, w2c) for w2c in halves)
    error, (za, zb) = _errors(problem, a), (_log_depth(problem, scene) for scene in (a, b))
    usable = (error < INLIER) & np.isfinite(za) & np.isfinite(zb)
    if usable.mean() < 0.5 or np.median(error) > RESIDUAL:
        return None
    difference = (za - zb)[usable]
    spread = float(np.median(np.abs(difference - np.median(difference))))
    if spread > max(REPEATABLE * _extent(problem), FLOOR):
        return None
    final = refine_scene(a, problem.seen, np.zeros(2), scales=SCALES[1:], prior=None).scene
    log_z = _log_depth(problem, final)
    kept = (_errors(problem, final) < INLIER) & np.isfinite(log_z)
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
    shape: Shape, on: Bool[np.ndarray, "q t"], xy: Float[np.ndarray, "q t 2"], K: Float[np.ndarray, "t 3 3"]
) -> Float[np.ndarray, "q"]:
    """How badly further tracks follow the motion of a rigid thing: mean reprojection error in pixels.

    Args:
        shape: of the thing.
        on: sightings of the tracks in question.
        xy, K: as for ``find_shape``.

    Returns:
        inf for tracks that do not follow it, are not where it is in depth, or are not seen often enough to tell.
    """
    result = np.full(len(on), np.inf)
    tracks = np.flatnonzero(on[:, shape.times].sum(1) >= MIN_SIGHTINGS)
    if not len(tracks):
        return result
    point, camera = np.nonzero(on[tracks][:, shape.times])
    frame = shape.times[camera]
    places = _normalized(xy[tracks[point], frame], K[frame], shape.focal)
    seen = Observations(camera, point, places, on[tracks][:, shape.times].argmax(1))
    problem = _Problem(seen, tracks, shape.times, shape.focal, np.zeros(len(point)))
    scene = _points(problem, shape.w2c)
    low, high = np.full(len(shape.times), np.inf), np.full(len(shape.times), -np.inf)
    at = np.searchsorted(shape.times, shape.frame)
    np.minimum.at(low, at, shape.log_z)
    np.maximum.at(high, at, shape.log_z)
    log_z, error = _log_depth(problem, scene), _errors(problem, scene)
    fits = (error < INLIER) & (log_z > low[camera] - shape.extent) & (log_z < high[camera] + shape.extent)
    number = np.bincount(point, minlength=len(tracks))
    follows = np.bincount(point, fits, len(tracks)) >= FOLLOWS * number
    result[tracks[follows]] = (np.bincount(point, np.minimum(error, INLIER), len(tracks)) / number)[follows]
    return result


def _observations(sightings: Sightings, thing: int, xy: np.ndarray, K: np.ndarray) -> _Problem | None:
    numbers = np.flatnonzero(sightings.thing == thing)
    on = np.isin(sightings.of_track, numbers)
    on[:, on.sum(0) < PER_FRAME] = False
    tracks = np.flatnonzero(on.sum(1) >= 3)
    on = on[tracks]
    times = np.flatnonzero(on.any(0))
    if len(tracks) < MIN_POINTS or len(times) < MIN_FRAMES:
        return None
    point, camera = np.nonzero(on[:, times])
    frame = times[camera]
    focal = float(K[:, [0, 1], [0, 1]].mean())
    inside = np.zeros(len(point))
    for number in numbers:
        t = sightings.frame[number]
        distance = ndimage.distance_transform_edt(sightings.region(number))
        here = frame == t
        column, row = np.floor(xy[tracks[point[here]], t]).astype(int).T
        inside[here] = np.maximum(inside[here], distance[row, column] / max(distance.max(), 1.0))
    seen = Observations(camera, point, _normalized(xy[tracks[point], frame], K[frame], focal), on[:, times].argmax(1))
    return _Problem(seen, tracks, times, focal, inside)


def _normalized(xy: np.ndarray, K: np.ndarray, focal: float) -> Float[np.ndarray, "m 2"]:
    """Pixels of a camera with one focal length and principal point 0."""
    return (xy - K[:, :2, 2]) * focal / K[:, [0, 1], [0, 1]]


def _motion(problem: _Problem) -> Float[np.ndarray, "c 4 4"] | None:
    """Pose of the thing in every frame, from some of the tracks; None where too few of them are left, or where it comes
    out hollow."""
    step = -(-problem.num_frames // MAX_FRAMES)
    keyed = problem.seen.frame % step == 0
    keyed &= np.bincount(problem.seen.point[keyed], minlength=problem.seen.num_points)[problem.seen.point] >= 3
    if not keyed.any():
        return None
    keys = problem.select(keyed).every(step).thinned(POINTS_PER_FRAME)
    seen, center = keys.seen, np.zeros(2)
    count = keys.num_frames
    if seen.num_points < MIN_POINTS // 2 or (np.bincount(seen.frame, minlength=count) < PER_FRAME // 4).any():
        return None
    begins = seen.frame == seen.query_frame[seen.point]
    nearness = np.ones(seen.num_points)
    nearness[seen.point[begins]] += BULGE * _extent(keys) * (2 * keys.inside[begins] - 1)
    scene = build_scene(seen, count, center, keys.focal, scale=SCALES[0], nearness=nearness)
    solved = refine_scene(scene, seen, center, scales=SCALES, prior=None)
    turned = refine_scene(turned_inside_out(solved.scene), seen, center, scales=SCALES, prior=None)
    lowest = min(solved.cost, turned.cost)
    possible = [solution.scene for solution in (solved, turned) if solution.cost <= ALMOST_EQUAL * lowest]
    best = max(possible, key=lambda scene: _bulge(keys, scene))
    return _at_all_frames(problem, best.w2c(), _settled(keys, best), step) if _bulge(keys, best) > 0 else None


def turned_inside_out(scene: Scene) -> Scene:
    """The same thing with near and far exchanged, turning the other way, which under weak perspective looks alike.

    About the middle of its points c, in the axes of the first camera: X' = c + D (X - c), R' = D R D with
    D = diag(1, 1, -1), while c stays where it is in every camera (the Necker reversal; Koenderink and van Doorn,
    "Affine structure from motion", 1991).
    """
    D = np.diag([1.0, 1.0, -1.0])
    places = scene.X[:, :3] / np.where(np.abs(scene.X[:, 3:]) > 1e-9, scene.X[:, 3:], 1e-9)
    places = places @ scene.R[0].T + scene.t[0]
    R = scene.R @ scene.R[0].T
    t = scene.t - R @ scene.t[0]
    c = np.median(places, 0)
    turned = D @ R @ D
    X = np.concatenate([c + (places - c) @ D, np.ones((len(places), 1))], 1)
    return replace(scene, R=turned, t=R @ c + t - turned @ c, X=X / np.linalg.norm(X, axis=1, keepdims=True))


def _settled(problem: _Problem, scene: Scene) -> Bool[np.ndarray, "c"]:
    """Frames whose pose explains as much as usual; the first one, to which all others refer, may be left behind."""
    count = np.bincount(problem.seen.frame, minlength=problem.num_frames)
    share = np.bincount(problem.seen.frame, _errors(problem, scene) < INLIER, problem.num_frames) / np.maximum(count, 1)
    return share >= LEFT_BEHIND * np.median(share)


def _at_all_frames(
    problem: _Problem, keys: Float[np.ndarray, "k 4 4"], settled: Bool[np.ndarray, "k"], step: int
) -> Float[np.ndarray, "c 4 4"]:
    """Poses of all frames from those of every so many; the others, and those that are not settled, begin between."""
    known = np.zeros(problem.num_frames, bool)
    known[::step] = settled
    w2c = np.broadcast_to(np.eye(4), (problem.num_frames, 4, 4)).copy()
    w2c[::step] = keys
    if known.all():
        return w2c
    w2c = interpolate_poses(w2c, known)
    seen = problem.seen.thinned(POINTS_PER_FRAME)
    start, held = triangulated_scene(seen, w2c, problem.focal, np.zeros(2)), int(np.flatnonzero(known)[0])
    return adjust(start, seen, np.zeros(2), scale=SCALES[0], iterations=15, fixed=(held,)).scene.w2c()


def _points(problem: _Problem, w2c: Float[np.ndarray, "c 4 4"]) -> Scene:
    """All points of the thing in the unit of its poses in all frames, which are held."""
    scene = triangulated_scene(problem.seen, w2c, problem.focal, np.zeros(2))
    held = tuple(range(problem.num_frames))
    return adjust(scene, problem.seen, np.zeros(2), scale=SCALES[1], iterations=10, fixed=held).scene


def _errors(problem: _Problem, scene: Scene) -> Float[np.ndarray, "m"]:
    return np.sqrt(residuals(scene, problem.seen, np.zeros(2))[1])


def _log_depth(problem: _Problem, scene: Scene) -> Float[np.ndarray, "m"]:
    """nan for points that are not in front of the camera."""
    z, w = camera_coordinates(scene, problem.seen)[:, 2], scene.X[problem.seen.point, 3]
    front = (z > 0) & (w > 1e-9)
    return np.log(np.where(front, z / np.where(front, w, 1.0), np.nan))


def _extent(problem: _Problem) -> float:
    """Median over the frames of the standard deviation of the points' places, in units of their distance."""
    frame, count = problem.seen.frame, np.bincount(problem.seen.frame, minlength=problem.num_frames)
    variance = np.zeros(problem.num_frames)
    for xy in problem.seen.xy.T:
        mean = np.bincount(frame, xy, problem.num_frames) / np.maximum(count, 1)
        variance += np.bincount(frame, (xy - mean[frame]) ** 2, problem.num_frames) / np.maximum(count, 1) / 2
    return float(np.sqrt(np.median(variance[count > 0])) / problem.focal)


def _bulge(problem: _Problem, scene: Scene) -> float:
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
