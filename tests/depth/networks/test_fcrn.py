"""The fast up-projection against the published form on the zero-interleaved map."""

import pytest
import torch
import torch.nn.functional as F

from som.depth.networks.fcrn import UpProjection, interleaved_kernels


def unpool(x):
    """Every pixel becomes the upper left one of a 2x2 block of zeros."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


def slow(layer, x):
    up = unpool(x)
    main = F.conv2d(up, layer.conv1.weight, layer.conv1.bias, padding=2).relu()
    main = F.conv2d(main, layer.conv2.weight, layer.conv2.bias, padding=1)
    return (main + F.conv2d(up, layer.projection.weight, layer.projection.bias, padding=2)).relu()


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
def test_fast_equals_slow_in_value_and_gradient(size):
    torch.manual_seed(0)
    layer = UpProjection(3, 4).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    fast, reference = layer(x), slow(layer, x)
    assert fast.shape == (2, 4, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(fast, reference, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(fast)
    inputs = [x, *layer.parameters()]
    for a, b in zip(
        torch.autograd.grad((fast * weight).sum(), inputs),
        torch.autograd.grad((reference * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_kernels_have_3x3_3x2_2x3_and_2x2_taps():
    kernels = interleaved_kernels(torch.ones(2, 1, 5, 5))
    assert kernels.shape == (8, 1, 3, 3)
    assert kernels.sum(dim=(1, 2, 3)).tolist() == [9, 6, 6, 4] * 2


def test_activations_keep_their_size_at_the_start():
    """The initialisation counts only the taps that meet a value."""
    torch.manual_seed(0)
    x = torch.randn(4, 64, 12, 12).relu()
    with torch.no_grad():
        out = UpProjection(64, 64)(x)
    assert 0.5 < (out.square().mean() / x.square().mean()).sqrt() < 2
