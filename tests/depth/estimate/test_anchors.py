"""Depth known otherwise: what agrees is taken, what contradicts a sure sweep is not, another unit is refused."""

import pytest
import torch

from som.depth.errors import DepthError
from som.depth.estimate.anchors import UNCHECKED_CONFIDENCE, add_anchors


@pytest.fixture
def swept():
    """A sweep that is sure of its left half, unsure of the next quarter, and knows nothing of the last."""
    depth = torch.linspace(2, 6, 40).expand(2, 30, 40).clone()
    confidence = torch.full_like(depth, 0.8)
    confidence[..., 20:30] = 0.1
    confidence[..., 30:] = 0
    return depth.masked_fill(confidence == 0, 0.0), confidence


def scattered(truth, share=0.1, seed=0):
    """Some of the pixels of ``truth``."""
    return truth * (torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed)) < share)


def test_points_that_agree_are_taken_and_the_others_stay_the_sweeps(swept):
    depth, confidence = swept
    points = scattered(1.05 * torch.linspace(2, 6, 40).expand(2, 30, 40))
    joined, trust, log = add_anchors(depth, confidence, points)
    given = points > 0
    assert torch.equal(joined[given], points[given]) and torch.equal(joined[~given], depth[~given])
    assert bool((trust[given] >= UNCHECKED_CONFIDENCE).all()) and torch.equal(trust[~given], confidence[~given])
    assert bool((trust[..., :20][given[..., :20]] == 1).all())
    assert log == {"sparse_given": int(given.sum()), "sparse_used": int(given.sum()), "sparse_contradicted": 0}


def test_points_that_contradict_a_sure_sweep_are_left_out(swept):
    depth, confidence = swept
    points = scattered(torch.linspace(2, 6, 40).expand(2, 30, 40))
    wrong = (torch.rand(points.shape, generator=torch.Generator().manual_seed(1)) < 0.3) & (points > 0)
    points[wrong] *= 1.5
    joined, trust, log = add_anchors(depth, confidence, points)
    sure = wrong.clone()
    sure[..., 20:] = False
    assert torch.equal(joined[sure], depth[sure]) and torch.equal(trust[sure], confidence[sure])
    assert log["sparse_contradicted"] == int(sure.sum()) > 10 and "warnings" not in log


def test_points_far_outside_the_scene_are_left_out(swept):
    points = torch.zeros(2, 30, 40)
    points[0, 3, 35], points[0, 4, 35], points[0, 5, 35] = 0.1, 5.0, 500.0
    joined, _, log = add_anchors(*swept, points)
    assert log["sparse_used"] == 1 and (joined[0, 3:6, 35] == torch.tensor([0.0, 5.0, 0.0])).all()


@pytest.mark.parametrize("factor", [0.25, 1.3, 40.0])
def test_another_unit_is_refused_with_its_factor(swept, factor):
    points = scattered(factor * torch.linspace(2, 6, 40).expand(2, 30, 40))
    with pytest.raises(DepthError, match=rf"sparse depth is {factor:.2g}\d* times .* divide it by {factor:.2g}"):
        add_anchors(*swept, points)


def test_points_of_another_clip_are_left_out_with_a_warning(swept):
    points = scattered(2 + 4 * torch.rand(2, 30, 40, generator=torch.Generator().manual_seed(2)))
    joined, _, log = add_anchors(*swept, points)
    (warning,) = log["warnings"]
    assert "contradict the plane sweep" in warning and log["sparse_contradicted"] > 50
    kept = (points > 0) & (swept[1] >= 0.3)
    assert float((joined / swept[0])[kept].log().abs().max()) < 0.1


def test_few_points_judge_nothing(swept):
    points = torch.zeros(2, 30, 40)
    points[0, :5, 5] = 3 * swept[0][0, 0, 5]
    joined, _, log = add_anchors(*swept, points)
    assert torch.equal(joined, swept[0]) and log["sparse_contradicted"] == 5 and "warnings" not in log
