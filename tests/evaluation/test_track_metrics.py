import math

import pytest
import torch

from som.evaluation.metrics import pck, track_errors_3d


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
