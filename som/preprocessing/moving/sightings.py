"""Which moving pixels are the same thing through the clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.sparse import csgraph, csr_matrix
from scipy.spatial import KDTree

STRIDES = (1, 2, 4, 8, 16)
"""Distances in frames over which sightings are compared."""
MIN_TRACKS = 12
"""Tracks that two sightings of a thing must share to be compared."""
SAME = 0.8
"""Two regions show the same thing if this share of the tracks of either are on the other."""
PRESENT = 0.15
"""Share of a region's tracks from which on a second thing has a part of the region."""
SHARED = 0.05
"""The same share from which on it tells nothing about whose the other tracks are."""
ROUNDS = 5
CRUMB = 0.2
"""Pieces of a thing smaller than this share of its largest one in the region belong to what is beside them."""
NEIGHBORS = 5
"""A pixel of a region of several things belongs to the one that most of its nearest tracks are on."""


@dataclass(frozen=True)
class Sightings:
    """N regions of moving pixels, each a view of one thing in one frame, in the order of the frames."""

    labels: Int[np.ndarray, "t h w"]
    """Number of the sighting that a pixel belongs to, -1 for none."""
    frame: Int[np.ndarray, "n"]
    thing: Int[np.ndarray, "n"]
    """Number of the thing; regions that no track visits are things of their own, with the largest numbers."""
    of_track: Int[np.ndarray, "q t"]
    """Sighting that each track is on, -1 where it is on none or on one of another thing than its own."""
    thing_of_track: Int[np.ndarray, "q"]
    """-1 for tracks that are never on a moving pixel."""
    settled: Bool[np.ndarray, "q"]
    """Tracks that were seen on their thing alone, or are otherwise known to be on it."""
    region_of_track: Int[np.ndarray, "q t"]
    """Connected region that each track is on, before these were divided, -1 for none."""

    def __len__(self) -> int:
        return len(self.frame)

    def region(self, number: int) -> Bool[np.ndarray, "h w"]:
        return self.labels[self.frame[number]] == number


def find_sightings(
    moving: Bool[np.ndarray, "t h w"], xy: Float[np.ndarray, "q t 2"], visible: Bool[np.ndarray, "q t"]
) -> Sightings:
    """Follows connected regions of moving pixels by the tracks on them, and parts things that touch.

    Regions of two frames show the same thing if nearly all tracks that are on one of them are on the other. A track
    belongs to the thing that it is on most often. A region with the tracks of several things, which touch there, is
    divided among them, and tracks that begin and end there go to the thing whose part they are on.

    Args:
        moving: pixels of things that move by themselves.
        xy: tracked points in pixels of the masks.
        visible: where they are seen.
    """
    regions, region_frame = _connected(moving)
    on_region = _at(regions, xy, visible)
    owner = _owners(on_region, _linked(on_region, len(region_frame)))
    return divide(moving, xy, visible, owner, owner >= 0)


def divide(
    moving: Bool[np.ndarray, "t h w"],
    xy: Float[np.ndarray, "q t 2"],
    visible: Bool[np.ndarray, "q t"],
    thing_of_track: Int[np.ndarray, "q"],
    settled: Bool[np.ndarray, "q"],
) -> Sightings:
    """The sightings of known things: connected regions of moving pixels, divided where they hold tracks of several.

    Args:
        moving, xy, visible: as for ``find_sightings``.
        thing_of_track: the thing that each track is on.
        settled: tracks whose thing is known. The others go to the thing whose part they are on.
    """
    regions, region_frame = _connected(moving)
    on_region = _at(regions, xy, visible)
    free = int(thing_of_track[settled].max(initial=-1)) + 1
    labels, frames, things = np.full(moving.shape, -1), [], []
    for number, t in enumerate(region_frame):
        known = settled & (on_region[:, t] == number)
        for thing, part in _divided(regions[t] == number, xy[known, t], thing_of_track[known]):
            labels[t][part] = len(frames)
            frames.append(t)
            # no track tells what it is: a number that nothing else has
            things.append(thing if thing >= 0 else free + number)
    thing = np.array(things, np.int64)
    of_track = _at(labels, xy, visible)
    seen = np.where(of_track >= 0, np.append(thing, -1)[of_track], -1)
    owner = np.where(settled, thing_of_track, _most_frequent(seen, int(thing.max(initial=-1)) + 1))
    own = seen == owner[:, None]
    return Sightings(labels, np.array(frames, np.int64), thing, np.where(own, of_track, -1), owner, settled, on_region)


def _connected(moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected regions, numbered through the clip, and the frame of each."""
    labels, frames = np.full(moving.shape, -1), []
    for t, mask in enumerate(moving):
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        labels[t] = np.where(regions > 0, regions - 1 + len(frames), -1)
        frames += [t] * count
    return labels, np.array(frames, np.int64)


def _at(labels: np.ndarray, xy: np.ndarray, visible: np.ndarray) -> Int[np.ndarray, "q t"]:
    """Labels at the tracks, -1 where these are not seen."""
    T, H, W = labels.shape
    column, row = np.floor(xy[..., 0]).astype(int), np.floor(xy[..., 1]).astype(int)
    inside = visible & (column >= 0) & (column < W) & (row >= 0) & (row < H)
    times = np.broadcast_to(np.arange(T), inside.shape)
    return np.where(inside, labels[times, row.clip(0, H - 1), column.clip(0, W - 1)], -1)


def _linked(on_region: Int[np.ndarray, "q t"], count: int) -> Int[np.ndarray, "n"]:
    """Group of each region: those that the tracks link one to one."""
    T, links = on_region.shape[1], []
    for stride in STRIDES:
        for t in range(T - stride):
            both = (on_region[:, t] >= 0) & (on_region[:, t + stride] >= 0)
            pairs, shared = np.unique(on_region[both][:, [t, t + stride]], axis=0, return_counts=True)
            before = np.bincount(on_region[both, t], minlength=count)
            after = np.bincount(on_region[both, t + stride], minlength=count)
            a, b = pairs.T
            links.append(pairs[(shared >= MIN_TRACKS) & (shared >= SAME * before[a]) & (shared >= SAME * after[b])])
    a, b = np.concatenate([*links, np.zeros((0, 2), int)]).T
    return csgraph.connected_components(csr_matrix((np.ones(len(a)), (a, b)), (count, count)), directed=False)[1]


def _most_frequent(values: Int[np.ndarray, "q t"], count: int) -> Int[np.ndarray, "q"]:
    """The number in [0, count) that is most frequent in each row, the one of most entries in all where several are;
    -1 in rows without any."""
    row = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    pairs, times = np.unique(np.stack([row[values >= 0], values[values >= 0]], 1), axis=0, return_counts=True)
    total = np.bincount(values[values >= 0], minlength=count)
    order = np.lexsort((total[pairs[:, 1]], times, pairs[:, 0]))
    result = np.full(len(values), -1)
    result[pairs[order, 0]] = pairs[order, 1]  # of repeated rows the last, hence the best, stays
    return result


def _owners(on_region: Int[np.ndarray, "q t"], group: Int[np.ndarray, "n"]) -> Int[np.ndarray, "q"]:
    """The group of regions that each track is on most often where that is alone; -1 for tracks that are on none, or
    only on regions that several things share.

    Which regions are shared follows from whose tracks are on them, and the other way round: a few rounds settle both.
    """
    shared = np.zeros(len(group), bool)
    for _ in range(ROUNDS):
        alone = (on_region >= 0) & ~np.append(shared, False)[on_region]
        owner = _most_frequent(np.where(alone, np.append(group, -1)[on_region], -1), int(group.max(initial=-1)) + 1)
        track, frame = np.nonzero((on_region >= 0) & (owner >= 0)[:, None])
        pairs, counts = np.unique(np.stack([on_region[track, frame], owner[track]], 1), axis=0, return_counts=True)
        total = np.bincount(pairs[:, 0], counts, len(group))
        many = pairs[(counts >= MIN_TRACKS) & (counts >= SHARED * total[pairs[:, 0]])]
        shared = np.bincount(many[:, 0], minlength=len(group)) > 1
    return owner


def _divided(
    region: Bool[np.ndarray, "h w"], xy: Float[np.ndarray, "m 2"], thing_of_track: Int[np.ndarray, "m"]
) -> list[tuple[int, Bool[np.ndarray, "h w"]]]:
    """The things that a region shows by the tracks on it, with their parts of it; thing -1 where there are none."""
    things, counts = np.unique(thing_of_track, return_counts=True)
    present = things[(counts >= MIN_TRACKS) & (counts >= PRESENT * counts.sum())]
    if len(present) < 2:
        return [(int(things[counts.argmax()]) if len(things) else -1, region)]
    chosen = np.isin(thing_of_track, present)
    pixels = np.argwhere(region)
    nearest = KDTree(xy[chosen]).query(pixels[:, ::-1] + 0.5, k=NEIGHBORS)[1]
    votes = (thing_of_track[chosen][nearest][:, :, None] == present).sum(1)
    winner = np.full(region.shape, -1)
    winner[tuple(pixels.T)] = present[votes.argmax(1)]
    winner = _without_crumbs(winner, region)
    return [(int(thing), winner == thing) for thing in present if (winner == thing).any()]


def _without_crumbs(winner: Int[np.ndarray, "h w"], region: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Gives connected pieces that are much smaller than the largest one of their thing to what is nearest to them."""
    kept = np.zeros_like(region)
    for thing in np.unique(winner[region]):
        pieces = ndimage.label(winner == thing)[0]
        area = np.bincount(pieces.ravel())
        area[0] = 0
        kept |= (area >= CRUMB * area.max())[pieces] & (pieces > 0)
    nearest = ndimage.distance_transform_edt(~kept, return_distances=False, return_indices=True)
    return np.where(region, winner[tuple(nearest)], -1)
