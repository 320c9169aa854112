"""Supervision by known depth: sparse, dense, over scales, by velocity, and as a choice among intervals."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from som.cameras.geometry import axis_angle_to_se3
from som.depth.learning.losses.multiscale import multiscale_inverse_depth_loss, resize_depth, upsample_to
from som.depth.learning.losses.ordinal_regression import ordinal_regression_loss, plane_cross_entropy
from som.depth.learning.losses.sparse import reprojected_distance_loss, sparse_inverse_depth_loss, sparse_log_loss
from som.depth.learning.losses.supervised import berhu_loss, huber_loss, scale_invariant_loss, silog_loss
from som.depth.learning.losses.velocity import velocity_loss

F64 = torch.float64
K = torch.tensor([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]], dtype=F64).expand(2, 3, 3)
PLANES = torch.linspace(0.1, 1.2, 8, dtype=F64)


def sideways(shift=0.5):
    t = torch.tensor([[shift, 0.0, 0.0]], dtype=F64).expand(2, 3)
    return axis_angle_to_se3(torch.zeros_like(t), t)


def reprojected(pred, depth, valid=None, T=None):
    return reprojected_distance_loss(pred, depth, K, K, sideways() if T is None else T, (6, 8), valid)


def inverse(pred, depth, valid=None):
    return sparse_inverse_depth_loss(pred.reciprocal(), depth, valid)


def multiscale(pred, depth, valid=None):
    return multiscale_inverse_depth_loss([pred.reciprocal(), pred[..., ::2, ::2].reciprocal()], depth, valid)


def huber(pred, depth, valid=None):
    return huber_loss(pred, depth, 0.3, valid)


def berhu(pred, depth, valid=None):
    return berhu_loss(pred, depth, 0.2, valid)


LOSSES = [inverse, sparse_log_loss, reprojected, multiscale, scale_invariant_loss, silog_loss, huber, berhu]
every = pytest.mark.parametrize("loss", LOSSES)


def depths(seed=0):
    g = torch.Generator().manual_seed(seed)
    return [1 + 3 * torch.rand(2, 1, 6, 8, generator=g, dtype=F64) for _ in range(2)]


@every
def test_a_perfect_fit_costs_nothing_with_a_finite_gradient(loss):
    pred, depth = depths()[0], depths()[0]
    value = loss(pred.requires_grad_(), depth)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert pred.grad.isfinite().all()


@every
def test_a_worse_fit_costs_more(loss):
    pred, depth = depths()
    values = [loss(depth + share * (pred - depth), depth).item() for share in (0.1, 0.5, 1.0)]
    assert 0 < values[0] < values[1] < values[2]


@every
def test_unknown_and_masked_pixels_have_no_influence(loss):
    pred, depth = depths()
    valid = torch.ones_like(depth)
    depth[:, :, 1], valid[:, :, 3] = 0, 0
    expected = loss(pred, depth, valid)
    spoiled = pred.clone()
    spoiled[:, :, [1, 3]] = 7.0 if loss in (inverse, multiscale) else float("nan")
    spoiled.requires_grad_()
    value = loss(spoiled, depth, valid.bool())
    value.backward()
    assert value.item() == pytest.approx(expected.item())
    if loss is not reprojected:  # its gradient runs through the projection of all pixels
        assert spoiled.grad.isfinite().all() and (spoiled.grad[:, :, [1, 3]] == 0).all()


@every
def test_nothing_known_is_a_differentiable_zero(loss):
    pred, depth = depths()
    for target, valid in ((torch.zeros_like(depth), None), (depth, torch.zeros_like(depth))):
        value = loss(pred.requires_grad_(), target, valid)
        assert value == 0
        (grad,) = torch.autograd.grad(value, pred)
        assert (grad == 0).all()


@every
def test_constant_maps_are_finite(loss):
    pred = torch.full((2, 1, 6, 8), 2.0, dtype=F64, requires_grad=True)
    loss(pred, torch.full_like(pred, 3.0)).backward()
    assert pred.grad.isfinite().all()


@every
def test_gradient_and_none_for_the_label(loss):
    pred, depth = depths()
    depth[0, 0, 2] = 0
    valid = torch.rand(2, 1, 6, 8, generator=torch.Generator().manual_seed(1), dtype=F64)
    if loss is berhu:
        pred[0, 0, 0, 0] = depth[0, 0, 0, 0] + 9  # the threshold is this error's, held constant
        fixed = pred[0, 0, 0, 0].clone()
        pred = pred.flatten()[1:].requires_grad_()
        rest = lambda p: torch.cat([fixed[None], p]).view(2, 1, 6, 8)  # noqa: E731
        assert gradcheck(lambda p: berhu(rest(p), depth, valid), pred)
    else:
        assert gradcheck(lambda p: loss(p, depth, valid), pred.requires_grad_())
    label = depth.clone().requires_grad_()
    (grad,) = torch.autograd.grad(
        loss(depths(2)[0].requires_grad_(), label), label, allow_unused=True, materialize_grads=True
    )
    assert (grad == 0).all()


@every
def test_shapes_are_checked(loss):
    pred, depth = depths()
    with pytest.raises(ValueError, match=r"shape|must be"):
        loss(pred, depth, torch.ones(2, 1, 6, 7))
    if loss is not multiscale:
        with pytest.raises(ValueError, match="shape"):
            loss(pred[..., :7], depth)


# Closed forms


def test_sparse_losses_by_hand():
    pred, depth = torch.tensor([2.0, 4.0, 1.0]), torch.tensor([1.0, 8.0, 0.0])
    assert sparse_inverse_depth_loss(1 / pred, depth) == pytest.approx((0.5 + 0.125) / 2)
    assert sparse_log_loss(pred, depth) == pytest.approx(math.log(2))
    assert sparse_log_loss(pred, depth, torch.tensor([3.0, 1.0, 1.0])) == pytest.approx(math.log(2))
    assert sparse_inverse_depth_loss(1 / pred, depth, torch.tensor([3.0, 1.0, 1.0])) == pytest.approx(1.625 / 4)


def test_reprojected_distance_by_hand():
    pred, depth = torch.full((2, 1, 6, 8), 2.0, dtype=F64), torch.full((2, 1, 6, 8), 5.0, dtype=F64)
    # 10 px x 0.5 / z: 2.5 px against 1 px
    assert reprojected(pred, depth) == pytest.approx(1.5)
    assert reprojected(pred, depth, T=sideways(1.0)) == pytest.approx(3.0)
    none = reprojected(pred.requires_grad_(), depth, T=sideways(0.0))
    none.backward()
    assert none == 0 and (pred.grad == 0).all()  # no parallax, nothing learned
    label = torch.zeros_like(depth)
    label[:, :, 2, 7] = 5.0  # leaves the image to the right
    assert reprojected(pred, label) == 0


def test_reprojected_distance_gives_no_gradient_to_the_pose():
    pred, depth = depths()
    T = sideways().clone().requires_grad_()
    reprojected(pred.requires_grad_(), depth, T=T).backward()
    assert T.grad is None and pred.grad.abs().max() > 0


def test_the_scale_invariant_loss_is_eigens_double_sum():
    pred, depth = (x[:1] for x in depths())
    e = (pred.log() - depth.log()).flatten()
    double_sum = (e[:, None] - e[None]).square().sum() / (2 * len(e) ** 2)
    assert scale_invariant_loss(pred, depth, variance_focus=1.0) == pytest.approx(double_sum.item())
    expected = (e.square().mean() - 0.5 * e.mean().square()).item()
    assert scale_invariant_loss(pred, depth) == pytest.approx(expected)
    assert silog_loss(pred, depth) == pytest.approx(
        10 * math.sqrt(e.square().mean().item() - 0.85 * e.mean().item() ** 2)
    )


def test_scale_invariance_is_per_image():
    pred, depth = depths()
    scale = torch.tensor([0.1, 7.0], dtype=F64).view(2, 1, 1, 1)
    value = scale_invariant_loss(pred, depth, variance_focus=1.0)
    assert scale_invariant_loss(pred * scale, depth, variance_focus=1.0) == pytest.approx(value.item())
    assert scale_invariant_loss(pred * scale, depth) > value + 0.1
    single = [scale_invariant_loss(pred[k : k + 1], depth[k : k + 1]).item() for k in range(2)]
    assert scale_invariant_loss(pred, depth) == pytest.approx(sum(single) / 2)
    depth[1] = 0  # an image without labels does not dilute the other
    assert scale_invariant_loss(pred, depth) == pytest.approx(single[0])


def test_a_pure_scale_error_does_not_cancel_in_float32():
    depth = 1 + 3 * torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(0))
    assert 0 <= scale_invariant_loss(1000 * depth, depth, variance_focus=1.0) < 1e-11


def test_huber_and_berhu_by_hand():
    pred, depth = torch.tensor([1.5, 4.0]), torch.tensor([1.0, 1.0])
    assert huber_loss(pred, depth, 1.0) == pytest.approx((0.125 + 2.5) / 2)
    pred, depth = torch.tensor([1.5, 6.0, 2.0]), torch.tensor([1.0, 1.0, 1.0])  # errors 0.5, 5, 1; c = 1
    assert berhu_loss(pred, depth) == pytest.approx((0.5 + (25 + 1) / 2 + 1) / 3)
    assert berhu_loss(2 - pred, depth) == pytest.approx((0.5 + 13 + 1) / 3)  # signs do not matter
    assert berhu_loss(depth, depth) == 0


def test_velocity_by_hand():
    T = torch.eye(4, dtype=F64).repeat(2, 2, 1, 1)
    T[0, 0, :3, 3] = torch.tensor([3.0, 0, 4], dtype=F64)
    T[1, 1, :3, 3] = torch.tensor([0.0, 1, 0], dtype=F64)
    distance = torch.tensor([[4.0, 2.0], [0.0, 1.5]], dtype=F64)
    assert velocity_loss(T, distance) == pytest.approx((1 + 2 + 0 + 0.5) / 4)
    assert velocity_loss(T, distance, torch.tensor([[1, 0], [0, 1.0]])) == pytest.approx(0.75)


def test_velocity_is_blind_to_direction_and_order_of_the_pose():
    g = torch.Generator().manual_seed(0)
    v, t = torch.randn(2, 5, 3, generator=g, dtype=F64)
    T, distance = axis_angle_to_se3(v, t), torch.rand(5, generator=g, dtype=F64)
    assert velocity_loss(torch.linalg.inv(T), distance) == pytest.approx(velocity_loss(T, distance).item())


def test_velocity_gradients_and_bad_input():
    T = torch.eye(4, dtype=F64).repeat(3, 1, 1).requires_grad_()  # no motion at all
    velocity_loss(T, torch.ones(3, dtype=F64)).backward()
    assert T.grad.isfinite().all()
    assert velocity_loss(T, torch.zeros(3, dtype=F64)) == 0
    none = velocity_loss(T, torch.ones(3, dtype=F64), torch.zeros(3))
    (grad,) = torch.autograd.grad(none, T)
    assert none == 0 and (grad == 0).all()
    moved = axis_angle_to_se3(*torch.rand(2, 3, 3, dtype=F64)).requires_grad_()
    assert gradcheck(lambda T: velocity_loss(T, torch.ones(3, dtype=F64)), moved)
    for bad in ((T[:, :3], torch.ones(3)), (T, torch.ones(2)), (T, torch.ones(3), torch.ones(2))):
        with pytest.raises(ValueError, match=r"4,4|shape"):
            velocity_loss(*bad)


# Scales


def test_multiscale_by_hand():
    depth = torch.tensor([[[[2.0, 9.0], [9.0, 9.0]]]])
    fine, coarse = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 1, 1), 0.25)
    expected = 3 * (0.5 - 1 / 9) / 4 + (0.5 - 0.25)  # the coarse label is the first of the four pixels
    assert multiscale_inverse_depth_loss([fine, coarse], depth) == pytest.approx(expected)
    assert multiscale_inverse_depth_loss([fine], depth) == pytest.approx(3 * (0.5 - 1 / 9) / 4)
    with pytest.raises(ValueError, match="scale"):
        multiscale_inverse_depth_loss([], depth)


def test_disparities_are_enlarged_with_half_pixel_centres():
    x = (torch.arange(4, dtype=F64) + 0.5).expand(1, 1, 2, 4)
    full, same = upsample_to([x, torch.ones(1, 1, 4, 8)], (4, 8))
    expected = (torch.arange(8, dtype=F64) + 0.5) / 2
    torch.testing.assert_close(full[0, 0, 0, 1:-1], expected[1:-1])
    assert same.shape == (1, 1, 4, 8)


def test_resized_depth_mixes_nothing():
    depth = torch.tensor([1.0, 0.0, 5.0]).view(1, 1, 1, 3).repeat(1, 1, 9, 30)
    resized = resize_depth(depth, (4, 40))
    assert resized.shape == (1, 1, 4, 40) and set(resized.unique().tolist()) == {0.0, 1.0, 5.0}


# Choice among intervals


def test_ordinal_regression_is_dorns_double_sum():
    g = torch.Generator().manual_seed(0)
    log_odds = torch.randn(1, 4, 2, 2, generator=g, dtype=F64)
    labels = torch.tensor([[[[0, 1], [2, 3]]]])
    p, total = log_odds.sigmoid(), 0.0
    for i in range(2):
        for j in range(2):
            label = int(labels[0, 0, i, j])
            total -= sum(math.log(p[0, k, i, j]) for k in range(label))
            total -= sum(math.log(1 - p[0, k, i, j]) for k in range(label, 4))
    assert ordinal_regression_loss(log_odds, labels) == pytest.approx(total / 4)


def test_ordinal_regression_punishes_far_labels_more():
    certain = torch.where(torch.arange(8) < 3, 20.0, -20.0).view(1, 8, 1, 1)
    costs = [ordinal_regression_loss(certain, torch.full((1, 1, 1, 1), k)).item() for k in range(8)]
    assert costs[3] < 1e-6
    assert costs == pytest.approx([20 * abs(k - 3) for k in range(8)], abs=1e-5)


def test_plane_cross_entropy_is_smallest_where_the_expectation_is_the_truth():
    depth = 1 / torch.tensor([[[[0.2, 0.5234, 1.0]]]], dtype=F64)
    logits = torch.zeros(1, 8, 1, 3, dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = plane_cross_entropy(logits, depth, PLANES)
        loss.backward()
        return loss

    optimizer.step(closure)
    expectation = (logits.softmax(1) * PLANES.view(1, -1, 1, 1)).sum(1)
    torch.testing.assert_close(expectation.detach(), 1 / depth[:, 0], rtol=0, atol=1e-2)


def test_plane_cross_entropy_by_hand():
    planes = torch.tensor([0.5, 1.0, 2.0])
    logits = torch.tensor([0.1, 0.6, 0.3]).log().view(1, 3, 1, 1)
    at = lambda xi: plane_cross_entropy(logits, torch.full((1, 1, 1, 1), 1 / xi), planes).item()  # noqa: E731
    assert at(1.0) == pytest.approx(-math.log(0.6))
    assert at(1.25) == pytest.approx(-0.75 * math.log(0.6) - 0.25 * math.log(0.3))
    assert at(0.5) == pytest.approx(-math.log(0.1)) == pytest.approx(at(0.2))
    assert at(9.0) == pytest.approx(-math.log(0.3))


@pytest.mark.parametrize("kind", ["ordinal", "planes"])
def test_discrete_losses_gradients_masks_and_shapes(kind):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 8, 3, 4, generator=g, dtype=F64)
    depth = 1 + 4 * torch.rand(2, 1, 3, 4, generator=g, dtype=F64)
    valid = torch.rand(2, 1, 3, 4, generator=g, dtype=F64)
    if kind == "ordinal":
        target = (depth * 1.5).long()
        call = lambda x, valid=None, target=target: ordinal_regression_loss(x, target, valid)  # noqa: E731
    else:
        target = depth
        call = lambda x, valid=None, target=target: plane_cross_entropy(x, target, PLANES, valid)  # noqa: E731
    assert gradcheck(lambda x: call(x, valid), logits.requires_grad_())
    none = call(logits, torch.zeros(2, 1, 3, 4))
    (grad,) = torch.autograd.grad(none, logits)
    assert none == 0 and (grad == 0).all()
    extreme = (1e4 * logits.detach()).requires_grad_()
    call(extreme).backward()
    assert extreme.grad.isfinite().all()
    with pytest.raises(ValueError, match="one channel"):
        call(logits, target=target[:, 0])
    with pytest.raises(ValueError, match="shape"):
        call(logits, torch.ones(2, 1, 3, 5))


def test_planes_must_be_those_of_the_logits():
    logits, depth = torch.zeros(1, 8, 2, 2), torch.ones(1, 1, 2, 2)
    assert plane_cross_entropy(logits, torch.zeros_like(depth), PLANES.float()) == 0  # unknown depth does not count
    with pytest.raises(ValueError, match="planes"):
        plane_cross_entropy(logits, depth, PLANES[:7])


def test_parameters_out_of_range_raise():
    pred, depth = depths()
    for call in (
        lambda: huber_loss(pred, depth, 0.0),
        lambda: berhu_loss(pred, depth, 0.0),
        lambda: scale_invariant_loss(pred, depth, variance_focus=1.5),
        lambda: silog_loss(pred, depth, variance_focus=-0.1),
    ):
        with pytest.raises(ValueError, match="must"):
            call()
