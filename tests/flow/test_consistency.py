"""The forward-backward check."""

import pytest
import torch

from flow.consistency import check_consistency
from flow.errors import FlowError
from flow.metrics import end_point_errors


def constant(u, v, height=8, width=12):
    return torch.tensor([float(u), float(v)]).expand(height, width, 2).clone()


def test_a_shift_is_consistent_but_for_what_leaves_the_image():
    forward, backward = check_consistency(constant(3, 0), constant(-3, 0))
    # Pixel centres at x > 9 are carried past the right border at 12, and x < 3 back past the left.
    leaves = torch.zeros(8, 12, dtype=torch.bool)
    leaves[:, 9:] = True
    assert torch.equal(forward.leaves, leaves)
    assert torch.equal(forward.consistent, ~leaves)
    assert not forward.occluded.any()
    assert torch.equal(backward.leaves, leaves.flip(1))
    assert (forward.error[~leaves] == 0).all() and forward.error[leaves].isinf().all()
    assert (forward.confidence[~leaves] == 1).all() and (forward.confidence[leaves] == 0).all()


def test_a_moving_patch_hides_the_strip_before_it_and_uncovers_the_one_behind():
    forward, backward = constant(0, 0, 10, 20), constant(0, 0, 10, 20)
    forward[:, 5:10, 0] = 4.0  # the patch covers columns 5 to 9, then 9 to 13
    backward[:, 9:14, 0] = -4.0
    ahead, behind = check_consistency(forward, backward)
    hidden = torch.zeros(10, 20, dtype=torch.bool)
    hidden[:, 10:14] = True
    assert torch.equal(ahead.occluded, hidden)
    uncovered = torch.zeros(10, 20, dtype=torch.bool)
    uncovered[:, 5:9] = True
    assert torch.equal(behind.occluded, uncovered)
    assert (ahead.error[hidden] == 4).all()


@pytest.mark.parametrize(("back", "consistent"), [(-8.5, False), (-8.52, True), (-11.6, True), (-11.75, False)])
def test_the_bound_by_hand(back, consistent):
    # 10 there and 8.5 back: 1.5² = 2.25 against 0.01 (100 + 72.25) + 0.5 = 2.2225; with 8.52, 2.1904 against 2.2259.
    check, _ = check_consistency(constant(10, 0, 4, 40), constant(back, 0, 4, 40))
    assert bool(check.consistent[0, 0]) is consistent
    assert check.error[0, 0] == pytest.approx(abs(10 + back), abs=1e-5)


def test_alpha_and_beta_set_the_bound():
    fields = constant(10, 0, 4, 40), constant(-9, 0, 4, 40)
    for alpha, beta, consistent in ((0.0, 1.01, True), (0.0, 0.99, False), (0.0056, 0.0, True), (0.0055, 0.0, False)):
        assert bool(check_consistency(*fields, alpha, beta)[0].consistent[0, 0]) is consistent


def test_the_way_back_is_read_where_the_pixel_went_between_pixel_centres():
    forward, backward = constant(2.5, 0), constant(-2.5, 0)
    backward[:, :, 0] += torch.arange(12) * 0.01  # a ramp: read at column i + 2.5
    check, _ = check_consistency(forward, backward)
    assert torch.allclose(check.error[0, :9], (torch.arange(9) + 2.5) * 0.01, atol=1e-6)


def test_batches_are_checked_one_by_one_and_both_directions_mirror():
    generator = torch.Generator().manual_seed(0)
    forward = torch.randn(2, 3, 9, 7, 2, generator=generator) * 2
    backward = torch.randn(2, 3, 9, 7, 2, generator=generator) * 2
    ahead, behind = check_consistency(forward, backward)
    swapped_behind, swapped_ahead = check_consistency(backward, forward)
    single, _ = check_consistency(forward[1, 2], backward[1, 2])
    for name in ("error", "consistent", "occluded", "leaves", "confidence"):
        assert getattr(ahead, name).shape == (2, 3, 9, 7)
        assert torch.equal(getattr(ahead, name), getattr(swapped_ahead, name))
        assert torch.equal(getattr(behind, name), getattr(swapped_behind, name))
        assert torch.equal(getattr(ahead, name)[1, 2], getattr(single, name))
    # every finite pixel is exactly one of the three
    assert (ahead.consistent.int() + ahead.occluded.int() + ahead.leaves.int() == 1).all()


def test_unknown_flow_is_never_trusted_and_spoils_nothing_else():
    forward, backward = constant(1, 0), constant(-1, 0)
    clean, _ = check_consistency(forward, backward)
    forward[2, 3] = torch.nan
    forward[2, 4] = torch.inf
    backward[6, 6, 1] = torch.nan
    check, _ = check_consistency(forward, backward)
    unknown = torch.zeros(8, 12, dtype=torch.bool)
    unknown[2, 3] = unknown[2, 4] = unknown[6, 5] = True
    assert not (check.consistent | check.occluded | check.leaves)[unknown].any()
    assert check.error[unknown].isinf().all() and (check.confidence[unknown] == 0).all()
    # bilinear weights of exactly 0 still spread nan to the neighbours that are read along with it
    near = unknown.clone()
    near[5:8, 4:7] = True
    assert torch.equal(check.consistent[~near], clean.consistent[~near])
    assert check.confidence.isfinite().all()


def test_confidence_falls_with_the_error():
    forward = constant(0, 0, 4, 50)
    backward = torch.stack([torch.linspace(0, 5, 50).expand(4, 50), torch.zeros(4, 50)], -1)
    check, _ = check_consistency(forward, backward)
    assert (check.confidence[0].diff() < 0).all()
    assert check.confidence[0, 0] == 1 and check.confidence[0, -1] < 0.05
    half, _ = check_consistency(constant(0, 0), constant(0.5, 0))
    assert half.confidence[0, 0] == pytest.approx(0.5)


def test_trusted_flow_of_a_noisy_field_is_better():
    generator = torch.Generator().manual_seed(1)
    truth = constant(1.0, 0.5, 40, 40)
    wrong = torch.rand(40, 40, generator=generator) < 0.2
    forward = truth + wrong[..., None] * torch.randn(40, 40, 2, generator=generator) * 4
    check, _ = check_consistency(forward, -truth)
    errors = end_point_errors(forward, truth)
    assert errors[check.consistent].mean() < 0.2 * errors[check.occluded].mean()


def test_no_gradient_and_bad_shapes():
    forward = constant(1, 0).requires_grad_()
    assert not check_consistency(forward, constant(-1, 0))[0].error.requires_grad
    for a, b in (
        (constant(0, 0), constant(0, 0, 8, 11)),
        (torch.zeros(8, 2), torch.zeros(8, 2)),
        (torch.zeros(4, 4, 3),) * 2,
    ):
        with pytest.raises(FlowError, match="same shape"):
            check_consistency(a, b)
