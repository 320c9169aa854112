"""The whole sweep: accuracy, moving objects, refusals, bad input."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import max_pool2d

from som.depth.errors import DepthError
from som.depth.sweep import SweepConfig, estimate_range, plane_sweep, range_from_points

CONFIG = SweepConfig(num_planes=32, near=2.0, far=8.0)


def run(scene, config=CONFIG, **options):
    return plane_sweep(scene.images, scene.Ks, scene.w2cs, config, **options)


@pytest.fixture(scope="module")
def result(scene):
    return run(scene)


def near_box(scene, pixels=3):
    return max_pool2d(scene.box[:, None].float(), 2 * pixels + 1, 1, pixels)[:, 0] > 0


def test_depth_is_far_finer_than_the_planes(scene, result):
    known = result.depth > 0
    assert known.float().mean() > 0.6
    step = (1 / CONFIG.near - 1 / CONFIG.far) / (CONFIG.num_planes - 1)
    error = (1 / result.depth - 1 / scene.depth).abs()[known] / step
    assert error.median() < 0.1
    assert (error < 0.5).float().mean() > 0.97


def test_both_surfaces_are_found(scene, result):
    known = result.depth > 0
    assert (known & scene.box).sum() > 0.4 * scene.box.sum()
    relative = ((result.depth - scene.depth).abs() / scene.depth)[known]
    assert relative.mean() < 0.01 and relative.quantile(0.995) < 0.1


def test_result_is_consistent(scene, result):
    assert result.depth.shape == result.raw_depth.shape == result.confidence.shape == scene.depth.shape
    assert result.range == (2.0, 8.0)
    known = result.depth > 0
    assert ((result.confidence > 0) == known).all() and result.confidence.max() <= 1
    assert result.raw_depth.min() >= 0 and result.raw_depth.max() <= 8.0 + 1e-3
    assert all(t not in s and len(s) == len(set(s)) for t, s in enumerate(result.sources))


def test_confidence_ranks_errors(scene):
    noisy = scene.images + 0.05 * torch.randn(scene.images.shape, generator=torch.Generator().manual_seed(0))
    result = plane_sweep(noisy.clamp(0, 1), scene.Ks, scene.w2cs, CONFIG)
    known = result.depth > 0
    error = ((result.depth - scene.depth).abs() / scene.depth)[known]
    order = result.confidence[known].argsort(descending=True)
    half = len(order) // 2
    assert error[order[:half]].mean() < 0.8 * error[order[half:]].mean()


def test_the_same_input_gives_the_same_result_without_gradients(scene, result):
    images = scene.images.clone().requires_grad_()
    again = plane_sweep(images, scene.Ks, scene.w2cs, CONFIG)
    assert torch.equal(again.depth, result.depth) and torch.equal(again.confidence, result.confidence)
    assert not again.depth.requires_grad


def test_depth_scales_with_the_poses(scene, result):
    w2cs = scene.w2cs.clone()
    w2cs[:, :3, 3] *= 10
    scaled = plane_sweep(scene.images, scene.Ks, w2cs, replace(CONFIG, near=20.0, far=80.0))
    both = (scaled.depth > 0) & (result.depth > 0)
    assert both.sum() > 0.99 * (result.depth > 0).sum()
    torch.testing.assert_close(scaled.depth[both], 10 * result.depth[both], rtol=1e-3, atol=0)


@pytest.mark.parametrize("options", [{"cost": "absolute"}, {"cost": "zncc"}, {"large_step": 0.0}, {"refine_planes": 0}])
def test_other_costs_and_no_regularisation_work_too(scene, options):
    result = run(scene, replace(CONFIG, **options))
    known = result.depth > 0
    assert known.float().mean() > 0.5
    assert ((result.depth - scene.depth).abs() / scene.depth)[known].mean() < 0.02


@pytest.mark.parametrize("cost", ["census", "zncc"])
def test_exposure_that_changes_from_frame_to_frame_is_borne(scene, cost):
    shift = torch.linspace(-0.15, 0.15, len(scene.images))[:, None, None, None]
    images = (0.6 * scene.images + 0.2 + shift).clamp(0, 1)
    result = plane_sweep(images, scene.Ks, scene.w2cs, replace(CONFIG, cost=cost))
    known = result.depth > 0
    assert known.float().mean() > 0.55
    assert ((result.depth - scene.depth).abs() / scene.depth)[known].mean() < 0.02


def test_range_is_found_without_being_told(scene):
    near, far = estimate_range(scene.images, scene.Ks.double(), scene.w2cs.double(), None, SweepConfig())
    assert 1.0 < near < scene.depth.min() and scene.depth.max() < far < 30
    result = run(scene, SweepConfig(num_planes=32))
    known = result.depth > 0
    assert known.float().mean() > 0.5
    assert ((result.depth - scene.depth).abs() / scene.depth)[known].mean() < 0.01


def test_range_from_points_holds_what_the_cameras_see(scene):
    g = torch.Generator().manual_seed(0)
    z = 2 + 4 * torch.rand(500, generator=g)
    points = torch.stack([0.2 * z * (torch.rand(500, generator=g) - 0.5), torch.zeros(500), z], dim=-1)
    behind = torch.tensor([[0.0, 0, -50.0]]).repeat(200, 1)
    near, far = range_from_points(torch.cat([points, behind]), scene.Ks, scene.w2cs, (60, 90))
    assert 1.4 < near < 2.02 and 5.9 < far < 9
    with pytest.raises(DepthError, match="see only 0 of 200 points"):
        range_from_points(behind, scene.Ks, scene.w2cs, (60, 90))


def test_a_moving_thing_under_its_mask_gets_no_depth_and_hurts_nobody(jumping_scene):
    s = jumping_scene
    moving = max_pool2d(s.box[:, None].float(), 3, 1, 1)[:, 0] > 0
    result = run(s, moving=moving)
    assert (result.depth[moving] == 0).all() and (result.raw_depth[moving] == 0).all()
    known = result.depth > 0
    error = ((result.depth - s.depth).abs() / s.depth)[known]
    assert known.float().mean() > 0.4 and error.mean() < 0.01 and error.quantile(0.995) < 0.1


def test_a_moving_thing_without_a_mask_is_not_confirmed_by_the_views(jumping_scene):
    s = jumping_scene
    result = run(s)
    core = -max_pool2d(-s.box[:, None].float(), 5, 1, 2)[:, 0] > 0
    assert (result.raw_depth[core] > 0).float().mean() > 0.9
    assert (result.depth[core] > 0).float().mean() < 0.2  # where the wall around it was carried over it
    assert ((result.depth[core] > 0) & (result.depth[core] < 3)).float().mean() < 0.02


def test_motion_along_the_cameras_way_looks_static_without_a_mask(moving_scene):
    """Why masks are needed: such a thing gets a wrong depth that all views agree on."""
    s = moving_scene
    core = -max_pool2d(-s.box[:, None].float(), 5, 1, 2)[:, 0] > 0
    fooled = run(s).depth[core]
    assert (fooled[fooled > 0] > 4.0).float().mean() > 0.9  # half the parallax of 2.5 m
    assert (run(s, moving=s.box).depth[core] == 0).all()


def test_frames_without_parallax_stay_unknown(scene):
    still = [scene.w2cs[[0]].repeat(2, 1, 1), scene.w2cs]
    images = torch.cat([scene.images[[0, 0]], scene.images])
    config = replace(CONFIG, offsets=(-1, 1))
    result = plane_sweep(images, scene.Ks[[0, 0, *range(9)]], torch.cat(still), config)
    assert (result.depth[0] > 0).float().mean() < 0.2
    assert (result.depth[5] > 0).float().mean() > 0.4


def test_progress_is_told(scene):
    calls = []
    run(scene, replace(CONFIG, num_planes=8), progress=lambda stage, share: calls.append(share))
    assert calls == [(t + 1) / 9 for t in range(9)]


def turning(count):
    w2cs = torch.eye(4).repeat(count, 1, 1)
    for t in range(count):
        a = 0.03 * t
        w2cs[t, :3, :3] = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    return w2cs


@pytest.mark.parametrize("config", [CONFIG, SweepConfig()])
@pytest.mark.parametrize("poses", ["static", "turning"])
def test_a_camera_that_stands_or_only_turns_is_refused(scene, config, poses):
    w2cs = torch.eye(4).repeat(9, 1, 1) if poses == "static" else turning(9)
    with pytest.raises(DepthError, match="camera does not move"):
        plane_sweep(scene.images, scene.Ks, w2cs, config)


def test_poses_that_only_jitter_are_refused(scene):
    """What structure from motion makes of a static camera: tiny baselines of any scale, and images that stand still."""
    w2cs = torch.eye(4).repeat(9, 1, 1)
    w2cs[:, :3, 3] = 1e-3 * torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    images = scene.images[[4]].repeat(9, 1, 1, 1)
    with pytest.raises(DepthError, match="no parallax"):
        plane_sweep(images, scene.Ks, w2cs)
    with pytest.raises(DepthError, match="camera does not move enough"):
        plane_sweep(images, scene.Ks, w2cs, CONFIG)


def bad(scene, **changes):
    given = {"images": scene.images, "Ks": scene.Ks, "w2cs": scene.w2cs, "config": CONFIG, "moving": None} | changes
    return plane_sweep(**given)


def test_bad_input_is_named(scene):
    images, Ks, w2cs = scene.images, scene.Ks, scene.w2cs
    half = Ks * torch.tensor([4.0, 4, 1])[:, None]
    stretched = w2cs.clone()
    stretched[3, 0, 0] = 1.1
    mirrored = w2cs @ torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    lost = w2cs.clone()
    lost[2, 0, 3] = torch.nan
    cases = [
        ("images must be a tensor of shape", {"images": images[0]}),
        ("images must be of shape", {"images": images.permute(0, 2, 3, 1)}),
        ("at least two images", {"images": images[:1], "Ks": Ks[:1], "w2cs": w2cs[:1]}),
        ("divide bytes by 255", {"images": images * 255}),
        ("images must be finite", {"images": images / 0}),
        (r"Ks must be a tensor of shape \(9, 3, 3\)", {"Ks": Ks[:8]}),
        (r"w2cs must be a tensor of shape \(9, 4, 4\)", {"w2cs": w2cs[0]}),
        (r"Ks\[0\] does not fit images of 90x60 px", {"Ks": half}),
        (r"w2cs\[3\] is not a rigid motion", {"w2cs": stretched}),
        (r"w2cs\[0\] is not a rigid motion", {"w2cs": mirrored}),
        ("frame 2 is not", {"w2cs": lost}),
        ("moving must be of shape", {"moving": scene.box[:, :5]}),
        ("moving must be of type torch.bool", {"moving": scene.box.float()}),
    ]
    for message, changes in cases:
        with pytest.raises(DepthError, match=message):
            bad(scene, **changes)


@pytest.mark.parametrize(
    "options",
    [
        {"near": 1.0},
        {"near": 3.0, "far": 2.0},
        {"offsets": (0, 1)},
        {"offsets": ()},
        {"angles": (0.0,)},
        {"num_planes": 2},
        {"keep_views": 0.0},
        {"small_step": 0.5, "large_step": 0.1},
        {"refine_planes": 1},
        {"cost": "sad"},
        {"window": 2},
        {"min_distinctness": 1.0},
    ],
)
def test_bad_settings_are_refused(options):
    with pytest.raises(DepthError):
        SweepConfig(**options)
