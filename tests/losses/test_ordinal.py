"""Order of depth inside a frame: pairs, signs, losses, MoDGS' own form, discordance."""

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from som.losses.discordance import discordance_rate
from som.losses.ordinal import (
    disparity_order_signs,
    disparity_spread,
    modgs_ordinal,
    modgs_pairs,
    order_signs,
    ordinal_depth,
    sample_frame_pairs,
    values_at,
)

KINDS = ("hinge", "logistic", "tanh")
LEAST = {"hinge": 0.0, "logistic": 1e-3, "tanh": 1e-3}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(dtype=torch.float32, seed=0, ratio=1.3):
    """Depths of 3 x 40 pairs, apart by at least ``ratio``, and their signs."""
    g = rng(seed)
    j = 1 + 3 * torch.rand(3, 40, generator=g, dtype=dtype)
    signs = torch.where(torch.rand(3, 40, generator=g) < 0.5, -1.0, 1.0).to(dtype)
    i = j * (ratio + torch.rand(3, 40, generator=g, dtype=dtype)) ** signs
    return i, j, signs


def near_and_far(height=36, width=64, num=4000, **options):
    i, j, w = sample_frame_pairs(torch.ones(2, height, width), num, rng(), **options)
    return i, j, w, (i // width - j // width).abs(), (i % width - j % width).abs()


# --- pairs ---


def test_a_pair_never_joins_a_pixel_with_itself():
    for height, width, radius in ((36, 64, 0.05), (1, 2, 0.0), (2, 1, 0.0), (3, 3, 0.0), (5, 4, 0.5)):
        i, j, w, _, _ = near_and_far(height, width, near_radius=radius)
        assert (i != j).all()
        for index in (i, j):
            assert index.min() >= 0
            assert index.max() < height * width
        assert (w == 1).all()


def test_near_pairs_are_near_and_far_pairs_are_anywhere():
    _, _, _, rows, columns = near_and_far(near_share=0.25, near_radius=0.05)  # 3 px
    assert rows[:, :1000].max() == columns[:, :1000].max() == 3
    assert rows[:, 1000:].max() > 25
    assert columns[:, 1000:].max() > 50
    assert near_and_far(near_share=1.0, near_radius=0.0)[3].max() == 1  # at least one pixel


def test_the_second_pixel_is_uniform_over_its_window_without_the_first():
    i, j, _, _, _ = near_and_far(5, 5, 60_000, near_share=1.0, near_radius=0.2)  # windows of 3 x 3, cut at the border
    for first, others in ((12, 8), (0, 3), (2, 5), (24, 3)):
        seconds = j[i == first]
        counts = torch.bincount(seconds, minlength=25)
        assert (counts > 0).sum() == others
        assert counts[counts > 0].float().std() < 5 * (len(seconds) / others) ** 0.5
    far = near_and_far(4, 5, 60_000, near_share=0.0)
    counts = torch.bincount((far[0] * 20 + far[1]).flatten(), minlength=400).view(20, 20)
    assert (counts.diagonal() == 0).all()
    assert counts.float().sum() / 380 == pytest.approx(316, abs=1)
    assert (counts + 316 * torch.eye(20) - 316).abs().max() < 5 * 316**0.5


def test_pairs_repeat_with_the_seed_and_differ_between_frames():
    first, again, other = (sample_frame_pairs(torch.ones(2, 9, 9), 50, rng(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], first[0][1])


def test_unusable_pixels_give_weight_zero_and_weights_multiply():
    valid = torch.rand(2, 9, 11, generator=rng()) > 0.5
    i, j, w = sample_frame_pairs(valid, 300, rng())
    for b in range(2):
        flat = valid[b].flatten()
        assert torch.equal(w[b] > 0, flat[i[b]] & flat[j[b]])
    soft = torch.rand(2, 9, 11, generator=rng(5))
    i, j, w = sample_frame_pairs(soft, 300, rng())
    assert torch.allclose(w[1], soft[1].flatten()[i[1]] * soft[1].flatten()[j[1]])


def test_values_at_reads_row_times_width_plus_column():
    maps = torch.arange(2 * 3 * 4.0).view(2, 3, 4).requires_grad_()
    index = torch.tensor([[0, 5], [11, 11]])
    values = values_at(maps, index)
    assert values.tolist() == [[0, 5], [23, 23]]
    values.sum().backward()
    assert maps.grad[0, 1, 1] == 1
    assert maps.grad[1, 2, 3] == 2
    assert maps.grad.sum() == 4


# --- signs ---


def test_signs_by_hand():
    i = torch.tensor([2.0, 1.0, 1.06, 1.04, 1.0, 1.0, 0.0, 2.0, 0.0])
    j = torch.tensor([1.0, 2.0, 1.00, 1.00, 1.04, 1.06, 2.0, 0.0, 0.0])
    assert order_signs(i, j).tolist() == [1, -1, 1, 0, 0, -1, 0, 0, 0]
    assert order_signs(i, j, min_ratio=0).tolist() == [1, -1, 1, 1, -1, -1, 0, 0, 0]
    spread = torch.tensor([[1.0]])
    assert disparity_order_signs(i[None], j[None], spread, 0.1).tolist() == [[1, -1, 0, 0, 0, 0, 0, 0, 0]]
    assert disparity_order_signs(i[None], j[None], spread, 0.05).tolist() == [[1, -1, 1, 0, 0, -1, 0, 0, 0]]


def test_a_scaled_prior_has_the_same_signs():
    i, j, _ = pairs(ratio=1.0)
    assert torch.equal(order_signs(i, j), order_signs(7 * i, 7 * j))


@pytest.mark.parametrize("change", [lambda z: z**3, lambda z: z**0.3, torch.log1p, lambda z: 1 / (0.2 + 3 / z)])
def test_a_monotone_change_of_the_prior_turns_no_sign_around(change):
    i, j, _ = pairs(ratio=1.0)
    plain, changed = order_signs(i, j, 0.0), order_signs(change(i), change(j), 0.0)
    assert torch.equal(plain, changed)
    with_margin = order_signs(change(i), change(j))  # more or fewer ties, but never the opposite
    assert (with_margin * plain >= 0).all()
    assert with_margin.any()


def test_scale_and_shift_of_disparity_leave_signs_by_spread_as_they_are():
    depth = 1 + 3 * torch.rand(2, 20, 30, generator=rng(), dtype=torch.float64)
    i, j, _ = sample_frame_pairs(torch.ones(2, 20, 30), 500, rng())
    a, b = torch.tensor([0.3, 20.0])[:, None, None], torch.tensor([2.0, -4.0])[:, None, None]
    other = 1 / (a / depth + b)

    def signs(prior):
        return disparity_order_signs(values_at(prior, i), values_at(prior, j), disparity_spread(prior))

    assert torch.equal(signs(depth), signs(other))
    assert 0.5 < signs(depth).abs().mean() < 0.99
    by_ratio = [order_signs(values_at(p, i), values_at(p, j)) for p in (depth, other)]
    assert not torch.equal(*by_ratio)
    assert (by_ratio[0] * by_ratio[1] >= 0).all()


def test_disparity_spread_by_hand():
    depth = torch.tensor([[[1.0, 0.5], [0.0, 0.25]], [[0.0, 0.0], [0.0, 0.0]]])
    assert disparity_spread(depth).flatten().tolist() == pytest.approx([np.std([1, 2, 4]), 0])
    weights = torch.tensor([1.0, 1.0, 5.0, 0.0]).view(1, 2, 2).expand(2, 2, 2)
    assert disparity_spread(depth, weights)[0].item() == pytest.approx(0.5)


# --- losses ---


@pytest.mark.parametrize("kind", KINDS)
def test_right_order_is_cheapest_and_wrong_order_dearest(kind):
    i, j, s = pairs()
    right, flat, wrong = (ordinal_depth(*p, s, kind=kind) for p in ((i, j), (i, i), (j, i)))
    assert right <= LEAST[kind]
    assert right < flat < wrong
    if kind == "tanh":
        assert wrong == pytest.approx(2, abs=1e-3)


def test_costs_by_hand():
    e2 = math.e**2
    i, j = torch.tensor([e2, 1.0, 1.01, 1.0]), torch.tensor([1.0, e2, 1.0, 1.01])
    s = torch.tensor([1.0, 1.0, 1.0, -1.0])  # right, wrong by 2, right by less than the margin, the same
    m = 0.02 - math.log(1.01)
    assert ordinal_depth(i, j, s).item() == pytest.approx((0 + 2.02 + m + m) / 4, rel=1e-4)
    w = torch.tensor([1.0, 2.0, 0.0, 0.0])
    assert ordinal_depth(i, j, s, w).item() == pytest.approx(2 * 2.02 / 3, rel=1e-5)
    soft = 0.5 * (math.log1p(math.exp(m / 0.5)) + math.log1p(math.exp(2.02 / 0.5))) / 2
    logistic = ordinal_depth(i, j, s, torch.tensor([0.0, 1.0, 1.0, 0.0]), "logistic", temperature=0.5)
    assert logistic.item() == pytest.approx(soft, rel=1e-5)
    tanh = 1 - math.tanh(20 * math.log(1.01))
    assert ordinal_depth(i, j, s, None, "tanh").item() == pytest.approx((0 + 2 + tanh + tanh) / 4, rel=1e-4)


def test_every_frame_may_have_its_own_margin():
    i, j, s = pairs(ratio=1.0)
    margins = torch.tensor([[0.1], [0.5], [1.0]])
    for kind in ("hinge", "logistic"):
        each = [ordinal_depth(i[b], j[b], s[b], kind=kind, margin=margins[b].item()).item() for b in range(3)]
        assert ordinal_depth(i, j, s, kind=kind, margin=margins).item() == pytest.approx(np.mean(each), rel=1e-5)


def test_tanh_is_the_printed_formula():
    i, j, s = pairs(torch.float64, ratio=1.0)
    printed = (torch.tanh(3.0 * torch.log(i / j)) - s).abs().mean()
    assert ordinal_depth(i, j, s, kind="tanh", sharpness=3.0) == pytest.approx(printed.item(), rel=1e-12)
    assert ordinal_depth(j, i, s, kind="tanh", sharpness=3.0) == pytest.approx(2 - printed.item(), rel=1e-12)


def test_a_cold_logistic_is_the_hinge():
    i, j, s = pairs(torch.float64, ratio=0.8)
    hinge = ordinal_depth(i, j, s)
    assert ordinal_depth(i, j, s, kind="logistic", temperature=1e-5) == pytest.approx(hinge.item(), abs=1e-5)
    assert ordinal_depth(i, j, s, kind="logistic") > hinge


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_the_render_does_not_matter(kind):
    i, j, s = pairs(ratio=0.9)
    value = ordinal_depth(i, j, s, kind=kind)
    for a in (1e-3, 40.0):
        assert ordinal_depth(a * i, a * j, s, kind=kind).item() == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_both_pixels_of_a_pair_changes_nothing(kind):
    i, j, s = pairs(ratio=0.9)
    assert ordinal_depth(i, j, s, kind=kind).item() == pytest.approx(ordinal_depth(j, i, -s, kind=kind).item())


@pytest.mark.parametrize("kind", ["hinge", "logistic"])
def test_a_badly_wrong_pair_keeps_its_gradient_where_tanh_loses_it(kind):
    def slope(kind):
        x = torch.tensor([3.0], requires_grad=True)  # wrong by a factor of 3
        ordinal_depth(x, torch.ones(1), -torch.ones(1), kind=kind).backward()
        return x.grad.item()

    assert slope(kind) == pytest.approx(1 / 3, rel=1e-3)
    assert abs(slope("tanh")) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_ties_weights_and_places_where_nothing_was_hit_do_not_count(kind):
    i, j, s = pairs()
    i, j, s = j[0].clone(), i[0].clone(), s[0].clone()  # all wrong
    weights = torch.ones_like(s)
    s[3:6], i[10], j[11], i[12], j[12], weights[20:23] = 0, 0, 0, 0, 0, 0
    i[20] = float("nan")
    kept = (s != 0) & (i > 0) & (j > 0) & (weights > 0)
    expected = ordinal_depth(i[kept], j[kept], s[kept], kind=kind)
    i.requires_grad_(), j.requires_grad_()
    value = ordinal_depth(i, j, s, weights, kind)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    for grad in (i.grad, j.grad):
        assert grad.isfinite().all()
        assert (grad[~kept] == 0).all()
        assert (grad[kept] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["weights", "signs", "nothing hit", "no pairs"])
def test_nothing_counted_is_a_differentiable_zero(kind, what):
    i, j, s = pairs()
    if what == "no pairs":
        i, j, s = i[:, :0], j[:, :0], s[:, :0]
    i = (i * (what != "nothing hit")).requires_grad_()
    value = ordinal_depth(i, j, s * (what != "signs"), torch.full_like(s, what != "weights"), kind)
    value.backward()
    assert value == 0
    assert (i.grad == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient(kind):
    i, j, s = pairs(torch.float64, ratio=0.9)
    s[0, :5] = 0
    w = torch.rand(s.shape, dtype=torch.float64, generator=rng(2))
    options = dict(kind=kind, margin=0.1, temperature=0.1, sharpness=2.0)
    assert gradcheck(lambda a, b: ordinal_depth(a, b, s, w, **options), (i.requires_grad_(), j.requires_grad_()))


@pytest.mark.parametrize("kind", KINDS)
def test_descending_the_loss_brings_a_map_into_the_priors_order(kind):
    prior = 1 + 3 * torch.rand(1, 12, 16, generator=rng(0))
    log_depth = torch.zeros(1, 12, 16) + 0.1 * torch.randn(1, 12, 16, generator=rng(1))
    log_depth.requires_grad_()
    optimizer, g = torch.optim.Adam([log_depth], lr=0.03), rng(2)

    def rate(generator):
        i, j, w = sample_frame_pairs(torch.ones(1, 12, 16), 4000, generator)
        s = order_signs(values_at(prior, i), values_at(prior, j))
        return discordance_rate(values_at(log_depth.exp(), i), values_at(log_depth.exp(), j), s, w)

    assert rate(rng(9)) > 0.4
    for _ in range(150):
        i, j, w = sample_frame_pairs(torch.ones(1, 12, 16), 500, g)
        s = order_signs(values_at(prior, i), values_at(prior, j))
        optimizer.zero_grad()
        ordinal_depth(values_at(log_depth.exp(), i), values_at(log_depth.exp(), j), s, w, kind).backward()
        optimizer.step()
    assert rate(rng(9)) < 0.03


# --- MoDGS ---


def modgs_by_definition(pred, depth, mask, i, j):
    """One frame, compacted, in numpy."""
    pred, depth = (x[mask].astype(np.float64) for x in (pred, depth))
    interval = (depth.max() - depth.min()) / 10
    costs = []
    for p, q in zip(i, j, strict=True):
        if abs(depth[p] - depth[q]) >= interval:
            costs.append(abs(np.tanh(100 * (pred[p] - pred[q])) - np.sign(depth[p] - depth[q])))
    return np.mean(costs)


def test_modgs_equals_its_definition_on_valid_pixels():
    depth = 1 + 3 * torch.rand(2, 14, 15, generator=rng(0))
    depth[1] *= 5  # every frame has its own range
    pred = depth + 0.5 * torch.rand(2, 14, 15, generator=rng(1)) - 1
    pred[1, :3] = 0  # nothing hit counts here
    valid = torch.rand(2, 14, 15, generator=rng(2)) > 0.3
    depth[0, 4:6] = 0
    mask = valid & (depth > 0)
    i, j = modgs_pairs(mask, generator=rng(3))
    expected = []
    for b in range(2):
        n = int(mask[b].sum())
        rank = torch.full((14 * 15,), -1)
        rank[mask[b].flatten()] = torch.arange(n)
        compact_i, compact_j = rank[i[b, :n]], rank[j[b, :n]]
        assert torch.equal(compact_i.sort().values, torch.arange(n))  # a permutation of the valid pixels
        assert torch.equal(compact_j.sort().values, torch.arange(n))
        expected.append(modgs_by_definition(*(x[b].numpy() for x in (pred, depth, mask)), compact_i, compact_j))
        alone = modgs_ordinal(pred[b : b + 1], depth[b : b + 1], (i[b : b + 1], j[b : b + 1]), valid[b : b + 1])
        assert alone.item() == pytest.approx(expected[-1], rel=1e-5)
    assert 0.05 < np.mean(expected) < 1
    assert modgs_ordinal(pred, depth, (i, j), valid).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_modgs_pairs_are_two_independent_orders_cut_to_the_wanted_number():
    i, j = modgs_pairs(torch.ones(2, 20, 20, dtype=torch.bool), 150, rng())
    assert i.shape == j.shape == (2, 150)
    assert len(i[0].unique()) == 150
    assert not torch.equal(i, j)
    assert torch.equal(i, modgs_pairs(torch.ones(2, 20, 20), 150, rng())[0])


def test_modgs_extremes_and_its_dependence_on_scale():
    depth = 1 + 3 * torch.rand(1, 10, 10, generator=rng())
    chosen = modgs_pairs(depth > 0, generator=rng(1))
    assert modgs_ordinal(depth, depth, chosen) == 0
    assert modgs_ordinal(-depth, depth, chosen) == 2
    assert modgs_ordinal(1e-3 * depth, depth, chosen) > 0.5  # right order, in another unit
    pred = (-depth).requires_grad_()
    modgs_ordinal(pred, depth, chosen).backward()
    assert (pred.grad == 0).all()  # all wrong by more than 0.3, and no gradient at all


@pytest.mark.parametrize("what", ["unknown prior", "masked", "pairs of one pixel"])
def test_modgs_without_any_kept_pair_is_a_differentiable_zero(what):
    depth = 1 + 3 * torch.rand(2, 10, 10, generator=rng())
    pred = depth.clone().requires_grad_()
    i, j = modgs_pairs(depth > 0, generator=rng(1))
    value = modgs_ordinal(
        pred,
        depth * (what != "unknown prior"),
        (i, i if what == "pairs of one pixel" else j),
        torch.full_like(depth, what != "masked"),
    )
    value.backward()
    assert value == 0
    assert (pred.grad == 0).all()


def test_modgs_frames_without_pairs_do_not_dilute_the_others():
    depth = 1 + 3 * torch.rand(2, 10, 10, generator=rng())
    pred = 1 + 3 * torch.rand(2, 10, 10, generator=rng(4))
    chosen = modgs_pairs(depth > 0, generator=rng(1))
    alone = modgs_ordinal(pred[:1], depth[:1], tuple(x[:1] for x in chosen))
    depth[1] = 0
    assert modgs_ordinal(pred, depth, chosen).item() == pytest.approx(alone.item())


def test_modgs_of_constant_depth_is_finite():
    flat = torch.full((1, 8, 8), 2.0)
    depth = 1 + torch.rand(1, 8, 8, generator=rng())
    chosen = modgs_pairs(depth > 0, generator=rng(1))
    assert modgs_ordinal(flat, depth, chosen) == 1
    assert modgs_ordinal(depth, flat, chosen).isfinite()


def test_modgs_gradient():
    depth = 1 + 3 * torch.rand(2, 6, 6, generator=rng(), dtype=torch.float64)
    pred = (0.01 * torch.rand(2, 6, 6, generator=rng(1), dtype=torch.float64)).requires_grad_()
    chosen = modgs_pairs(depth > 0, generator=rng(1))
    assert gradcheck(lambda v: modgs_ordinal(v, depth, chosen), pred)


# --- discordance ---


def test_discordance_by_hand():
    i, j = torch.tensor([2.0, 1.0, 3.0, 1.0, 0.0, 5.0]), torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 1.0])
    s = torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0, 0.0])  # right, wrong, equal, right, nothing hit, no order
    assert discordance_rate(i, j, s) == pytest.approx((0 + 1 + 0.5 + 0) / 4)
    assert discordance_rate(i, j, s, torch.tensor([1.0, 5.0, 0.0, 4.0, 9.0, 9.0])) == pytest.approx(0.5)


def test_discordance_extremes_and_invariance():
    i, j, s = pairs()
    assert discordance_rate(i, j, s) == 0
    assert discordance_rate(j, i, s) == 1
    assert discordance_rate(torch.ones_like(i), torch.ones_like(i), s) == 0.5
    assert discordance_rate(7 * i**3, 7 * j**3, s) == 0


def test_discordance_has_no_gradient_and_is_nan_where_nothing_counts():
    i, j, s = pairs()
    value = discordance_rate(i.requires_grad_(), j, s)
    assert not value.requires_grad
    assert discordance_rate(i, j, torch.zeros_like(s)).isnan()
    assert discordance_rate(i, j, s, torch.zeros_like(s, dtype=torch.bool)).isnan()
    assert discordance_rate(torch.zeros_like(i), j, s).isnan()


# --- all ---


def test_bad_input_raises():
    i, j, s = pairs()
    maps = torch.ones(2, 5, 6)
    chosen = modgs_pairs(maps)
    for call in (
        lambda: ordinal_depth(i, j[:2], s),
        lambda: ordinal_depth(i, j, s[:, :1]),
        lambda: ordinal_depth(i, j, s, s[:1]),
        lambda: ordinal_depth(i, j, s, kind="ranking"),
        lambda: order_signs(i, j[:2]),
        lambda: order_signs(i, j, -0.1),
        lambda: disparity_order_signs(i, j, torch.ones(3)),
        lambda: disparity_order_signs(i, j[:2], torch.ones(3, 1)),
        lambda: disparity_order_signs(i, j, torch.ones(3, 1), -1.0),
        lambda: disparity_spread(maps, maps[:1]),
        lambda: values_at(maps, chosen[0][:1]),
        lambda: values_at(maps[0], chosen[0]),
        lambda: sample_frame_pairs(maps[0], 5),
        lambda: sample_frame_pairs(maps[:, :1, :1], 5),
        lambda: sample_frame_pairs(maps, 5, near_share=1.5),
        lambda: sample_frame_pairs(maps, -1),
        lambda: sample_frame_pairs(maps, 5, near_radius=-1.0),
        lambda: modgs_pairs(maps[0]),
        lambda: modgs_ordinal(maps, maps[:1], chosen),
        lambda: modgs_ordinal(maps, maps, (chosen[0], chosen[1][:, :3])),
        lambda: modgs_ordinal(maps, maps, chosen, maps[:1]),
        lambda: discordance_rate(i, j[:2], s),
        lambda: discordance_rate(i, j, s, s[:1]),
    ):
        with pytest.raises(ValueError, match=r"shape|must be|kind|must lie|must have"):
            call()


def test_the_device_is_never_read():
    with FakeTensorMode():  # raises where a value would decide about shapes or control flow
        pred = torch.ones(2, 10, 12, requires_grad=True)
        prior = torch.ones(2, 10, 12)
        i, j, w = sample_frame_pairs(prior > 0, 30)
        s = order_signs(values_at(prior, i), values_at(prior, j))
        s = s + disparity_order_signs(values_at(prior, i), values_at(prior, j), disparity_spread(prior))
        value = sum(ordinal_depth(values_at(pred, i), values_at(pred, j), s, w, kind) for kind in KINDS)
        value = value + modgs_ordinal(pred, prior, modgs_pairs(prior > 0)) + discordance_rate(pred, prior, prior)
        value.backward()
        assert pred.grad.shape == pred.shape
