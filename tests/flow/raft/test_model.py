"""The network's parts by hand, and what the whole does with its arguments."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flow.errors import FlowError
from flow.raft.extractor import Encoder, ResidualBlock
from flow.raft.model import RAFT, upsample_bilinear, upsample_convex
from flow.raft.update import ConvGRU, MaskPredictor, RecurrentBlock


def test_number_of_parameters(variant):
    count = sum(parameter.numel() for parameter in RAFT(variant).parameters())
    assert count == {"raft-large": 5_257_536, "raft-small": 990_162}[variant]


def test_instance_norm_uses_each_images_own_statistics(make_raft, images):
    first = make_raft("raft-large").double().feature_encoder.convnormrelu
    x = torch.cat(images(dtype=torch.float64))
    y = F.conv2d(x, first[0].weight, first[0].bias, stride=2, padding=3)
    for i in range(2):
        mean, variance = y[i].mean(dim=(1, 2)), y[i].var(dim=(1, 2), unbiased=False)
        expected = ((y[i] - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()).clamp(min=0)
        torch.testing.assert_close(first(x)[i], expected, rtol=0, atol=1e-12)


def test_batch_norm_uses_stored_statistics(make_raft, images):
    first = make_raft("raft-large").double().context_encoder.convnormrelu
    x = images(dtype=torch.float64)[0]
    norm = first[1]
    scale = (norm.weight / (norm.running_var + 1e-5).sqrt())[:, None, None]
    y = F.conv2d(x, first[0].weight, first[0].bias, stride=2, padding=3)
    expected = ((y - norm.running_mean[:, None, None]) * scale + norm.bias[:, None, None]).clamp(min=0)
    torch.testing.assert_close(first(x), expected, rtol=0, atol=1e-12)


def test_small_context_has_no_norm(make_raft, images):
    model = make_raft("raft-small").double()
    first, x = model.context_encoder.convnormrelu, images(dtype=torch.float64)[0]
    expected = F.conv2d(x, first[0].weight, first[0].bias, stride=2, padding=3).clamp(min=0)
    torch.testing.assert_close(first(x), expected, rtol=0, atol=1e-12)


def test_a_residual_block_without_change_passes_positive_values():
    block = ResidualBlock(4, 4, 1, "none")
    for parameter in block.parameters():
        parameter.data.zero_()
    x = torch.randn(1, 4, 5, 6)
    assert torch.equal(block(x), x.clamp(min=0))


def test_encoder_divides_the_size_by_8():
    assert Encoder(ResidualBlock, (4, 4, 6, 8), 10, "instance")(torch.zeros(2, 3, 48, 64)).shape == (2, 10, 6, 8)


def convolve(x, weight, bias):
    """'Same' cross-correlation of (C,H,W) with (O,C,kh,kw), by loops."""
    O, _, kh, kw = weight.shape
    padded = np.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2)))
    out = np.zeros((O, *x.shape[1:]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i, j] = (weight * padded[None, :, i : i + kh, j : j + kw]).sum(axis=(1, 2, 3)) + bias
    return out


def gru_step(gru, hidden, inputs):
    def conv(layer, x):
        return convolve(x, layer.weight.detach().numpy(), layer.bias.detach().numpy())

    both = np.concatenate((hidden, inputs))
    z = 1 / (1 + np.exp(-conv(gru.convz, both)))
    r = 1 / (1 + np.exp(-conv(gru.convr, both)))
    q = np.tanh(conv(gru.convq, np.concatenate((r * hidden, inputs))))
    return (1 - z) * hidden + z * q


def test_conv_gru_by_hand():
    gru = ConvGRU(2, 3, (3, 3)).double()
    hidden, inputs = torch.randn(2, 4, 5).double(), torch.randn(3, 4, 5).double()
    expected = gru_step(gru, hidden.numpy(), inputs.numpy())
    np.testing.assert_allclose(gru(hidden[None], inputs[None])[0].detach().numpy(), expected, atol=1e-12)


def test_separable_gru_goes_along_rows_then_along_columns():
    block = RecurrentBlock(2, 3, ((1, 5), (5, 1))).double()
    hidden, inputs = torch.randn(2, 4, 6).double(), torch.randn(3, 4, 6).double()
    expected = gru_step(block.convgru2, gru_step(block.convgru1, hidden.numpy(), inputs.numpy()), inputs.numpy())
    np.testing.assert_allclose(block(hidden[None], inputs[None])[0].detach().numpy(), expected, atol=1e-12)


def test_large_model_looks_along_rows_first():
    block = RAFT("raft-large").update_block.recurrent_block
    assert block.convgru1.convz.weight.shape == (128, 384, 1, 5)
    assert block.convgru2.convz.weight.shape == (128, 384, 5, 1)


def test_mask_is_scaled_by_a_quarter():
    predictor = MaskPredictor(3, 4)
    predictor.conv.weight.data.zero_()
    predictor.conv.bias.data = torch.arange(576.0)
    logits = predictor(torch.randn(1, 3, 2, 2))
    assert torch.equal(logits, (torch.arange(576.0) / 4)[None, :, None, None].expand(1, 576, 2, 2))


def test_convex_upsampling_by_hand():
    h, w = 2, 3
    g = torch.Generator().manual_seed(0)
    flow = torch.randn(1, 2, h, w, generator=g, dtype=torch.float64)
    logits = torch.randn(1, 576, h, w, generator=g, dtype=torch.float64)
    f, m = flow[0].numpy(), logits[0].numpy().reshape(9, 8, 8, h, w)
    expected = np.zeros((2, 8 * h, 8 * w))
    for row in range(8 * h):
        for column in range(8 * w):
            i, j = row // 8, column // 8
            weights = np.exp(m[:, row % 8, column % 8, i, j])
            weights /= weights.sum()
            for k in range(9):
                u, v = i + k // 3 - 1, j + k % 3 - 1
                if 0 <= u < h and 0 <= v < w:
                    expected[:, row, column] += weights[k] * 8 * f[:, u, v]
    np.testing.assert_allclose(upsample_convex(flow, logits)[0].numpy(), expected, atol=1e-12)


def test_bilinear_upsampling_puts_corner_cells_on_corner_pixels():
    x = torch.tensor([0.0, 1.0, 2.0]).double()
    flow = torch.stack((x.expand(2, 3), torch.tensor([[0.0], [1.0]]).double().expand(2, 3)))[None]
    up = upsample_bilinear(flow)[0]
    expected_x = 8 * 2 * torch.arange(24).double() / 23
    expected_y = 8 * 1 * torch.arange(16).double() / 15
    torch.testing.assert_close(up[0], expected_x.expand(16, 24), rtol=0, atol=1e-12)
    torch.testing.assert_close(up[1], expected_y[:, None].expand(16, 24), rtol=0, atol=1e-12)


@torch.no_grad()
def test_all_iterations_end_in_the_last(make_raft, images, variant):
    model, pair = make_raft(variant), images(batch=2)
    flows = model(*pair, 3, all_iterations=True)
    assert [tuple(flow.shape) for flow in flows] == [(2, 2, 128, 136)] * 3
    assert torch.equal(flows[-1], model(*pair, 3))
    assert torch.equal(flows[0], model(*pair, 1))
    assert (flows[0] - flows[-1]).abs().max() > 1e-3


@torch.no_grad()
def test_pairs_of_a_batch_do_not_see_each_other(make_raft, images, variant):
    model = make_raft(variant).double()
    images0, images1 = images(batch=2, dtype=torch.float64)
    both = model(images0, images1, 2)
    for b in range(2):
        alone = model(images0[b : b + 1], images1[b : b + 1], 2)
        torch.testing.assert_close(both[b : b + 1], alone, rtol=0, atol=1e-10)


@torch.no_grad()
def test_kinds_of_correlation_give_the_same_flow(make_raft, images, variant):
    model, pair = make_raft(variant).double(), images(dtype=torch.float64)
    full, on_demand = (model(*pair, 3, correlation=kind) for kind in ("full", "on_demand"))
    torch.testing.assert_close(on_demand, full, rtol=0, atol=1e-10)


@torch.no_grad()
def test_updates_start_from_the_initial_flow(make_raft, images):
    """With a flow head that changes nothing, what comes out is what went in."""
    model = make_raft("raft-small")
    for parameter in model.update_block.flow_head.conv2.parameters():
        parameter.zero_()
    initial = torch.randn(1, 2, 16, 17)
    torch.testing.assert_close(model(*images(), 2, initial), upsample_bilinear(initial))
    assert not model(*images(), 2).any()


@torch.no_grad()
def test_correlation_is_read_at_cell_plus_flow(make_raft, images):
    """A window read under flow (3, -2) holds what the same cell's window holds 3 columns right and 2 rows up."""
    model = make_raft("raft-small").double()
    seen = []
    handle = model.update_block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[2]))
    images0, images1 = images(192, 192, dtype=torch.float64)
    initial = torch.zeros(1, 2, 24, 24, dtype=torch.float64)
    initial[:, 0], initial[:, 1] = 3, -2
    model(images0, images1, 1)
    model(images0, images1, 1, initial)
    handle.remove()
    plain, shifted = (s[0, :49].view(7, 7, 24, 24) for s in seen)  # finest level; x offset, y offset, row, column
    torch.testing.assert_close(shifted[:4, 2:], plain[3:, :5], rtol=0, atol=1e-12)


def test_gradients_reach_images_and_all_weights(make_raft, images, variant):
    model = make_raft(variant)
    images0, images1 = (image.requires_grad_() for image in images())
    flows = model(images0, images1, 2, all_iterations=True)
    sum(flow.square().sum() for flow in flows).backward()
    for tensor in (images0, images1, *(p for p in model.parameters() if p.ndim == 4)):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_no_gradient_passes_along_the_flow_itself(make_raft, images):
    """As published, each update takes the flow so far as given; gradients pass through the hidden state."""
    initial = torch.zeros(1, 2, 16, 17, requires_grad=True)
    flow = make_raft("raft-small")(*images(), 2, initial)
    assert flow.requires_grad
    assert torch.autograd.grad(flow.sum(), initial, allow_unused=True) == (None,)


@pytest.mark.parametrize("kind", ["full", "on_demand"])
def test_derivative_by_the_images_against_finite_differences(make_raft, images, kind):
    """After one update, since later ones cut the gradient through the flow, as published."""
    model = make_raft("raft-small").double()
    pair = torch.stack(images(dtype=torch.float64))
    g = torch.Generator().manual_seed(3)
    direction = torch.randn(pair.shape, generator=g, dtype=torch.float64)
    weights = torch.randn(1, 2, 128, 136, generator=g, dtype=torch.float64)

    def value(t):
        return (model(*(pair + t * direction), 1, correlation=kind) * weights).sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(value(t), t)
    with torch.no_grad():
        difference = (value(1e-7) - value(-1e-7)) / 2e-7
    assert derivative.item() == pytest.approx(difference.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "match"), [(120, 160, "at least 128"), (160, 64, "at least 128"), (132, 160, "multiples of 8")]
)
def test_sizes_that_do_not_fit_are_refused(height, width, match, make_raft):
    with pytest.raises(FlowError, match=match):
        make_raft("raft-small")(torch.zeros(1, 3, height, width), torch.zeros(1, 3, height, width), 1)


def test_bad_arguments_are_refused(make_raft):
    model, zeros = make_raft("raft-small"), torch.zeros(1, 3, 128, 128)
    with pytest.raises(FlowError, match="same shape"):
        model(zeros, torch.zeros(2, 3, 128, 128), 1)
    with pytest.raises(FlowError, match=r"\(1, 2, 16, 16\)"):
        model(zeros, zeros, 1, torch.zeros(1, 2, 128, 128))
    with pytest.raises(FlowError, match="at least 1"):
        model(zeros, zeros, 0)
    with pytest.raises(FlowError, match="raft-tiny"):
        RAFT("raft-tiny")
