import math

import pytest
import torch

from som.evaluation.metrics import depth_discordance, depth_errors, disparity_correlation


def test_errors_by_hand():
    target = torch.tensor([[1.0, 2.0, 4.0, 0.0]])
    pred = torch.tensor([[1.1, 2.0, 8.0, 5.0]])
    errors = depth_errors(pred, target)
    assert errors["abs_rel"] == pytest.approx((0.1 + 0 + 1) / 3)
    assert errors["rmse"] == pytest.approx(math.sqrt((0.01 + 16) / 3))
    assert errors["delta1"] == pytest.approx(2 / 3)


def test_delta1_is_strict():
    assert depth_errors(torch.tensor([[1.25]]), torch.tensor([[1.0]]))["delta1"] == 0


def test_missing_prediction_counts():
    errors = depth_errors(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 2.0]]), scaling="median")
    assert errors["abs_rel"] == pytest.approx(0.5)
    assert errors["delta1"] == pytest.approx(0.5)


def test_median_scaling_removes_scale():
    target = torch.rand(5, 6) + 1
    scaled = depth_errors(3 * target, target, scaling="median")
    assert scaled["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert depth_errors(3 * target, target)["abs_rel"] == pytest.approx(2, abs=1e-5)


def test_mask_and_empty():
    target, pred = torch.ones(2, 2), torch.tensor([[1.0, 9.0], [1.0, 9.0]])
    mask = torch.tensor([[True, False], [True, False]])
    assert depth_errors(pred, target, mask)["abs_rel"] == 0
    for empty in (depth_errors(pred, target * 0), depth_errors(pred, target, mask & ~mask, scaling="median")):
        assert all(math.isnan(v) for v in empty.values())
    with pytest.raises(ValueError, match="one shape"):
        depth_errors(pred, target[:1])


def test_discordance():
    target = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    g = torch.Generator().manual_seed(1)
    assert depth_discordance(target**3 * 7, target, generator=g) == 0.0
    assert depth_discordance(1 / target, target, generator=g) == 1.0
    assert depth_discordance(torch.ones_like(target), target, generator=g) == 0.5
    assert depth_discordance(torch.zeros_like(target), target, generator=g) == 0.5
    noise = torch.rand(8, 8, generator=g)
    assert depth_discordance(noise, target, generator=g) == pytest.approx(0.5, abs=0.15)
    assert math.isnan(depth_discordance(target, torch.ones_like(target), generator=g))
    assert math.isnan(depth_discordance(target, target * 0, generator=g))


def test_a_pixel_without_depth_makes_its_pairs_half_wrong():
    target = torch.tensor([[1.0, 2.0]])
    score = depth_discordance(torch.tensor([[0.0, 2.0]]), target, num_pairs=50, generator=torch.Generator())
    assert score == 0.5


def test_disparity_correlation():
    target = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    assert disparity_correlation(1 / (2 / target + 0.3), target) == pytest.approx(1.0)
    assert disparity_correlation(1 / (4 - 1 / target), target) == pytest.approx(-1.0)
    assert math.isnan(disparity_correlation(torch.ones_like(target), target))
    assert math.isnan(disparity_correlation(target, target * 0))
