"""Correlation losses, over images and over boxes."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from som.losses.pearson import box_size, patch_pearson_depth, pearson_depth, sample_boxes


def depths(h=40, w=50, dtype=torch.float32, seed=0, batch=2):
    g = torch.Generator().manual_seed(seed)
    return [1 + 3 * torch.rand(batch, h, w, generator=g, dtype=dtype) for _ in range(2)]


def patches(pred, depth, weights=None, **options):
    B, H, W = depth.shape
    box = options.setdefault("box", min(H, W) // 2)
    corners = sample_boxes(B, H, W, torch.Generator().manual_seed(3), box=box, share=2.0)
    return patch_pearson_depth(pred, depth, corners, weights, **options)


both = pytest.mark.parametrize("loss", [pearson_depth, patches])


@both
@pytest.mark.parametrize("space", ["disparity", "depth"])
def test_identity_is_zero_and_reversed_is_two(loss, space):
    x, _ = depths()
    assert loss(x, x, space=space) == pytest.approx(0, abs=1e-6)
    opposite = 1 / (1.5 - 1 / x) if space == "disparity" else 5 - x
    assert loss(opposite, x, space=space) == pytest.approx(2, abs=1e-6)


@both
def test_unrelated_depth_costs_one(loss):
    x, y = depths(120, 120)
    assert loss(x, y) == pytest.approx(1, abs=0.05)


@both
def test_neither_the_renders_scale_nor_scale_and_shift_of_each_prior_matter(loss):
    x, y = depths(180, 320)
    y = 0.5 * x + 0.5 * y
    value = loss(x, y)
    assert 0.05 < value < 0.95
    assert loss(7.3 * x, y) == pytest.approx(value.item(), abs=1e-6)
    a, b = torch.tensor([0.3, 20.0])[:, None, None], torch.tensor([2.0, -4.0])[:, None, None]
    assert loss(x, 1 / (a / y + b)) == pytest.approx(value.item(), abs=1e-5)


@both
def test_the_space_is_what_the_maps_are_compared_in(loss):
    x, _ = depths()
    in_depth = 2 * x + 1
    assert loss(x, in_depth, space="depth") == pytest.approx(0, abs=1e-6)
    assert loss(x, in_depth) > 0.001


@both
def test_float32_is_stable_where_disparity_hardly_varies(loss):
    x, y = depths(180, 320)
    x, y = 1 / (5 + 0.01 * x), 1 / (300 + x + y)  # a textbook E[xy] - E[x]E[y] has no digit left here
    assert loss(x, y) == pytest.approx(loss(x.double(), y.double()).item(), abs=1e-3)


def test_pearson_by_hand():
    disparity = torch.tensor([1.0] * 8 + [3.0] * 8)
    prior = disparity.clone()
    prior[[0, 1, 8, 9]] = torch.tensor([3.0, 3.0, 1.0, 1.0])  # 12 of 16 agree: (12 - 4) / 16
    pred, depth = (1 / v.view(1, 4, 4) for v in (disparity, prior))
    assert pearson_depth(pred, depth) == pytest.approx(0.5)
    weights = torch.where(disparity == prior, 3.0, 1.0).view(1, 4, 4)  # (36 - 4) / 40
    assert pearson_depth(pred, depth, weights) == pytest.approx(0.2)


def test_pearson_agrees_with_numpy_on_masked_images():
    x, y = depths(dtype=torch.float64)
    valid = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.4
    y[0, :5] = 0
    x[1, 3:9] = 0
    rhos = [
        np.corrcoef(1 / x[k][m].numpy(), 1 / y[k][m].numpy())[0, 1] for k, m in enumerate(valid & (x > 0) & (y > 0))
    ]
    assert pearson_depth(x, y, valid) == pytest.approx(1 - np.mean(rhos), rel=1e-9)


def test_patches_agree_with_a_loop_over_boxes():
    x, y = depths(dtype=torch.float64)
    weights = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    corners = torch.tensor([[[0, 0], [5, 7], [24, 34]], [[1, 30], [1, 30], [24, 0]]])
    loop = [
        pearson_depth(*(m[k : k + 1, r : r + 16, c : c + 16] for m in (x, y, weights)))
        for k in range(2)
        for r, c in corners[k].tolist()
    ]
    assert patch_pearson_depth(x, y, corners, weights, box=16) == pytest.approx(sum(loop).item() / 6, rel=1e-9)


def test_patches_see_what_is_wrong_inside_a_box_only():
    x, _ = depths(64, 64, batch=1)
    shift = torch.tensor([[0.0, 1.0], [2.0, 3.0]])  # of every box its own
    prior = 1 / (1 / x + shift.repeat_interleave(32, 0).repeat_interleave(32, 1))
    corners = torch.tensor([[[0, 0], [0, 32], [32, 0], [32, 32]]])
    assert pearson_depth(x, prior) > 0.3
    assert patch_pearson_depth(x, prior, corners, box=32) == pytest.approx(0, abs=1e-5)


def test_boxes_that_are_unknown_or_flat_in_the_prior_do_not_count():
    x, y = depths(32, 64, batch=1)
    x[..., 32:], corners = y[..., 32:], torch.tensor([[[0, 0], [0, 32]]])
    y = y.flip(-2)
    right = patch_pearson_depth(x, y, corners[:, 1:], box=32)
    for spoil in ("unknown", "nearly unknown", "flat"):
        prior = y.clone()
        first = prior[..., :32] if spoil != "nearly unknown" else prior[:, 7:, :32]  # 224 pixels of 1024 are left
        first.copy_(2 + 1e-3 * first if spoil == "flat" else torch.zeros_like(first))
        assert patch_pearson_depth(x, prior, corners, box=32) == pytest.approx(right.item(), abs=1e-6)
    assert patch_pearson_depth(x, prior, corners, box=32, min_spread=0.0) != pytest.approx(right.item(), abs=1e-3)


def test_a_box_is_flat_by_the_measure_of_its_own_image():
    x, y = depths(32, 64)
    y[1] = 2 + 1e-3 * y[1]  # all of the second image varies little
    corners = torch.tensor([[[0, 0], [0, 32]]] * 2)
    boxes = [patch_pearson_depth(x[k : k + 1], y[k : k + 1], corners[:1], box=32).item() for k in range(2)]
    assert patch_pearson_depth(x, y, corners, box=32).item() == pytest.approx(sum(boxes) / 2, rel=1e-5)


@both
def test_constant_maps_are_finite(loss):
    x, _ = depths()
    flat = torch.full_like(x, 2.7).requires_grad_()
    value = loss(flat, x)  # a flat render is unrelated
    value.backward()
    assert value.item() == pytest.approx(1, abs=0.02)
    assert flat.grad.isfinite().all()
    x.requires_grad_()
    value = loss(x, flat.detach())  # a flat prior says nothing
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


@both
def test_nothing_valid_is_a_differentiable_zero(loss):
    x, y = depths()
    for weights, prior in ((torch.zeros(x.shape, dtype=torch.bool), y), (None, torch.zeros_like(y))):
        pred = x.clone().requires_grad_()
        value = loss(pred, prior, weights)
        value.backward()
        assert value == 0
        assert (pred.grad == 0).all()


def test_images_with_fewer_than_sixteen_pixels_do_not_count():
    x, y = depths()
    weights = torch.zeros(x.shape)
    weights[0] = 1
    alone = pearson_depth(x, y, weights)
    weights[1].view(-1)[:15] = 1
    assert pearson_depth(x, y, weights) == alone
    weights[1].view(-1)[:16] = 1
    assert pearson_depth(x, y, weights) != alone


@both
def test_unknown_pixels_have_no_influence(loss):
    x, y = depths()
    pred, prior = x.clone(), y.clone()
    weights = torch.ones_like(x)
    pred[:, 2:4], prior[:, 8:10], weights[:, 14:16] = 0, 0, 0
    expected = loss(pred, prior, weights)
    pred[:, 8:10], prior[:, 2:4] = 1e-3, 1e3  # on the other side of a hole
    pred[:, 14:16] = float("nan")
    pred.requires_grad_()
    value = loss(pred, prior, weights)
    value.backward()
    assert value == expected
    assert pred.grad.isfinite().all()
    assert (pred.grad[:, [2, 3, 8, 9, 14, 15]] == 0).all()


def test_nothing_hit_at_all_is_zero():
    x, y = depths()
    nothing = torch.zeros_like(x).requires_grad_()
    value = pearson_depth(nothing, y) + patches(nothing, y)
    value.backward()
    assert value == 0
    assert (nothing.grad == 0).all()


@both
def test_bad_input_raises(loss):
    x, y = depths()
    with pytest.raises(ValueError, match="shape"):
        loss(x[:, :-1], y)
    with pytest.raises(ValueError, match="shape"):
        loss(x, y, torch.ones(2, 40, 49))
    with pytest.raises(ValueError, match="B,H,W"):
        pearson_depth(x[0], y[0])
    with pytest.raises(ValueError, match="space"):
        loss(x, y, space="log")


def test_bad_boxes_raise():
    x, y = depths()
    corners = sample_boxes(2, 40, 50)
    for call in (
        lambda: patch_pearson_depth(x, y, corners[:1]),
        lambda: patch_pearson_depth(x, y, corners[..., :1]),
        lambda: patch_pearson_depth(x, y, corners, box=41),
        lambda: sample_boxes(2, 40, 50, box=41),
    ):
        with pytest.raises(ValueError, match=r"corners|fit"):
            call()


def test_boxes_lie_in_the_image_and_repeat_with_the_seed():
    assert [box_size(180, 320), box_size(720, 1280), box_size(20, 50)] == [32, 90, 20]
    draw = lambda seed: sample_boxes(3, 180, 320, torch.Generator().manual_seed(seed))  # noqa: E731
    corners = draw(0)
    assert corners.shape == (3, 25, 2)  # half of the 5 x 10 boxes that fit
    assert (corners >= 0).all()
    assert (corners <= torch.tensor([180 - 32, 320 - 32])).all()
    assert torch.equal(corners, draw(0))
    assert not torch.equal(corners, draw(1))
    assert not torch.equal(corners[0], corners[1])
    every = sample_boxes(1, 33, 34, torch.Generator().manual_seed(0), box=32, share=400.0)[0]
    assert {tuple(c) for c in every.tolist()} == {(r, c) for r in range(2) for c in range(3)}


@both
def test_gradient(loss):
    x, y = depths(6, 7, torch.float64)
    weights = torch.rand(2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    y[0, 1, 2] = 0
    options = {} if loss is pearson_depth else {"box": 5}
    assert gradcheck(lambda v: loss(v, y, weights, **options), x.requires_grad_())


def test_the_gradient_raises_the_correlation():
    x, y = depths(32, 32)
    x.requires_grad_()
    before = pearson_depth(x, y)
    (slope,) = torch.autograd.grad(before, x)
    assert pearson_depth(x - 20 * slope, y) < before - 0.01


def test_the_device_is_never_read():
    with FakeTensorMode():  # raises where a value would decide about shapes or control flow
        x, y, weights = (torch.ones(2, 40, 50, requires_grad=k == 0) for k in range(3))
        value = pearson_depth(x, y, weights) + patch_pearson_depth(x, y, torch.zeros(2, 3, 2, dtype=torch.long))
        value.backward()
        assert x.grad.shape == x.shape
