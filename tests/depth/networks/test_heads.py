"""Heads: closed forms, gradients, ranges."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from som.depth.errors import DepthError
from som.depth.networks.heads import (
    OrdinalHead,
    SigmoidHead,
    SoftplusHead,
    VolumeHead,
    decode_ordinal,
    depth_to_label,
    label_to_depth,
    make_head,
    sid_thresholds,
)

HEADS = [SigmoidHead(0.5, 50.0), SoftplusHead(0.5, 50.0), VolumeHead(0.5, 50.0, 16), OrdinalHead(0.5, 50.0, 12)]


def pixel(values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).view(1, -1, 1, 1)


def pairs(beyond):
    """Logits of which the softmaxed pairs give these probabilities."""
    odds = torch.logit(beyond.double().clamp(1e-12, 1 - 1e-12))
    return torch.stack([torch.zeros_like(odds), odds], dim=2).flatten(1, 2)


def test_sigmoid_by_hand():
    head = SigmoidHead(0.1, 100.0)
    out = head(pixel([0.0]))
    assert out.disparity.item() == pytest.approx((0.01 + 10) / 2)
    assert out.depth.item() == pytest.approx(2 / 10.01)
    assert out.deviation is None
    assert head(pixel([50.0])).depth.item() == pytest.approx(0.1)
    assert head(pixel([-50.0])).depth.item() == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("lo", "hi", "published"),
    [
        (1 / 10.01, 100.0, lambda s: 10 * s + 0.01),  # SC-SfMLearner
        (0.5, math.inf, lambda s: s / 0.5),  # PackNet
        (0.1, 100.0, lambda s: 1 / 100 + (1 / 0.1 - 1 / 100) * s),  # Monodepth2
    ],
)
def test_sigmoid_ranges_of_the_references(lo, hi, published):
    logits = torch.linspace(-6, 6, 13, dtype=torch.float64).view(1, 1, 1, 13)
    torch.testing.assert_close(SigmoidHead(lo, hi)(logits).disparity, published(1 / (1 + (-logits).exp())))


@pytest.mark.parametrize("head", [SigmoidHead(0.5, math.inf), SoftplusHead(0.5, 50.0)])
def test_depth_stays_finite_without_a_far_end(head):
    logits = pixel([-200.0]).requires_grad_()
    depth = head(logits).depth
    depth.sum().backward()
    assert depth.item() == pytest.approx(5e5)
    assert logits.grad.isfinite().all()


def test_softplus_by_hand_has_no_bounds():
    head = SoftplusHead(1.0, 2.0)
    assert head(pixel([0.0])).disparity.item() == pytest.approx(math.log(2))
    assert head(pixel([100.0])).disparity.item() == pytest.approx(100)
    assert head(pixel([-8.0])).depth.item() == pytest.approx(1 / math.log1p(math.exp(-8)), rel=1e-5)


def test_volume_is_the_expectation_over_planes():
    head = VolumeHead(0.5, 4.0, 3)  # disparities 0.25, 1.125, 2
    shares = torch.tensor([0.5, 0.25, 0.25])
    out = head(shares.log().view(1, 3, 1, 1) + 7.0)
    disparity = 0.5 * 0.25 + 0.25 * 1.125 + 0.25 * 2
    variance = 0.5 * (0.25 - disparity) ** 2 + 0.25 * (1.125 - disparity) ** 2 + 0.25 * (2 - disparity) ** 2
    assert out.disparity.item() == pytest.approx(disparity)
    assert out.depth.item() == pytest.approx(1 / disparity)
    assert out.deviation.item() == pytest.approx(math.sqrt(variance) / disparity, rel=1e-5)
    assert head.plane_disparities(shares).tolist() == [0.25, 1.125, 2.0]


def test_volume_on_one_plane_is_certain():
    out = VolumeHead(0.5, 50.0, 64)(30 * torch.nn.functional.one_hot(torch.tensor([10]), 64).float()[..., None, None])
    assert out.disparity.item() == pytest.approx(0.02 + 10 * (2 - 0.02) / 63, rel=1e-5)
    assert out.deviation.item() < 1e-2


def test_sid_thresholds_by_hand():
    thresholds, shift = sid_thresholds(0.5, 15.5, 4)
    assert shift == 0.5
    assert thresholds.tolist() == pytest.approx([1, 2, 4, 8, 16])


def test_labels_by_hand():
    depth = torch.tensor([0.1, 0.5, 1.4, 1.6, 3.4, 3.6, 7.4, 7.6, 15.0, 99.0])
    assert depth_to_label(depth, 0.5, 15.5, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("beyond", "depth"),
    [
        ([0.1, 0.1, 0.1, 0.1], 1.5 - 0.5),
        ([0.9, 0.5, 0.1, 0.1], 6.0 - 0.5),
        ([0.9, 0.9, 0.9, 0.4], 12.0 - 0.5),
        ([0.9, 0.9, 0.9, 0.9], 12.0 - 0.5),
    ],
)
def test_ordinal_decoding_by_hand(beyond, depth):
    assert decode_ordinal(pixel(beyond), 0.5, 15.5).item() == pytest.approx(depth)
    head = OrdinalHead(0.5, 15.5, 4, soft=False)
    assert head(pairs(pixel(beyond))).depth.item() == pytest.approx(depth)


def test_ordinal_pairs_are_softmaxed():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 10, 3, 4, generator=g)
    expected = torch.stack([logits[:, 2 * k : 2 * k + 2].softmax(1)[:, 1] for k in range(5)], 1)
    torch.testing.assert_close(OrdinalHead(0.5, 50.0, 5).log_odds(logits).sigmoid(), expected)


@pytest.mark.parametrize("label", range(12))
def test_soft_decoding_tends_to_the_hard_one(label):
    beyond = (torch.arange(12) < label).float().view(1, 12, 1, 1)
    logits = pairs(beyond)
    soft, hard = OrdinalHead(0.5, 50.0, 12)(logits), OrdinalHead(0.5, 50.0, 12, soft=False)(logits)
    assert soft.depth.item() == pytest.approx(hard.depth.item(), rel=1e-5)
    assert soft.deviation.item() < 1e-4


def test_soft_decoding_is_geometric_between_bins():
    middles = label_to_depth(torch.tensor([2.0, 2.5, 3.0], dtype=torch.float64), 0.5, 15.5, 4) + 0.5
    assert middles[1].item() == pytest.approx(math.sqrt(middles[0] * middles[2]))


def test_ordinal_deviation_is_that_of_the_label():
    """Half of the mass on label 2, half on 4: the label has a standard deviation of 1, a bin is a factor of 2."""
    beyond = pixel([1.0, 1.0, 0.5, 0.5, 0.0, 0.0])
    out = OrdinalHead(1.0, 64.0, 6)(pairs(beyond))
    assert out.depth.item() == pytest.approx(12.0, rel=1e-4)
    assert out.deviation.item() == pytest.approx(math.log(2), rel=1e-3)


@pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)
def test_gradients(head):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, head.channels, 2, 3, generator=g, dtype=torch.float64)
    if isinstance(head, OrdinalHead):  # a distribution needs probabilities that fall with k
        logits[:, 1::2] += torch.linspace(3, -3, 12, dtype=torch.float64)[:, None, None]

    def outputs(x):
        return tuple(value for value in head(x) if value is not None)

    assert gradcheck(outputs, logits.requires_grad_())


@pytest.mark.parametrize("head", [*HEADS[:3], OrdinalHead(0.5, 50.0, 80)], ids=lambda h: type(h).__name__)
@pytest.mark.parametrize("depth", [0.8, 3.0, 30.0])
def test_initial_bias_means_its_depth(head, depth):
    out = head(head.initial_bias(depth).view(1, -1, 1, 1))
    assert out.depth.item() == pytest.approx(depth, rel=1e-3)


@pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)
def test_depth_and_disparity_agree_and_half_precision_is_widened(head):
    logits = torch.randn(2, head.channels, 4, 5, generator=torch.Generator().manual_seed(0))
    out = head(logits.to(torch.bfloat16))
    assert out.depth.shape == out.disparity.shape == (2, 1, 4, 5)
    assert out.depth.dtype == torch.float32
    torch.testing.assert_close(out.depth * out.disparity, torch.ones(2, 1, 4, 5))
    torch.testing.assert_close(head(logits.contiguous(memory_format=torch.channels_last)).depth, head(logits).depth)


@pytest.mark.parametrize("head", [HEADS[0], HEADS[2], HEADS[3]], ids=lambda h: type(h).__name__)
def test_unit_disparity_spans_the_range(head):
    logits = 4 * torch.randn(1, head.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    unit = head.unit_disparity(logits)
    assert 0 <= unit.min() < unit.max() <= 1
    torch.testing.assert_close(0.02 + unit * 1.98, head(logits).disparity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sigmoid", (0.0, 1.0)), "0 < lo < hi"),
        (("sigmoid", (2.0, 1.0)), "0 < lo < hi"),
        (("ddv", (0.5, math.inf)), "finite"),
        (("dorn", (0.5, math.inf)), "finite"),
        (("ddv", (0.5, 50.0), 1), "at least 2"),
        (("relu", (0.5, 50.0)), "unknown head"),
    ],
)
def test_bad_heads_raise(arguments, message):
    with pytest.raises(DepthError, match=message):
        make_head(*arguments)
