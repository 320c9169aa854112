"""Matching costs of warped images."""

import pytest
import torch

from som.depth.errors import DepthError
from som.depth.sweep.costs import COSTS, make_cost, window_mean

every_cost = pytest.mark.parametrize("name", COSTS)


def image(seed=0, h=20, w=24):
    return torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(seed))


def compare(name, target, source, window=5, ignored=None):
    cost = make_cost(name, window)
    features = cost.features(torch.cat([target, source]))
    cost.set_target(features[0])
    return cost.compare(features[1][:, None].clone(), ignored)[0]


@every_cost
def test_the_same_image_costs_nothing_and_another_costs_much(name):
    assert compare(name, image(), image()).abs().max() < 0.01
    assert compare(name, image(), image(1)).mean() > 0.15


@every_cost
def test_opposite_images_cost_most(name):
    opposite, other = (compare(name, image(), x).mean() for x in (1 - image(), image(1)))
    assert opposite > 1.3 * other


@every_cost
def test_costs_lie_in_the_unit_interval(name):
    cost = compare(name, image(), 1 - image())
    assert cost.min() >= 0 and cost.max() <= 1


def test_absolute_cost_by_hand():
    target, source = torch.zeros(1, 3, 3, 3), torch.zeros(1, 3, 3, 3)
    source[0, 0, 1, 1] = 0.9  # one colour of the centre: 0.3 there
    cost = compare("absolute", target, source, window=3)
    torch.testing.assert_close(
        cost, torch.tensor([[0.3 / 4, 0.05, 0.075], [0.05, 0.3 / 9, 0.05], [0.075, 0.05, 0.075]])
    )


def test_zncc_equals_the_correlation_of_a_window():
    a, b = image(0, 5, 5), image(1, 5, 5)
    r = torch.corrcoef(torch.stack([a.mean(1).flatten(), b.mean(1).flatten()]))[0, 1]
    assert compare("zncc", a, b)[2, 2] == pytest.approx(float(1 - r) / 2, abs=2e-3)


def test_census_by_hand():
    target, source = torch.full((1, 3, 1, 3), 0.5), torch.full((1, 3, 1, 3), 0.5)
    source[..., 1] = 0.9  # saturates both ramps with its neighbours; of 8 offsets only those along the row fit in
    cost = compare("census", target, source, window=1)
    torch.testing.assert_close(cost, torch.tensor([[1 / 16, 1 / 16, 0.0]]))


@pytest.mark.parametrize(("name", "gain", "offset"), [("zncc", 0.6, 0.2), ("census", 1.0, 0.2)])
def test_exposure_does_not_matter(name, gain, offset):
    a, b = 0.5 * image(), 0.5 * image(1)
    torch.testing.assert_close(compare(name, a, gain * b + offset), compare(name, a, b), atol=1e-2, rtol=0)


@every_cost
def test_ignored_pixels_do_not_count_in_their_neighbours_windows(name):
    target, source = image(), image()
    source[..., 8:12, 8:12] = image(3)[..., 8:12, 8:12]
    ignored = torch.zeros(1, 20, 24, dtype=torch.bool)
    ignored[:, 6:14, 6:14] = True  # census looks up to two pixels further
    cost = compare(name, target, source, ignored=ignored)
    other = source.clone()
    other[..., 8:12, 8:12] = image(4)[..., 8:12, 8:12]
    torch.testing.assert_close(cost, compare(name, target, other, ignored=ignored))


def test_window_mean_is_over_what_lies_inside():
    values = torch.arange(12.0).view(1, 3, 4)
    mean = window_mean(values, 3)[0]
    assert mean[0, 0] == pytest.approx((0 + 1 + 4 + 5) / 4)
    assert mean[1, 1] == pytest.approx(5)
    assert mean[2, 2] == pytest.approx((5 + 6 + 7 + 9 + 10 + 11) / 6)
    torch.testing.assert_close(window_mean(torch.ones(2, 3, 4), 9), torch.ones(2, 3, 4))


def test_bad_choices_are_named():
    with pytest.raises(DepthError, match="unknown matching cost 'sad'"):
        make_cost("sad", 5)
    with pytest.raises(DepthError, match="odd"):
        make_cost("zncc", 4)
