"""Depth networks by name: one interface for all."""

import copy
import pickle

import pytest
import torch

from som.depth.errors import DepthError
from som.depth.networks import NetworkConfig, make_depth_net


def images(batch=2, height=64, width=96):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("head", ["sigmoid", "softplus", "ddv", "dorn"])
@pytest.mark.parametrize("num_scales", [1, 3])
def test_the_same_scales_in_training_and_evaluation(head, num_scales):
    net = make_depth_net(NetworkConfig("small", head, num_scales=num_scales))
    for mode in (True, False):
        out = net.train(mode)(images())
        sizes = [(2, 1, 64 >> s, 96 >> s) for s in range(num_scales)]
        assert [tuple(d.shape) for d in out.depths] == [tuple(d.shape) for d in out.disparities] == sizes
        for depth, disparity in zip(out.depths, out.disparities, strict=True):
            torch.testing.assert_close(depth * disparity, torch.ones_like(depth))
        is_distribution = head in ("ddv", "dorn")
        assert (out.logits is not None) == (out.deviation is not None) == is_distribution
        if is_distribution:
            assert out.deviation.shape == sizes[0]
            assert (out.deviation > 0).all()
            assert [x.shape[1] for x in out.logits] == [64 if head == "ddv" else 160] * num_scales


@pytest.mark.parametrize(
    ("name", "head"),
    [("small", "sigmoid"), ("small", "softplus"), ("small", "ddv"), ("small", "dorn"), ("packnet_slim", "sigmoid")],
)
def test_untrained_nets_predict_the_initial_depth(name, head):
    torch.manual_seed(0)
    net = make_depth_net(NetworkConfig(name, head, depth_range=(0.5, 50.0), initial_depth=8.0))
    with torch.no_grad():
        for depth in net(images(1, 32, 64)).depths:
            assert depth.median().item() == pytest.approx(8.0, rel=0.15)
            assert 4 < depth.min() < depth.max() < 16


def test_outputs_lie_in_the_range():
    net = make_depth_net(NetworkConfig("small", depth_range=(2.0, 5.0)))
    with torch.no_grad():
        depth = net(images()).depths[0]
    assert 2 <= depth.min() < depth.max() <= 5


@pytest.mark.parametrize("num_scales", [1, 4])
@pytest.mark.parametrize("head", ["sigmoid", "dorn"])
def test_every_parameter_gets_a_gradient(head, num_scales):
    """Data-parallel training stops at parameters without."""
    torch.manual_seed(0)
    net = make_depth_net(NetworkConfig("small", head, num_scales=num_scales, initial_depth=5.0))
    sum(depth.log().square().mean() for depth in net(images()).depths).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "subpixel", "up_projection"])
@torch.no_grad()
def test_channels_last_and_batches_change_nothing(upsampling):
    torch.manual_seed(0)
    net = make_depth_net(NetworkConfig("small", upsampling=upsampling)).eval()
    expected = net(images()).disparities[0]
    last = net.to(memory_format=torch.channels_last)(images().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last.disparities[0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(images()[1:]).disparities[0], expected[1:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_smallest_image_and_autocast():
    net = make_depth_net(NetworkConfig("small", "dorn")).eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(images(1, 32, 32))
    assert out.depths[0].shape == (1, 1, 32, 32)
    assert out.depths[0].dtype == out.deviation.dtype == torch.float32
    assert out.depths[0].isfinite().all()


@torch.no_grad()
def test_copies_and_pickles_predict_the_same():
    net = make_depth_net(NetworkConfig("small", "ddv")).eval()
    expected = net(images()).depths[0]
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.config == net.config
        assert torch.equal(other(images()).depths[0], expected)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("small", 1_244_540),
        ("resnet18", 14_842_236 - 513_000),
        ("resnet50", 34_571_132 - 2_049_000),
        ("packnet", 128_294_020),
        ("packnet_1b", 124_164_580),
        ("packnet_slim", 76_997_796),
    ],
)
def test_number_of_parameters(name, parameters):
    """The published numbers, less the unused classifier of the ResNets."""
    with torch.device("meta"):
        net = make_depth_net(NetworkConfig(name))
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vgg"}, "unknown depth network"),
        ({"head": "relu"}, "unknown head"),
        ({"upsampling": "cubic"}, "unknown upsampling"),
        ({"name": "packnet", "upsampling": "bilinear"}, "unpacking"),
        ({"num_scales": 5}, "num_scales"),
        ({"depth_range": (1.0, 0.5)}, "depth_range"),
        ({"initial_depth": 200.0}, "initial_depth"),
    ],
)
def test_contradictions_raise(options, message):
    with pytest.raises(DepthError, match=message):
        make_depth_net(NetworkConfig(**options))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 64, 64), r"\(B,3,H,W\)"), ((1, 1, 64, 64), r"\(B,3,H,W\)"), ((1, 3, 64, 100), "multiples of 32")],
)
def test_bad_images_raise(shape, message):
    with pytest.raises(DepthError, match=message):
        make_depth_net()(torch.zeros(shape))
