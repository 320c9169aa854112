import math

import pytest
import torch

from som.evaluation.metrics import pck, tap_vid, track_errors_3d


def test_errors_3d_by_hand():
    target = torch.zeros(1, 4, 3)
    pred = target.clone()
    pred[0, :, 0] = torch.tensor([9.0, 0.03, 0.07, 0.2])
    scored = torch.tensor([[False, True, True, True]])
    errors = track_errors_3d(pred, target, scored)
    assert errors["epe"] == pytest.approx(0.1)
    assert errors["epe_median"] == pytest.approx(0.07)
    assert errors["within_0.05"] == pytest.approx(1 / 3)
    assert errors["within_0.1"] == pytest.approx(2 / 3)
    assert all(math.isnan(v) for v in track_errors_3d(pred, target, scored & ~scored).values())


def test_pck_by_hand():
    target = torch.zeros(1, 3, 2)
    pred = torch.tensor([[[4.9, 0.0], [5.1, 0.0], [0.0, 0.0]]])
    scored = torch.tensor([[True, True, False]])
    assert pck(pred, target, scored, width=100, height=50) == 0.5
    assert math.isnan(pck(pred, target, scored & ~scored, 100, 50))


def test_tap_vid_by_hand():
    # Four pairs in a 256 x 256 image: right within 3 px; visible but called hidden; hidden but called visible; both
    # hidden.
    target_xy = torch.zeros(1, 4, 2)
    pred_xy = torch.tensor([[[3.0, 0], [0, 0], [0, 0], [50, 50]]])
    target_visible = torch.tensor([[True, True, False, False]])
    pred_visible = torch.tensor([[True, False, True, False]])
    scored = torch.ones(1, 4, dtype=torch.bool)
    result = tap_vid(pred_xy, pred_visible, target_xy, target_visible, scored, 256, 256)
    assert result["oa"] == 0.5
    assert result["delta_avg"] == pytest.approx((0.5 + 0.5 + 1 + 1 + 1) / 5)
    # 1 and 2 px: no TP, FP = 2, 2 visible: 0. From 4 px: TP 1, FP 1, 2 visible: 1/3.
    assert result["aj"] == pytest.approx(3 * (1 / 3) / 5)


def test_tap_vid_scales_to_256():
    target = torch.zeros(1, 1, 2)
    pred = torch.tensor([[[0.0, 3.0]]])  # 6 px at 256 x 256
    yes = torch.ones(1, 1, dtype=torch.bool)
    assert tap_vid(pred, yes, target, yes, yes, 512, 128)["delta_avg"] == pytest.approx(2 / 5)


def test_tap_vid_perfect_and_empty():
    xy = torch.rand(3, 4, 2) * 256
    visible = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) > 0.4
    scored = torch.ones(3, 4, dtype=torch.bool)
    assert tap_vid(xy, visible, xy, visible, scored, 256, 256) == {"aj": 1.0, "delta_avg": 1.0, "oa": 1.0}
    assert all(math.isnan(v) for v in tap_vid(xy, visible, xy, visible, ~scored, 256, 256).values())
    hidden = torch.zeros_like(visible)
    result = tap_vid(xy, hidden, xy, hidden, scored, 256, 256)
    assert math.isnan(result["aj"]) and math.isnan(result["delta_avg"]) and result["oa"] == 1.0


def test_calling_everything_visible_is_punished():
    """Occluded points are scored with their own prediction: a tracker that never says hidden gets no credit there."""
    xy = torch.zeros(1, 10, 2)
    truth = torch.tensor([[True] * 4 + [False] * 6])
    scored = torch.ones(1, 10, dtype=torch.bool)
    result = tap_vid(xy, torch.ones_like(truth), xy, truth, scored, 256, 256)
    assert result["oa"] == pytest.approx(0.4)
    assert result["aj"] == pytest.approx(4 / (4 + 6))
