"""Which pixels each rule removes, on fields made by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flow.errors import FlowError
from flow.reliability import ReliabilityRules, reliable_pixels

H, W = 40, 60
OFF = ReliabilityRules.none()
YARD = Path(__file__).resolve().parents[3] / "shared" / "data" / "blender_yard"


def stripes(contrast=1.0):
    """Columns 0, 0, 255, 255, ...: the gradient is 127.5 everywhere inside."""
    row = (torch.arange(W) % 4 >= 2).float() * 255
    return (127.5 + contrast * (row - 127.5)).expand(3, H, W).permute(1, 2, 0).round().to(torch.uint8)


def still():
    return torch.zeros(H, W, 2)


def judge(rules, forward=None, backward=None, image0=None, image1=None, **extra):
    image0 = stripes() if image0 is None else image0
    image1 = image0 if image1 is None else image1
    forward = still() if forward is None else forward
    return reliable_pixels(forward, still() if backward is None else backward, image0, image1, rules=rules, **extra)


def only(**changes):
    return dataclasses.replace(OFF, **changes)


def removed(result):
    return int((~result.mask).sum())


def test_a_still_textured_scene_passes_all_rules_with_full_weight():
    result = judge(ReliabilityRules(), depth0=torch.ones(H, W).index_fill(0, torch.tensor([0]), 2.0))
    assert int(result.failed["far"].sum()) == W
    assert torch.equal(result.mask, ~result.failed["far"])
    assert torch.equal(result.weight, result.mask.float())


def test_without_rules_everything_passes_but_flow_that_is_not_finite():
    g = torch.Generator().manual_seed(0)
    forward, backward = (200 * torch.randn(H, W, 2, generator=g) for _ in range(2))
    flat = torch.zeros(H, W, 3, dtype=torch.uint8)
    result = judge(OFF, forward, backward, stripes(), flat)
    assert result.mask.all()
    assert (result.weight == 1).all()
    forward[3, 4, 0], forward[5, 6, 1] = torch.nan, torch.inf
    assert removed(judge(OFF, forward, backward)) == 2
    assert not judge(ReliabilityRules(), forward, backward).weight.isnan().any()


def test_pixels_that_leave_the_image():
    forward, backward = still(), still()
    forward[..., 0], backward[..., 0] = 5, -5
    result = judge(only(consistency=True), forward, backward)
    assert result.counts["leaves"].removed == removed(result) == 5 * H
    assert not result.mask[:, W - 5 :].any()


def test_pixels_to_which_the_flow_back_does_not_return():
    backward = still()
    backward[10:16, 20:28, 0] = 3
    result = judge(only(consistency=True), backward=backward)
    assert result.counts["occluded"].removed == removed(result) == 48
    assert removed(judge(only(consistency=True, alpha=1.01), backward=backward)) == 0
    assert removed(judge(only(consistency=True, beta=9.1), backward=backward)) == 0


def test_confidence_is_half_at_half_a_pixel():
    backward = still()
    backward[10:16, 20:28, 0] = 0.49
    assert removed(judge(ReliabilityRules(), backward=backward)) == 0
    backward[10:16, 20:28, 0] = 0.51
    result = judge(ReliabilityRules(), backward=backward)
    assert result.counts["confidence"].alone == removed(result) == 48


def test_weight_is_the_confidence_and_positive_exactly_where_reliable():
    backward = still()
    backward[:, :30, 0] = torch.linspace(0, 0.4, 30)
    result = judge(ReliabilityRules(), backward=backward)
    assert (result.weight > 0).equal(result.mask)
    assert result.weight[0, 0] == 1
    assert 0.5 < result.weight[0, 29] < result.weight[0, 10] < 1
    equal = judge(dataclasses.replace(ReliabilityRules(), weigh_by_confidence=False), backward=backward)
    assert torch.equal(equal.weight, equal.mask.float())
    leaving = judge(dataclasses.replace(OFF, weigh_by_confidence=True), forward=still() + 1000)
    assert leaving.mask.all()
    assert (leaving.weight > 0).all()


def test_low_texture():
    image = stripes()
    image[10:30, 20:40] = 100  # the gradient sees 1 px beyond, the window 3 px
    result = judge(only(min_texture=1.0), image0=image)
    assert removed(result) == 12 * 12
    assert not result.mask[14:26, 24:36].any()
    assert removed(judge(only(min_texture=1.0, window=3), image0=image)) == 16 * 16


def test_texture_is_the_root_mean_square_gradient_in_grey_levels():
    ramp = (torch.arange(W) * 4).expand(3, H, W).permute(1, 2, 0).to(torch.uint8)
    inner = (slice(None), slice(4, -4))
    assert judge(only(min_texture=3.9), image0=ramp).mask[inner].all()
    assert not judge(only(min_texture=4.1), image0=ramp).mask[inner].any()


@pytest.mark.parametrize("swap", [False, True])
def test_blur_in_either_frame(swap):
    images = [stripes(), stripes(0.25)]
    rules = only(min_sharpness_ratio=0.5)
    assert removed(judge(rules, image0=images[swap], image1=images[1 - swap])) == H * W
    assert removed(judge(rules, image0=stripes(0.25), image1=stripes(0.25))) == 0
    assert removed(judge(rules, image0=stripes(), image1=stripes(0.75))) == 0


def test_appearance_ignores_exposure_and_follows_the_flow():
    rules = only(max_appearance_error=12.0)
    assert removed(judge(rules, image0=stripes(0.6), image1=stripes(0.6) + 40)) == 0
    inverted = stripes().roll(2, dims=1)
    assert removed(judge(rules, image1=inverted)) == H * W
    forward = still()
    forward[..., 0] = 2
    result = judge(rules, forward, image1=inverted)
    assert result.mask[:, : W - 8].all()


def test_isolated_vectors_but_no_straight_motion_boundaries():
    rules = only(max_deviation=0.3)
    flow = still()
    flow[:20] = 5
    assert removed(judge(rules, flow)) == 0
    assert removed(judge(rules, flow.new_zeros(H, W, 2).index_fill(1, torch.arange(25), -4.0))) == 0
    flow[9:11, 30:32, 0] = 7  # 2 x 2 wrong vectors
    flow[33, 12, 1] = -0.4
    flow[33, 40, 1] = -0.2  # within the bound
    result = judge(rules, flow)
    assert removed(result) == 5
    assert not result.mask[33, 12]


def test_deviation_is_from_a_separable_median():
    flow = torch.randn(H, W, 2, generator=torch.Generator().manual_seed(1))
    median = flow.numpy()
    for axis in (1, 0):
        n = median.shape[axis]
        shifted = [median.take(np.clip(np.arange(n) + k, 0, n - 1), axis) for k in (-4, -2, 0, 2, 4)]
        median = np.median(np.stack(shifted), axis=0)
    deviation = np.linalg.norm(flow.numpy() - median, axis=-1)
    assert np.array_equal(judge(only(max_deviation=1.0), flow).mask.numpy(), deviation <= 1.0)


def test_both_valid_masks():
    valid0, valid1 = torch.ones(H, W, dtype=torch.bool), torch.ones(H, W, dtype=torch.bool)
    valid0[0, :10] = False
    valid1[20, 30] = False
    forward = still()
    forward[..., 0] = 0.5  # targets lie between two columns
    result = judge(OFF, forward, valid0=valid0, valid1=valid1)
    assert result.counts["valid"].removed == removed(result) == 10 + 2
    assert removed(judge(OFF, forward, valid0=valid0)) == 10
    assert removed(judge(OFF, valid1=valid1)) == 1


def test_far_and_unknown_depth():
    depth = torch.arange(1, H * W + 1).float().view(H, W)
    assert removed(judge(only(far_quantile=0.9), depth0=depth)) == H * W // 10
    assert not judge(only(far_quantile=0.9), depth0=depth).mask[-4:].any()
    assert removed(judge(only(far_quantile=1.0), depth0=depth)) == 0
    depth[0, :3] = torch.tensor([0.0, torch.nan, torch.inf])
    assert removed(judge(only(far_quantile=1.0), depth0=depth)) == 3
    sky = torch.ones(H, W)
    sky[:12] = 50.0
    assert removed(judge(only(far_quantile=0.9), depth0=sky)) == 12 * W
    assert removed(judge(only(far_quantile=0.9), depth0=torch.zeros(H, W))) == H * W
    assert removed(judge(only(far_quantile=0.9))) == 0


def test_counts_tell_what_comes_back_when_one_rule_is_off():
    backward, image = still(), stripes()
    backward[10:16, 20:28, 0] = 3
    image[10:30, 20:40] = 100
    rules = only(consistency=True, min_texture=1.0)
    result = judge(rules, backward=backward, image0=image, image1=image)
    for field, name in (("consistency", "occluded"), ("min_texture", "texture")):
        off = dataclasses.replace(rules, **{field: None if field != "consistency" else False})
        without = judge(off, backward=backward, image0=image, image1=image)
        assert result.counts[name].alone == int(without.mask.sum() - result.mask.sum())
    assert result.counts["texture"] == (144, 136, H * W)  # 2 rows x 4 columns overlap


def test_a_batch_equals_its_frames_and_float_images_equal_bytes():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, H, W, 3), generator=g).to(torch.uint8)
    flows = torch.randn(2, 3, H, W, 2, generator=g)
    valid = torch.rand(2, 3, H, W, generator=g) > 0.1
    depth = torch.rand(3, H, W, generator=g)
    rules = dataclasses.replace(ReliabilityRules(), max_deviation=2.0, max_appearance_error=80.0)
    batch = reliable_pixels(*flows, *images, rules=rules, valid0=valid[0], valid1=valid[1], depth0=depth)
    assert 0.01 < batch.mask.float().mean() < 0.9
    for k in range(3):
        one = dict(rules=rules, valid0=valid[0, k], valid1=valid[1, k], depth0=depth[k])
        single = reliable_pixels(*flows[:, k], *(images[:, k].double() / 255), **one)
        assert torch.equal(single.mask, batch.mask[k])
        assert torch.equal(single.weight, batch.weight[k])
        assert list(single.failed) == list(batch.failed)


def test_bad_input():
    image, flow = stripes(), still()
    mask = torch.ones(H, W, dtype=torch.bool)
    for arguments, extra in (
        ((flow[..., :1], flow, image, image), {}),
        ((flow, flow[:-1], image, image), {}),
        ((flow, flow, image[:-1], image), {}),
        ((flow, flow, image, image[None]), {}),
        ((flow, flow, image.int(), image), {}),
        ((flow, flow, image, image), dict(valid0=mask[:-1])),
        ((flow, flow, image, image), dict(valid1=mask.float())),
        ((flow, flow, image, image), dict(depth0=torch.ones(H, W + 1))),
    ):
        with pytest.raises(FlowError, match=r"must"):
            reliable_pixels(*arguments, **extra)
    for wrong in (dict(window=4), dict(window=0), dict(min_confidence=1.5), dict(far_quantile=-0.1)):
        with pytest.raises(FlowError, match=next(iter(wrong))):
            ReliabilityRules(**wrong)


@pytest.mark.skipif(not (YARD / "train").is_dir(), reason="needs the rendered yard")
def test_on_rendered_video_what_is_kept_is_mostly_right():
    from flow.compute import compute_video_flow
    from flow.dis import DISEstimator
    from flow.frames import read_frames

    frames, _ = read_frames(YARD / "train/images", start=12, end=14)
    flow = compute_video_flow(frames, DISEstimator(), strides=(1,))
    exact = np.load(YARD / "train/flow_fwd.npz")
    error = (flow.get(0, 1) - torch.from_numpy(exact["flow"][12])).norm(dim=-1)
    wrong = (error > 1) | torch.from_numpy(exact["occluded"][12])
    result = reliable_pixels(flow.get(0, 1), flow.get(1, 0), frames[0], frames[1])
    assert result.mask.float().mean() > 0.75
    assert wrong[result.mask].float().mean() < 0.35 * wrong.float().mean()
