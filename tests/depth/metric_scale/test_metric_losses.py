"""Losses that make depth metric: identity, opposite, masks, gradients, and what makes them right."""

import pytest
import torch
from torch.autograd import gradcheck

from som.depth.learning.losses.metric import camera_height_loss, rough_height_loss
from som.depth.metric_scale.objects import height_per_depth_in_rows

K = torch.tensor([[[60.0, 0, 16], [0, 64.0, 6], [0, 0, 1]]], dtype=torch.float64)
H, W = 20, 32


def objects():
    """Two frames, K, depth of 8 m, three objects of 8, 4 and 16 rows; at 8 m they are 1, 0.5 and 2 m high."""
    ids = torch.zeros(2, H, W, dtype=torch.int32)
    ids[0, 2:10, 3:6], ids[0, 4:8, 10:20], ids[1, 1:17, 5:9] = 1, 2, 1
    per_depth = height_per_depth_in_rows(ids, K.expand(2, 3, 3), 2)
    heights = torch.tensor([[1.0, 0.5], [2.0, 0.0]], dtype=torch.float64)
    return torch.full((2, 1, H, W), 8.0, dtype=torch.float64), ids, heights, per_depth


def road_scene(dtype=torch.float64):
    """A level road 1.5 m below the camera in the lower rows, and its mask."""
    rows = (torch.arange(H, dtype=dtype) + 0.5 - 6).clamp(min=1)
    depth = (1.5 * 64 / rows)[:, None].expand(H, W)[None, None].clone()
    road = torch.zeros(1, H, W, dtype=torch.bool)
    road[:, 8:] = True
    return depth, road


@pytest.mark.parametrize("average", ["instance", "pixel"])
def test_rough_loss_is_zero_at_the_right_depth_and_in_metres_elsewhere(average):
    depth, ids, heights, per_depth = objects()
    assert rough_height_loss(depth, ids, heights, per_depth, average) == pytest.approx(0, abs=1e-12)
    # depth twice too large makes every object too high by its height, half makes it too low by half of it
    means = {"instance": ((1 + 0.5) / 2 + 2) / 2, "pixel": (24 * 1 + 40 * 0.5 + 64 * 2) / 128}
    for factor, share in ((2, 1.0), (0.5, 0.5)):
        got = rough_height_loss(factor * depth, ids, heights, per_depth, average)
        assert got == pytest.approx(share * means[average])


def test_rough_loss_leaves_out_objects_without_height_or_extent():
    depth, ids, heights, per_depth = objects()
    heights[0, 0] = 0
    assert rough_height_loss(2 * depth, ids, heights, per_depth) == pytest.approx((0.5 + 2) / 2)
    per_depth[1, 0] = torch.nan
    assert rough_height_loss(2 * depth, ids, heights, per_depth) == pytest.approx(0.5)


@pytest.mark.parametrize("average", ["instance", "pixel"])
def test_rough_loss_without_objects_is_a_differentiable_zero(average):
    depth, ids, heights, per_depth = objects()
    for case in ((torch.zeros_like(ids), heights, per_depth), (ids, torch.zeros_like(heights), per_depth)):
        z = depth.clone().requires_grad_()
        value = rough_height_loss(z, *case, average)
        value.backward()
        assert value == 0 and bool((z.grad == 0).all())


@pytest.mark.parametrize("average", ["instance", "pixel"])
def test_rough_loss_gradients(average):
    depth, ids, heights, per_depth = objects()
    depth = depth * (1 + 0.2 * torch.rand(depth.shape, generator=torch.Generator().manual_seed(0), dtype=depth.dtype))
    small = (depth[..., :8, :12], ids[:, :8, :12], heights, per_depth)
    z = small[0].clone().requires_grad_()
    assert gradcheck(lambda z: rough_height_loss(z, *small[1:], average), z)
    exact = objects()  # the error is 0 everywhere
    z = exact[0].requires_grad_()
    rough_height_loss(z, *exact[1:], average).backward()
    assert bool(z.grad.isfinite().all())


def test_rough_loss_makes_depth_metric_by_descent():
    depth, ids, heights, per_depth = objects()
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_scale], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        rough_height_loss(0.3 * depth * log_scale.exp(), ids, heights, per_depth).backward()
        optimizer.step()
    assert float(0.3 * log_scale.detach().exp()) == pytest.approx(1, abs=0.05)


def test_camera_height_loss_is_zero_at_the_label_and_in_metres_elsewhere():
    depth, road = road_scene()
    assert camera_height_loss(depth, K, road, 1.5) == pytest.approx(0, abs=1e-9)
    assert camera_height_loss(2 * depth, K, road, 1.5) == pytest.approx(1.5)
    assert camera_height_loss(0.5 * depth, K, road, 1.5) == pytest.approx(0.75)
    two = torch.cat([depth, depth]), K.expand(2, 3, 3), torch.cat([road, road])
    assert camera_height_loss(*two, torch.tensor([1.5, 1.7])) == pytest.approx(0.1)


def test_camera_height_loss_sees_bumps_that_keep_the_mean_plane():
    depth, road = road_scene()
    bumps = 1 + 0.02 * torch.randn(depth.shape, generator=torch.Generator().manual_seed(0), dtype=depth.dtype)
    assert camera_height_loss(depth * bumps, K, road, 1.5) > 0.05


def test_camera_height_loss_counts_road_of_known_depth_only():
    depth, road = road_scene()
    spoilt = depth.clone()
    spoilt[..., :7, :] = 500.0
    spoilt[..., 12, 9] = 0.0
    assert camera_height_loss(spoilt, K, road, 1.5) == pytest.approx(0, abs=1e-9)
    little = torch.zeros_like(road)
    little[:, 15:18, 3:5] = True  # under 1 % of the frame
    little[:, 14, 3] = False
    assert camera_height_loss(2 * depth, K, little, 1.5) == 0


def test_camera_height_loss_without_road_is_a_differentiable_zero():
    depth, road = road_scene()
    z = depth.requires_grad_()
    value = camera_height_loss(z, K, torch.zeros_like(road), 1.5)
    value.backward()
    assert value == 0 and bool((z.grad == 0).all())


def test_camera_height_loss_gradients():
    depth, road = road_scene()
    noise = 1 + 0.1 * torch.rand(depth.shape, generator=torch.Generator().manual_seed(0), dtype=depth.dtype)
    z = (depth * noise)[..., 8:15, 4:11].clone().requires_grad_()
    assert gradcheck(lambda z: camera_height_loss(z, K, road[:, 8:15, 4:11], 1.4), z)
    for constant in (torch.zeros_like(depth), depth.clone()):  # no area at all; no error at all
        z = constant.requires_grad_()
        camera_height_loss(z, K, road, 1.5).backward()
        assert bool(z.grad.isfinite().all())


def test_constant_depth_has_no_level_road():
    depth, road = road_scene()
    flat = torch.full_like(depth, 10.0)
    assert camera_height_loss(flat, K, road, 1.5) == pytest.approx(8.5)  # a wall at 10 m


def test_wrong_input_raises():
    depth, ids, heights, per_depth = objects()
    for wrong in (
        (depth[:, 0], ids, heights, per_depth),
        (depth, ids[:1], heights, per_depth),
        (depth, ids, heights[:, :1], per_depth),
    ):
        with pytest.raises(ValueError, match="rough_height_loss needs"):
            rough_height_loss(*wrong)
    with pytest.raises(ValueError, match="average"):
        rough_height_loss(depth, ids, heights, per_depth, "frame")
    depth, road = road_scene()
    with pytest.raises(ValueError, match="road"):
        camera_height_loss(depth, K, road[:, 1:], 1.5)
    for label in (0.0, float("nan"), torch.tensor([1.5, 1.5])):
        with pytest.raises(ValueError, match="label"):
            camera_height_loss(depth, K, road, label)
