import numpy as np
import pytest
import torch

from flow.video_flow import VideoFlow
from som.preprocessing.masks import shapes
from som.preprocessing.masks.evidence import CheckedFlow
from som.preprocessing.masks.options import MaskOptions
from som.preprocessing.masks.temporal import average_scores, carry, vote

SIZE = (20, 30)


def nothing():
    pass


def checked_still(T, shift=(0.0, 0.0)):
    """Checked flow of T frames at strides 1, 2 and 4 in which everything shifts by so many px a frame."""
    flow = VideoFlow(T, SIZE)
    for a in range(T):
        for b in range(T):
            if abs(a - b) in (1, 2, 4):
                flow.put(a, b, torch.tensor(shift).expand(*SIZE, 2) * (b - a))
    return CheckedFlow.of(flow, np.zeros((T, *SIZE, 3), np.uint8), nothing)


def test_small_regions_go_and_small_holes_are_filled():
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    mask[30:35, 30:35] = False  # a hole of 25 pixels
    mask[80:84, 80:84] = True  # a region of 16
    result = shapes.clean(mask, MaskOptions(min_component=0.002, max_hole=0.01, open_px=1, close_px=1))
    assert result[20:60, 20:60].all() and result.sum() == 1600
    kept = shapes.clean(mask, MaskOptions(min_component=0.001, max_hole=0.001, open_px=1, close_px=1))
    np.testing.assert_array_equal(kept, mask)


def test_a_bay_at_the_border_is_no_hole():
    mask = np.ones((50, 50), bool)
    mask[:3, 20:23] = False
    np.testing.assert_array_equal(shapes.fill_holes(mask, 0.1), mask)


def test_diameters_scale_with_the_field():
    assert shapes.scaled(9, np.zeros((240, 427))) == 9
    assert shapes.scaled(9, np.zeros((480, 854))) in (17, 19)
    assert shapes.scaled(3, np.zeros((60, 100))) == 1


def test_outline_follows_the_colours():
    rng = np.random.default_rng(0)
    image = np.full((120, 200, 3), (40, 120, 40)) + rng.normal(0, 6, (120, 200, 3))
    truth = np.zeros((120, 200), bool)
    truth[30:90, 60:130] = True
    image[truth] = (200, 50, 40) + rng.normal(0, 6, (truth.sum(), 3))
    rough = np.zeros_like(truth)
    rough[28:93, 58:133] = True
    result = shapes.fit_outline(image.clip(0, 255).astype(np.uint8), rough, np.zeros_like(truth), MaskOptions())
    assert (result != truth).mean() < 0.3 * (rough != truth).mean()


def test_colours_decide_about_doubtful_pixels_only():
    rng = np.random.default_rng(0)
    image = np.full((120, 200, 3), (40, 120, 40)) + rng.normal(0, 6, (120, 200, 3))
    truth = np.zeros((120, 200), bool)
    truth[30:90, 60:130] = True
    image[truth] = (200, 50, 40) + rng.normal(0, 6, (truth.sum(), 3))
    image, half = image.clip(0, 255).astype(np.uint8), truth.copy()
    half[:, 105:] = False
    options = MaskOptions(doubt_px=141)
    sure = shapes.fit_outline(image, half, np.zeros_like(truth), options)
    doubted = shapes.fit_outline(image, half, np.ones_like(truth), options)
    assert sure[:, 112:].sum() == 0
    assert (doubted != truth).mean() < 0.002


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_outline_of_nothing_and_of_everything(share):
    mask = np.full(SIZE, bool(share))
    image = np.zeros((*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(shapes.fit_outline(image, mask, mask, MaskOptions()), mask)


def test_enlarging_keeps_place_and_size():
    mask = np.zeros((10, 10), bool)
    mask[2:5, 3:8] = True
    large = shapes.enlarge(mask, 40, 40)
    rows, columns = np.nonzero(large)
    assert abs(large.mean() - mask.mean()) < 0.02
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (8, 20, 12, 32)


def test_carry_reads_where_the_flow_leads():
    field = np.arange(600, dtype=np.float32).reshape(SIZE)
    flow = np.broadcast_to(np.float32((2, -1)), (*SIZE, 2))
    assert carry(field, flow)[5, 10] == field[4, 12]


def test_scores_are_averaged_along_the_flow_as_logarithms():
    scores = np.zeros((3, *SIZE), np.float32)
    scores[0, 10, 8], scores[1, 10, 10], scores[2, 10, 12] = 3, 7, np.nan
    averaged = average_scores(checked_still(3, (2.0, 0.0)), scores, nothing)
    # frame 1: log2 of 4 and 8, and nothing from the third
    assert averaged[1, 10, 10] == pytest.approx(2 ** ((2 + 3) / 2) - 1, rel=1e-4)
    alone = average_scores(checked_still(3), np.full((3, *SIZE), np.nan, np.float32), nothing)
    assert np.isnan(alone).all()


def test_votes():
    masks = np.zeros((9, *SIZE), bool)
    masks[[2, 3, 5, 6], 5, 5] = True  # frame 4 alone says no
    masks[4, 8, 8] = True  # frame 4 alone says yes
    voted = vote(checked_still(9), masks, keep=0.3, drop=0.1, tick=nothing)
    assert voted[4, 5, 5] and not voted[4, 8, 8]
    assert not voted[:, 15, 15].any()


def test_votes_follow_motion():
    masks = np.zeros((9, *SIZE), bool)
    for t in (0, 2, 3, 5, 6, 8):
        masks[t, 5, 4 + 2 * t] = True
    voted = vote(checked_still(9, (2.0, 0.0)), masks, keep=0.3, drop=0.1, tick=nothing)
    assert voted[4, 5, 12] and not voted[4, 5, 10]
