"""Objects that touch for a while."""

import numpy as np

from som.preprocessing.moving.objects import _foreign, find_objects
from som.preprocessing.moving.options import MovingDepthOptions
from som.preprocessing.moving.segments import find_segments
from som.preprocessing.moving.shape import Shape
from tests.preprocessing.moving.solids import K, T, film_box

KS = np.broadcast_to(K, (T, 3, 3))
TOUCHING = 9
"""Frame from which on a bridge of moving pixels joins the two."""


def two_boxes():
    """Masks, tracks and true depth of two boxes that turn side by side, and the number of tracks of the first one."""
    y = np.full(T, 0.3)
    a = np.stack([np.linspace(-0.9, -0.7, T), y, np.linspace(3.4, 3.0, T)], 1)
    b = np.stack([np.linspace(0.9, 0.7, T), y, np.linspace(3.2, 3.6, T)], 1)
    a = film_box(a, np.linspace(0.2, 1.3, T), noise=0.05)
    b = film_box(b, np.linspace(1.2, 0.1, T), noise=0.05, seed=1)
    assert not (a.moving & b.moving).any()
    moving = (a.moving | b.moving).numpy()
    xy, visible, z = (np.concatenate([getattr(a, name), getattr(b, name)]) for name in ("xy", "visible", "z"))
    return moving, xy, visible, z, len(a.xy)


def pure(objects, tracks, first):
    """Whether the tracks of every object are on one of the boxes only."""
    shares = [np.mean(np.flatnonzero(objects == object_id) < first) for object_id in np.unique(objects[tracks])]
    return all(share in (0.0, 1.0) for share in shares)


def test_two_rigid_objects_have_their_own_shapes():
    moving, xy, visible, z, first = two_boxes()
    segments, shapes = find_objects(moving, xy, visible, KS)
    seen = visible.any(1)
    assert len(shapes) == 2 and pure(np.where(seen, segments.object_of_track, -1), seen, first)
    for shape in shapes.values():
        error = shape.log_z - np.log(z[shape.track, shape.frame])
        assert np.median(np.abs(error - np.median(error))) < 0.01


def test_tracks_that_begin_where_two_objects_touch_find_theirs():
    moving, xy, visible, _, first = two_boxes()
    moving[TOUCHING:, 50:60, 20:100] = True
    late = np.arange(len(xy)) % 3 == 0
    visible[late, :TOUCHING] = False
    segments, shapes = find_objects(moving, xy, visible, KS)
    assert len(shapes) == 2
    long = late & (visible.sum(1) >= 5)
    owner = segments.object_of_track
    majority = [
        np.bincount(owner[half & ~late & visible.any(1)]).argmax()
        for half in (np.arange(len(xy)) < first, np.arange(len(xy)) >= first)
    ]
    assert majority[0] != majority[1]
    right = np.where(np.arange(len(xy)) < first, *majority) == owner
    assert right[long].mean() > 0.9
    last = segments.labels[-1]
    assert len(np.unique(last[last >= 0])) == 2


def test_what_does_not_follow_a_rigid_object_is_another_if_it_lies_together():
    grid = np.stack(np.meshgrid(np.arange(20.5, 60, 2), np.arange(20.5, 50, 2)), -1).reshape(-1, 2)
    xy = np.repeat(grid[:, None], T, 1)
    moving = np.zeros((T, 90, 120), bool)
    moving[:, 20:50, 20:60] = True
    segments = find_segments(moving, xy, np.ones(xy.shape[:2], bool))
    together = grid[:, 0] > 48
    scattered = ~together & (np.arange(len(grid)) % 7 == 0)
    track, frame = np.nonzero(np.repeat(~(together | scattered)[:, None], T, 1))
    shape = Shape(track, frame, np.zeros(len(track)), np.arange(T), np.broadcast_to(np.eye(4), (T, 4, 4)), 100.0, 0.1)
    foreign = _foreign(segments, int(segments.object_id[0]), shape, xy, MovingDepthOptions())
    assert together[foreign].all() and len(foreign) > 0.8 * together.sum()
