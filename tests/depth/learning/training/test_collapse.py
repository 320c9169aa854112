import math

import pytest
import torch

from som.depth.learning.training.collapse import (
    CollapseError,
    MaskWatch,
    collapse_reason,
    depth_variation,
    ramp_share,
    ramp_warning,
)
from som.depth.learning.training.config import CollapseLimits

LIMITS = CollapseLimits()
RANGE = (0.1, 100.0)


def slope(low, high):
    """Three maps whose depth grows evenly from left to right."""
    return torch.linspace(low, high, 16).expand(3, 8, 16).clone()


def test_depth_variation_is_the_deviation_over_the_median():
    depth = torch.tensor([[[1.0, 3.0], [0.0, 2.0]]])  # std of 1, 3, 2 is 1, the median 2
    assert depth_variation(depth)[0] == pytest.approx(0.5)
    assert depth_variation(torch.zeros(1, 2, 2)).isnan()[0]


def test_a_scene_of_varying_depth_is_a_result():
    assert collapse_reason(slope(2, 6), RANGE, LIMITS) is None
    assert collapse_reason(slope(2, 6), None, LIMITS) is None


def test_flat_depth_is_none_and_the_advice_fits():
    flat = slope(5.0, 5.05)
    assert "depth is flat" in collapse_reason(flat, RANGE, LIMITS)
    assert "pose network" in collapse_reason(flat, RANGE, LIMITS, poses_learned=True)
    assert collapse_reason(flat, RANGE, CollapseLimits(min_depth_variation=0.001)) is None


def test_most_frames_decide():
    depth = slope(2, 6)
    depth[0] = 4.0
    assert collapse_reason(depth, RANGE, LIMITS) is None
    depth[1] = 4.0
    assert "flat" in collapse_reason(depth, RANGE, LIMITS)


@pytest.mark.parametrize(("value", "end"), [(0.1005, "near"), (99.9, "far")])
def test_an_end_of_the_range_is_named(value, end):
    depth = torch.full((2, 8, 16), value)
    depth[:, :, 0] = 5.0
    assert f"{end} end of its range" in collapse_reason(depth, RANGE, LIMITS)


def test_far_depth_within_the_range_is_no_collapse():
    assert collapse_reason(slope(60, 95), RANGE, LIMITS) is None


def test_nothing_known_and_nan_are_no_results():
    assert "no pixel" in collapse_reason(torch.zeros(1, 4, 4), RANGE, LIMITS)
    assert "diverged" in collapse_reason(torch.full((1, 4, 4), torch.nan), RANGE, LIMITS)


def test_gamed_masks_raise_an_alarm():
    watch = MaskWatch(LIMITS)
    watch.add(0.148, 0.1)
    watch.add(0.120, 0.12)
    with pytest.raises(CollapseError, match=r"geometry term 0.10 -> 0.51.*photometric term falls \(0.148 -> 0.025\)"):
        watch.add(0.025, 0.51)


def test_bad_but_honest_training_raises_none():
    watch = MaskWatch(LIMITS)
    watch.add(0.10, 0.2)
    watch.add(0.15, 0.6)  # both rise: wrong poses, perhaps, but nothing is gamed
    other = MaskWatch(LIMITS)
    other.load_state(watch.state())
    assert other.first == (0.10, 0.2)


def ramps(frames, variation=0.0):
    """Depth from 20 above to 2 below in every frame, with bumps that differ from frame to frame."""
    generator = torch.Generator().manual_seed(0)
    bumps = variation * torch.randn(frames, 16, 24, generator=generator)
    return torch.linspace(20, 2, 16)[:, None].expand(frames, 16, 24) * bumps.exp()


def test_one_ramp_for_all_frames_is_seen_whatever_the_scale_of_each():
    depth = ramps(5) * torch.rand(5, 1, 1).add(0.5)
    assert ramp_share(depth) == pytest.approx(1, abs=0.01)
    # y^k with k <= 3 explain log depth, and columns, too
    x = torch.linspace(-1, 1, 24)
    assert ramp_share((0.3 * x**3 - x + torch.linspace(-1, 1, 16)[:, None] ** 2).exp()[None]) == pytest.approx(1)
    depth[:, :3] = 0
    assert ramp_share(depth) == pytest.approx(1, abs=0.01)
    assert math.isnan(ramp_share(torch.full((2, 4, 4), 3.0)))


def test_the_share_is_that_of_the_variance():
    # log depth = ramp with variance var(r) + independent noise of variance 0.25
    log_ramp = torch.linspace(20, 2, 16).log()
    variance = float(log_ramp.var(correction=0))
    assert ramp_share(ramps(40, 0.5)) == pytest.approx(variance / (variance + 0.25), abs=0.03)


def test_ramps_that_differ_between_frames_are_no_common_ramp():
    depth = ramps(6).clone()
    depth[::2] = depth[::2].flip(1)
    assert ramp_share(depth) < 0.1


def test_a_common_ramp_warns_only_if_the_images_differ():
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    warning = ramp_warning(ramps(5), images, LIMITS)
    assert "one smooth ramp" in warning and "100 %" in warning
    assert ramp_warning(ramps(5), images[:1].expand(5, -1, -1, -1), LIMITS) is None
    assert ramp_warning(ramps(5, 0.5), images, LIMITS) is None
    assert ramp_warning(ramps(5), images, CollapseLimits(max_ramp=1.0)) is None
