"""PackNet: packing order, inverse, and the whole network against a functional form."""

import math

import pytest
import torch
import torch.nn.functional as F

from som.depth.networks.heads import SigmoidHead, make_head
from som.depth.networks.packnet import PackLayer, PackNet, UnpackLayer


def pack_by_hand(x):
    """Channel c 4 + dy 2 + dx of the packed map is channel c at the pixels of parity (dy, dx)."""
    parts = [x[:, :, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
    return torch.stack(parts, dim=2).flatten(1, 2)


def unpack_by_hand(x):
    out = x.new_zeros(x.shape[0], x.shape[1] // 4, 2 * x.shape[2], 2 * x.shape[3])
    for dy in (0, 1):
        for dx in (0, 1):
            out[:, :, dy::2, dx::2] = x[:, 2 * dy + dx :: 4]
    return out


class Reference:
    """packnet-sfm's arithmetic from a state dict."""

    def __init__(self, state):
        self.state = state

    def norm_elu(self, x, name):
        return F.elu(F.group_norm(x, 16, self.state[name + ".weight"], self.state[name + ".bias"]))

    def conv(self, x, name):
        weight = self.state[name + ".weight"]
        pad = weight.shape[-1] // 2
        return F.conv2d(F.pad(x, (pad,) * 4), weight, self.state[name + ".bias"])

    def conv2d(self, x, name):
        return self.norm_elu(self.conv(x, name + ".conv_base"), name + ".normalize")

    def conv3d(self, x, name):
        """One input channel, (d, 3, 3, 3) kernels over (channel, row, column); output channels run (d, channel)."""
        weight, bias = self.state[name + ".conv3d.weight"], self.state[name + ".conv3d.bias"]
        x = F.conv3d(x[:, None], weight, bias, padding=1)
        return torch.cat([x[:, i] for i in range(x.shape[1])], dim=1)

    def pack(self, x, name):
        return self.conv2d(self.conv3d(pack_by_hand(x), name), name + ".conv")

    def unpack(self, x, name):
        return unpack_by_hand(self.conv3d(self.conv2d(x, name + ".conv"), name))

    def residual(self, x, name, count):
        for i in range(count):
            y = self.conv2d(self.conv2d(x, f"{name}.{i}.conv1"), f"{name}.{i}.conv2")
            x = self.norm_elu(y + self.conv(x, f"{name}.{i}.conv3"), f"{name}.{i}.normalize")
        return x

    def disparities(self, images, adds):
        x = self.conv2d(images, "pre_calc")
        x1p = self.pack(self.conv2d(x, "conv1"), "pack1")
        x2p = self.pack(self.residual(x1p, "conv2", 2), "pack2")
        x3p = self.pack(self.residual(x2p, "conv3", 2), "pack3")
        x4p = self.pack(self.residual(x3p, "conv4", 3), "pack4")
        below = self.pack(self.residual(x4p, "conv5", 3), "pack5")
        result, disparity = [], None
        for level, skip in ((5, x4p), (4, x3p), (3, x2p), (2, x1p), (1, x)):
            up = self.unpack(below, f"unpack{level}")
            merged = [up + skip] if adds else [up, skip]
            if disparity is not None:
                merged.append(disparity.repeat_interleave(2, 2).repeat_interleave(2, 3))
            below = self.conv2d(torch.cat(merged, 1), f"iconv{level}")
            if level < 5:
                disparity = self.conv(below, f"disp{level}_layer.conv1").sigmoid() / 0.5
                result.append(disparity)
        return result[::-1]


@torch.no_grad()
def test_pack_layer_without_3d_convolution_orders_channels_as_published():
    layer = PackLayer(16, 3, features=None)
    x = torch.randn(2, 16, 6, 8)
    torch.testing.assert_close(layer(x), layer.conv(pack_by_hand(x)))


@torch.no_grad()
def test_unpacking_is_the_inverse_of_packing():
    x = torch.randn(2, 3, 6, 8)
    assert torch.equal(unpack_by_hand(pack_by_hand(x)), x)
    layer = UnpackLayer(16, 16, features=None)
    torch.testing.assert_close(layer(torch.ones(1, 16, 3, 4)), unpack_by_hand(layer.conv(torch.ones(1, 16, 3, 4))))


@torch.no_grad()
def test_layers_with_3d_convolution_equal_the_functional_form():
    torch.manual_seed(0)
    x = torch.randn(2, 16, 8, 12)
    pack, unpack = PackLayer(16, 5, features=8), UnpackLayer(16, 32, features=4)
    reference = Reference({f"p.{k}": v for k, v in pack.state_dict().items()})
    torch.testing.assert_close(pack(x), reference.pack(x, "p"), rtol=1e-5, atol=1e-5)
    reference = Reference({f"u.{k}": v for k, v in unpack.state_dict().items()})
    torch.testing.assert_close(unpack(x), reference.unpack(x, "u"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["1B", "slim"])
@torch.no_grad()
def test_network_equals_the_functional_form(variant):
    torch.manual_seed(0)
    head = SigmoidHead(0.5, math.inf)
    net = PackNet(head, variant, width=0.5)
    images = torch.rand(1, 3, 32, 64)
    expected = Reference(net.state_dict()).disparities(images, adds=variant == "1B")
    for logits, disparity, scale in zip(net(images), expected, range(4), strict=True):
        assert logits.shape == (1, 1, 32 >> scale, 64 >> scale)
        torch.testing.assert_close(head(logits).disparity, disparity, rtol=1e-4, atol=1e-4)


def test_other_heads_feed_one_disparity_to_the_next_scale():
    net = PackNet(make_head("dorn", (0.5, 50.0), 8), "slim", width=0.5)
    with torch.no_grad():
        logits = net(torch.rand(1, 3, 32, 32))
    assert [tuple(x.shape) for x in logits] == [(1, 16, 32 >> s, 32 >> s) for s in range(4)]


@pytest.mark.parametrize(("variant", "parameters"), [("1A", 128_294_020), ("1B", 124_164_580), ("slim", 76_997_796)])
def test_number_of_parameters(variant, parameters):
    with torch.device("meta"):
        net = PackNet(SigmoidHead(0.5, math.inf), variant)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_unknown_variant_raises():
    with pytest.raises(ValueError, match="1A, 1B or slim"):
        PackNet(SigmoidHead(0.5, math.inf), "2A")
