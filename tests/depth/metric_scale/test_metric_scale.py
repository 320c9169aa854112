"""The direct form on generated street clips: camera height and factor from objects of known height alone."""

from dataclasses import replace

import pytest
import torch

from som.depth.errors import DepthError
from som.depth.learning.synthetic import RoadClipConfig, degrade_depth, make_road_clip
from som.depth.metric_scale import (
    DEFAULT_PRIORS,
    FrameConfig,
    Instances,
    MetricScaleConfig,
    ObjectStatus,
    metric_scale,
)

HIDDEN = 0.23
"""Metres per unit of the depth that is handed in."""


@pytest.fixture(scope="module", params=[0, 1])
def clip(request):
    return make_road_clip(RoadClipConfig(frames=60, outliers=0.3, seed=request.param))


def every(clip, step):
    chosen = slice(None, None, step)
    return clip.Ks[chosen], clip.road[chosen], clip.instances.frames(chosen)


def with_form(form):
    return MetricScaleConfig(frame=FrameConfig(scale_from=form))


@pytest.mark.parametrize("form", ["box", "horizon"])
def test_true_depth_gives_the_camera_height_within_three_percent(clip, form):
    got = metric_scale(clip.depth[::2] / HIDDEN, *every(clip, 2), config=with_form(form))
    assert got.camera_height == pytest.approx(1.5, rel=0.03)
    assert got.scale == pytest.approx(HIDDEN, rel=0.03)
    assert got.depth_deviation < 1e-3 and 0 < got.relative_deviation < 0.15


@pytest.mark.parametrize("form", ["box", "horizon"])
def test_weak_depth_gives_it_within_six_percent(clip, form):
    depth = degrade_depth(clip.depth[::2], noise=0.05, smear=1.5)
    got = metric_scale(depth / HIDDEN, *every(clip, 2), config=with_form(form))
    assert got.camera_height == pytest.approx(1.5, rel=0.06)
    assert got.scale == pytest.approx(HIDDEN, rel=0.06)


def test_with_true_heights_only_pixels_are_left_as_error(clip):
    Ks, road, instances = every(clip, 3)
    own = torch.where(clip.outlier[::3], torch.zeros_like(clip.true_heights[::3]), clip.true_heights[::3])
    got = metric_scale(clip.depth[::3] / HIDDEN, Ks, road, replace(instances, heights=own))
    assert got.camera_height == pytest.approx(1.5, rel=0.015)


def test_the_outlier_test_refuses_outliers_rather_than_others(clip):
    got = metric_scale(clip.depth[::3] / HIDDEN, *every(clip, 3))
    outlier = clip.outlier[::3]
    refused = [outlier[o.frame, o.number - 1].item() for o in got.rejected if o.status == ObjectStatus.HORIZON]
    used = [outlier[o.frame, o.number - 1].item() for o in got.used]
    assert len(used) > 40 and len(refused) > 10
    assert sum(used) / len(used) < 0.15 and sum(refused) / len(refused) > 0.7


def test_all_scales_give_the_same_and_the_report_adds_up(clip):
    few = [clip.depth[::6], *every(clip, 6)]
    unit = metric_scale(*few)
    for factor in (1e-3, 40.0):
        got = metric_scale(few[0] * factor, *few[1:])
        assert got.scale * factor == pytest.approx(unit.scale, rel=1e-4)
        assert got.camera_height == pytest.approx(unit.camera_height, rel=1e-4)
    assert len(unit.per_frame) == 10
    assert len(unit.used) + len(unit.rejected) == int((few[3].labels >= 0).sum())
    frame = unit.per_frame[4]
    assert frame.scale * frame.camera_height == pytest.approx(unit.camera_height)
    assert frame.camera_height == pytest.approx(1.5, rel=1e-3)
    scales = sorted(o.scale for o in unit.used if o.frame == 4)
    middle = (scales[(len(scales) - 1) // 2] + scales[len(scales) // 2]) / 2
    assert frame.metric_camera_height == pytest.approx(middle * frame.camera_height, rel=1e-4)


def test_frames_without_objects_take_part_in_the_factor(clip):
    Ks, road, instances = every(clip, 6)
    ids = instances.ids.clone()
    ids[5:] = 0
    depth = clip.depth[::6].clone()
    depth[4:] *= 2  # their depth has another scale: six of ten frames
    got = metric_scale(depth, Ks, road, replace(instances, ids=ids))
    assert got.camera_height == pytest.approx(1.5, rel=0.08)
    assert got.scale == pytest.approx(got.camera_height / 3, rel=1e-3)
    assert got.depth_deviation == pytest.approx(0.25, rel=1e-3)  # half of 3 - 1.5, over 3
    assert got.per_frame[9].metric_camera_height != got.per_frame[9].metric_camera_height  # nan


def test_a_measured_camera_height_needs_no_objects(clip):
    Ks, road, instances = every(clip, 6)
    empty = Instances(torch.zeros_like(instances.ids), torch.zeros(10, 0, dtype=torch.long), ())
    got = metric_scale(clip.depth[::6] / HIDDEN, Ks, road, empty, config=MetricScaleConfig(known_camera_height=1.5))
    assert got.scale == pytest.approx(HIDDEN, rel=1e-4) and got.used == []


def test_priors_set_the_unit(clip):
    few = [clip.depth[::6], *every(clip, 6)]
    doubled = {name: replace(prior, mean=2 * prior.mean) for name, prior in DEFAULT_PRIORS.items()}
    assert metric_scale(*few, doubled).scale == pytest.approx(2 * metric_scale(*few).scale, rel=1e-4)


def test_what_cannot_be_scaled_is_refused_in_one_sentence(clip):
    depth, (Ks, road, instances) = clip.depth[::6], every(clip, 6)
    with pytest.raises(DepthError, match=r"no frame shows road of known depth on 1 % of its pixels"):
        metric_scale(depth, Ks, torch.zeros_like(road), instances)
    with pytest.raises(DepthError, match=r"no object can be used; \d+ have no height prior\.$"):
        metric_scale(depth, Ks, road, instances, {})
    none = Instances(torch.zeros_like(instances.ids), torch.zeros(10, 0, dtype=torch.long), ())
    with pytest.raises(DepthError, match="the instances hold no object"):
        metric_scale(depth, Ks, road, none)
    with pytest.raises(DepthError, match=r"road must be \(10, 112, 192\)"):
        metric_scale(depth, Ks, road[:5], instances)
    with pytest.raises(DepthError, match="bool"):
        metric_scale(depth, Ks, road.float(), instances)
    with pytest.raises(DepthError, match="finite"):
        metric_scale(depth * torch.nan, Ks, road, instances)
    with pytest.raises(DepthError, match="known_camera_height"):
        MetricScaleConfig(known_camera_height=-1.0)
