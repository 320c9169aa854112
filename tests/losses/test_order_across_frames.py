"""Depth order carried to another frame, and the founding note's literal forms."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from som.losses.discordance import discordance_rate
from som.losses.order_across_frames import agreeing_signs, cross_frame_order, note_order
from som.losses.ordinal import order_signs, ordinal_depth

GATES = ("agree", "not_contradicted", "none")
KINDS = ("hinge", "logistic", "tanh")
FORMS = ("v1", "v2", "v3")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(dtype=torch.float32, n=40):
    """Depths of (3, n) pairs that are at least 30 % apart, and their signs."""
    j = 1 + 3 * torch.rand(3, n, generator=rng(0), dtype=dtype)
    signs = torch.where(torch.rand(3, n, generator=rng(1)) < 0.5, -1.0, 1.0).to(dtype)
    return j * (1.3 + torch.rand(3, n, generator=rng(2), dtype=dtype)) ** signs, j, signs


def as_gated(gate):
    """A cross-frame loss whose target prior agrees, as a function like the others."""

    def loss(i, j, s, w=None, **options):
        return cross_frame_order(i, j, s, s, w, gate, **options)

    return loss


def as_form(form):
    def loss(i, j, s, w=None):
        return note_order(i, j, s, w, form)

    return loss


ALL = [pytest.param(as_gated(gate), id=gate) for gate in GATES] + [pytest.param(as_form(f), id=f) for f in FORMS]
every = pytest.mark.parametrize("loss", ALL)


# --- the gate ---


def test_gates_on_all_nine_cases():
    source = torch.tensor([1.0, 1, 1, 0, 0, 0, -1, -1, -1])
    target = torch.tensor([1.0, 0, -1, 1, 0, -1, 1, 0, -1])
    assert agreeing_signs(source, target).tolist() == [1, 0, 0, 0, 0, 0, 0, 0, -1]
    assert agreeing_signs(source, target, "not_contradicted").tolist() == [1, 1, 0, 0, 0, 0, 0, -1, -1]
    assert agreeing_signs(source, target, "none").tolist() == source.tolist()


def test_a_genuine_change_of_order_costs_nothing():
    near, far = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    before, after = order_signs(near, far), order_signs(far, near)  # the points have changed places
    render = (far.clone().requires_grad_(), near)
    for gate in ("agree", "not_contradicted"):
        value = cross_frame_order(*render, before, after, gate=gate)
        value.backward()
        assert value == 0
        assert (render[0].grad == 0).all()
    assert cross_frame_order(*render, before, after, gate="none") > 0.7  # this would pull them back


def test_order_reaches_holes_of_the_targets_prior_only_through_the_loose_gate():
    wrong, one = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[2.0]])
    known, hole = order_signs(torch.tensor([[2.0]]), torch.tensor([[1.0]])), torch.zeros(1, 1)
    assert cross_frame_order(wrong, one, known, hole) == 0
    assert cross_frame_order(wrong, one, known, hole, gate="not_contradicted") > 0.7


def test_the_gate_drops_most_of_two_priors_independent_errors():
    i, j, signs = pairs(n=20_000)
    flips = [torch.where(torch.rand(signs.shape, generator=rng(k)) < 0.1, -1.0, 1.0) for k in (5, 6)]
    source, target = (signs * flip for flip in flips)
    errors = {g: discordance_rate(i, j, agreeing_signs(source, target, g)).item() for g in GATES}
    assert errors["none"] == pytest.approx(0.1, abs=0.01)
    assert errors["agree"] == pytest.approx(0.01 / 0.82, abs=0.002)  # p^2 / (p^2 + (1 - p)^2)


def test_where_both_priors_agree_it_is_the_ordinal_loss_of_the_target():
    i, j, s = pairs()
    i = i.flip(1)
    target = torch.where(torch.rand(s.shape, generator=rng(7)) < 0.3, -s, s)
    agree = (s == target).float()
    for kind in KINDS:
        value = cross_frame_order(i, j, s, target, kind=kind)
        assert value.item() == pytest.approx(ordinal_depth(i, j, target, agree, kind).item(), rel=1e-6)


def test_options_reach_the_ordinal_loss():
    i, j, s = pairs()
    i = i.flip(1)
    options = dict(margin=0.3, temperature=0.5, sharpness=2.0)
    for kind in KINDS:
        value = cross_frame_order(i, j, s, s, kind=kind, **options)
        assert value == ordinal_depth(i, j, s, kind=kind, **options)
        assert value != ordinal_depth(i, j, s, kind=kind)


# --- the founding note ---


def test_note_forms_by_hand():
    i, j, s = torch.tensor([1.0, 3.0, 1.0, 2.0]), torch.tensor([2.0, 1.0, 1.5, 2.0]), torch.tensor([1.0, 1, 1, 1])
    # s d = -1, 2, -0.5, 0
    assert note_order(i, j, s, form="v1").item() == pytest.approx(0.95 + 0.45)
    assert note_order(i, j, s, form="v2").item() == pytest.approx((0.95 + 0.45) / 4)
    assert note_order(i, j, s, form="v3").item() == pytest.approx((0.95 + 0.95) / 4)
    w = torch.tensor([2.0, 1.0, 0.0, 1.0])
    assert note_order(i, j, s, w, "v1").item() == pytest.approx(1.9)
    assert note_order(i, j, s, w, "v2").item() == pytest.approx(1.9 / 4)


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_the_notes_epsilon_is_a_tolerance_and_not_a_margin(form):
    one, s = torch.ones(1), torch.ones(1)
    for wrong_by in (0.0, 0.03, 0.0499):
        assert note_order(one, one + wrong_by, s, form=form, tolerance=0.05) == 0  # wrong, and free
    assert note_order(one, one + 0.06, s, form=form, tolerance=0.05).item() == pytest.approx(0.01, abs=1e-6)
    assert cross_frame_order(one, one, s, s, margin=0.05).item() == pytest.approx(0.05)
    assert cross_frame_order(1.04 * one, one, s, s, margin=0.05) > 0  # right, but by too little


def test_v1_grows_with_the_number_of_pairs_and_v2_does_not():
    i, j, s = pairs()
    twice = [torch.cat([x, x], 1) for x in (j, i, s)]
    assert note_order(*twice, form="v1").item() == pytest.approx(2 * note_order(j, i, s, form="v1").item(), rel=1e-5)
    assert note_order(*twice, form="v2").item() == pytest.approx(note_order(j, i, s, form="v2").item(), rel=1e-5)


def test_v3_is_the_discordance_rate_without_any_gradient():
    i, j, s = pairs()
    i = i.flip(1).requires_grad_()
    value = note_order(i, j, s, form="v3", tolerance=0.2)
    value.backward()
    assert 0.1 < value < 0.7
    assert value.item() == pytest.approx(0.8 * discordance_rate(i, j, s).item(), rel=1e-5)
    assert (i.grad == 0).all()


def test_v1_and_v2_depend_on_the_scale_of_the_scene_and_v3_and_ours_do_not():
    i, j, s = pairs()
    i = i.flip(1)
    for form in ("v1", "v2"):
        assert note_order(100 * i, 100 * j, s, form=form) > 50 * note_order(i, j, s, form=form)
    for loss in (as_form("v3"), as_gated("agree")):
        assert loss(100 * i, 100 * j, s).item() == pytest.approx(loss(i, j, s).item(), rel=1e-5)


# --- all ---


@every
def test_right_order_costs_nothing_and_wrong_order_most(loss):
    i, j, s = pairs()
    assert loss(i, j, s) == 0
    mixed = loss(torch.cat([i, j]), torch.cat([j, i]), torch.cat([s, s]))
    assert 0 < mixed < loss(torch.cat([j, j]), torch.cat([i, i]), torch.cat([s, s]))
    assert loss(torch.ones_like(i), torch.ones_like(i), s).isfinite()


@every
def test_both_directions_are_one_function(loss):
    i, j, s = pairs()
    assert loss(j, i, s).item() == pytest.approx(loss(i, j, -s).item(), rel=1e-6)


@every
def test_ties_weights_and_places_where_nothing_was_hit_do_not_count(loss):
    i, j, s = (x[0].clone() for x in pairs())
    i, j, w = j, i, torch.ones_like(s)  # all wrong
    s[3:6], i[10], j[11], i[12], j[12], w[20:23] = 0, 0, 0, 0, 0, 0
    i[20] = float("nan")
    kept = (s != 0) & (i > 0) & (j > 0) & (w > 0)
    expected = loss(i[kept], j[kept], s[kept])
    i.requires_grad_()
    value = loss(i, j, s, w)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert i.grad.isfinite().all()
    assert (i.grad[~kept] == 0).all()


@every
@pytest.mark.parametrize("what", ["weights", "signs", "nothing hit", "no pairs"])
def test_nothing_counted_is_a_differentiable_zero(loss, what):
    i, j, s = pairs()
    if what == "no pairs":
        i, j, s = i[:, :0], j[:, :0], s[:, :0]
    j = (j * (what != "nothing hit")).requires_grad_()
    value = loss(j, i, s * (what != "signs"), torch.full_like(s, what != "weights"))
    value.backward()
    assert value == 0
    assert (j.grad == 0).all()


@every
def test_shape_mismatch_raises(loss):
    i, j, s = pairs()
    for call in (lambda: loss(i, j[:2], s), lambda: loss(i, j, s[:2]), lambda: loss(i, j, s, s[:, 1:])):
        with pytest.raises(ValueError, match="shape"):
            call()


def test_unknown_choices_raise():
    i, j, s = pairs()
    for call in (
        lambda: agreeing_signs(s, s[:1]),
        lambda: cross_frame_order(i, j, s, s, gate="both"),
        lambda: cross_frame_order(i, j, s, s, kind="v1"),
        lambda: note_order(i, j, s, form="v4"),
    ):
        with pytest.raises(ValueError, match=r"shape|gate|kind|form"):
            call()


@every
def test_gradient(loss):
    i, j, s = pairs(torch.float64)
    w = torch.rand(s.shape, dtype=torch.float64, generator=rng(3))
    i = i.flip(1)
    assert gradcheck(lambda a, b: loss(a, b, s, w), (i.requires_grad_(), j.requires_grad_()))


def test_the_device_is_never_read():
    with FakeTensorMode():  # raises where a value would decide about shapes or control flow
        i, j, s = torch.ones(2, 9, requires_grad=True), torch.ones(2, 9), torch.ones(2, 9)
        value = sum(cross_frame_order(i, j, s, s, s > 0, gate, kind) for gate in GATES for kind in KINDS)
        value = value + sum(note_order(i, j, s, s, form) for form in FORMS)
        value.backward()
        assert i.grad.shape == i.shape
