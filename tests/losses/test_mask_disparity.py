"""Opacity and disparity losses."""

import pytest
import torch
from torch.autograd import gradcheck

from som.losses import coverage, disparity_gradient, disparity_l1, foreground_mask


def depths(dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [1 + 3 * torch.rand(2, 6, 7, generator=g, dtype=dtype) for _ in range(2)]


@pytest.mark.parametrize("loss", [disparity_l1, disparity_gradient, foreground_mask, coverage])
def test_identity_is_zero_and_constant_is_finite(loss):
    x, _ = depths()
    assert loss(x, x) == 0
    assert loss(torch.ones_like(x), x).isfinite()


@pytest.mark.parametrize("loss", [disparity_l1, disparity_gradient, foreground_mask, coverage])
def test_shape_mismatch_raises(loss):
    x, y = depths()
    with pytest.raises(ValueError, match=r"shape|fit"):
        loss(x, y[:, :-1])
    with pytest.raises(ValueError, match=r"shape|fit"):
        loss(x, y, torch.ones(2, 6, 6))


@pytest.mark.parametrize("loss", [disparity_l1, disparity_gradient, foreground_mask, coverage])
def test_nothing_valid_is_a_differentiable_zero(loss):
    x, y = depths()
    x.requires_grad_()
    value = loss(x, y, torch.zeros(2, 6, 7, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("loss", [disparity_l1, disparity_gradient, foreground_mask, coverage])
def test_gradient(loss):
    x, y = depths(torch.float64)
    weights = torch.rand(2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert gradcheck(lambda v: loss(v, y, weights), x.requires_grad_())


def test_mask_values_by_hand():
    alpha, mask = torch.full((1, 10, 10), 0.25), torch.zeros(1, 10, 10, dtype=torch.bool)
    assert foreground_mask(alpha, mask) == pytest.approx(0.25)
    assert foreground_mask(1 - alpha, ~mask) == pytest.approx(0.25)
    assert coverage(alpha) == pytest.approx(0.75**2)
    assert coverage(alpha, mask) == pytest.approx(0.25**2)


def test_one_wrong_mask_pixel_in_a_hundred_is_trimmed():
    alpha, mask = torch.zeros(1, 10, 10), torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, 3, 3] = True
    assert foreground_mask(alpha, mask, quantile=0.98) == 0
    assert foreground_mask(alpha, mask, quantile=1.0) == pytest.approx(0.01)


def test_disparity_by_hand_and_unknown_depth_is_ignored():
    pred, depth = torch.full((1, 2, 2), 2.0), torch.tensor([[[4.0, 4.0], [0.0, 4.0]]])
    assert disparity_l1(pred, depth) == pytest.approx(0.25, rel=1e-4)
    pred[0, 0, 0] = 0.0  # nothing hit
    pred.requires_grad_()
    value = disparity_l1(pred, depth)
    assert value.item() == pytest.approx(0.25, rel=1e-4)
    value.backward()
    assert pred.grad.isfinite().all()
    assert pred.grad[0, 0, 0] == pred.grad[0, 1, 0] == 0


def test_disparity_gradient_by_hand():
    disparity = torch.tensor([[[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]])
    flat = torch.ones_like(disparity)
    assert disparity_gradient(1 / disparity, flat, quantile=1.0) == pytest.approx(1.5, rel=1e-3)
    depth = flat.clone()
    depth[0, :, 2] = 0  # unknown: only the first difference of each row is left
    assert disparity_gradient(1 / disparity, depth, quantile=1.0) == pytest.approx(1.0, rel=1e-3)


def test_disparity_gradient_is_blind_to_a_shift_of_disparity():
    x, _ = depths()
    assert disparity_gradient(1 / (1 / x + 0.7), x) < 1e-4
    assert disparity_l1(1 / (1 / x + 0.7), x) == pytest.approx(0.7, rel=1e-3)


def test_disparity_gradient_wants_images():
    with pytest.raises(ValueError, match="B,H,W"):
        disparity_gradient(torch.ones(4, 4), torch.ones(4, 4))
