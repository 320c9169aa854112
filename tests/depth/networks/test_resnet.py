"""ResNet encoders against a functional form written from the paper's table."""

import pytest
import torch
import torch.nn.functional as F

from som.depth.networks.resnet import ResNetEncoder, stacked_image_weight


def reference_features(state, images, blocks, bottleneck):
    """torchvision's ResNet in evaluation mode, straight from a state dict."""

    def conv(x, name, stride=1):
        weight = state[name + ".weight"]
        return F.conv2d(x, weight, None, stride, padding=weight.shape[-1] // 2)

    def norm(x, name):
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        shape = (1, -1, 1, 1)
        return (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * weight.view(shape) + bias.view(shape)

    x = norm(conv((images - 0.45) / 0.225, "conv1", 2), "bn1").relu()
    features = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            y = x
            for j, s in enumerate(strides, start=1):
                y = norm(conv(y, f"{name}.conv{j}", s), f"{name}.bn{j}")
                y = y.relu() if j < len(strides) else y
            if f"{name}.downsample.0.weight" in state:
                x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = (x + y).relu()
        features.append(x)
    return features


def randomise_statistics(module, generator):
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for value in (layer.running_mean, layer.bias.data):
                value.normal_(0, 0.1, generator=generator)
            for value in (layer.running_var, layer.weight.data):
                value.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize(("num_layers", "blocks"), [(18, (2, 2, 2, 2)), (50, (3, 4, 6, 3))])
@torch.no_grad()
def test_features_equal_the_functional_form(num_layers, blocks):
    generator = torch.Generator().manual_seed(0)
    encoder = ResNetEncoder(num_layers, num_images=2, width=0.25).double().eval()
    randomise_statistics(encoder, generator)
    images = torch.rand(2, 6, 64, 96, generator=generator, dtype=torch.float64)
    state = {name.removeprefix("encoder."): value for name, value in encoder.state_dict().items()}
    expected = reference_features(state, images, blocks, bottleneck=num_layers == 50)
    for feature, reference, channels, stride in zip(
        encoder(images), expected, encoder.channels, (2, 4, 8, 16, 32), strict=True
    ):
        assert feature.shape == (2, channels, 64 // stride, 96 // stride)
        torch.testing.assert_close(feature, reference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("num_layers", "channels", "parameters"),
    [(18, [64, 64, 128, 256, 512], 11_176_512), (50, [64, 256, 512, 1024, 2048], 23_508_032)],
)
def test_size_is_that_of_the_published_network_without_its_classifier(num_layers, channels, parameters):
    with torch.device("meta"):
        encoder = ResNetEncoder(num_layers)
    assert encoder.channels == channels
    assert sum(p.numel() for p in encoder.parameters()) == parameters


@torch.no_grad()
def test_stacked_weights_answer_equal_images_as_one():
    one, two = ResNetEncoder(18, width=0.25).eval(), ResNetEncoder(18, num_images=2, width=0.25).eval()
    state = one.state_dict()
    state["encoder.conv1.weight"] = stacked_image_weight(state["encoder.conv1.weight"], 2)
    two.load_state_dict(state)
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(two(torch.cat([image, image], 1))[-1], one(image)[-1], rtol=1e-4, atol=1e-5)


def test_unknown_depth_raises():
    with pytest.raises(ValueError, match="18 or 50"):
        ResNetEncoder(34)
