"""The generated street clip is what it says."""

import pytest
import torch

from som.cameras.geometry import invert_se3, pixel_centers, project_from_world, sample_image, unproject_to_world
from som.depth.errors import DepthError
from som.depth.learning.synthetic import RoadClipConfig, degrade_depth, make_road_clip


@pytest.fixture(scope="module")
def clip():
    return make_road_clip(RoadClipConfig(frames=12, seed=3))


def test_shapes_ranges_and_sky(clip):
    assert clip.images.shape == (12, 3, 112, 192) and clip.images.dtype == torch.float32
    assert clip.depth.shape == clip.road.shape == clip.instances.ids.shape == (12, 112, 192)
    assert clip.images.min() >= 0 and clip.images.max() <= 1 and clip.images.std() > 0.1
    sky = clip.depth == 0
    assert 0.03 < sky.float().mean() < 0.3 and clip.depth[~sky].min() > 0.5
    assert not bool((clip.road & sky).any()) and not bool(((clip.instances.ids > 0) & clip.road).any())
    assert clip.road.float().mean() > 0.2
    assert set(clip.instances.labels.flatten().tolist()) == {-1, 0, 1}


def test_the_seed_decides_everything(clip):
    again, other = (make_road_clip(RoadClipConfig(frames=12, seed=s)) for s in (3, 4))
    assert torch.equal(again.images, clip.images) and torch.equal(again.instances.ids, clip.instances.ids)
    assert not torch.equal(other.depth, clip.depth)


def test_the_camera_keeps_its_height_and_turns_about_all_axes(clip):
    c2w = invert_se3(clip.w2c.double())
    torch.testing.assert_close(c2w[:, :3, :3] @ c2w[:, :3, :3].mT, torch.eye(3).double().expand(12, 3, 3))
    assert c2w[:, 1, 3].abs().max() < 1e-6 and float(c2w[-1, 2, 3]) == pytest.approx(11)
    down = clip.w2c[:, :3, 1]  # world's y axis in camera axes
    assert down[:, 0].std() > 1e-3 and down[:, 2].std() > 1e-3 and clip.w2c[:, 0, 2].std() > 1e-3


def test_road_pixels_lie_on_the_road_and_objects_are_as_high_as_stated(clip):
    for t in (0, 7):
        xy = pixel_centers(112, 192).view(1, -1, 2)
        points = unproject_to_world(xy, clip.depth[t].view(1, -1), clip.Ks[t][None], clip.w2c[t][None])[0]
        points = points.view(112, 192, 3)
        road = points[clip.road[t]]
        torch.testing.assert_close(road[:, 1], torch.full_like(road[:, 1], 1.5), atol=2e-4, rtol=0)
        for n in (clip.instances.labels[t] >= 0).nonzero().flatten().tolist():
            above = 1.5 - points[clip.instances.ids[t] == n + 1][:, 1]
            assert above.max() <= clip.true_heights[t, n] + 1e-3 and above.min() > -1e-3


def test_views_match_each_other_through_depth_and_poses(clip):
    xy = pixel_centers(112, 192).view(1, -1, 2)
    world = unproject_to_world(xy, clip.depth[4].view(1, -1), clip.Ks[:1], clip.w2c[4][None])
    seen, z = project_from_world(world, clip.Ks[:1], clip.w2c[5][None])
    images = clip.images.permute(0, 2, 3, 1)
    warped = sample_image(images[5][None], seen)
    there = sample_image(clip.depth[5][None, ..., None], seen, mode="nearest")[0, :, 0]
    same = (z[0] > 0) & ((there / z[0] - 1).abs() < 0.03) & (seen[0] > 1).all(-1) & (seen[0] < 110).all(-1)
    error = (warped[0] - images[4].reshape(-1, 3)).abs().mean(-1)[same]
    shifted = (images[5] - images[4]).abs().mean(-1).view(-1)[same]
    assert same.sum() > 4000 and error.mean() < 0.3 * shifted.mean()


def test_outliers_are_a_share_and_break_a_rule():
    plain, spoilt = (make_road_clip(RoadClipConfig(frames=4, seed=5, outliers=share)) for share in (0.0, 0.3))
    assert not bool(plain.outlier.any()) and bool((plain.outlier <= (plain.object_index >= 0)).all())
    assert bool(spoilt.outlier.any())
    every = make_road_clip(RoadClipConfig(frames=1, seed=5, outliers=1.0))
    assert torch.equal(every.outlier, every.object_index >= 0)
    prior = every.instances.class_heights(RoadClipConfig().priors)[0]
    off = ((every.true_heights / prior - 1).abs() > 0.24)[every.outlier]
    assert off.any() and not off.all()  # another height, or wrong masks


def test_degraded_depth_is_noisy_smeared_over_edges_and_keeps_the_sky(clip):
    depth = clip.depth[:2]
    assert torch.equal(degrade_depth(depth, seed=1), degrade_depth(depth, seed=1))
    same = degrade_depth(depth, noise=0.0, smear=0.0)
    torch.testing.assert_close(same, depth)
    noisy = degrade_depth(depth, noise=0.05, smear=0.0)
    known = depth > 0
    assert float((noisy / depth)[known].log().std()) == pytest.approx(0.05, rel=0.05)
    assert torch.equal(noisy > 0, known)
    smeared = (degrade_depth(depth, noise=0.0, smear=1.5) / depth - 1).abs()
    edge = torch.zeros_like(known)
    edge[:, :, 1:] = (depth[:, :, 1:] / depth[:, :, :-1].clamp(min=1e-6)).log().abs() > 0.3
    assert smeared[edge & known].median() > 10 * smeared[clip.road[:2] & ~edge].median()


def test_impossible_settings_raise():
    for wrong in (dict(frames=0), dict(camera_height=0), dict(outliers=1.5), dict(priors={})):
        with pytest.raises(DepthError, match=next(iter(wrong))):
            RoadClipConfig(**wrong)
