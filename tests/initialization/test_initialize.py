"""Whole scenes from whole data sets."""

import logging
import subprocess
import sys

import pytest
import torch

from som.initialization import InitializationConfig, initialize_scene

CONFIG = InitializationConfig(num_foreground=800, num_background=1500, num_motion_bases=3, optimization_steps=20)


def finite(scene):
    return all(p.isfinite().all() for p in scene.parameters())


def test_a_sliding_square(scenes):
    dataset = scenes.sliding_square()
    stages = []
    scene = initialize_scene(dataset, CONFIG, seed=1, progress=lambda stage, share: stages.append(stage))
    assert finite(scene)
    assert len(stages) == 4
    assert 200 < scene.num_foreground <= 800
    assert 700 < scene.num_background <= 1500
    assert scene.num_times == 6
    with torch.no_grad():
        _, x, _ = scene.foreground_poses(torch.arange(6))
    x = scene.normalization.points_to_world(x)
    assert torch.allclose(x.mean(1).diff(dim=0), torch.tensor([0.1, 0, 0]).expand(5, 3), atol=2e-3)
    assert (x[..., 2] - 2).abs().max() < 0.01
    left = x[..., 0].amin(1) - (-0.5 + 0.1 * torch.arange(6))
    assert (left > 0).all() and (left < 0.1).all()
    background = scene.normalization.points_to_world(scene.background.means)
    assert (background[:, 2] - 4).abs().max() < 0.01


def test_extreme_colours_and_opacities_stay_finite(scenes):
    scene = initialize_scene(scenes.sliding_square(), CONFIG)
    red = scene.foreground.colors.mean(0)  # images are pure red and cyan
    assert torch.allclose(red, torch.tensor([1.0, 0, 0]), atol=1e-3)
    assert torch.allclose(scene.background.colors.mean(0), torch.tensor([0.0, 1, 1]), atol=1e-3)
    assert torch.allclose(scene.background.opacities, torch.tensor(0.7))


def test_the_same_seed_gives_the_same_scene(scenes):
    first, second, other = (initialize_scene(scenes.sliding_square(), CONFIG, seed) for seed in (3, 3, 4))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert other.num_background != first.num_background or not torch.equal(
        other.background.means, first.background.means
    )


@pytest.mark.parametrize("num_times", [2, 3])
def test_few_times(scenes, num_times):
    scene = initialize_scene(scenes.sliding_square(num_times), CONFIG)
    assert finite(scene)
    with torch.no_grad():
        _, x, _ = scene.foreground_poses(torch.arange(num_times))
    moved = (x.mean(1).diff(dim=0) * scene.normalization.scale)[:, 0]
    assert torch.allclose(moved, torch.tensor(0.1), atol=5e-3)


def test_without_tracks_the_foreground_rests_and_the_log_says_so(scenes, caplog):
    with caplog.at_level(logging.WARNING):
        scene = initialize_scene(scenes.sliding_square(with_tracks=False), CONFIG)
    assert "no usable tracks" in caplog.text
    assert finite(scene)
    with torch.no_grad():
        R, x, _ = scene.foreground_poses(torch.arange(6))
    assert torch.allclose(x[0], x[5])
    assert torch.allclose(R[3], torch.eye(3).expand_as(R[3]), atol=1e-6)
    assert len(scene.foreground.motion_weights.argmax(1).unique()) == 3  # the bases can learn to differ


def test_nothing_moves(scenes):
    scene = initialize_scene(scenes.sliding_square(moving=False), CONFIG)
    assert scene.foreground is None
    assert scene.motion_bases is None
    assert scene.num_times == 6


def test_no_mask_at_all(scenes):
    dataset = scenes.sliding_square()
    dataset.train.foreground = None
    assert initialize_scene(dataset, CONFIG).foreground is None
    dataset.has_background = False
    scene = initialize_scene(dataset, CONFIG)
    assert scene.background is None
    assert scene.num_foreground > 0


def test_everything_moves(scenes):
    scene = initialize_scene(scenes.sliding_square(has_background=False), CONFIG)
    assert scene.background is None
    assert scene.num_foreground > 0


def test_unknown_depth_and_invalid_pixels_give_no_gaussians(scenes):
    dataset = scenes.sliding_square()
    dataset.train.depths[:, :, :32] = 0
    dataset.train.valid[:, 24:] = False
    scene = initialize_scene(dataset, CONFIG)
    assert finite(scene)
    world = scene.normalization.points_to_world(scene.background.means)
    assert (world[:, 0] > -0.05).all()
    assert (world[:, 1] < 0.05).all()


def test_the_place_behind_the_square_is_filled_up_to_its_margin(scenes):
    dataset = scenes.sliding_square(num_times=6, step=0.0)  # always hides the same place
    scene = initialize_scene(dataset, CONFIG)
    hit = torch.zeros(48, 64, dtype=torch.bool)
    x, y, z = scene.normalization.points_to_world(scene.background.means).unbind(-1)
    hit[(y / z * 60 + 24).long().clamp(0, 47), (x / z * 60 + 32).long().clamp(0, 63)] = True
    near = torch.nn.functional.max_pool2d(dataset.train.foreground[:1].float()[None], 5, 1, 2)[0, 0] > 0
    ring = near & ~dataset.train.foreground[0]
    assert hit[ring].float().mean() > 0.3


def test_no_depth_is_a_clear_error(scenes):
    dataset = scenes.sliding_square()
    dataset.train.depths = torch.zeros_like(dataset.train.depths)
    with pytest.raises(ValueError, match="known depth"):
        initialize_scene(dataset, CONFIG)
    dataset.train.depths = None
    with pytest.raises(ValueError, match="no depth"):
        initialize_scene(dataset, CONFIG)


def test_world_units_do_not_matter(scenes):
    dataset = scenes.sliding_square()
    far = scenes.sliding_square()
    far.train.depths = far.train.depths * 50
    near, large = initialize_scene(dataset, CONFIG), initialize_scene(far, CONFIG)
    assert float(large.scale) == pytest.approx(50 * float(near.scale), rel=1e-4)
    assert large.num_foreground == pytest.approx(near.num_foreground, rel=0.1)


def test_the_number_of_threads_is_restored(scenes):
    threads = torch.get_num_threads()
    initialize_scene(scenes.sliding_square(2), CONFIG)
    assert torch.get_num_threads() == threads


def test_settings_need_no_torch():
    code = "import sys, som.initialization as i; i.InitializationConfig(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
