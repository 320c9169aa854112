"""Pose vectors, mirrored cameras and the inverse warp of ``som.cameras.geometry``."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from som.cameras import geometry as geo

F64 = torch.float64


def intrinsics(width, height, focal=0.8, shift=1.3, dtype=F64):
    rows = [[focal * width, 0, width / 2 + shift], [0, focal * width, height / 2 - shift], [0, 0, 1]]
    return torch.tensor(rows, dtype=dtype)[None]


def pose(angles, t, dtype=F64):
    return geo.axis_angle_to_se3(torch.tensor([angles], dtype=dtype), torch.tensor([t], dtype=dtype))


def skew(v):
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def plane_view(normal, offset, K, w2c, height, width):
    """Image of the textured plane normal·X = offset (in the world) and its z, exactly, (1,3,H,W) and (1,1,H,W)."""
    xy = geo.pixel_centers(height, width, dtype=F64).reshape(1, -1, 2)
    c2w = geo.invert_se3(w2c)
    rays = geo.unproject(xy, torch.ones(1, height * width, dtype=F64), K) @ c2w[:, :3, :3].transpose(1, 2)
    z = (offset - c2w[:, None, :3, 3] @ normal) / (rays @ normal)
    points = c2w[:, None, :3, 3] + z[..., None] * rays
    phases = torch.tensor([[1.1, 0.4, 0.2], [-0.5, 0.9, 0.3], [0.7, -0.8, 1.0]], dtype=F64)
    image = 0.5 + 0.4 * torch.sin(points @ phases)
    return image.transpose(1, 2).unflatten(-1, (height, width)), z.view(1, 1, height, width)


# Pose vectors


def test_axis_angle_is_the_matrix_exponential_at_all_lengths():
    g = torch.Generator().manual_seed(0)
    v = torch.randn(60, 3, generator=g, dtype=F64) * torch.logspace(-9, 0.6, 60, dtype=F64)[:, None]
    t = torch.randn(60, 3, generator=g, dtype=F64)
    T = geo.axis_angle_to_se3(v, t)
    torch.testing.assert_close(T[:, :3, :3], torch.linalg.matrix_exp(skew(v)), rtol=0, atol=1e-14)
    assert torch.equal(T[:, :3, 3], t)
    assert (T[:, 3] == torch.tensor([0, 0, 0, 1.0], dtype=F64)).all()
    single = geo.axis_angle_to_se3(v.float(), t.float())[:, :3, :3].double()
    torch.testing.assert_close(single, T[:, :3, :3], rtol=0, atol=5e-7)


def test_a_quarter_turn_around_z():
    T = pose([0.0, 0.0, math.pi / 2], [1.0, 2.0, 3.0])
    point = geo.transform_points(T, torch.tensor([[[1.0, 0, 0]]], dtype=F64))
    torch.testing.assert_close(point, torch.tensor([[[1.0, 3, 3]]], dtype=F64))


def test_axis_angle_has_its_exact_gradient_at_zero_too():
    t = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    assert gradcheck(geo.axis_angle_to_se3, (torch.zeros(2, 3, dtype=F64, requires_grad=True), t))
    g = torch.Generator().manual_seed(1)
    for size in (1e-3, 0.499, 0.501, 3.0):
        v = torch.nn.functional.normalize(torch.randn(2, 3, generator=g, dtype=F64), dim=-1) * size
        assert gradcheck(geo.axis_angle_to_se3, (v.requires_grad_(), t))


def test_euler_angles_turn_around_z_first_then_y_then_x():
    g = torch.Generator().manual_seed(2)
    angles, t = torch.randn(2, 5, 3, generator=g, dtype=F64)
    Rx, Ry, Rz = (
        geo.axis_angle_to_se3(angles * torch.eye(3, dtype=F64)[k], torch.zeros_like(t))[:, :3, :3] for k in range(3)
    )
    T = geo.euler_to_se3(angles, t)
    torch.testing.assert_close(T[:, :3, :3], Rx @ Ry @ Rz)
    assert torch.equal(T[:, :3, 3], t)
    assert gradcheck(geo.euler_to_se3, (angles[:2].clone().requires_grad_(), t[:2].clone().requires_grad_()))


@pytest.mark.parametrize("build", [geo.axis_angle_to_se3, geo.euler_to_se3])
def test_pose_vectors_keep_leading_dimensions_and_check_shapes(build):
    assert build(torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)).shape == (2, 4, 4, 4)
    assert torch.equal(build(torch.zeros(3), torch.zeros(3)), torch.eye(4))
    for v, t in ((torch.zeros(2, 3), torch.zeros(3)), (torch.zeros(2, 4), torch.zeros(2, 4))):
        with pytest.raises(ValueError, match=r"\(\.\.\.,3\)"):
            build(v, t)


# Mirrored cameras


def test_flipped_intrinsics_and_poses_see_the_mirrored_world():
    K, T = intrinsics(40, 30), pose([0.1, -0.2, 0.05], [0.3, 0.1, -0.2])
    points = torch.rand(1, 9, 3, dtype=F64) + torch.tensor([-0.5, -0.5, 2])
    xy, z = geo.project_from_world(points, K, T)
    mirrored = points * torch.tensor([-1.0, 1, 1], dtype=F64)
    flipped, z_flipped = geo.project_from_world(mirrored, geo.flip_intrinsics(K, 40), geo.flip_pose(T))
    torch.testing.assert_close(flipped[..., 0], 40 - xy[..., 0])
    torch.testing.assert_close(flipped[..., 1], xy[..., 1])
    torch.testing.assert_close(z_flipped, z)
    assert torch.equal(geo.flip_intrinsics(geo.flip_intrinsics(K, 40), 40), K)
    R = geo.flip_pose(T)[0, :3, :3]
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=F64))
    assert torch.linalg.det(R) == pytest.approx(1)


def test_warping_and_flipping_commute():
    g = torch.Generator().manual_seed(3)
    source, depth = (
        torch.rand(1, 3, 20, 33, generator=g, dtype=F64),
        2 + torch.rand(1, 1, 20, 33, generator=g, dtype=F64),
    )
    K, T = intrinsics(33, 20), pose([0.02, -0.05, 0.03], [0.2, 0.1, -0.1])
    plain = geo.warp(source, depth, K, K, T)
    Kf = geo.flip_intrinsics(K, 33)
    flipped = geo.warp(source.flip(-1), depth.flip(-1), Kf, Kf, geo.flip_pose(T))
    torch.testing.assert_close(flipped.values.flip(-1), plain.values)
    assert torch.equal(flipped.in_view.flip(-1), plain.in_view)
    assert not plain.in_view.all()


def test_resizing_images_with_their_intrinsics_keeps_the_points():
    K, depth = intrinsics(32, 24), torch.full((1, 1, 24, 32), 3.0, dtype=F64)
    T = pose([0.0, 0.1, 0.0], [0.3, 0.0, 0.1])
    xy, _ = geo.reproject(depth, K, K, T)
    twice = geo.resize_intrinsics(K, 2.0, 2.0)
    fine, _ = geo.reproject(torch.full((1, 1, 48, 64), 3.0, dtype=F64), twice, twice, T)
    # the centre of a coarse pixel is the corner between four fine ones; projection is smooth enough for their mean
    mean = torch.nn.functional.avg_pool2d(fine.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(mean / 2, xy, rtol=0, atol=2e-3)


# Inverse warp


@pytest.mark.parametrize("size", [(112, 192), (375, 1242), (7, 9), (64, 128)])
def test_the_identity_warp_is_exact_at_every_pixel(size):
    H, W = size
    g = torch.Generator().manual_seed(0)
    source = torch.rand(2, 3, H, W, generator=g)
    depth = 0.1 + 80 * torch.rand(2, 1, H, W, generator=g)
    K = intrinsics(W, H, dtype=torch.float32).expand(2, 3, 3)
    warped = geo.warp(source, depth, K, K, torch.eye(4).expand(2, 4, 4))
    assert (warped.values - source).abs().max() < 1e-5
    assert torch.equal(warped.values, source)
    assert warped.in_view.all()
    assert torch.equal(warped.depth, depth)
    assert torch.equal(warped.xy, geo.pixel_centers(H, W).expand(2, H, W, 2))


def test_sideways_motion_shifts_by_the_disparity():
    source = torch.rand(1, 1, 4, 8)
    K = torch.tensor([[[16.0, 0, 4], [0, 16, 2], [0, 0, 1]]])
    T = torch.eye(4)[None].clone()
    T[:, 0, 3] = 0.5  # 16 px x 0.5 / 4 = 2 px to the right
    warped = geo.warp(source, torch.full((1, 1, 4, 8), 4.0), K, K, T)
    assert torch.equal(warped.values[..., :6], source[..., 2:])
    assert torch.equal(warped.values[..., 6:], source[..., 7:].expand(1, 1, 4, 2))  # the border is repeated
    assert warped.in_view[..., :6].all() and not warped.in_view[..., 6:].any()
    assert (warped.xy[..., 0] - torch.arange(8) == 2.5).all()


def test_a_plane_seen_from_two_cameras_of_different_size():
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0], dtype=F64), dim=0)
    target_w2c, source_w2c = pose([0.0, 0.1, 0.0], [0.1, 0.0, 0.2]), pose([0.05, -0.15, 0.1], [-0.6, 0.2, 0.5])
    K_tgt, K_src = intrinsics(48, 36), intrinsics(200, 130, focal=0.7)
    target, depth = plane_view(normal, 5.0, K_tgt, target_w2c, 36, 48)
    source, depth_source = plane_view(normal, 5.0, K_src, source_w2c, 130, 200)
    T = source_w2c @ geo.invert_se3(target_w2c)
    both = geo.warp(torch.cat([source, depth_source], 1), depth, K_tgt, K_src, T)
    centers = geo.in_image(both.xy - 0.5, 129, 199)[0]  # the outer half pixel repeats the border
    inside = both.in_view[0, 0] & centers
    assert 0.6 < inside.double().mean() < 1
    error = (both.values[:, :3] - target).abs().amax(1)[0]
    assert error[inside].max() < 1e-3  # bilinear interpolation of a smooth texture
    assert (both.values[:, 3:] - both.depth).abs()[0, 0][inside].max() < 1e-3

    xy = geo.pixel_centers(36, 48, dtype=F64).reshape(1, -1, 2)
    points = geo.transform_points(T, geo.unproject(xy, depth.view(1, -1), K_tgt))
    expected, z = geo.project(points, K_src)
    torch.testing.assert_close(both.xy.view(1, -1, 2), expected)
    torch.testing.assert_close(both.depth.view(1, -1), z)
    wrong = geo.warp(source, 1.3 * depth, K_tgt, K_src, T)
    assert (wrong.values - target).abs().amax(1)[0][wrong.in_view[0, 0]].mean() > 0.02


def test_points_behind_beside_or_of_unknown_depth_are_out_of_view_and_finite():
    K = intrinsics(8, 8, shift=0.0)
    depth = torch.full((1, 1, 8, 8), 1.0, dtype=F64)
    depth[..., 0, :] = 0
    source = torch.rand(1, 2, 8, 8, dtype=F64)
    behind = geo.warp(source, depth.requires_grad_(), K, K, pose([0.0, math.pi, 0.0], [0.0, 0.0, 0.0]))
    assert not behind.in_view.any()
    assert behind.xy.isfinite().all() and (behind.depth >= 1e-3).all()
    (behind.values.sum() + behind.depth.sum()).backward()
    assert depth.grad.isfinite().all()
    still = geo.warp(source, depth.detach(), K, K, torch.eye(4, dtype=F64)[None])
    assert not still.in_view[..., 0, :].any() and still.in_view[..., 1:, :].all()


def test_small_motion_keeps_its_digits_in_float32():
    H, W = 20, 2000
    K = intrinsics(W, H)
    depth = 5 + torch.rand(1, 1, H, W, dtype=F64)
    T = pose([0.0, 1e-6, 0.0], [1e-5, 0.0, 0.0])
    exact = geo.reproject(depth, K, K, T)[0] - geo.pixel_centers(H, W, dtype=F64)
    source = torch.arange(W, dtype=torch.float32).expand(1, 1, H, W)
    single = geo.reproject(depth.float(), K.float(), K.float(), T.float())[0]
    assert exact[..., 0].abs().max() > 3e-3
    assert (single - geo.pixel_centers(H, W) - exact.float()).abs().max() < 1.3e-4  # one float32 step at x = 2000
    assert geo.sample_map(source, single).isfinite().all()


def test_the_gradients_of_the_warp():
    g = torch.Generator().manual_seed(5)
    source = torch.rand(2, 2, 5, 7, generator=g, dtype=F64)
    depth = 2 + torch.rand(2, 1, 4, 6, generator=g, dtype=F64)
    v, t = 0.03 * torch.randn(2, 2, 3, generator=g, dtype=F64)
    K_tgt, K_src = intrinsics(6, 4).repeat(2, 1, 1), intrinsics(7, 5).repeat(2, 1, 1)

    def run(source, depth, v, t, K_src):
        warped = geo.warp(source, depth, K_tgt, K_src, geo.axis_angle_to_se3(v, t))
        return warped.values, warped.depth, warped.xy

    assert gradcheck(run, [x.clone().requires_grad_() for x in (source, depth, v, t, K_src)])


def test_half_precision_depth_is_projected_in_float32():
    K, T = intrinsics(64, 48, dtype=torch.float32), pose([0.0, 0.01, 0.0], [0.1, 0.0, 0.0], torch.float32)
    depth = torch.full((1, 1, 48, 64), 3.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = geo.warp(torch.rand(1, 3, 48, 64), depth.bfloat16(), K, K, T)
    assert mixed.values.dtype == torch.float32
    torch.testing.assert_close(mixed.xy, geo.reproject(depth, K, K, T)[0])


def test_wrong_shapes_raise():
    source, depth, K, T = torch.rand(2, 3, 4, 5), torch.ones(2, 1, 4, 5), torch.eye(3).expand(2, 3, 3), torch.eye(4)
    T = T.expand(2, 4, 4)
    for label, args in {
        "source": (source[0], depth, K, K, T),
        "source must be": (source[:1], depth, K, K, T),
        "depth": (source, depth[:, 0], K, K, T),
        "K_tgt": (source, depth, K[0], K, T),
        "K_src": (source, depth, K, K[:1], T),
        "T_src_tgt": (source, depth, K, K, T[:, :3]),
    }.items():
        with pytest.raises(ValueError, match=label):
            geo.warp(*args)
