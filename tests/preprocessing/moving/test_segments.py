"""Which moving pixels are the same object."""

import numpy as np

from som.preprocessing.moving.segments import divide, find_segments

T, H, W = 8, 60, 100


def squares(*paths, side=16):
    """Masks (T,H,W) and tracks of squares whose left upper corners follow paths (T,2) of (x, y)."""
    moving, tracks = np.zeros((T, H, W), bool), []
    grid = np.stack(np.meshgrid(np.arange(1, side, 2), np.arange(1, side, 2)), -1).reshape(-1, 2) + 0.5
    for path in paths:
        for t, (x, y) in enumerate(path):
            moving[t, y : y + side, x : x + side] = True
        tracks.append(grid[:, None] + np.asarray(path)[None])
    xy = np.concatenate(tracks).astype(float)
    return moving, xy, np.ones(xy.shape[:2], bool)


def path(x0, x1, y):
    return [(int(x), y) for x in np.linspace(x0, x1, T).round()]


def test_a_moving_region_is_one_object():
    moving, xy, visible = squares(path(5, 60, 20))
    found = find_segments(moving, xy, visible)
    assert len(found) == T and set(found.object_id) == {found.object_id[0]}
    assert (found.of_track == np.arange(T)).all()
    assert ((found.labels >= 0) == moving).all()


def test_objects_that_touch_are_separated():
    moving, xy, visible = squares(path(2, 30, 10), path(80, 46, 12))
    found = find_segments(moving, xy, visible)
    assert len(np.unique(found.object_id)) == 2
    last = found.labels[-1]
    assert len(np.unique(last[last >= 0])) == 2
    a, b = found.object_of_track[0], found.object_of_track[-1]
    number = {object_id: n for n, object_id in enumerate(found.object_id) if found.frame[n] == T - 1}
    assert (last[10:26, 30:45] == number[a]).mean() > 0.95 and (last[12:28, 47:62] == number[b]).mean() > 0.95


def test_an_object_that_is_hidden_in_the_middle_stays_one():
    moving, xy, visible = squares(path(5, 60, 20))
    moving[3, :, 34:38] = False  # a post cuts it in two
    inside = moving[np.arange(T), np.floor(xy[..., 1]).astype(int), np.floor(xy[..., 0]).astype(int)]
    found = find_segments(moving, xy, visible & inside)
    assert set(found.object_id) == {found.object_id[0]} and (found.frame == 3).sum() == 2


def test_regions_without_tracks_are_objects_of_their_own():
    moving, xy, visible = squares(path(5, 60, 20))
    moving[2, 50:55, 5:10] = moving[5, 50:55, 5:10] = True
    found = find_segments(moving, xy, visible)
    assert len(found) == T + 2 and len(np.unique(found.object_id)) == 3
    empty = find_segments(np.zeros_like(moving), xy, visible)
    assert len(empty) == 0 and (empty.of_track == -1).all()
    alone = find_segments(moving, np.zeros((0, T, 2)), np.zeros((0, T), bool))
    assert len(np.unique(alone.object_id)) == len(alone) == T + 2


def test_divide_minds_whom_the_tracks_belong_to():
    moving, xy, visible = squares(path(5, 60, 20))
    left = xy[:, 0, 0] < 13
    found = divide(moving, xy, visible, np.where(left, 0, 1), np.ones(len(xy), bool))
    assert len(found) == 2 * T
    for n, t in enumerate(found.frame):
        columns = np.flatnonzero(found.region(n).any(0)) - path(5, 60, 20)[t][0]
        assert (columns.max() < 9) if found.object_id[n] == 0 else (columns.min() >= 7)


def test_crumbs_go_to_what_is_beside_them():
    moving, xy, visible = squares(path(5, 60, 20))
    owner = np.zeros(len(xy), int)
    owner[xy[:, 0, 0] < 14] = 1
    far = np.argsort(-xy[:, 0].sum(1))[:5]  # a handful in the opposite corner
    owner[far] = 1
    found = divide(moving, xy, visible, owner, np.ones(len(xy), bool))
    assert (found.object_id[found.labels[0][34:36, 19:21]] == 0).all()
    assert (found.object_id[found.labels[0][22:34, 6:11]] == 1).all()


def test_tracks_that_begin_where_objects_touch_go_to_the_part_they_are_on():
    moving, xy, visible = squares(path(2, 30, 10), path(80, 46, 12))
    moving[5:, 12:24, 20:70] = True  # shadows join them
    late = np.arange(len(xy)) % 2 == 1
    visible[late, :5] = False
    found = find_segments(moving, xy, visible)
    half = len(xy) // 2
    first, second = found.object_of_track[:half], found.object_of_track[half:]
    assert first[0] != second[0]
    assert (first == first[0]).mean() > 0.95 and (second == second[0]).mean() > 0.95
    assert found.settled[~late].all() and not found.settled[late].any()
