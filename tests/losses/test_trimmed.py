"""Trimmed and weighted means."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from som.losses import trimmed_l1
from som.reductions import MAX_SORTED_ELEMENTS, quantile_threshold, trimmed_mean, weighted_mean


def test_identity_is_zero_and_opposite_by_hand():
    x = torch.randn(5, 3)
    assert trimmed_l1(x, x, quantile=0.9) == 0
    assert trimmed_l1(x, x + 2.0, torch.ones(5)) == pytest.approx(2.0)


def test_the_largest_errors_are_dropped():
    errors = torch.tensor([1.0, 2.0, 3.0, 100.0])
    assert trimmed_mean(errors, quantile=0.75) == 2.0
    assert trimmed_mean(errors, quantile=1.0) == 26.5


def test_ties_are_kept():
    assert trimmed_mean(torch.full((10,), 3.0), quantile=0.5) == 3.0


def test_masked_elements_do_not_move_the_quantile():
    errors = torch.cat([torch.tensor([1.0, 2.0, 3.0, 100.0]), torch.zeros(1000)])
    weights = torch.cat([torch.ones(4), torch.zeros(1000)])
    assert trimmed_mean(errors, weights, 0.75) == 2.0


def test_a_quantile_below_one_element_keeps_the_smallest():
    assert trimmed_mean(torch.tensor([5.0, 4.0]), quantile=0.01) == 4.0


def test_weights_per_value_and_per_vector():
    pred, target = torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 3.0], [10.0, 10.0, 10.0]])
    assert trimmed_l1(pred, target, torch.tensor([1.0, 3.0])) == pytest.approx((2 + 30) / 4)
    assert trimmed_l1(pred, target, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])) == pytest.approx(5.5)


def test_gains_act_even_when_all_are_equal():
    errors = torch.tensor([1.0, 3.0])
    assert trimmed_mean(errors, gains=torch.full((2,), 0.5)) == 1.0
    assert trimmed_mean(errors, torch.full((2,), 0.5)) == 2.0


def test_shape_mismatch_and_bad_quantile_raise():
    x = torch.zeros(4, 3)
    for call in (
        lambda: trimmed_l1(x, x[:3]),
        lambda: trimmed_l1(x, x, torch.ones(3)),
        lambda: trimmed_mean(x, torch.ones(3)),
        lambda: trimmed_mean(x, gains=torch.ones(3)),
        lambda: weighted_mean(x, torch.ones(4)),
        lambda: trimmed_mean(x, quantile=0.0),
        lambda: trimmed_mean(x, quantile=1.5),
    ):
        with pytest.raises(ValueError, match=r"shape|quantile|fit"):
            call()


@pytest.mark.parametrize("shape", [(6, 3), (0, 3)])
def test_nothing_counted_is_a_differentiable_zero(shape):
    x = torch.full(shape, float("nan"), requires_grad=True)
    value = trimmed_l1(x, torch.zeros(shape), torch.zeros(shape[0]), 0.9)
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


def test_empty_without_weights_is_zero():
    assert trimmed_l1(torch.zeros(0, 2), torch.zeros(0, 2)) == 0


def test_gradient():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, 2, generator=g, dtype=torch.float64) for _ in range(2))
    w = torch.rand(20, generator=g, dtype=torch.float64)
    assert gradcheck(lambda v: trimmed_l1(v, y, w, 0.8), x.requires_grad_())


def test_large_inputs_are_subsampled_accurately_and_repeatably():
    values = torch.rand(1000, 1001, generator=torch.Generator().manual_seed(0))
    weights = (values < 0.5).float()
    assert values.numel() > MAX_SORTED_ELEMENTS
    threshold = quantile_threshold(values, weights, 0.9)
    assert threshold == pytest.approx(0.45, abs=0.005)
    assert threshold == quantile_threshold(values, weights, 0.9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=40), st.floats(0.05, 1.0))
def test_trimming_never_raises_the_mean(values, quantile):
    errors = torch.tensor(values)
    assert trimmed_mean(errors, quantile=quantile) <= errors.mean() * (1 + 1e-5) + 1e-6
