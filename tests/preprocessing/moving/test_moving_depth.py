"""Depth of moving objects from the ground, their size and their shape, against objects of known depth."""

import numpy as np
import pytest
import torch

from som.preprocessing.moving.depth import _fill, _rigid_objects, moving_depth
from som.preprocessing.moving.options import MovingDepthOptions
from som.preprocessing.moving.segments import find_segments
from som.preprocessing.moving.shape import Shape
from tests.preprocessing.moving import solids
from tests.preprocessing.moving.solids import K, film_box

T, H, W, F = 12, 90, 120, 100.0
WALL = 10.0
KS = torch.tensor([[F, 0, W / 2], [0, F, H / 2], [0, 0, 1.0]]).expand(T, 3, 3)


def board(depths, turn=0.0, center=(0.0, 0.0), size=2.0):
    """Maps, masks and tracks of a square board that moves in depth and turns about the vertical, before a wall; its
    49 tracks are too few for a shape."""
    maps, masks = torch.full((T, H, W), WALL), torch.zeros(T, H, W, dtype=torch.bool)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)), -1).reshape(-1, 2) * size / 2
    xy = np.zeros((len(grid), T, 2))
    for t, z in enumerate(depths):
        angle = turn * t
        X = grid[:, 0] * np.cos(angle) + center[0]
        Y = grid[:, 1] + center[1]
        depth = z + grid[:, 0] * np.sin(angle)
        xy[:, t] = np.stack([F * X / depth + W / 2, F * Y / depth + H / 2], 1)
        low, high = np.floor(xy[:, t].min(0)).astype(int), np.ceil(xy[:, t].max(0)).astype(int)
        masks[t, low[1] : high[1], low[0] : high[0]] = True
        maps[t][masks[t]] = float(z)
    return maps, masks, torch.from_numpy(xy), torch.ones(len(grid), T, dtype=torch.bool)


def object_depths(depth, masks):
    return np.array([float(z[m].median()) for z, m in zip(depth, masks, strict=True)])


def corrected(maps, masks, xy, visible, sure=0.0):
    return moving_depth(maps, torch.full_like(maps, sure), masks, xy, visible, KS)


def with_ground(maps, masks, ground):
    """The depth of the ground of every frame in the rows below the objects."""
    below = torch.zeros_like(masks)
    below[:, 1:] = masks[:, :-1]
    return torch.where(below & ~masks, torch.as_tensor(ground).float()[:, None, None], maps)


def test_noisy_ground_becomes_an_object_of_one_size():
    true = np.linspace(3.0, 6.0, T)
    maps, masks, xy, visible = board(true)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.1, T))
    noisy = with_ground(maps, masks, true * noise)
    fixed, found = corrected(noisy, masks, xy, visible)
    ratio = object_depths(fixed, masks) / true
    assert ratio.std() / ratio.mean() < 0.03 and ratio.mean() == pytest.approx(1, abs=0.1)
    assert torch.equal(fixed[~masks], noisy[~masks])
    assert found["moving_segments"] == T and found["moving_objects"] == 1 and found["moving_compared"] > 2 * T


def test_sure_ground_is_believed_more_than_sizes():
    true = np.full(T, 4.0)
    _, masks, xy, visible = board(np.linspace(3.6, 4.4, T))  # it shrinks where it stands
    maps = with_ground(torch.full((T, H, W), WALL).masked_fill(masks, 3.0), masks, true)
    errors = [
        np.abs(object_depths(corrected(maps, masks, xy, visible, sure)[0], masks) / true - 1).max()
        for sure in (0.0, 1.0)
    ]
    assert errors[1] < 0.05 < errors[0]


def test_turning_about_the_vertical_is_no_change_of_depth():
    true = np.full(T, 4.0)
    maps, masks, xy, visible = board(true, turn=0.08)
    fixed, _ = corrected(with_ground(maps, masks, true), masks, xy, visible)
    assert object_depths(fixed, masks) == pytest.approx(true, rel=0.05)


def test_an_object_that_hides_the_wall_is_drawn_in_front_of_it():
    true = np.linspace(3.0, 6.0, T)
    maps, masks, xy, visible = board(true)
    fixed, _ = corrected(torch.where(masks, maps * 4, maps), masks, xy, visible)
    depths = object_depths(fixed, masks)
    assert np.quantile(depths, 0.9) < 0.96 * WALL and np.std(depths / true) / np.mean(depths / true) < 0.06


def test_two_objects_are_corrected_apart():
    near, far = np.linspace(2.0, 2.6, T), np.linspace(7.0, 5.0, T)
    a = board(near, center=(-0.7, -0.4), size=0.8)
    b = board(far, center=(1.6, 0.8), size=1.6)
    maps, masks = torch.minimum(a[0], b[0]), a[1] | b[1]
    assert not (a[1] & b[1]).any()
    xy, visible = torch.cat([a[2], b[2]]), torch.cat([a[3], b[3]])
    flat = torch.where(a[1], 2.3, torch.where(b[1], 6.0, maps))
    fixed, found = corrected(flat, masks, xy, visible)
    assert found["moving_objects"] == 2
    for true, mask in ((near, a[1]), (far, b[1])):
        ratio = object_depths(fixed, mask) / true
        assert ratio == pytest.approx(np.full(T, ratio.mean()), rel=0.06)


def test_without_tracks_an_object_stands_on_its_ground():
    true = np.linspace(3.0, 5.0, T)
    maps, masks, xy, visible = board(true)
    given = with_ground(torch.where(masks, 4.0, maps), masks, true)
    fixed, found = corrected(given, masks, xy, torch.zeros_like(visible), sure=1.0)
    assert found["moving_compared"] == 0 and object_depths(fixed, masks) == pytest.approx(true, rel=1e-3)
    nothing = torch.zeros_like(masks)
    assert torch.equal(corrected(maps, nothing, xy, visible)[0], maps)


def box_depth(film, sure=1.0):
    """What comes out for a film whose moving pixels were given one wrong depth."""
    wrong = torch.where(film.moving, 2.0, film.background())
    return moving_depth(
        wrong,
        torch.full_like(wrong, sure),
        film.moving,
        torch.from_numpy(film.xy),
        torch.from_numpy(film.visible),
        torch.from_numpy(K).expand(solids.T, 3, 3),
    )


def variation_errors(film, fixed):
    """(M,) relative error at the visible tracks, and the frame of each."""
    q, t = np.nonzero(film.visible)
    column, row = np.floor(film.xy[q, t]).astype(int).T
    inside = (column >= 0) & (column < solids.W) & (row >= 0) & (row < solids.H)
    q, t, column, row = (v[inside] for v in (q, t, column, row))
    on = film.moving.numpy()[t, row, column]
    q, t, column, row = (v[on] for v in (q, t, column, row))
    return fixed.numpy()[t, row, column] / film.z[q, t] - 1, t


def test_a_rigid_box_that_stands_has_its_shape_and_place():
    side = 0.8
    path = np.stack(
        [np.linspace(-0.5, 0.6, 16), np.full(16, solids.CAMERA_HEIGHT - side / 2), np.linspace(3.6, 3.2, 16)], 1
    )
    film = film_box(path, np.linspace(0.2, 1.4, 16), side=side, noise=0.1)
    fixed, found = box_depth(film)
    assert found["moving_rigid"] == 1.0
    error, _ = variation_errors(film, fixed)
    assert np.median(np.abs(error)) < 0.05  # the outline is known to a pixel
    flat = np.abs(np.log(film.z[film.visible] / np.median(film.z[film.visible])))
    assert np.median(np.abs(error - np.median(error))) < 0.5 * np.median(flat)


def test_a_box_that_leaps_is_no_farther_than_where_it_last_stood():
    side, times = 0.6, np.arange(16)
    height = np.where((times > 3) & (times < 12), np.sin((times - 3) / 9 * np.pi) * 0.7, 0.0)
    path = np.stack(
        [np.linspace(-0.5, 0.6, 16), solids.CAMERA_HEIGHT - side / 2 - height, np.linspace(3.6, 3.0, 16)], 1
    )
    film = film_box(path, np.linspace(0.2, 1.4, 16), side=side, noise=0.1)
    fixed, found = box_depth(film)
    assert found["moving_rigid"] == 1.0
    error, t = variation_errors(film, fixed)
    in_the_air = (t > 5) & (t < 10)
    # the ground below it is up to twice as far as the box
    assert abs(np.median(error[in_the_air])) < 0.06 and abs(np.median(error[~in_the_air])) < 0.06


@pytest.mark.parametrize("spread", [1.0, 0.0], ids=["on one line", "in one place"])
def test_points_of_a_rigid_object_may_lie_on_one_line(spread):
    moving = np.zeros((2, 40, 60), bool)
    moving[:, 19:22, 10:50] = True
    xy = np.stack([12.5 + spread * np.arange(0, 36, 3.0), np.full(12, 20.5)], 1)[:, None].repeat(2, 1)
    segments = find_segments(moving, xy, np.ones((12, 2), bool))
    track, frame = (i.ravel() for i in np.indices((12, 2)))
    pose = np.broadcast_to(np.eye(4), (2, 4, 4))
    shape = Shape(track, frame, np.log(2.0 + 0.1 * track), np.arange(2), pose, 100.0, 0.1)
    found = _rigid_objects(segments, {int(segments.object_id[0]): shape}, xy, MovingDepthOptions())
    depth = np.full(moving.shape, 9.0, np.float32)
    for rigid in found:
        _fill(depth, segments, rigid, xy, 0.0)
    if spread:
        assert (depth[~moving] == 9).all()
        assert depth[0, 20, 12] < 2.3 and depth[0, 20, 47] > 2.7 and (np.diff(depth[0, 20, 10:50]) >= 0).all()
    else:
        assert not found
