"""The things that move and the shapes of those that are rigid, where one hides in the region of another too."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from som.preprocessing.moving.shape import MIN_POINTS, Shape, find_shape, misfits
from som.preprocessing.moving.sightings import NEIGHBORS, Sightings, divide, find_sightings

FITS = 0.5
"""A track is on a rigid thing if this share of its sightings fit the thing's motion."""
TOGETHER = 0.6
"""Share of a track's neighbours that must not fit either, for it to be on another thing: poor tracks lie scattered."""
MAX_THINGS = 20
"""Things of a clip whose shape is tried, those of most tracks."""
ROUNDS = 3
"""Times that shapes are found and tracks are given to what they follow."""


def find_things(
    moving: Bool[np.ndarray, "t h w"],
    xy: Float[np.ndarray, "q t 2"],
    visible: Bool[np.ndarray, "q t"],
    K: Float[np.ndarray, "t 3 3"],
) -> tuple[Sightings, dict[int, Shape]]:
    """Sightings of all things, and the shapes of rigid ones by their numbers.

    Tracks of a thing that is not rigid, but touches rigid ones, go to the one whose motion they follow best: they may
    begin while the two touch. Tracks that lie together on a rigid thing and do not follow its motion are another thing.

    Args:
        moving: pixels of things that move by themselves.
        xy: tracked points in pixels of the masks.
        visible: where they are seen.
        K: intrinsics of every frame, in the same pixels.
    """
    sightings, shapes = find_sightings(moving, xy, visible), {}
    waiting = _by_tracks(sightings)[:MAX_THINGS].tolist()
    for _ in range(ROUNDS):
        solved = {thing: find_shape(sightings, thing, xy, K) for thing in waiting}
        fresh = {thing: shape for thing, shape in solved.items() if shape is not None}
        shapes |= fresh
        owner = sightings.thing_of_track.copy()
        changed = _join(owner, sightings, shapes, xy, K)
        for thing, shape in fresh.items():
            foreign = _foreign(sightings, thing, shape, xy)
            if len(foreign) >= MIN_POINTS:
                owner[foreign] = new = int(owner.max()) + 1
                changed |= {thing, new}
        waiting = sorted(changed)
        if not waiting:
            break
        settled = sightings.settled | (owner != sightings.thing_of_track)
        sightings = divide(moving, xy, visible, owner, settled)
    return sightings, shapes


def _join(
    owner: Int[np.ndarray, "q"], sightings: Sightings, shapes: dict[int, Shape], xy: np.ndarray, K: np.ndarray
) -> set[int]:
    """Gives tracks that follow a rigid thing to it; returns the things that have many more or fewer of them now."""
    if not shapes:
        return set()
    things = np.array(sorted(shapes))
    candidate = ~np.isin(owner, things)
    misfit = np.stack([misfits(shapes[t], _beside(sightings, t, candidate), xy, K) for t in things])
    joining = np.isfinite(misfit).any(0)
    after = np.where(joining, things[misfit.argmin(0)], owner)
    moved = np.concatenate([owner[joining], after[joining]])
    owner[:] = after
    numbers, counts = np.unique(moved, return_counts=True)
    return {int(number) for number in numbers[counts >= MIN_POINTS // 2]}


def _beside(sightings: Sightings, thing: int, candidate: Bool[np.ndarray, "q"]) -> Bool[np.ndarray, "q t"]:
    """Sightings of the candidates that are ever on one region with tracks of a thing."""
    regions = np.unique(sightings.region_of_track[sightings.thing_of_track == thing])
    touching = np.isin(sightings.region_of_track, regions[regions >= 0]).any(1)
    return (candidate & touching)[:, None] & (sightings.region_of_track >= 0)


def _by_tracks(sightings: Sightings) -> Int[np.ndarray, "k"]:
    """The things that tracks are on, those of most tracks first."""
    things, counts = np.unique(sightings.thing_of_track[sightings.thing_of_track >= 0], return_counts=True)
    return things[np.argsort(-counts, kind="stable")]


def _foreign(sightings: Sightings, thing: int, shape: Shape, xy: np.ndarray) -> Int[np.ndarray, "m"]:
    """Tracks on the sightings of a rigid thing that lie together and do not fit its motion."""
    on = (sightings.thing_of_track == thing)[:, None] & (sightings.of_track >= 0)
    fit = np.zeros_like(on)
    fit[shape.track, shape.frame] = True
    unfit = on.any(1) & ((on & fit).sum(1) < FITS * on.sum(1))
    votes, sightings_of = np.zeros(len(on)), on.sum(1)
    for t in np.flatnonzero(on[unfit].any(0)):
        here = np.flatnonzero(on[:, t])
        if len(here) <= NEIGHBORS:
            continue
        asked = here[unfit[here]]
        nearest = KDTree(xy[here, t]).query(xy[asked, t], k=NEIGHBORS + 1)[1][:, 1:]  # without the track itself
        votes[asked] += unfit[here][nearest].mean(1)
    return np.flatnonzero(unfit & (votes >= TOGETHER * np.maximum(sightings_of, 1)))
