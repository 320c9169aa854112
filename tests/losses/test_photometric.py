"""Colour losses against torchmetrics and by hand."""

import pytest
import torch
from torch.autograd import gradcheck
from torchmetrics.functional.image import structural_similarity_index_measure

from som.losses import l1, photometric, ssim_loss, ssim_map


def images(h=24, w=31, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(2, h, w, 3, generator=g, dtype=dtype), torch.rand(2, h, w, 3, generator=g, dtype=dtype)


@pytest.mark.parametrize("loss", [l1, ssim_loss, photometric])
def test_identity_is_zero(loss):
    x, _ = images()
    assert loss(x, x).abs() < 1e-5
    assert loss(torch.full_like(x, 0.5), torch.full_like(x, 0.5)).abs() < 1e-5


def test_black_against_white():
    zeros, ones = torch.zeros(1, 20, 20, 3), torch.ones(1, 20, 20, 3)
    assert l1(zeros, ones) == 1
    assert ssim_loss(zeros, ones) == pytest.approx(1 - 1e-4 / (1 + 1e-4), rel=1e-5)  # c1 / (1 + c1) times c2 / c2
    assert photometric(zeros, ones, ssim_weight=0.2) == pytest.approx(0.8 + 0.2 * 0.9999, rel=1e-4)
    assert photometric(zeros, ones, ssim_weight=0.0) == 1


def test_ssim_agrees_with_torchmetrics():
    x, y = images(40, 33)
    y = 0.7 * x + 0.3 * y
    _, full = structural_similarity_index_measure(
        y.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), data_range=1.0, return_full_image=True
    )
    full_windows = full[..., 5:-5, 5:-5].permute(0, 2, 3, 1)  # the rest sees reflected padding
    assert torch.allclose(ssim_map(y, x), full_windows, atol=1e-4)


def test_ssim_of_one_window_by_direct_summation():
    x, y = images(11, 11, dtype=torch.float64)
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(taps, taps)[..., None] / taps.sum() ** 2
    mx, my = ((v * window).sum((1, 2)) for v in (x, y))
    vx, vy = (((v - m[:, None, None]) ** 2 * window).sum((1, 2)) for v, m in ((x, mx), (y, my)))
    cov = ((x - mx[:, None, None]) * (y - my[:, None, None]) * window).sum((1, 2))
    expected = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert torch.allclose(ssim_map(x, y)[:, 0, 0], expected, atol=1e-10)


@pytest.mark.parametrize(("h", "w", "window"), [(10, 40, 9), (7, 8, 7), (1, 5, 1), (2, 2, 1), (11, 11, 11)])
def test_small_images_use_the_largest_odd_window(h, w, window):
    x, y = images(h, w)
    assert ssim_map(x, y).shape == (2, h - window + 1, w - window + 1, 3)
    assert photometric(x, y).isfinite()


@pytest.mark.parametrize("loss", [l1, ssim_loss, photometric])
def test_shape_mismatch_raises(loss):
    x, y = images()
    with pytest.raises(ValueError, match="shape"):
        loss(x, y[:, :-1])
    with pytest.raises(ValueError, match="valid"):
        loss(x, y, torch.ones(2, 24, 30, dtype=torch.bool))
    with pytest.raises(ValueError, match="B,H,W,C"):
        loss(x[0], y[0])


@pytest.mark.parametrize("loss", [l1, ssim_loss, photometric])
def test_nothing_valid_is_a_differentiable_zero(loss):
    x, y = images()
    x.requires_grad_()
    value = loss(x, y, torch.zeros(2, 24, 31, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("loss", [l1, ssim_loss, photometric])
def test_masked_pixels_have_no_influence(loss):
    x, y = images(30, 30)
    valid = torch.ones(2, 30, 30, dtype=torch.bool)
    valid[:, 3:5, 20:24] = False
    garbage = x.clone()
    garbage[~valid] = float("nan")
    garbage.requires_grad_()
    value = loss(garbage, y, valid)
    assert value == loss(x, y, valid)
    value.backward()
    assert garbage.grad.isfinite().all()
    assert (garbage.grad[~valid] == 0).all()


def test_all_valid_equals_no_mask():
    x, y = images()
    assert photometric(x, y, torch.ones(2, 24, 31)) == pytest.approx(float(photometric(x, y)), rel=1e-6)


def test_gradients():
    x, y = images(12, 13, dtype=torch.float64)
    x, y = x[:1, ..., :1].requires_grad_(), y[:1, ..., :1]
    valid = torch.ones(1, 12, 13, dtype=torch.bool)
    valid[0, 0, 0] = False
    assert gradcheck(lambda v: photometric(v, y, valid), x)
    assert gradcheck(lambda v: photometric(v, y), x)
