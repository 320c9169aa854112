"""Track losses; above all, that interval weights act."""

import pytest
import torch
from torch.autograd import gradcheck

from som.losses import interval_gains, track_2d, track_depth

SIZE = (180, 320)


def tracks(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    pred, target = (torch.rand(4, 25, 2, generator=g, dtype=dtype) * 100 for _ in range(2))
    return pred, target, torch.rand(4, 25, generator=g, dtype=dtype)


def test_identity_and_hand_value():
    pred, _, confidence = tracks()
    assert track_2d(pred, pred, confidence, SIZE) == 0
    shifted = pred + torch.tensor([3.0, -5.0])
    assert track_2d(shifted, pred, confidence, SIZE) == pytest.approx(4.0 / 320, rel=1e-4)
    assert track_depth(torch.full((3,), 2.0), torch.full((3,), 4.0), torch.ones(3)) == pytest.approx(0.25, rel=1e-4)


def test_interval_gains_act_per_element_and_do_not_cancel():
    near = interval_gains(torch.tensor([0, 0]), torch.tensor([1, 1]), 10)
    far = interval_gains(torch.tensor([0, 0]), torch.tensor([9, 9]), 10)
    pred, target, confidence = torch.zeros(2, 2), torch.ones(2, 2), torch.tensor([0.5, 1.0])
    plain = track_2d(pred, target, confidence, SIZE)
    ratio = track_2d(pred, target, confidence, SIZE, far) / track_2d(pred, target, confidence, SIZE, near)
    assert ratio == pytest.approx(float(torch.exp(torch.tensor(-1.6))), rel=1e-4)
    assert track_2d(pred, target, confidence, SIZE, far) < plain
    depth = torch.tensor([1.0, 2.0])
    ratio = track_depth(depth, depth + 1, confidence, far) / track_depth(depth, depth + 1, confidence, near)
    assert ratio == pytest.approx(float(torch.exp(torch.tensor(-1.6))), rel=1e-4)


def test_interval_gains_weigh_elements_against_each_other():
    gains = interval_gains(torch.tensor([0, 0]), torch.tensor([0, 5]), 10)
    target = torch.zeros(2, 2)
    bad_near = track_2d(torch.tensor([[9.0, 9.0], [0.0, 0.0]]), target, torch.ones(2), SIZE, gains)
    bad_far = track_2d(torch.tensor([[0.0, 0.0], [9.0, 9.0]]), target, torch.ones(2), SIZE, gains)
    assert bad_far < bad_near * 0.5


def test_confidence_weighs_each_element():
    pred, target = torch.tensor([[1.0, 1.0], [3.0, 3.0]]), torch.zeros(2, 2)
    value = track_2d(pred, target, torch.tensor([3.0, 1.0]), (1, 1), quantile=1.0)
    assert value == pytest.approx((3 + 3) / 4)


def test_shape_mismatch_raises():
    pred, target, confidence = tracks()
    depth = pred[..., 0]
    for call in (
        lambda: track_2d(pred, target[:3], confidence, SIZE),
        lambda: track_2d(pred, target, confidence[:, :1], SIZE),
        lambda: track_2d(pred, target, confidence, SIZE, confidence[:1]),
        lambda: track_depth(depth, depth[:2], confidence),
        lambda: track_depth(depth, depth, confidence[0]),
    ):
        with pytest.raises(ValueError, match=r"shape|must be"):
            call()


def test_no_confidence_is_a_differentiable_zero():
    pred, target, confidence = tracks()
    pred = torch.full_like(pred, float("inf")).requires_grad_()
    value = track_2d(pred, target, confidence * 0, SIZE) + track_depth(pred[..., 0], target[..., 0], confidence * 0)
    value.backward()
    assert value == 0
    assert (pred.grad == 0).all()


def test_points_behind_the_camera_and_unknown_depth_are_ignored():
    pred, target = torch.tensor([-1.0, 2.0, 2.0], requires_grad=True), torch.tensor([1.0, 0.0, 2.0])
    value = track_depth(pred, target, torch.ones(3))
    value.backward()
    assert value == 0
    assert pred.grad.isfinite().all()


def test_gradient():
    pred, target, confidence = tracks(torch.float64)
    gains = confidence.flip(0) + 0.1
    assert gradcheck(lambda v: track_2d(v, target, confidence, SIZE, gains), pred.clone().requires_grad_())
    depth = (pred[..., 0] / 50 + 0.5).requires_grad_()
    assert gradcheck(lambda v: track_depth(v, target[..., 0] / 50 + 0.5, confidence, gains), depth)
