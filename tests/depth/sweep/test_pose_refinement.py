"""Poses aligned to the images through confirmed depth."""

import pytest
import torch

from som.cameras.geometry import invert_se3, pixel_centers, project, transform_points, unproject
from som.depth.errors import DepthError
from som.depth.sweep import RefinementConfig, SweepConfig, plane_sweep, refine_poses
from som.depth.sweep.pose_refinement import _rigid

CONFIG = SweepConfig(num_planes=32, near=2.0, far=8.0)
SOURCES = [[j for j in range(9) if 0 < abs(j - t) <= 4] for t in range(9)]


def shaken(w2cs, rotation=0.004, translation=0.01, seed=0):
    """Poses off by about half a pixel, at random."""
    noise = torch.randn(len(w2cs), 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = torch.tensor([rotation] * 3 + [translation] * 3, dtype=torch.float64)
    return _rigid(noise * scale) @ w2cs.double()


def misfit(w2cs, scene):
    """Mean pixels by which points are off between neighbouring frames, by the true depth and poses."""
    h, w = scene.depth.shape[1:]
    xy, errors = pixel_centers(h, w).view(-1, 2), []
    for t in range(0, 8, 2):
        points = unproject(xy, scene.depth[t].flatten(), scene.Ks[t])
        at = [
            project(transform_points((pose[t + 1] @ invert_se3(pose[t])).float(), points), scene.Ks[t])[0]
            for pose in (w2cs.double(), scene.w2cs.double())
        ]
        errors.append((at[0] - at[1]).norm(dim=-1).mean())
    return float(torch.stack(errors).mean())


def test_rigid_motion_of_a_vector():
    T = _rigid(torch.tensor([[0.0, 0, torch.pi / 2, 1, 2, 3], [0, 0, 0, 0, 0, 0]]))
    expected = torch.tensor([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    torch.testing.assert_close(T[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(T[1], torch.eye(4))


def test_true_depth_brings_shaken_poses_back(scene):
    start = shaken(scene.w2cs)
    refined = refine_poses(scene.images, scene.Ks, start, scene.depth, SOURCES)
    assert misfit(start, scene) > 0.5
    assert misfit(refined, scene) < 0.15
    assert refined.dtype == torch.float64
    torch.testing.assert_close(refined[:, :3, :3].det(), torch.ones(9, dtype=torch.float64))


def test_a_sweep_with_shaken_poses_gains_from_its_own_depth(scene):
    start = shaken(scene.w2cs, seed=1)
    first = plane_sweep(scene.images, scene.Ks, start, CONFIG)
    refined = refine_poses(scene.images, scene.Ks, start, first.depth, first.sources)
    second = plane_sweep(scene.images, scene.Ks, refined, CONFIG)

    def quality(result):
        known = result.depth > 0
        return known.float().mean(), ((result.depth - scene.depth).abs() / scene.depth)[known].mean()

    (covered, error), (covered_then, error_then) = quality(first), quality(second)
    assert covered_then > covered + 0.03 and error_then < 0.8 * error
    assert misfit(refined, scene) < 0.6 * misfit(start, scene)


def test_right_poses_stay(scene):
    refined = refine_poses(scene.images, scene.Ks, scene.w2cs, scene.depth, SOURCES)
    assert misfit(refined, scene) < 0.1


def test_exposure_and_scale_of_the_world_do_not_matter(scene):
    start = shaken(scene.w2cs)
    images = (scene.images * 0.8 + torch.linspace(0, 0.2, 9)[:, None, None, None]).clamp(0, 1)
    assert misfit(refine_poses(images, scene.Ks, start, scene.depth, SOURCES), scene) < 0.2
    start[:, :3, 3] *= 100
    refined = refine_poses(scene.images, scene.Ks, start, 100 * scene.depth, SOURCES)
    refined[:, :3, 3] /= 100
    assert misfit(refined, scene) < 0.15


def test_moving_things_are_left_out(jumping_scene):
    s = jumping_scene
    start = shaken(s.w2cs)
    poisoned = s.images.clone()
    poisoned[s.box.unsqueeze(1).expand_as(poisoned)] = 1.0
    one, other = (refine_poses(im, s.Ks, start, s.depth, SOURCES, s.box) for im in (s.images, poisoned))
    assert misfit(one, s) < 0.25 and misfit(other, s) < 0.35


def test_nothing_random(scene):
    start, options = shaken(scene.w2cs), RefinementConfig(iterations=5)
    one, other = (refine_poses(scene.images, scene.Ks, start, scene.depth, SOURCES, config=options) for _ in range(2))
    assert torch.equal(one, other)


def test_bad_input_is_named(scene):
    with pytest.raises(DepthError, match="no frame has enough depth"):
        refine_poses(scene.images, scene.Ks, scene.w2cs, torch.zeros_like(scene.depth), SOURCES)
    with pytest.raises(DepthError, match="depth must be of shape"):
        refine_poses(scene.images, scene.Ks, scene.w2cs, scene.depth[:, ::2], SOURCES)
    with pytest.raises(DepthError, match="as many steps as blurs"):
        RefinementConfig(blurs=(1.0,))
