"""The objects that move, and the shapes of the rigid ones, also where they touch each other in the picture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from som.preprocessing.moving.options import MovingDepthOptions
from som.preprocessing.moving.segments import Segments, divide, find_segments
from som.preprocessing.moving.shape import Shape, find_shape, misfits

DEFAULT = MovingDepthOptions()


def find_objects(
    moving: Bool[np.ndarray, "t h w"],
    xy: Float[np.ndarray, "q t 2"],
    visible: Bool[np.ndarray, "q t"],
    K: Float[np.ndarray, "t 3 3"],
    options: MovingDepthOptions = DEFAULT,
) -> tuple[Segments, dict[int, Shape]]:
    """Segments of all objects, and the shapes of rigid ones by their numbers.

    Tracks of an object that is not rigid, but touches rigid ones, go to the one whose motion they follow best: they may
    begin while the two touch. Tracks that lie together on a rigid object and do not follow its motion are an object of
    their own.

    Args:
        moving: pixels of objects that move by themselves.
        xy: tracked points in pixels of the masks.
        visible: where they are seen.
        K: intrinsics of every frame, in the same pixels.
    """
    segments, shapes = find_segments(moving, xy, visible, options.segments), dict[int, Shape]()
    waiting = _by_tracks(segments)[: options.assignment.max_objects].tolist()
    for _ in range(options.assignment.rounds):
        solved = {object_id: find_shape(segments, object_id, xy, K, options.shape) for object_id in waiting}
        fresh = {object_id: shape for object_id, shape in solved.items() if shape is not None}
        shapes |= fresh
        owner = segments.object_of_track.copy()
        changed = _join(owner, segments, shapes, xy, K, options)
        for object_id, shape in fresh.items():
            foreign = _foreign(segments, object_id, shape, xy, options)
            if len(foreign) >= options.shape.min_points:
                owner[foreign] = new = int(owner.max()) + 1
                changed |= {object_id, new}
        waiting = sorted(changed)
        if not waiting:
            break
        settled = segments.settled | (owner != segments.object_of_track)
        segments = divide(moving, xy, visible, owner, settled, options.segments)
    return segments, shapes


def _join(
    owner: Int[np.ndarray, "q"],
    segments: Segments,
    shapes: dict[int, Shape],
    xy: np.ndarray,
    K: np.ndarray,
    options: MovingDepthOptions,
) -> set[int]:
    """Gives tracks that follow a rigid object to it; returns the objects that have many more or fewer of them now."""
    if not shapes:
        return set()
    numbers = sorted(shapes)
    objects = np.array(numbers)
    candidate = ~np.isin(owner, objects)
    misfit = np.stack([misfits(shapes[t], _beside(segments, t, candidate), xy, K, options.shape) for t in numbers])
    joining = np.isfinite(misfit).any(0)
    after = np.where(joining, objects[misfit.argmin(0)], owner)
    moved = np.concatenate([owner[joining], after[joining]])
    owner[:] = after
    changed, counts = np.unique(moved, return_counts=True)
    return {int(number) for number in changed[counts >= options.shape.min_points // 2]}


def _beside(segments: Segments, object_id: int, candidate: Bool[np.ndarray, "q"]) -> Bool[np.ndarray, "q t"]:
    """Segments of the candidates that are ever on one region with tracks of an object."""
    regions = np.unique(segments.region_of_track[segments.object_of_track == object_id])
    touching = np.isin(segments.region_of_track, regions[regions >= 0]).any(1)
    return (candidate & touching)[:, None] & (segments.region_of_track >= 0)


def _by_tracks(segments: Segments) -> Int[np.ndarray, "k"]:
    """The objects that tracks are on, those of most tracks first."""
    objects, counts = np.unique(segments.object_of_track[segments.object_of_track >= 0], return_counts=True)
    return objects[np.argsort(-counts, kind="stable")]


def _foreign(
    segments: Segments, object_id: int, shape: Shape, xy: np.ndarray, options: MovingDepthOptions
) -> Int[np.ndarray, "m"]:
    """Tracks on the segments of a rigid object that lie together and do not fit its motion."""
    on = (segments.object_of_track == object_id)[:, None] & (segments.of_track >= 0)
    fit = np.zeros_like(on)
    fit[shape.track, shape.frame] = True
    unfit = on.any(1) & ((on & fit).sum(1) < options.assignment.min_inlier_share * on.sum(1))
    votes, num_seen = np.zeros(len(on)), on.sum(1)
    num_neighbors = options.segments.num_neighbors
    for t in np.flatnonzero(on[unfit].any(0)):
        here = np.flatnonzero(on[:, t])
        if len(here) <= num_neighbors:
            continue
        asked = here[unfit[here]]
        nearest = KDTree(xy[here, t]).query(xy[asked, t], k=num_neighbors + 1)[1][:, 1:]  # without the track itself
        votes[asked] += unfit[here][nearest].mean(1)
    return np.flatnonzero(unfit & (votes >= options.assignment.min_foreign_neighbors * np.maximum(num_seen, 1)))
