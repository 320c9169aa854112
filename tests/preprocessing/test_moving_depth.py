"""Depth of moving things from how large they appear, against things of known depth."""

import numpy as np
import pytest
import torch

from som.preprocessing.moving_depth import keep_size

T, H, W, F = 12, 90, 120, 100.0
WALL = 10.0


def board(depths, turn=0.0, center=(0.0, 0.0), size=2.0):
    """Maps, masks and tracks of a square board that moves in depth and turns about the vertical, before a wall."""
    maps, masks = torch.full((T, H, W), WALL), torch.zeros(T, H, W, dtype=torch.bool)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)), -1).reshape(-1, 2) * size / 2
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


def thing_depths(depth, masks):
    return np.array([float(z[m].median()) for z, m in zip(depth, masks, strict=True)])


def test_noisy_depth_becomes_that_of_a_thing_of_one_size():
    true = np.linspace(3.0, 6.0, T)
    maps, masks, xy, visible = board(true)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.2, T))
    noisy = torch.where(masks, maps * torch.from_numpy(noise).float()[:, None, None], maps)
    fixed, found = keep_size(noisy, masks, xy, visible)
    ratio = thing_depths(fixed, masks) / true
    assert ratio.std() / ratio.mean() < 0.02
    assert ratio.mean() == pytest.approx(np.exp(np.log(noise).mean()), rel=0.05)
    assert (fixed[~masks] == WALL).all()
    assert found["moving_sightings"] == T and found["moving_compared"] > 2 * T


def test_turning_about_the_vertical_is_no_change_of_depth():
    true = np.full(T, 4.0)
    maps, masks, xy, visible = board(true, turn=0.08)
    fixed, _ = keep_size(maps, masks, xy, visible)
    assert thing_depths(fixed, masks) == pytest.approx(true, rel=0.05)


def test_a_thing_that_hides_the_wall_is_drawn_in_front_of_it():
    true = np.linspace(3.0, 6.0, T)
    maps, masks, xy, visible = board(true)
    behind = torch.where(masks, maps * 4, maps)
    fixed, _ = keep_size(behind, masks, xy, visible)
    depths = thing_depths(fixed, masks)
    assert np.quantile(depths, 0.9) < 0.96 * WALL and np.std(depths / true) / np.mean(depths / true) < 0.05


def test_two_things_are_corrected_apart():
    near, far = np.linspace(2.0, 2.6, T), np.linspace(7.0, 5.0, T)
    a = board(near, center=(-0.7, -0.4), size=0.8)
    b = board(far, center=(1.6, 0.8), size=1.6)
    maps, masks = torch.minimum(a[0], b[0]), a[1] | b[1]
    assert not (a[1] & b[1]).any()
    xy, visible = torch.cat([a[2], b[2]]), torch.cat([a[3], b[3]])
    flat = torch.where(a[1], 2.3, torch.where(b[1], 6.0, maps))
    fixed, _ = keep_size(flat, masks, xy, visible)
    for true, mask in ((near, a[1]), (far, b[1])):
        ratio = thing_depths(fixed, mask) / true
        assert ratio == pytest.approx(np.full(T, ratio.mean()), rel=0.05)


def test_without_tracks_nothing_changes():
    maps, masks, xy, visible = board(np.full(T, 4.0))
    fixed, found = keep_size(maps, masks, xy[:5], visible[:5])
    assert torch.equal(fixed, maps) and found["moving_compared"] == 0
    fixed, _ = keep_size(maps, masks, xy, torch.zeros_like(visible))
    assert torch.equal(fixed, maps)
