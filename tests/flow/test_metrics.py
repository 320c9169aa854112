"""Errors of flow by hand."""

import pytest
import torch

from flow.errors import FlowError
from flow.metrics import angular_error, end_point_error, end_point_errors, fl_score, outlier_share


def test_end_point_error_by_hand():
    target = torch.zeros(2, 2, 2)
    pred = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, -2.0]]])
    assert torch.equal(end_point_errors(pred, target), torch.tensor([[5.0, 0.0], [1.0, 2.0]]))
    assert end_point_error(pred, target) == 2.0
    assert end_point_error(pred, target, torch.tensor([[False, True], [True, True]])) == 1.0


def test_what_the_mask_leaves_out_may_be_anything():
    target = torch.tensor([[[1.0, 0.0], [torch.nan, 1e30]]])
    pred = torch.zeros(1, 2, 2)
    mask = torch.tensor([[True, False]])
    for metric in (end_point_error, fl_score, angular_error):
        assert metric(pred, target, mask).isfinite()
    assert end_point_error(pred, target, mask) == 1.0


def test_fl_needs_three_pixels_and_five_percent():
    target = torch.tensor([[10.0, 0.0], [100.0, 0.0], [100.0, 0.0], [10.0, 0.0], [0.0, 0.0]])
    error = torch.tensor([3.5, 4.0, 6.0, 2.9, 3.1])  # 35 %, 4 %, 6 %, 29 %, of nothing
    pred = target + torch.stack([torch.zeros(5), error], -1)
    assert fl_score(pred, target) == pytest.approx(3 / 5)
    assert fl_score(pred[1:4], target[1:4]) == pytest.approx(1 / 3)


def test_shares_over_thresholds_are_strict():
    pred = torch.tensor([[0.5, 0.0], [1.0, 0.0], [3.5, 0.0], [0.0, 6.0]])
    target = torch.zeros(4, 2)
    assert [float(outlier_share(pred, target, t)) for t in (1, 3, 5)] == [0.5, 0.5, 0.25]


def test_angular_error_by_hand():
    # (1, 0, 1) against (0, 0, 1) is 45 degrees; (1, 0, 1) against (0, 1, 1) is acos(1/2) = 60 degrees.
    assert angular_error(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)) == pytest.approx(45)
    assert angular_error(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])) == pytest.approx(60)
    small = angular_error(torch.tensor([[1e-5, 0.0]]), torch.zeros(1, 2))
    assert small == pytest.approx(1e-5 * 180 / torch.pi, rel=1e-4)


def test_nothing_to_count_is_nan_and_bad_input_raises():
    flow = torch.zeros(3, 4, 2)
    assert end_point_error(flow, flow, torch.zeros(3, 4, dtype=torch.bool)).isnan()
    for call, words in (
        (lambda: end_point_error(flow, flow[:2]), "same shape"),
        (lambda: end_point_error(flow[..., :1], flow[..., :1]), "same shape"),
        (lambda: fl_score(flow, flow, torch.ones(3, 4)), "bool"),
        (lambda: outlier_share(flow, flow, 1, torch.ones(3, 3, dtype=torch.bool)), "mask"),
        (lambda: angular_error(flow, flow[:2]), "same shape"),
    ):
        with pytest.raises(FlowError, match=words):
            call()
