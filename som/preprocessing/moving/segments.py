"""Which moving pixels belong to the same object throughout the clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.sparse import csgraph, csr_matrix
from scipy.spatial import KDTree

from som.preprocessing.moving.options import SegmentOptions

DEFAULT = SegmentOptions()


@dataclass(frozen=True)
class Segments:
    """N regions of moving pixels, each a view of one object in one frame, in the order of the frames."""

    labels: Int[np.ndarray, "t h w"]
    """Number of the segment that a pixel belongs to, -1 for none."""
    frame: Int[np.ndarray, "n"]
    object_id: Int[np.ndarray, "n"]
    """Number of the object; regions that no track visits are objects of their own, with the largest numbers."""
    of_track: Int[np.ndarray, "q t"]
    """Segment that each track is on, -1 where it is on none or on one of another object than its own."""
    object_of_track: Int[np.ndarray, "q"]
    """-1 for tracks that are never on a moving pixel."""
    settled: Bool[np.ndarray, "q"]
    """Tracks that were seen on their object alone, or are otherwise known to be on it."""
    region_of_track: Int[np.ndarray, "q t"]
    """Connected region that each track is on, before these were divided, -1 for none."""

    def __len__(self) -> int:
        return len(self.frame)

    def region(self, number: int) -> Bool[np.ndarray, "h w"]:
        return self.labels[self.frame[number]] == number


def find_segments(
    moving: Bool[np.ndarray, "t h w"],
    xy: Float[np.ndarray, "q t 2"],
    visible: Bool[np.ndarray, "q t"],
    options: SegmentOptions = DEFAULT,
) -> Segments:
    """Follows connected regions of moving pixels by the tracks on them, and separates objects that touch.

    Regions of two frames show the same object if nearly all tracks that are on one of them are on the other. A track
    belongs to the object that it is on most often. A region with the tracks of several objects, which touch there, is
    divided among them, and tracks that begin and end there go to the object whose part they are on.

    Args:
        moving: pixels of objects that move by themselves.
        xy: tracked points in pixels of the masks.
        visible: where they are seen.
    """
    regions, region_frame = _connected(moving)
    on_region = _at(regions, xy, visible)
    owner = _owners(on_region, _linked(on_region, len(region_frame), options), options)
    return divide(moving, xy, visible, owner, owner >= 0, options)


def divide(
    moving: Bool[np.ndarray, "t h w"],
    xy: Float[np.ndarray, "q t 2"],
    visible: Bool[np.ndarray, "q t"],
    object_of_track: Int[np.ndarray, "q"],
    settled: Bool[np.ndarray, "q"],
    options: SegmentOptions = DEFAULT,
) -> Segments:
    """The segments of known objects: connected regions of moving pixels, divided where they hold tracks of several.

    Args:
        moving, xy, visible: as for ``find_segments``.
        object_of_track: the object that each track is on.
        settled: tracks whose object is known. The others go to the object whose part they are on.
    """
    regions, region_frame = _connected(moving)
    on_region = _at(regions, xy, visible)
    free = int(object_of_track[settled].max(initial=-1)) + 1
    labels = np.full(moving.shape, -1)
    frames: list[int] = []
    objects: list[int] = []
    for number, t in enumerate(region_frame):
        known = settled & (on_region[:, t] == number)
        for found, part in _divided(regions[t] == number, xy[known, t], object_of_track[known], options):
            labels[t][part] = len(frames)
            frames.append(t)
            # no track says what it is: a number that nothing else has
            objects.append(found if found >= 0 else free + number)
    object_id = np.array(objects, np.int64)
    of_track = _at(labels, xy, visible)
    seen = np.where(of_track >= 0, np.append(object_id, -1)[of_track], -1)
    owner = np.where(settled, object_of_track, _most_frequent(seen, int(object_id.max(initial=-1)) + 1))
    of_track = np.where(seen == owner[:, None], of_track, -1)
    return Segments(labels, np.array(frames, np.int64), object_id, of_track, owner, settled, on_region)


def _connected(moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected regions, numbered through the clip, and the frame of each."""
    labels, frames = np.full(moving.shape, -1), list[int]()
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


def _linked(on_region: Int[np.ndarray, "q t"], count: int, options: SegmentOptions) -> Int[np.ndarray, "n"]:
    """Group of each region: those that the tracks link one to one."""
    T, links = on_region.shape[1], []
    for stride in options.strides:
        for t in range(T - stride):
            both = (on_region[:, t] >= 0) & (on_region[:, t + stride] >= 0)
            pairs, shared = np.unique(on_region[both][:, [t, t + stride]], axis=0, return_counts=True)
            before = np.bincount(on_region[both, t], minlength=count)
            after = np.bincount(on_region[both, t + stride], minlength=count)
            a, b = pairs.T
            least = np.maximum(before[a], after[b]) * options.same_share
            links.append(pairs[(shared >= options.min_tracks) & (shared >= least)])
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


def _owners(
    on_region: Int[np.ndarray, "q t"], group: Int[np.ndarray, "n"], options: SegmentOptions
) -> Int[np.ndarray, "q"]:
    """The group of regions that each track is on most often where that is alone; -1 for tracks that are on none, or
    only on regions that several objects share.

    Which regions are shared follows from whose tracks are on them, and the other way round: a few rounds settle both.
    """
    shared = np.zeros(len(group), bool)
    for _ in range(options.max_rounds):
        alone = (on_region >= 0) & ~np.append(shared, False)[on_region]
        owner = _most_frequent(np.where(alone, np.append(group, -1)[on_region], -1), int(group.max(initial=-1)) + 1)
        track, frame = np.nonzero((on_region >= 0) & (owner >= 0)[:, None])
        pairs, counts = np.unique(np.stack([on_region[track, frame], owner[track]], 1), axis=0, return_counts=True)
        total = np.bincount(pairs[:, 0], counts, len(group))
        many = pairs[(counts >= options.min_tracks) & (counts >= options.mixed_share * total[pairs[:, 0]])]
        shared = np.bincount(many[:, 0], minlength=len(group)) > 1
    return owner


def _divided(
    region: Bool[np.ndarray, "h w"],
    xy: Float[np.ndarray, "m 2"],
    object_of_track: Int[np.ndarray, "m"],
    options: SegmentOptions,
) -> list[tuple[int, Bool[np.ndarray, "h w"]]]:
    """The objects that a region shows by the tracks on it, with their parts of it; object -1 where there are none."""
    objects, counts = np.unique(object_of_track, return_counts=True)
    present = objects[(counts >= options.min_tracks) & (counts >= options.present_share * counts.sum())]
    if len(present) < 2:
        return [(int(objects[counts.argmax()]) if len(objects) else -1, region)]
    chosen = np.isin(object_of_track, present)
    pixels = np.argwhere(region)
    nearest = KDTree(xy[chosen]).query(pixels[:, ::-1] + 0.5, k=options.num_neighbors)[1]
    votes = (object_of_track[chosen][nearest][:, :, None] == present).sum(1)
    winner = np.full(region.shape, -1)
    winner[tuple(pixels.T)] = present[votes.argmax(1)]
    winner = _without_fragments(winner, region, options.min_fragment_share)
    return [(int(object_id), winner == object_id) for object_id in present if (winner == object_id).any()]


def _without_fragments(
    winner: Int[np.ndarray, "h w"], region: Bool[np.ndarray, "h w"], min_share: float
) -> Int[np.ndarray, "h w"]:
    """Gives connected pieces that are much smaller than the largest one of their object to what is nearest to them."""
    kept = np.zeros_like(region)
    for object_id in np.unique(winner[region]):
        pieces = ndimage.label(winner == object_id)[0]
        area = np.bincount(pieces.ravel())
        area[0] = 0
        kept |= (area >= min_share * area.max())[pieces] & (pieces > 0)
    nearest = ndimage.distance_transform_edt(~kept, return_distances=False, return_indices=True)
    return np.where(region, winner[tuple(nearest)], -1)
