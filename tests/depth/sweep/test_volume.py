"""Planes, warping over them, and the costs of a view combined over its sources."""

import math

import pytest
import torch

from som.cameras.geometry import in_image, invert_se3, pixel_centers, project, sample_image, transform_points, unproject
from som.depth.errors import DepthError
from som.depth.sweep.costs import COSTS, make_cost
from som.depth.sweep.volume import _TrimmedMean, cost_volume, inverse_depth_planes, plane_rays, warp_over_planes


def test_planes_step_evenly_in_inverse_depth():
    planes = inverse_depth_planes(0.5, 50, 64)
    assert len(planes) == 64 and planes.dtype == torch.float32
    torch.testing.assert_close(planes, torch.tensor([0.02 + i * (2 - 0.02) / 63 for i in range(64)]))
    assert inverse_depth_planes(2, math.inf, 5)[0] == 0


@pytest.mark.parametrize(("near", "far", "num"), [(0, 1, 8), (2, 1, 8), (1, 2, 2)])
def test_empty_ranges_of_planes_are_refused(near, far, num):
    with pytest.raises(DepthError, match="planes"):
        inverse_depth_planes(near, far, num)


def test_identity_warp_is_exact_at_every_pixel():
    image = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(0))
    K = torch.tensor([[8.0, 0, 4.2], [0, 9, 3.1], [0, 0, 1]])
    rays, shift = plane_rays(K, K, torch.eye(4), (7, 9))
    warped, inside = warp_over_planes(image, rays, shift, inverse_depth_planes(1, 9, 4)[:, None, None])
    torch.testing.assert_close(warped, image[:, None].expand(-1, 4, -1, -1), atol=1e-5, rtol=0)
    assert inside.all()


def test_warp_agrees_with_projection_of_points():
    g = torch.Generator().manual_seed(1)
    image = torch.rand(2, 12, 16, generator=g)
    K_t = torch.tensor([[14.0, 0, 8], [0, 13, 6], [0, 0, 1]])
    K_s = torch.tensor([[15.0, 0, 7.5], [0, 15, 6.5], [0, 0, 1]])
    T = torch.eye(4)
    T[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, -0.1, 0.05], [0.1, 0, 0.02], [-0.05, -0.02, 0]]))
    T[:3, 3] = torch.tensor([0.3, -0.1, 0.2])
    inverse = 0.2 + 0.3 * torch.rand(3, 12, 16, generator=g)  # one value per pixel
    warped, inside = warp_over_planes(image, *plane_rays(K_t, K_s, T, (12, 16)), inverse)
    xy = pixel_centers(12, 16).view(-1, 2)
    for d in range(3):
        points = transform_points(T, unproject(xy, 1 / inverse[d].flatten(), K_t))
        at, _ = project(points, K_s)
        expected = sample_image(image.permute(1, 2, 0)[None], at[None])[0].T.view(2, 12, 16)
        torch.testing.assert_close(warped[:, d], expected, atol=1e-4, rtol=0)
        assert torch.equal(inside[d], in_image(at, 12, 16).view(12, 16))


def test_points_behind_a_source_are_outside():
    K = torch.tensor([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]])
    T = torch.eye(4)
    T[2, 3] = -2.0  # the source stands two metres in front
    _, inside = warp_over_planes(torch.rand(1, 8, 8), *plane_rays(K, K, T, (8, 8)), torch.tensor([[[1.0]], [[0.1]]]))
    assert not inside[0].any() and inside[1].any()


@pytest.mark.parametrize("name", COSTS)
def test_cost_is_lowest_at_the_true_plane(scene, name):
    cost = make_cost(name, 5)
    planes = inverse_depth_planes(2, 8, 33)[:, None, None]
    volume, seen = cost_volume(cost, cost.features(scene.images), scene.Ks, scene.w2cs, 4, [1, 2, 6, 7], planes)
    inner = torch.zeros_like(seen)
    inner[6:-6, 12:-12] = True
    inner &= seen & (torch.nn.functional.max_pool2d(scene.box[4][None].float(), 13, 1, 6)[0] == 0)
    error = (planes[volume.argmin(0)][..., 0, 0] - 1 / scene.depth[4]).abs() / (planes[1] - planes[0])
    assert (error[inner] <= 1).float().mean() > 0.95


def test_mean_leaves_out_the_highest_of_the_views_that_see_the_point():
    values = torch.tensor([[1.0, 2, 3, 4], [2, 9, 1, 1], [6, 4, 5, 0], [3, 1, 2, 7]])  # view, pixel
    seen = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 1, 0]]).bool()
    for keep, expected in ((1.0, [3.0, 5, 3.5, 1]), (0.75, [2.0, 5, 3.5, 1]), (0.5, [1.5, 3, 2, 1])):
        mean = _TrimmedMean((4,), 4, keep, torch.device("cpu"))
        for v, s in zip(values, seen, strict=True):
            mean.add(v.clone(), s)
        torch.testing.assert_close(mean.mean(), torch.tensor(expected))


def test_unseen_planes_cost_the_mean_and_unseen_pixels_the_same_everywhere(scene):
    cost = make_cost("absolute", 3)
    planes = inverse_depth_planes(0.3, 8, 16)[:, None, None]
    volume, seen = cost_volume(cost, cost.features(scene.images), scene.Ks, scene.w2cs, 0, [8], planes)
    assert volume.isfinite().all() and not seen.all() and seen.any()
    unseen = volume[:, ~seen]
    assert torch.equal(unseen, unseen[:1].expand_as(unseen))


def test_a_source_does_not_see_what_moves_in_it(scene):
    moving = torch.zeros_like(scene.box)
    moving[6] = True
    cost = make_cost("census", 5)
    planes = inverse_depth_planes(2, 8, 9)[:, None, None]
    features = cost.features(scene.images)
    masked, _ = cost_volume(cost, features, scene.Ks, scene.w2cs, 4, [2, 6], planes, moving, keep=1.0)
    without, _ = cost_volume(cost, features, scene.Ks, scene.w2cs, 4, [2], planes, keep=1.0)
    torch.testing.assert_close(masked, without)


def test_relative_poses_only(scene):
    """Moving the world changes nothing."""
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = torch.linalg.matrix_exp(
        torch.tensor([[0, -1.0, 0.5], [1, 0, 0.2], [-0.5, -0.2, 0]], dtype=torch.float64)
    )
    T[:3, 3] = torch.tensor([30.0, -20, 10])
    cost, planes = make_cost("zncc", 5), inverse_depth_planes(2, 8, 9)[:, None, None]
    features, w2cs = cost.features(scene.images), scene.w2cs.double()
    one, _ = cost_volume(cost, features, scene.Ks, w2cs, 4, [2, 6], planes)
    other, _ = cost_volume(cost, features, scene.Ks, w2cs @ invert_se3(T), 4, [2, 6], planes)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
