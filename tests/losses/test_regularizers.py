"""Smoothness, rigidity and the shape of Gaussians."""

import pytest
import roma
import torch
from torch.autograd import gradcheck

from som.losses import (
    as_rigid_as_possible,
    base_smoothness,
    local_isometry,
    nearest_neighbors,
    ray_acceleration,
    scale_variance,
    track_smoothness,
)


def rand(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def uniform_motion(n=5, t=6):
    return rand(n, 1, 3) + torch.arange(t, dtype=torch.float64)[:, None] * rand(n, 1, 3)


def test_uniform_motion_costs_nothing():
    x = uniform_motion()
    assert track_smoothness(x) < 1e-12
    assert base_smoothness(torch.cat([x, x], -1), x) < 1e-12
    assert ray_acceleration(x[:, :3], torch.zeros(3, dtype=x.dtype)) < 1e-12
    receding = torch.tensor([[[0, 0, 1.0], [0, 0, 2.0], [0, 0, 3.0]]])
    assert ray_acceleration(receding, torch.zeros(3)) == 0


def test_smoothness_by_hand():
    x = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]])  # turns back: second difference (-2, 0, 0)
    assert track_smoothness(x) == 1
    rots = torch.zeros(1, 3, 6)
    rots[0, 1, 0] = 1
    assert base_smoothness(rots, x[None]) == 2 + 2 * 2
    ahead = torch.tensor([[[0.0, 0, 1], [0, 0, 2], [0, 0, 1]]])
    assert ray_acceleration(ahead, torch.zeros(3)) == 4
    across = torch.tensor([[[-1.0, 0, 2], [0, 0, 2], [-1, 0, 2]]])
    assert ray_acceleration(across, torch.zeros(3)) == 0


@pytest.mark.parametrize("times", [1, 2])
def test_too_few_times_are_a_differentiable_zero(times):
    x = torch.randn(4, times, 3, requires_grad=True)
    value = track_smoothness(x) + base_smoothness(torch.cat([x, x], -1), x)
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


def test_no_points_are_a_differentiable_zero():
    none = torch.zeros(0, 3, 3, requires_grad=True)
    value = track_smoothness(none) + ray_acceleration(none, torch.zeros(3)) + scale_variance(none[:, 0])
    value = value + local_isometry(none[:, 0], none[:, 1], torch.zeros(0, 4, dtype=torch.long))
    value.backward()
    assert value == 0


def test_a_resting_scene_has_finite_gradients():
    x = torch.ones(4, 3, 3, requires_grad=True)
    neighbors, weights = nearest_neighbors(x[:, 0], 2)
    eye = torch.eye(3).expand(4, 3, 3)
    loss = track_smoothness(x) + ray_acceleration(x, torch.ones(3)) + local_isometry(x[:, 0], x[:, 1], neighbors)
    loss = loss + as_rigid_as_possible(x[:, 0], eye, x[:, 1], eye, neighbors, weights) + scale_variance(x[:, 0])
    loss.backward()
    assert loss == 0
    assert x.grad.isfinite().all()


def test_scale_variance():
    assert scale_variance(torch.full((5, 3), -2.0)) == 0
    assert scale_variance(torch.tensor([[0.0, 1.0, 2.0]])) == 1
    scales = rand(6, 3)
    assert scale_variance(scales + 3) == pytest.approx(float(scale_variance(scales)))


def test_nearest_neighbors_exclude_the_point_itself():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [3, 0, 0], [3, 0, 0]])
    neighbors, weights = nearest_neighbors(points, 2)
    assert (neighbors != torch.arange(5)[:, None]).all()
    assert neighbors[0].tolist()[0] == 1
    assert ((weights >= 0) & (weights <= 1)).all()
    assert nearest_neighbors(points, 10)[0].shape == (5, 4)
    assert nearest_neighbors(points[:1], 3)[0].shape == (1, 0)


def rigid_pair():
    a, R = rand(30, 3), roma.random_rotmat(dtype=torch.float64)
    return a, a @ R.T + rand(1, 3), R.expand(30, 3, 3), torch.eye(3, dtype=torch.float64).expand(30, 3, 3)


def test_a_rigid_motion_costs_nothing():
    a, b, R, eye = rigid_pair()
    neighbors, weights = nearest_neighbors(a, 5)
    assert local_isometry(a, b, neighbors, weights) < 1e-12
    assert as_rigid_as_possible(a, eye, b, R, neighbors, weights) < 1e-12


def test_arap_sees_a_wrong_rotation_that_isometry_cannot():
    a, b, _, eye = rigid_pair()
    neighbors, _ = nearest_neighbors(a, 5)
    assert as_rigid_as_possible(a, eye, b, eye, neighbors) > 0.01
    assert local_isometry(a, b, neighbors) < 1e-12


def test_stretching_by_hand():
    a = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    neighbors, eye = torch.tensor([[1], [0]]), torch.eye(3).expand(2, 3, 3)
    assert local_isometry(a, 3 * a, neighbors) == 2
    assert as_rigid_as_possible(a, eye, 3 * a, eye, neighbors) == 2
    assert local_isometry(a, 3 * a, neighbors, torch.zeros(2, 1)) == 0


def test_shape_mismatch_raises():
    x, n = torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.long)
    eye = torch.eye(3).expand(4, 3, 3)
    for call in (
        lambda: track_smoothness(torch.zeros(4, 2)),
        lambda: base_smoothness(torch.zeros(2, 4, 6), torch.zeros(3, 4, 3)),
        lambda: ray_acceleration(torch.zeros(4, 2, 3), torch.zeros(3)),
        lambda: scale_variance(torch.zeros(4, 2)),
        lambda: local_isometry(x, x[:2], n),
        lambda: local_isometry(x, x, n[:2]),
        lambda: local_isometry(x, x, n, torch.zeros(4, 3)),
        lambda: as_rigid_as_possible(x, eye[:2], x, eye, n),
    ):
        with pytest.raises(ValueError, match=r"must|disagree"):
            call()


def test_gradients():
    a, b, R, eye = rigid_pair()
    a, b, R, eye = a[:6], rand(6, 3), R[:6], eye[:6]
    neighbors, weights = nearest_neighbors(a, 3)
    x = rand(4, 5, 3).requires_grad_()
    assert gradcheck(track_smoothness, x)
    assert gradcheck(base_smoothness, (rand(2, 5, 6).requires_grad_(), rand(2, 5, 3).requires_grad_()))
    assert gradcheck(ray_acceleration, (rand(4, 3, 3).requires_grad_(), rand(3)))
    assert gradcheck(scale_variance, rand(5, 3).requires_grad_())
    assert gradcheck(lambda u, v: local_isometry(u, v, neighbors, weights), (a.requires_grad_(), b.requires_grad_()))
    assert gradcheck(lambda u, v: as_rigid_as_possible(u, eye, v, R, neighbors, weights), (a, b))
