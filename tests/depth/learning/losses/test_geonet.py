"""Consistency of flow with depth and motion, and of normals with depth."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from som.cameras.geometry import axis_angle_to_se3, invert_se3, pixel_centers, unproject
from som.depth.learning.losses.geonet import (
    depth_from_normals,
    flow_consistency_loss,
    forward_backward_difference,
    normal_consistency_loss,
    normals_from_depth,
    rigid_flow,
    rigid_flow_loss,
    tangent_plane_loss,
)

F64 = torch.float64
H, W = 12, 16
K = torch.tensor([[[14.0, 0, 8.3], [0, 15, 5.6], [0, 0, 1]]], dtype=F64)


def plane(normal=(0.3, -0.4, 1.0), offset=4.0, height=H, width=W):
    """z of the plane n·X = offset, n made unit, and n turned towards the camera."""
    n = F.normalize(torch.tensor(normal, dtype=F64), dim=0)
    xy = pixel_centers(height, width, dtype=F64).reshape(1, -1, 2)
    rays = unproject(xy, torch.ones(1, height * width, dtype=F64), K)
    return (offset / (rays @ n)).view(1, 1, height, width), -n.view(1, 3, 1, 1).expand(1, 3, height, width)


def pose(v=(0.0, 0.0, 0.0), t=(0.0, 0.0, 0.0)):
    return axis_angle_to_se3(torch.tensor([v], dtype=F64), torch.tensor([t], dtype=F64))


# Rigid flow


def test_rigid_flow_by_hand():
    depth = torch.full((1, 1, H, W), 7.0, dtype=F64)
    depth[..., 0, 0] = 0
    flow, exists = rigid_flow(depth, K, K, pose(t=(0.5, -0.5, 0.0)))
    torch.testing.assert_close(flow[0, 0, 1:], torch.ones(H - 1, W, dtype=F64))  # 14 px x 0.5 / 7
    torch.testing.assert_close(flow[0, 1, 1:], torch.full((H - 1, W), -15 / 14, dtype=F64))
    assert not exists[..., 0, :].any() and not exists[..., -1].any()
    assert exists[..., 2:, :-1].all()
    still, everywhere = rigid_flow(depth + 1, K, K, pose())
    assert (still == 0).all() and everywhere.all()


def test_rigid_flow_there_and_back_is_consistent_on_a_plane():
    depth, _ = plane()
    T = pose((0.01, -0.02, 0.03), (0.2, 0.1, -0.1))
    n = F.normalize(torch.tensor([0.3, -0.4, 1.0], dtype=F64), dim=0)
    n_src = T[0, :3, :3] @ n
    offset = 4.0 + (n_src * T[0, :3, 3]).sum()
    rays = unproject(pixel_centers(H, W, dtype=F64).reshape(1, -1, 2), torch.ones(1, H * W, dtype=F64), K)
    depth_src = (offset / (rays @ n_src)).view(1, 1, H, W)
    forward, exists = rigid_flow(depth, K, K, T)
    backward, _ = rigid_flow(depth_src, K, K, invert_se3(T))
    assert forward.abs().mean() > 0.2
    difference, consistent = forward_backward_difference(forward, backward, alpha=0.05, beta=0.0)
    assert consistent[..., 2:-2, 2:-2].all()
    assert difference[..., 2:-2, 2:-2].abs().max() < 0.03
    assert not consistent[~exists].any()
    assert flow_consistency_loss(forward, backward) < 0.1


# Forward-backward check


def constant_flow(u, v=0.0):
    return torch.tensor([u, v], dtype=F64).view(1, 2, 1, 1).repeat(1, 1, H, W)


def test_the_threshold_adapts_to_the_length_of_the_flow():
    check = lambda miss, length: forward_backward_difference(constant_flow(length), constant_flow(miss - length))  # noqa: E731
    for miss, length, expected in ((2.9, 1.0, True), (3.1, 1.0, False), (3.9, -80.0, False), (2.9, -80.0, False)):
        difference, consistent = check(miss, length)
        torch.testing.assert_close(difference, constant_flow(miss))
        assert consistent.any() == expected
    wide = torch.zeros(1, 2, 4, 200, dtype=F64)
    wide[:, 0] = 80.0
    for miss, expected in ((3.9, True), (4.1, False)):  # 5 % of 80 px
        _, consistent = forward_backward_difference(wide, wide * 0 + torch.tensor([miss - 80, 0.0]).view(1, 2, 1, 1))
        assert consistent[..., :119].all() == expected
        assert not consistent[..., 121:].any()  # leaves the image


def test_flow_consistency_loss_by_hand():
    assert flow_consistency_loss(constant_flow(2.0, 1.0), constant_flow(-1.5, -1.25)) == pytest.approx(0.75)
    assert flow_consistency_loss(constant_flow(2.0), constant_flow(-2.0)) == 0
    assert flow_consistency_loss(constant_flow(2.0), constant_flow(2.0)) == 0  # opposite: 4 px apart, occluded
    assert flow_consistency_loss(constant_flow(1.0), constant_flow(1.0)) == pytest.approx(2)


def test_rigid_flow_loss_by_hand_and_its_gradient_goes_to_depth_only():
    depth = torch.full((1, 1, H, W), 7.0, dtype=F64, requires_grad=True)
    flow = constant_flow(1.5, 0.25).requires_grad_()
    rigid, exists = rigid_flow(depth, K, K, pose(t=(0.5, 0.0, 0.0)))
    loss = rigid_flow_loss(rigid, flow, exists)
    assert loss.item() == pytest.approx(0.75)
    loss.backward()
    assert flow.grad is None
    assert (depth.grad[exists] > 0).all() and (depth.grad[~exists] == 0).all()  # nearer would fit better


# Normals and depth


def test_normals_of_planes_are_exact_inside_and_free_of_scale():
    for normal in ((0.3, -0.4, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.9)):
        depth, expected = plane(normal)
        result, valid = normals_from_depth(depth, K, max_ratio=3.0)
        assert valid[..., 1:-1, 1:-1].all()
        assert not valid[..., 0, :].any() and not valid[..., -1].any()
        torch.testing.assert_close(result[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
        torch.testing.assert_close(normals_from_depth(5 * depth, K, max_ratio=3.0)[0], result)
    torch.testing.assert_close(result.norm(dim=1), torch.ones(1, H, W, dtype=F64))


def test_windows_across_an_edge_or_with_unknown_pixels_have_no_normal():
    depth = torch.full((1, 1, H, W), 2.0, dtype=F64)
    depth[..., 8:] = 3.0
    depth[..., 5, 3] = 0.0
    normals, valid = normals_from_depth(depth, K)
    assert not valid[..., 7:9].any()
    assert not valid[..., 4:7, 2:5].any()
    assert valid[..., 1:-1, 1:-1].sum() == (H - 2) * (W - 2) - 2 * (H - 2) - 9
    assert (normals[0, :, 5, 3] == torch.tensor([0, 0, -1.0])).all()


def test_tangent_planes_return_the_depth_of_a_plane_and_correct_a_wrong_pixel():
    depth, normals = plane()
    predicted, valid = depth_from_normals(depth, normals, K)
    torch.testing.assert_close(predicted, depth)
    assert valid.all()
    spoiled = depth.clone()
    spoiled[..., 5, 6] *= 1.2
    predicted, _ = depth_from_normals(spoiled, normals, K)
    assert predicted[0, 0, 5, 6] == pytest.approx(depth[0, 0, 5, 6].item())
    assert predicted[0, 0, 5, 7] / depth[0, 0, 5, 7] == pytest.approx(1 + 0.2 / 8, abs=5e-3)


def test_neighbours_of_another_surface_or_unknown_have_no_say():
    depth, normals = plane((0.0, 0.0, 1.0))
    depth, normals = depth.clone(), normals.clone()
    depth[..., 8:] = 9.0
    normals[..., 8:] = F.normalize(torch.tensor([1.0, 0, -1], dtype=F64), dim=0).view(1, 3, 1, 1)
    depth[..., 3, 3] = 0
    predicted, valid = depth_from_normals(depth, normals, K)
    known = valid & (torch.arange(W) < 8)
    torch.testing.assert_close(predicted[known], depth[known])
    assert not valid[..., 3, 3].any() and predicted[..., 3, 3] == 0
    alone = torch.zeros_like(depth)
    alone[..., 5, 5] = 2.0
    predicted, valid = depth_from_normals(alone, normals, K)
    assert not valid.any() and predicted[..., 5, 5] == 2.0


def test_normal_losses_are_zero_on_a_plane_and_two_for_opposite_normals():
    depth, normals = plane()
    assert normal_consistency_loss(depth, normals, K) == pytest.approx(0, abs=1e-9)
    assert normal_consistency_loss(depth, -normals, K) == pytest.approx(2)
    sideways = torch.linalg.cross(normals, torch.tensor([1.0, 0, 0], dtype=F64).view(1, 3, 1, 1), dim=1)
    assert normal_consistency_loss(depth, F.normalize(sideways, dim=1), K) == pytest.approx(1)
    assert tangent_plane_loss(depth, normals, K) == pytest.approx(0, abs=1e-9)
    flat = torch.zeros_like(normals)
    flat[:, 2] = -1
    assert tangent_plane_loss(depth, flat, K) > 0.001


def test_fitting_depth_to_normals_finds_the_plane():
    depth, normals = plane()
    log_z = torch.full((1, 1, H, W), 1.4, dtype=F64)
    log_z += 0.02 * torch.randn(log_z.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    log_z.requires_grad_()
    optimizer = torch.optim.Adam([log_z], lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = tangent_plane_loss(log_z.exp(), normals, K) + normal_consistency_loss(log_z.exp(), normals, K)
        loss.backward()
        optimizer.step()
    ratio = (log_z.exp() / depth).detach()
    start = (torch.full_like(depth, 4.0) / depth).std()
    assert ratio.std() / ratio.mean() < 0.4 * start  # the scale stays free


# All losses


def smooth_depth():
    y, x = torch.meshgrid(torch.arange(H, dtype=F64), torch.arange(W, dtype=F64), indexing="ij")
    return (4 + 0.1 * torch.sin(x / 3) + 0.1 * torch.cos(y / 2 + x / 5))[None, None]


def noisy_normals(seed=0):
    noise = 0.1 * torch.randn(1, 3, H, W, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return F.normalize(noise + torch.tensor([0, 0, -1.0], dtype=F64).view(1, 3, 1, 1), dim=1)


def noisy_flow(seed=0):
    return 0.4 + 0.5 * torch.rand(1, 2, H, W, generator=torch.Generator().manual_seed(seed), dtype=F64)


CASES = {
    "flow": (noisy_flow, lambda x, valid=None: flow_consistency_loss(x, -noisy_flow(1), valid)),
    "rigid": (
        noisy_flow,
        lambda x, valid=None: rigid_flow_loss(x, noisy_flow(1), torch.ones(1, 1, H, W, dtype=torch.bool), valid),
    ),
    "normal": (smooth_depth, lambda x, valid=None: normal_consistency_loss(x, noisy_normals(), K, valid)),
    "tangent": (smooth_depth, lambda x, valid=None: tangent_plane_loss(x, noisy_normals(), K, valid)),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every
def test_gradient(case):
    make, loss = case
    valid = torch.rand(1, 1, H, W, generator=torch.Generator().manual_seed(2), dtype=F64)
    assert gradcheck(lambda x: loss(x, valid), make().requires_grad_())


@every
def test_nothing_valid_is_a_differentiable_zero(case):
    make, loss = case
    x = make().requires_grad_()
    value = loss(x, torch.zeros(1, 1, H, W))
    value.backward()
    assert value == 0 and (x.grad == 0).all()


@every
def test_constant_input_has_a_finite_gradient(case):
    make, loss = case
    x = torch.full_like(make(), 1.5).requires_grad_()
    loss(x).backward()
    assert x.grad.isfinite().all()


def test_gradients_of_the_other_inputs():
    assert gradcheck(lambda n: normal_consistency_loss(smooth_depth(), n, K), noisy_normals().requires_grad_())
    assert gradcheck(lambda b: flow_consistency_loss(noisy_flow(), b), (-noisy_flow(1)).requires_grad_())
    assert gradcheck(lambda n: tangent_plane_loss(smooth_depth(), n, K), noisy_normals().requires_grad_())


def test_unknown_depth_has_finite_gradients():
    depth = smooth_depth()
    depth[..., 4:8, 4:8] = 0
    depth.requires_grad_()
    (normal_consistency_loss(depth, noisy_normals(), K) + tangent_plane_loss(depth, noisy_normals(), K)).backward()
    assert depth.grad.isfinite().all() and (depth.grad[..., 5:7, 5:7] == 0).all()


def test_shapes_are_checked():
    depth, normals, flow = smooth_depth(), noisy_normals(), noisy_flow()
    for call in (
        lambda: flow_consistency_loss(flow, flow[..., :8]),
        lambda: flow_consistency_loss(depth, depth),
        lambda: flow_consistency_loss(flow, flow, torch.ones(1, 1, H, 8)),
        lambda: rigid_flow_loss(flow, flow[:, :1], depth > 0),
        lambda: rigid_flow_loss(flow, flow, flow > 0),
        lambda: normals_from_depth(depth[:, 0], K),
        lambda: depth_from_normals(depth, normals[:, :2], K),
        lambda: normal_consistency_loss(depth, normals[..., :8], K),
        lambda: tangent_plane_loss(depth, normals, K, torch.ones(1, H, W)),
    ):
        with pytest.raises(ValueError, match=r"shape|must be"):
            call()
