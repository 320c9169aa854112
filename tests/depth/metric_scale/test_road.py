"""Normals, camera height, plane and horizon against planes of known pose."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from som.depth.metric_scale.road import (
    camera_heights,
    fit_road_plane,
    horizon,
    horizon_distance,
    horizon_scale,
    surface_normals,
)

K = torch.tensor([[90.0, 0, 31.5], [0, 100.0, 18.0], [0, 0, 1]], dtype=torch.float64)
H, W = 48, 64


def tilted_normal(pitch, roll):
    """Down in the axes of a camera that looks down by ``pitch`` and turns clockwise by ``roll``, in degrees."""
    p, r = math.radians(pitch), math.radians(roll)
    return torch.tensor([math.sin(r) * math.cos(p), math.cos(r) * math.cos(p), math.sin(p)], dtype=torch.float64)


def plane_depth(normal, height, K=K):
    """z of the plane n . X = height at all pixel centres, 0 above the horizon; and where it is below 60."""
    y, x = torch.meshgrid(torch.arange(H).double() + 0.5, torch.arange(W).double() + 0.5, indexing="ij")
    rays = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1)
    slope = (rays * normal).sum(-1)
    z = torch.where(slope > 0, height / slope, torch.zeros_like(slope))
    road = (z > 0) & (z < 60)
    return (z * road)[None, None], road[None]


def points_of(depth):
    """(1,H,W,3) points z K^-1 (x, y, 1)."""
    y, x = (torch.arange(n).double() + 0.5 for n in depth.shape[2:])
    xy = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(depth.shape[2:]).double()], dim=-1)
    return (depth[:, 0, ..., None] * (xy @ torch.linalg.inv(K).T)).to(depth.dtype)


@pytest.mark.parametrize("pitch, roll", [(0, 0), (4, 0), (-3, 5), (2, -8)])
def test_a_plane_gives_exactly_its_height_and_normal_at_every_pixel(pitch, roll):
    n = tilted_normal(pitch, roll)
    depth, road = plane_depth(n, 1.65)
    heights, used = camera_heights(depth, K[None], road)
    assert used.sum() > 500
    torch.testing.assert_close(heights[used], torch.full_like(heights[used], 1.65), rtol=1e-9, atol=0)
    normals = surface_normals(points_of(depth))
    torch.testing.assert_close(normals[used], n.expand_as(normals[used]), rtol=0, atol=1e-9)
    plane = fit_road_plane(depth, K[None], road)
    torch.testing.assert_close(plane.normal[0], n, rtol=0, atol=1e-9)
    assert plane.height[0] == pytest.approx(1.65, rel=1e-9) and plane.residual[0] < 1e-9


def test_normals_are_the_formula_over_eight_neighbours():
    g = torch.Generator().manual_seed(0)
    points = torch.randn(1, 3, 3, 3, generator=g, dtype=torch.float64)
    ring = [(1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]
    v = [points[0, r, c] - points[0, 1, 1] for r, c in ring]
    area = -sum(torch.linalg.cross(v[i], v[(i + 2) % 8]) for i in range(8))
    torch.testing.assert_close(surface_normals(points)[0, 1, 1], area / area.norm())


def test_a_wall_facing_the_camera_has_its_normal_away_from_it():
    points = points_of(torch.full((1, 1, H, W), 7.0, dtype=torch.float64))
    normals = surface_normals(points)[:, 1:-1, 1:-1]
    torch.testing.assert_close(normals, torch.tensor([0.0, 0, 1]).double().expand_as(normals))


def test_only_road_whose_eight_neighbours_are_road_counts():
    depth, _ = plane_depth(tilted_normal(0, 0), 1.5)
    road = torch.zeros(1, H, W, dtype=torch.bool)
    road[:, 30:40, 20:30] = True
    depth[..., 35, 25] = 0  # an unknown pixel spoils its neighbours
    heights, used = camera_heights(depth, K[None], road)
    expected = torch.zeros_like(road)
    expected[:, 31:39, 21:29] = True
    expected[:, 34:37, 24:27] = False
    assert torch.equal(used, expected) and bool((heights[~used] == 0).all())


def test_camera_heights_are_differentiable_through_the_normals():
    g = torch.Generator().manual_seed(1)
    depth = (4 + torch.rand(1, 1, 5, 6, generator=g, dtype=torch.float64)).requires_grad_()
    road = torch.ones(1, 5, 6, dtype=torch.bool)
    assert gradcheck(lambda z: camera_heights(z, K[None], road)[0], depth)


def test_gradients_stay_finite_without_area_or_depth():
    depth = torch.zeros(1, 1, 6, 6, requires_grad=True)
    heights, _ = camera_heights(depth, K[None].float(), torch.ones(1, 6, 6, dtype=torch.bool))
    surface_normals(points_of(depth)).sum().add(heights.sum()).backward()
    assert bool(depth.grad.isfinite().all())


def test_the_robust_plane_ignores_what_stands_on_the_road_and_least_squares_does_not():
    n = tilted_normal(2, 3)
    depth, road = plane_depth(n, 1.5)
    depth[..., 30:44, 10:20] = 3.0  # a box in the mask, nearer than the road behind it
    robust, plain = fit_road_plane(depth, K[None], road), fit_road_plane(depth, K[None], road, iterations=0)
    assert robust.height[0] == pytest.approx(1.5, rel=1e-6)
    assert abs(plain.height[0] / 1.5 - 1) > 0.02


def test_noise_moves_the_plane_little():
    depth, road = plane_depth(tilted_normal(3, 2), 1.5)
    noise = torch.exp(0.05 * torch.randn(depth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert fit_road_plane(depth * noise, K[None], road).height[0] == pytest.approx(1.5, rel=0.015)


def test_a_frame_without_enough_road_has_no_plane_and_does_not_disturb_others():
    depth, road = plane_depth(tilted_normal(0, 0), 1.5)
    few = torch.zeros_like(road)
    few[:, 40, :20] = True
    plane = fit_road_plane(depth.expand(2, 1, H, W), K.expand(2, 3, 3), torch.cat([few, road]))
    assert plane.height[0].isnan() and plane.normal[0].isnan().all()
    assert plane.height[1] == pytest.approx(1.5)


def test_the_plane_carries_no_gradient():
    depth, road = plane_depth(tilted_normal(0, 0), 1.5)
    assert not fit_road_plane(depth.requires_grad_(), K[None], road).height.requires_grad


@pytest.mark.parametrize("pitch, roll", [(0, 0), (5, 0), (3, -10)])
def test_the_horizon_is_the_analytic_line(pitch, roll):
    n = tilted_normal(pitch, roll)
    line = horizon(n[None], K[None])[0]
    for heading in (-0.4, 0.0, 0.3):  # far points on the road plane are seen on the line
        forward = torch.tensor([math.sin(heading), 0, math.cos(heading)], dtype=torch.float64)
        direction = forward - (forward @ n) * n
        x = K @ direction / direction[2]
        assert float(line @ x) == pytest.approx(0, abs=1e-9)
    if roll == 0:  # a level line f tan(pitch) above the principal point, and rows as distance below it
        row = 18.0 - 100.0 * math.tan(math.radians(pitch))
        below = horizon_distance(line[None], H, W)[0]
        torch.testing.assert_close(below[:, 5], torch.arange(H).double() + 0.5 - row)


def test_heights_above_the_ground_follow_from_depth_and_distance_to_the_horizon():
    n = tilted_normal(4, 7)
    depth, road = plane_depth(n, 1.5)
    below = horizon_distance(horizon(n[None], K[None]), H, W)
    height = below * depth[:, 0] * horizon_scale(n[None], K[None])[:, None, None]
    torch.testing.assert_close(height[road], torch.full_like(height[road], 1.5))


def test_wrong_shapes_raise():
    depth, road = plane_depth(tilted_normal(0, 0), 1.5)
    with pytest.raises(ValueError, match=r"\(B,1,H,W\)"):
        camera_heights(depth[0], K[None], road)
    with pytest.raises(ValueError, match="road"):
        fit_road_plane(depth, K[None], road[:, 1:])
    with pytest.raises(ValueError, match="bool"):
        fit_road_plane(depth, K[None], road.float())
    with pytest.raises(ValueError, match="at least 3"):
        surface_normals(torch.zeros(1, 2, 5, 3))
