"""ResNet encoders (He et al., arXiv 1512.03385) with torchvision's topology and parameter names."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

NumLayers = Literal[18, 50]
STAGE_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""Residual blocks in each of the four stages."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(x + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNetTrunk(nn.Module):
    """ResNet without its classifier; parameters are called as torchvision's (``conv1``, ``layer3.1.bn2``, ...)."""

    def __init__(self, num_layers: NumLayers, in_channels: int, width: float):
        super().__init__()
        block = BasicBlock if num_layers == 18 else Bottleneck
        stem, *stages = (round(c * width) for c in (64, 64, 128, 256, 512))
        self.conv1 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = [stem, *(c * block.expansion for c in stages)]
        for i, (channels, blocks) in enumerate(zip(stages, STAGE_BLOCKS[num_layers], strict=True)):
            stage = [block(self.channels[i], channels, stride=1 if i == 0 else 2)]
            stage += [block(self.channels[i + 1], channels) for _ in range(blocks - 1)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for i in range(4):
            x = getattr(self, f"layer{i + 1}")(x)
            features.append(x)
        return features


class ResNetEncoder(nn.Module):
    """ResNet as an encoder of one or several stacked images, with Monodepth2's input normalisation (x - .45) / .225.

    Args:
        num_layers: 18 or 50.
        num_images: RGB images stacked along the channels.
        width: factor on the number of channels of every layer.
    """

    def __init__(self, num_layers: NumLayers = 18, num_images: int = 1, width: float = 1.0):
        super().__init__()
        if num_layers not in STAGE_BLOCKS:
            raise ValueError(f"ResNetEncoder: num_layers must be 18 or 50, got {num_layers}.")
        self.encoder = ResNetTrunk(num_layers, 3 * num_images, width)
        self.channels: list[int] = self.encoder.channels
        """Channels of the five feature maps, finest first."""

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size of ``images`` (B, 3 num_images, H, W) in [0, 1]."""
        return self.encoder((images - 0.45) / 0.225)


def stacked_image_weight(weight: Float[Tensor, "o 3 k k"], num_images: int) -> Float[Tensor, "o c k k"]:
    """First-layer weights for ``num_images`` stacked images from those for one: the same response to equal images."""
    return torch.cat([weight] * num_images, dim=1) / num_images
