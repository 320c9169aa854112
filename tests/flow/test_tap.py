"""TAP-Vid's metrics against values worked out by hand."""

import math

import pytest
import torch

from flow.errors import FlowError
from flow.tap import scored_pairs, tap_vid

ALL = torch.ones(1, 4, dtype=torch.bool)


def score(offsets, says, truth, scored=ALL, width=256, height=256, **options):
    """Metrics of one track of four frames whose x are off by ``offsets``."""
    target = torch.tensor([[[50.0, 60.0], [70.0, 80.0], [90.0, 10.0], [20.0, 30.0]]])
    pred = target.clone()
    pred[0, :, 0] += torch.tensor(offsets)
    says, truth = torch.tensor([says]).bool(), torch.tensor([truth]).bool()
    return tap_vid(pred, says, target, truth, scored, width, height, **options)


def test_perfect_tracks():
    assert score([0.0] * 4, [1, 1, 0, 1], [1, 1, 0, 1]) == {"aj": 1.0, "delta_avg": 1.0, "oa": 1.0}


def test_by_hand():
    # Frames: right within 0.5; 3 px off; truly hidden but called visible; truly visible but called hidden.
    result = score([0.5, 3.0, 0.0, 0.0], [1, 1, 1, 0], [1, 1, 0, 1])
    # Within 1, 2: frames 0 and 3 of three; within 4, 8, 16: all three.
    assert result["delta_avg"] == pytest.approx((2 / 3 * 2 + 3) / 5)
    # Below 4 px: TP 1, FP 2 (frames 1, 2), truly visible 3: 1/5. From 4 px: TP 2, FP 1: 2/4.
    assert result["aj"] == pytest.approx((1 / 5 * 2 + 2 / 4 * 3) / 5)
    assert result["oa"] == 0.5


def test_thresholds_are_strict_and_count_pixels_of_a_256_px_image():
    ones = [1] * 4
    assert score([1.0] * 4, ones, ones, thresholds=(1.0,))["delta_avg"] == 0
    assert score([1.9] * 4, ones, ones, width=512, thresholds=(1.0,))["delta_avg"] == 1
    assert score([1.9] * 4, ones, ones, height=512, thresholds=(1.0,))["delta_avg"] == 0


def test_only_scored_pairs_count():
    scored = torch.tensor([[True, False, True, False]])
    assert score([0.0, 99.0, 0.0, 99.0], [1, 0, 1, 0], [1, 1, 1, 1], scored) == {"aj": 1, "delta_avg": 1, "oa": 1}


def test_undefined_values_are_nan():
    nothing = score([0.0] * 4, [1] * 4, [1] * 4, torch.zeros(1, 4, dtype=torch.bool))
    assert all(math.isnan(value) for value in nothing.values())
    hidden = score([0.0] * 4, [0] * 4, [0] * 4)
    assert hidden["oa"] == 1 and math.isnan(hidden["aj"]) and math.isnan(hidden["delta_avg"])
    assert score([0.0] * 4, [1] * 4, [0] * 4)["aj"] == 0


def test_scored_pairs():
    frames = torch.tensor([0, 2])
    assert scored_pairs(frames, 3).tolist() == [[False, True, True], [True, True, False]]
    assert scored_pairs(frames, 3, "first").tolist() == [[False, True, True], [False, False, False]]
    with pytest.raises(FlowError, match="strided"):
        scored_pairs(frames, 3, "last")


def test_shapes_must_agree():
    flags = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(FlowError, match=r"\(1, 3\)"):
        score([0.0] * 4, [1] * 4, [1] * 4, flags)
    with pytest.raises(FlowError, match=r"\(Q,T,2\)"):
        tap_vid(torch.zeros(1, 3, 3), flags, torch.zeros(1, 3, 2), flags, flags, 256, 256)


def test_calling_everything_visible_is_punished():
    """Occluded points are scored with their own prediction: a tracker that never says hidden gets no credit there."""
    xy = torch.zeros(1, 10, 2)
    truth = torch.tensor([[True] * 4 + [False] * 6])
    scored = torch.ones(1, 10, dtype=torch.bool)
    result = tap_vid(xy, torch.ones_like(truth), xy, truth, scored, 256, 256)
    assert result["oa"] == pytest.approx(0.4)
    assert result["aj"] == pytest.approx(4 / (4 + 6))
