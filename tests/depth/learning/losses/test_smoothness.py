"""Edge-aware smoothness of first and second order."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from som.depth.learning.losses.smoothness import edge_aware_smoothness, geonet_smoothness, second_order_smoothness

F64 = torch.float64
every = pytest.mark.parametrize("loss", [edge_aware_smoothness, geonet_smoothness, second_order_smoothness])


def maps(batch=2, h=6, w=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 1 + torch.rand(batch, 1, h, w, generator=g, dtype=F64), torch.rand(batch, 3, h, w, generator=g, dtype=F64)


def ramp(h=5, w=6):
    return (1 + torch.arange(w, dtype=F64)).expand(1, 1, h, w), torch.full((1, 3, h, w), 0.5, dtype=F64)


@every
def test_a_constant_map_costs_nothing_and_has_a_finite_gradient(loss):
    _, image = maps()
    flat = torch.full((2, 1, 6, 7), 0.7, dtype=F64, requires_grad=True)
    value = loss(flat, image)
    value.backward()
    assert value < 1e-12
    assert flat.grad.isfinite().all()


def test_first_order_by_hand():
    values, image = ramp()
    assert edge_aware_smoothness(values, image, normalize=False) == pytest.approx(1)
    assert edge_aware_smoothness(values, image) == pytest.approx(1 / 3.5)
    assert edge_aware_smoothness(values.mT, image.mT) == pytest.approx(1 / 3.5)
    image = image.clone()
    image[:, 0, :, 3:] += 0.3  # one of three channels, one of five steps: mean over channels 0.1
    assert edge_aware_smoothness(values, image, normalize=False) == pytest.approx((4 + math.exp(-0.1)) / 5)
    assert geonet_smoothness(values, image) == pytest.approx((4 + math.exp(-0.2)) / 5)
    assert edge_aware_smoothness(values, image, normalize=False, edge_scale=0.0) == pytest.approx(1)


def test_second_order_by_hand():
    values = torch.tensor([0.0, 0, 0, 1, 2, 3]).to(F64).expand(1, 1, 5, 6)
    _, image = ramp()
    assert second_order_smoothness(values, image, normalize=False) == pytest.approx(1 / 4)
    image = image.clone()
    image[..., 3:] += 0.3  # seen over the two pixels around the kink
    assert second_order_smoothness(values, image, normalize=False) == pytest.approx(math.exp(-0.3) / 4)
    assert second_order_smoothness(values.mT, image.mT, normalize=False) == pytest.approx(math.exp(-0.3) / 4)


def test_the_disparity_of_a_slanted_plane_is_free_in_second_order_only():
    y, x = torch.meshgrid(torch.arange(6, dtype=F64), torch.arange(7, dtype=F64), indexing="ij")
    disparity = (0.5 + 0.03 * x + 0.02 * y)[None, None]
    _, image = maps(1)
    assert second_order_smoothness(disparity, image) < 1e-12
    assert edge_aware_smoothness(disparity, image) > 0.01


@pytest.mark.parametrize("loss", [edge_aware_smoothness, second_order_smoothness])
def test_normalisation_takes_the_scale_of_each_map_out(loss):
    values, image = maps()
    scale = torch.tensor([0.2, 5.0], dtype=F64).view(2, 1, 1, 1)
    assert loss(values * scale, image) == pytest.approx(loss(values, image).item(), rel=1e-5)
    assert loss(values * 3, image, normalize=False) == pytest.approx(3 * loss(values, image, normalize=False).item())


@every
def test_masked_pixels_have_no_influence(loss):
    values, image = maps()
    valid = torch.ones(2, 1, 6, 7)
    valid[:, :, 2, 3] = 0
    expected = loss(values, image, valid)
    assert expected != loss(values, image)
    spoiled = values.clone()
    spoiled[:, :, 2, 3] = float("nan")
    spoiled.requires_grad_()
    value = loss(spoiled, image, valid)
    value.backward()
    assert value == expected
    assert spoiled.grad.isfinite().all() and (spoiled.grad[:, :, 2, 3] == 0).all()


@every
def test_nothing_valid_is_a_differentiable_zero(loss):
    values, image = maps()
    value = loss(values.requires_grad_(), image, torch.zeros(2, 1, 6, 7))
    value.backward()
    assert value == 0 and (values.grad == 0).all()


@every
def test_a_map_of_one_row_is_fine(loss):
    values, image = maps(1, 1, 7)
    assert loss(values, image).isfinite()


@every
def test_gradient(loss):
    values, image = maps()
    valid = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(1), dtype=F64)
    assert gradcheck(lambda v: loss(v, image, valid), values.requires_grad_())


@every
def test_shapes_are_checked(loss):
    values, image = maps()
    for bad in ((values[..., :6], image), (values[:, 0], image), (values.expand(2, 3, 6, 7), image)):
        with pytest.raises(ValueError, match="values"):
            loss(*bad)
    with pytest.raises(ValueError, match="valid"):
        loss(values, image, torch.ones(2, 6, 7))
