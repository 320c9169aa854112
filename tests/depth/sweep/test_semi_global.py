"""Semi-global regularisation, and the best plane of a cost curve."""

import numpy as np
import pytest
import torch

from som.depth.sweep.curve import best_plane
from som.depth.sweep.semi_global import semi_global


def paths_by_hand(volume, grey, small, large):
    """The recursion of the paper, written out."""
    D, H, W = volume.shape
    total = np.zeros_like(volume)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        path = np.zeros_like(volume)
        for y in range(H) if dy >= 0 else range(H - 1, -1, -1):
            for x in range(W) if dx >= 0 else range(W - 1, -1, -1):
                py, px = y - dy, x - dx
                if not (0 <= py < H and 0 <= px < W):
                    path[:, y, x] = volume[:, y, x]
                    continue
                before = path[:, py, px]
                far = max(small, large * np.exp(-abs(grey[y, x] - grey[py, px]) / 0.1))
                for d in range(D):
                    options = [before[d], before.min() + far]
                    options += [before[k] + small for k in (d - 1, d + 1) if 0 <= k < D]
                    path[d, y, x] = volume[d, y, x] + min(options) - before.min()
        total += path
    return total / 4


def test_equals_the_recursion_written_out():
    g = torch.Generator().manual_seed(0)
    volume, grey = torch.rand(6, 5, 7, generator=g, dtype=torch.float64), torch.rand(5, 7, generator=g)
    expected = paths_by_hand(volume.numpy(), grey.double().numpy(), 0.05, 0.4)
    torch.testing.assert_close(semi_global(volume, grey.double(), 0.05, 0.4), torch.from_numpy(expected))


def test_constant_costs_stay_equal_and_no_penalty_changes_no_choice():
    volume = torch.full((5, 6, 7), 0.3)
    torch.testing.assert_close(semi_global(volume, torch.zeros(6, 7), 0.1, 1.0), volume)
    random = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(semi_global(random, torch.zeros(6, 7), 0.0, 0.0).argmin(0), random.argmin(0))


def test_a_wrong_pixel_is_outvoted_but_a_step_at_an_image_edge_stays():
    D, H, W = 8, 9, 12
    volume = torch.ones(D, H, W)
    volume[2, :, :6] = 0
    volume[6, :, 6:] = 0
    volume[:, 4, 3] = 1.0
    volume[7, 4, 3] = 0.8  # noise
    grey = torch.zeros(H, W)
    grey[:, 6:] = 1.0
    index = semi_global(volume, grey, 0.1, 0.9).argmin(0)
    assert (index[:, :6] == 2).all() and (index[:, 6:] == 6).all()


def test_the_input_is_left_alone():
    volume = torch.rand(4, 5, 6)
    copy = volume.clone()
    semi_global(volume, torch.rand(5, 6), 0.1, 0.5)
    assert torch.equal(volume, copy)


def test_parabola_finds_the_minimum_between_planes():
    planes = torch.linspace(0.1, 1.0, 10)[:, None, None]
    truth = torch.tensor([[0.31, 0.55], [0.8, 0.42]])
    best = best_plane((planes - truth) ** 2 + 0.1, planes)
    torch.testing.assert_close(best.inverse_depth, truth)
    assert not best.at_end.any()


def test_minima_at_the_ends_are_marked_and_stay_inside_the_range():
    planes = torch.linspace(0.1, 1.0, 10)[:, None, None]
    best = best_plane((planes - torch.tensor([[0.0, 1.3]])).abs() + 0.1, planes)
    assert best.at_end.all()
    torch.testing.assert_close(best.inverse_depth, torch.tensor([[0.1, 1.0]]))


def test_distinctness_compares_with_planes_away_from_the_best():
    planes = torch.linspace(0.1, 1.0, 10)[:, None, None]
    costs = torch.tensor([0.9, 0.8, 0.5, 0.2, 0.4, 0.7, 0.8, 0.4, 0.9, 0.9])
    best = best_plane(costs[:, None, None], planes)
    assert best.distinctness.item() == pytest.approx(1 - 0.2 / 0.4)
    assert best_plane(torch.full((10, 1, 1), 0.3), planes).distinctness.item() == 0
