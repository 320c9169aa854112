"""The label's recursions against values worked out by hand, its guard and period, and the schedules."""

import json
import math

import pytest
import torch

from som.depth.errors import DepthError
from som.depth.metric_scale import CameraHeightLabel, LabelConfig, MetricSchedule
from som.depth.metric_scale.consensus import agree, robust_location


def run(label, *epochs, group=""):
    """Feeds one list of heights per epoch; the label after each."""
    values = []
    for heights in epochs:
        label.add(heights, group)
        label.end_epoch()
        values.append(label.value(group))
    return values


def test_later_epochs_weigh_more_and_the_first_accepted_one_is_taken_as_it_is():
    label = CameraHeightLabel()
    got = run(label, [9.0], [1.1, 1.2, 1.3], [1.5], [1.8, 1.6])
    assert got[0] is None  # the warm-up
    assert got[1:] == pytest.approx([1.2, (1.2 + 2 * 1.5) / 3, (1.2 + 2 * 1.5 + 3 * 1.7) / 6])


def test_a_late_start_does_not_shrink_the_first_label():
    # a recursion that divides by the sum of all epochs instead of the accepted ones would give 2 / 3 of it
    label = CameraHeightLabel(LabelConfig(warmup_epochs=2))
    got = run(label, [5.0], [5.0], [1.5], [1.8])
    assert got[2:] == pytest.approx([1.5, (2 * 1.5 + 3 * 1.8) / 5])


def test_moving_average_by_hand():
    label = CameraHeightLabel(LabelConfig(update="moving_average", momentum=0.8, warmup_epochs=0))
    assert run(label, [1.0], [1.5], [1.5]) == pytest.approx([1.0, 1.1, 1.18])


def test_jumps_are_refused_and_do_not_count():
    label = CameraHeightLabel()
    run(label, [], [1.5])
    for bad in (3.0, 0.75, 40.0):
        label.add([bad])
        assert label.end_epoch() == {"": bad}
        assert label.value() == 1.5
    label.add([1.6])
    assert label.end_epoch() == {}
    assert label.value() == pytest.approx((1.5 + 5 * 1.6) / 6)
    free = CameraHeightLabel(LabelConfig(max_jump=None))
    assert run(free, [], [1.5], [3.0])[-1] == pytest.approx(2.5)


def test_with_a_period_the_epochs_between_are_forgotten():
    label = CameraHeightLabel(LabelConfig(period=3))
    got = run(label, [9.0], [1.5], [1.9], [1.9], [1.7])
    assert got[1:4] == [1.5, 1.5, 1.5]
    assert got[4] == pytest.approx((1.5 + 4 * 1.7) / 5)


def test_frames_without_a_height_do_not_count_and_an_epoch_without_any_changes_nothing():
    label = CameraHeightLabel()
    got = run(label, [], torch.tensor([torch.nan, 1.4, torch.inf, -1.0, 1.6]), [torch.nan], [])
    assert got[1:] == pytest.approx([1.5, 1.5, 1.5])


def test_objects_are_tested_against_their_own_epoch_and_not_against_the_label():
    def candidates(height):  # of an epoch whose depth gives this camera height; objects are 1.5 m, their ratio exact
        ratios = torch.tensor([0.9, 1.0, 1.1, 1.0, 1.6, 1.7])  # the last two are taller than their class
        return torch.stack([height / ratios, 1.5 / height * ratios, torch.full((6,), 1.5)], dim=-1)

    label = CameraHeightLabel(LabelConfig(update="moving_average", momentum=0.0))
    got = run(label, [], candidates(2.2), candidates(1.5))  # tested against 2.2, only the outliers would be left
    assert got[1:] == pytest.approx([2.2, 1.5], rel=0.01)
    untested = CameraHeightLabel(LabelConfig(update="moving_average", momentum=0.0, max_height_error=None))
    assert run(untested, [], candidates(2.2))[1] < 2.0


def test_agreement_and_location_by_hand():
    assert robust_location(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(3)
    assert robust_location(torch.tensor([2.0, 2.0, 2.0, 9.0])) == 2
    # median 3, width 1.5 * 1.4826: l = (1 + 2 + 3 + 4 + l + width) / 5
    assert robust_location(torch.tensor([1.0, 2, 3, 4, 1000]).double()) == pytest.approx((10 + 1.5 * 1.4826) / 4)
    rows = torch.tensor([[1.5, 1.0, 1.5], [1.6, 0.95, 1.5], [1.4, 1.05, 1.5], [0.6, 2.5, 1.5], [9.0, torch.nan, 0]])
    height, kept = agree(rows, 0.2)
    assert kept.tolist() == [True, True, True, False, True] and 1.5 <= height < 2
    assert agree(rows, None)[1].all()
    assert agree(rows[:0], 0.2)[0] is None
    # nobody fits the height by the scales
    assert agree(torch.tensor([[1.5, 2.0, 1.5]]), 0.2)[0] is None


def test_groups_have_labels_of_their_own():
    label = CameraHeightLabel()
    label.end_epoch()
    label.add([1.5], "car")
    label.add([2.8], "truck")
    label.end_epoch()
    assert (label.value("car"), label.value("truck"), label.value()) == (1.5, 2.8, None)


@pytest.mark.parametrize("update", ["weighted", "moving_average"])
def test_a_run_that_was_interrupted_goes_on_the_same(update):
    config = LabelConfig(update=update)
    whole, first, second = (CameraHeightLabel(config) for _ in range(3))
    run(whole, [1.0], [1.4], [1.5, 1.7, 1.8], [1.6])
    run(first, [1.0], [1.4])
    first.add([1.5])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.add([1.7, 1.8])
    second.end_epoch()
    run(second, [1.6])
    assert second.value() == whole.value() and second.epoch == whole.epoch == 4


def test_impossible_settings_and_states_raise():
    for wrong in (dict(update="mean"), dict(momentum=1.0), dict(warmup_epochs=0), dict(period=0), dict(max_jump=1.0)):
        with pytest.raises(DepthError, match=next(iter(wrong))):
            LabelConfig(**wrong)
    with pytest.raises(DepthError, match="numerator"):
        CameraHeightLabel().load_state_dict({"epoch": 3})
    with pytest.raises(ValueError, match=r"\(P,3\)"):
        CameraHeightLabel().add(torch.ones(2, 2))


def test_the_rough_weight_falls_while_the_fine_one_grows():
    schedule = MetricSchedule()
    assert (schedule.rough(0), schedule.fine(0)) == (1.0, 0.0)
    g = math.log(6) / math.log(21)
    assert (schedule.rough(5), schedule.fine(5)) == pytest.approx((1 - g, 0.01 * g))
    assert (schedule.rough(20), schedule.fine(20)) == pytest.approx((0.005, 0.01))
    assert schedule.rough(19) > schedule.rough(19.5) > 0
    short = MetricSchedule(epochs=4, rough_weight=2, fine_weight=3)
    assert (short.rough(1), short.fine(4)) == pytest.approx((2 * (1 - math.log(2) / math.log(5)), 3))
    with pytest.raises(ValueError, match="epoch"):
        schedule.fine(-1)
    with pytest.raises(DepthError, match="epochs"):
        MetricSchedule(epochs=0)
