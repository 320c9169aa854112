import math

import pytest
import torch

from som.cameras.geometry import axis_angle_to_se3
from som.depth.errors import DepthError, NoParallaxError
from som.depth.estimate import DepthConfig, estimate_depth
from som.depth.estimate.anchors import resize_maps
from som.depth.estimate.blending import DEFAULT, blend, gaussian_blur
from som.depth.estimate.moving import below_feet, stand_on_ground
from som.depth.estimate.scale import distance_scale
from som.depth.estimate.student import network_size
from som.depth.learning.synthetic import RoadClip, RoadClipConfig, make_road_clip
from som.depth.learning.training.collapse import CollapseError


@pytest.fixture(scope="module")
def clip() -> RoadClip:
    return make_road_clip(RoadClipConfig(frames=8, width=96, height=64))


def quick(**changes) -> DepthConfig:
    config = DepthConfig(student_side=64, **changes)
    config.self_supervised.pose = "auto" if "teacher" in changes else "cnn"
    config.student.steps = config.self_supervised.steps = 4
    config.student.batch_size = config.self_supervised.batch_size = 4
    return config


def test_the_teacher_stays_and_corrects_what_is_near():
    network = torch.full((1, 32, 64), 2.0)
    teacher = torch.zeros(1, 32, 64)
    teacher[:, :, :32] = 2.04
    depth, confidence = blend(teacher, (teacher > 0).float(), network)
    assert torch.allclose(depth[:, :, :32], teacher[:, :, :32])
    # everything known says 2 % more: log 1.02 is about half of AGREEMENT, so four fifths of it are taken over
    corrected = 2.0 * math.exp(math.log(1.02) / (1 + (math.log(1.02) / 0.04) ** 2))
    assert torch.allclose(depth[:, :, 32:], torch.full((1, 32, 32), corrected), rtol=1e-5)
    assert (confidence[:, :, :32] == 1).all()
    filled = confidence[0, 16, 32:]
    assert (
        (filled.diff() <= 0).all()
        and 0.6 * DEFAULT.max_filled_confidence < filled[0] <= DEFAULT.max_filled_confidence
        and filled[-1] < 0.01
    )


def test_a_doubtful_teacher_shares_with_the_network_and_a_wild_one_corrects_nothing():
    network, teacher = torch.full((1, 8, 8), 2.0), torch.full((1, 8, 8), 4.0)
    depth, _ = blend(teacher, torch.full((1, 8, 8), 0.1 / 1.1), network)
    # half of the log ratio, give or take the small correction of the network
    assert float((depth / 2).log().mean() / math.log(2)) == pytest.approx(0.5, abs=0.01)
    teacher[:, :, 4:] = 0
    depth, _ = blend(teacher, (teacher > 0).float(), network)
    assert torch.allclose(depth[:, :, 4:], network[:, :, 4:], rtol=0.01)


def test_disagreement_lowers_the_confidence_of_what_is_filled():
    generator = torch.Generator().manual_seed(0)
    teacher = 3.0 + torch.zeros(1, 32, 32)
    teacher[:, 12:20, 12:20] = 0
    noisy = torch.where(teacher > 0, 3.0 * (0.3 * torch.randn(1, 32, 32, generator=generator)).exp(), teacher)
    network = torch.full((1, 32, 32), 3.0)
    hole = teacher == 0
    sure = blend(teacher, (teacher > 0).float(), network)[1][hole].mean()
    unsure = blend(noisy, (teacher > 0).float(), network)[1][hole].mean()
    assert unsure < 0.5 * sure


def test_moving_pixels_are_never_trusted():
    teacher = torch.full((1, 8, 8), 2.0)
    moving = torch.zeros(1, 8, 8, dtype=torch.bool)
    moving[:, 2:4] = True
    _, confidence = blend(teacher, torch.ones_like(teacher), teacher, moving)
    assert (confidence[moving] == DEFAULT.moving_confidence).all() and (confidence[~moving] == 1).all()


def test_moving_things_stand_on_what_lies_below_them():
    rows = torch.arange(20.0)[:, None].expand(20, 30)
    ground = 40 / (rows + 1)[None].repeat(2, 1, 1)  # nearer towards the bottom
    moving = torch.zeros(2, 20, 30, dtype=torch.bool)
    moving[0, 4:12, 5:10] = True  # stands on row 12
    moving[0, 6:20, 20:25] = True  # cut off by the lower border: nothing is known of where it stands
    moving[1, 3:5, 3:5] = True  # too small
    depth, standing = stand_on_ground(ground, moving)
    assert (depth[0, 4:12, 5:10] == ground[0, 12, 0]).all()
    assert torch.equal(standing[0], moving[0] & (torch.arange(30) < 15)) and not standing[1].any()
    unchanged = ~standing
    assert torch.equal(depth[unchanged], ground[unchanged])


def test_a_lifted_or_hidden_foot_takes_the_contact_of_the_frames_around():
    ground = (40 / (torch.arange(20.0) + 1))[:, None].expand(20, 30)[None].repeat(7, 1, 1)
    moving = torch.zeros(7, 20, 30, dtype=torch.bool)
    moving[:, 4:12, 5:10] = True  # stands on row 12
    moving[3, 8:12, 5:10] = False  # jumps: nothing of it is below row 8
    moving[6, 12:20, 5:10] = True  # the mask runs out of the image
    depth, standing = stand_on_ground(ground, moving)
    assert torch.equal(standing, moving)
    assert all(bool((depth[t, 4:8, 5:10] == ground[0, 12, 0]).all()) for t in range(7))
    contact = below_feet(ground, moving)
    assert float(contact[3, 5, 7]) == float(ground[3, 8, 7]) and float(contact[6, 5, 7]) == 0
    assert not contact[~moving].any()


def test_what_is_nearer_than_its_foot_stays_nearer():
    depth = torch.full((1, 10, 10), 8.0)
    moving = torch.zeros(1, 10, 10, dtype=torch.bool)
    moving[0, 2:7, 2:7] = True
    depth[moving] = 3.0
    assert torch.equal(stand_on_ground(depth, moving)[0], depth)


def test_a_frame_without_teacher_takes_the_correction_of_the_others():
    teacher = torch.full((3, 8, 8), 2.02)
    teacher[1] = 0
    depth, confidence = blend(teacher, (teacher > 0).float(), torch.full((3, 8, 8), 2.0))
    assert 2.015 < float(depth[1].mean()) < 2.02
    assert (confidence[1] == 0).all()


def test_nothing_known_leaves_the_network():
    network = torch.rand(2, 8, 8) + 1
    depth, confidence = blend(torch.zeros(2, 8, 8), torch.zeros(2, 8, 8), network)
    assert torch.allclose(depth, network) and (confidence == 0).all()


def test_blur_keeps_sums_and_is_separable():
    maps = torch.zeros(1, 21, 21)
    maps[0, 10, 10] = 1
    blurred = gaussian_blur(maps, 2.0)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-6)
    assert float(blurred[0, 10, 12] / blurred[0, 10, 10]) == pytest.approx(math.exp(-0.5), rel=1e-5)


def test_network_size_is_a_multiple_of_32_of_about_that_aspect():
    assert network_size((480, 640), 192) == (160, 192)
    assert network_size((144, 256), 192) == (128, 192)
    assert network_size((192, 640), 640) == (192, 640)
    assert network_size((20, 30), 192) == (32, 32)


def test_sparse_points_survive_resizing():
    depth = torch.zeros(1, 40, 40)
    depth[0, 21, 33] = 5.0
    assert float(resize_maps(depth, (10, 10)).max()) == 5.0


def test_a_posed_clip_gets_depth_close_to_the_truth(clip):
    stages = []
    prior = estimate_depth(
        clip.images, clip.Ks, clip.w2c, config=quick(), progress=lambda stage, share: stages.append(stage)
    )
    known = clip.depth > 0
    error = ((prior.depth - clip.depth).abs() / clip.depth)[known]
    sure = prior.confidence[known] > 0.5
    assert prior.units == "scene" and prior.depth.shape == clip.depth.shape
    assert bool((prior.depth > 0).all()) and 0 <= float(prior.confidence.min()) <= float(prior.confidence.max()) <= 1
    assert float(error[sure].median()) < 0.03 < float(error[~sure].median())
    assert dict.fromkeys(stages) == dict.fromkeys(["sweep", "network"])
    assert prior.scale_log["factor"] == 1.0 and 0 < prior.scale_log["teacher_coverage"] < 1


def test_the_same_seed_gives_the_same_depth_and_leaves_torchs_generator_alone(clip):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = estimate_depth(clip.images[:5], clip.Ks[:5], clip.w2c[:5], config=quick())
    assert torch.equal(torch.rand(1), expected)
    second = estimate_depth(clip.images[:5], clip.Ks[:5], clip.w2c[:5], config=quick())
    assert torch.equal(first.depth, second.depth) and torch.equal(first.confidence, second.confidence)


def test_distances_make_depth_and_poses_metric(clip):
    scaled = clip.w2c.clone()
    scaled[:, :3, 3] *= 0.25  # poses in another unit
    centers = torch.linalg.inv(clip.w2c)[:, :3, 3]
    distances = torch.cat([(centers[1:] - centers[:-1]).norm(dim=-1), torch.zeros(1)])
    assert distance_scale(scaled, distances) == pytest.approx(4.0, rel=1e-4)
    prior = estimate_depth(clip.images, clip.Ks, scaled, distances=distances, config=quick())
    assert prior.units == "metric" and prior.scale_log["factor"] == pytest.approx(4.0, rel=1e-4)
    torch.testing.assert_close(prior.w2c, clip.w2c, atol=1e-3, rtol=1e-3)
    sure = (prior.confidence > 0.5) & (clip.depth > 0)
    assert float(((prior.depth - clip.depth).abs() / clip.depth)[sure].median()) < 0.03


def test_a_standing_camera_tells_no_scale(clip):
    with pytest.raises(DepthError, match="moves less than"):
        distance_scale(clip.w2c, torch.zeros(len(clip.w2c)))


def test_sparse_depth_fills_what_the_sweep_does_not_know(clip):
    valid = torch.ones_like(clip.road)
    valid[:, :, 48:] = False  # the sweep sees the left half alone
    sparse = torch.zeros_like(clip.depth)
    sparse[:, ::3, 50::3] = clip.depth[:, ::3, 50::3]
    config = quick(max_side=96)
    config.student.steps = 30
    without = estimate_depth(clip.images, clip.Ks, clip.w2c, valid=valid, config=config)
    prior = estimate_depth(clip.images, clip.Ks, clip.w2c, valid=valid, sparse=sparse, config=config)
    known = sparse > 0
    assert float((prior.depth / sparse)[known].log().abs().median()) < 0.05
    hidden = (clip.depth > 0) & ~valid & ~known
    error, before = (float((p.depth / clip.depth)[hidden].log().abs().mean()) for p in (prior, without))
    assert error < 0.8 * before
    assert prior.scale_log["sparse_given"] == int(known.sum()) >= prior.scale_log["sparse_used"] > 500


def test_sparse_depth_on_moving_things_is_left_out(clip):
    moving = torch.zeros_like(clip.road)
    moving[:, 30:50, 30:50] = True
    sparse = torch.where(moving, 9.0, 0.0)
    sparse[:, 10, 10] = clip.depth[:, 10, 10]
    prior = estimate_depth(clip.images, clip.Ks, clip.w2c, moving, sparse=sparse, config=quick(max_side=96))
    assert prior.scale_log["sparse_given"] == int((sparse[~moving] > 0).sum())
    assert bool((prior.teacher[moving] == 0).all())


def test_sparse_depth_in_another_unit_is_refused(clip):
    with pytest.raises(DepthError, match=r"sparse depth is (2.9|3)\d* times"):
        estimate_depth(clip.images, clip.Ks, clip.w2c, sparse=3 * clip.depth, config=quick(max_side=96))


def test_poses_are_refined_where_that_helps_and_the_depth_fits_them(clip):
    def shaken(angle):
        generator = torch.Generator().manual_seed(0)
        vectors = angle * torch.randn(2, len(clip.w2c), 3, generator=generator)
        return axis_angle_to_se3(vectors[0], 5 * vectors[1]) @ clip.w2c

    poses = shaken(0.004)
    runs = [
        estimate_depth(clip.images, clip.Ks, poses, config=quick(max_side=64, refine_poses=refine))
        for refine in (False, True)
    ]
    assert "poses_refined" not in runs[0].scale_log and torch.equal(runs[0].w2c, poses)
    assert runs[1].scale_log["poses_refined"] and not torch.equal(runs[1].w2c, poses)
    assert runs[1].scale_log["teacher_coverage"] > 1.05 * runs[0].scale_log["teacher_coverage"]
    exact = estimate_depth(clip.images, clip.Ks, clip.w2c, config=quick(max_side=64, refine_poses=True))
    assert exact.scale_log["poses_refined"] is False and torch.equal(exact.w2c, clip.w2c)


def test_pixels_that_may_not_be_used_have_no_confidence(clip):
    valid = torch.ones_like(clip.road)
    valid[:, :20, :30] = False
    prior = estimate_depth(clip.images, clip.Ks, clip.w2c, valid=valid, config=quick())
    assert (prior.confidence[~valid] == 0).all() and float(prior.confidence[valid].mean()) > 0.02
    assert (prior.teacher[:, :18, :28] == 0).all()


def test_refinement_goes_on_from_the_student(clip):
    config = quick(refine_steps=3)
    prior = estimate_depth(clip.images, clip.Ks, clip.w2c, config=config)
    assert prior.scale_log["network_steps"] == 7
    sure = (prior.confidence > 0.5) & (clip.depth > 0)
    assert float(((prior.depth - clip.depth).abs() / clip.depth)[sure].median()) < 0.03


def test_without_poses_the_unit_is_unknown(clip):
    config = quick()
    config.student.collapse.min_depth_variation = 0.0  # a few steps teach a pose network nothing
    prior = estimate_depth(clip.images, clip.Ks, config=config)
    assert prior.units == "relative" and prior.w2c is None and prior.scale_log["pose"] == "cnn"
    assert float(prior.confidence.max()) < 0.5


def test_no_parallax_can_be_told_from_other_refusals(clip):
    standing = clip.w2c[:1].expand(8, 4, 4).clone()
    with pytest.raises(NoParallaxError, match="camera does not move"):
        estimate_depth(clip.images[:1].expand(8, -1, -1, -1), clip.Ks, standing, config=quick())


def test_flat_depth_is_refused(clip):
    config = quick()
    config.student.collapse.min_depth_variation = 10.0
    with pytest.raises(CollapseError, match=r"no depth to return: depth is flat"):
        estimate_depth(clip.images, clip.Ks, config=config)


def test_a_budget_makes_the_sweep_smaller_or_refuses(clip):
    with pytest.raises(DepthError, match=r"a budget of 0.001 s is too short for a sweep of 8 frames"):
        estimate_depth(clip.images, clip.Ks, clip.w2c, config=quick(), budget_s=0.001)
    with pytest.raises(DepthError, match="budget_s must be positive"):
        estimate_depth(clip.images, clip.Ks, clip.w2c, config=quick(), budget_s=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(frames=a["frames"][:1]), "at least two frames"),
        (lambda a: a.update(frames=a["frames"] * 255), r"frames must lie in \[0, 1\]"),
        (lambda a: a.update(frames=a["frames"][:, :2]), r"frames must be \(T,3,H,W\)"),
        (lambda a: a.update(K=a["K"] * 3), "principal point of K lies outside"),
        (lambda a: a.update(K=a["K"][:3]), r"K must be \(3,3\) or \(8,3,3\)"),
        (lambda a: a.update(poses=a["poses"] * 1.1), "pose of frame 0 is not rigid"),
        (lambda a: a.update(poses=a["poses"][:4]), r"poses must be \(8,4,4\)"),
        (lambda a: a.update(moving=torch.zeros(8, 3, 3, dtype=torch.bool)), r"moving must be \(8,64,96\) bool"),
        (lambda a: a.update(road=torch.zeros(8, 64, 96, dtype=torch.bool)), "both road masks and objects"),
        (lambda a: a.update(sparse=torch.zeros(8, 3, 3)), "sparse must be"),
        (lambda a: a.update(poses=None, config=quick(teacher="sweep")), "the plane sweep needs camera poses"),
        (lambda a: a.update(poses=a["poses"][:1].expand(8, 4, 4)), "camera does not move"),
    ],
)
def test_bad_input_is_named(clip, change, message):
    arguments = {"frames": clip.images, "K": clip.Ks, "poses": clip.w2c, "config": quick()}
    change(arguments)
    with pytest.raises(DepthError, match=message):
        estimate_depth(**arguments)


def test_poses_that_confirm_nothing_are_refused_as_such_although_they_should_be_refined(clip):
    wild = axis_angle_to_se3(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 3))
    with pytest.raises(CollapseError, match="the poses or K may be wrong"):
        estimate_depth(clip.images, clip.Ks, wild @ clip.w2c, config=quick(max_side=64, refine_poses=True))
