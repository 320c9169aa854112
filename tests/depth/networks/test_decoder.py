"""The Monodepth2 decoder: order of its layers, ways of upsampling."""

import pytest
import torch
import torch.nn.functional as F

from som.depth.networks.decoder import DepthDecoder, UpConv

CHANNELS = [4, 6, 8, 10, 12]


def make_features(batch=2, height=64, width=96):
    g = torch.Generator().manual_seed(1)
    sizes = [(height >> i, width >> i) for i in range(1, 6)]
    return [torch.randn(batch, c, *size, generator=g) for c, size in zip(CHANNELS, sizes, strict=True)]


def reference_logits(state, features, upsample):
    """Monodepth2's decoder with its layers named by (level, which) instead of by number."""
    order = [(i, j) for i in (4, 3, 2, 1, 0) for j in (0, 1)]
    upconv = {key: f"decoder.{n}.conv.conv" for n, key in enumerate(order)}

    def conv(x, name):
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), state[name + ".weight"], state[name + ".bias"])

    logits = {}
    x = features[-1]
    for i in (4, 3, 2, 1, 0):
        x = upsample(F.elu(conv(x, upconv[i, 0])))
        if i > 0:
            x = torch.cat([x, features[i - 1]], 1)
        x = F.elu(conv(x, upconv[i, 1]))
        if i <= 3:
            logits[i] = conv(x, f"decoder.{10 + i}.conv")
    return [logits[i] for i in range(4)]


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
@torch.no_grad()
def test_logits_equal_the_functional_form(upsampling):
    torch.manual_seed(0)
    decoder = DepthDecoder(CHANNELS, out_channels=2, upsampling=upsampling, width=0.25)
    features = make_features()

    def upsample(x):
        if upsampling == "nearest":
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    expected = reference_logits(decoder.state_dict(), features, upsample)
    for got, want, scale in zip(decoder(features), expected, range(4), strict=True):
        assert got.shape == (2, 2, 64 >> scale, 96 >> scale)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_fewer_scales_are_the_finest_ones():
    torch.manual_seed(0)
    four, one = DepthDecoder(CHANNELS), DepthDecoder(CHANNELS, num_scales=1)
    missing, unexpected = one.load_state_dict(four.state_dict(), strict=False)
    assert not missing
    assert {name.split(".")[1] for name in unexpected} == {"11", "12", "13"}
    features = make_features()
    assert torch.equal(one(features)[0], four(features)[0])


@torch.no_grad()
def test_subpixel_starts_as_nearest():
    """ICNR: with four equal sub-kernels the shuffle repeats each pixel, so there is no checkerboard."""
    torch.manual_seed(0)
    layer = UpConv(3, 5, "subpixel")
    x = torch.randn(2, 3, 6, 7)
    out = layer(x)
    assert out.shape == (2, 5, 12, 14)
    nearest = UpConv(3, 5, "nearest")
    nearest.conv.conv.weight.copy_(layer.conv.conv.weight[::4])
    nearest.conv.conv.bias.copy_(layer.conv.conv.bias[::4])
    torch.testing.assert_close(out, nearest(x))
    assert out.std() > 0.05


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "subpixel", "up_projection"])
def test_every_parameter_is_used(upsampling):
    """A parameter without gradient would stop data-parallel training."""
    decoder = DepthDecoder(CHANNELS, num_scales=2, upsampling=upsampling)
    sum(logits.square().mean() for logits in decoder(make_features())).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


@torch.no_grad()
def test_features_of_one_pixel_work():
    assert DepthDecoder(CHANNELS)(make_features(1, 32, 32))[0].shape == (1, 1, 32, 32)


def test_unknown_upsampling_raises():
    with pytest.raises(ValueError, match="nearest"):
        DepthDecoder(CHANNELS, upsampling="cubic")
