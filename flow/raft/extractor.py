"""RAFT's encoders: images to features at 1/8 of their resolution (paper section 3.1)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Norm = Literal["instance", "batch", "none"]
"""Normalisation after a convolution. Instance norm has no parameters and uses each image's own statistics always."""


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, norm: Norm = "none", relu: bool = True
) -> nn.Sequential:
    """Convolution that keeps the size (or divides it by ``stride``), then normalisation and ReLU, each optional."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)]
    if norm == "instance":
        layers.append(nn.InstanceNorm2d(outputs))
    elif norm == "batch":
        layers.append(nn.BatchNorm2d(outputs))
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return conv_norm_relu(inputs, outputs, 1, stride=stride, norm=norm, relu=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each followed by a ReLU, added to the input; a last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm):
        super().__init__()
        self.convnormrelu1 = conv_norm_relu(inputs, outputs, 3, stride=stride, norm=norm)
        self.convnormrelu2 = conv_norm_relu(outputs, outputs, 3, norm=norm)
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        return (self.downsample(x) + self.convnormrelu2(self.convnormrelu1(x))).relu()


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions through a quarter of the channels, added to the input; a last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm):
        super().__init__()
        self.convnormrelu1 = conv_norm_relu(inputs, outputs // 4, 1, norm=norm)
        self.convnormrelu2 = conv_norm_relu(outputs // 4, outputs // 4, 3, stride=stride, norm=norm)
        self.convnormrelu3 = conv_norm_relu(outputs // 4, outputs, 1, norm=norm)
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        return (self.downsample(x) + self.convnormrelu3(self.convnormrelu2(self.convnormrelu1(x)))).relu()


class Encoder(nn.Module):
    """Images (B,3,H,W) to features (B,outputs,H/8,W/8): a strided 7x7 convolution and three pairs of blocks.

    Args:
        block: ``ResidualBlock`` (large model) or ``BottleneckBlock`` (small model).
        widths: channels after the first convolution and after each pair of blocks.
        outputs: channels of the features.
        norm: the normalisation after every convolution but the last.
    """

    def __init__(
        self,
        block: type[ResidualBlock] | type[BottleneckBlock],
        widths: tuple[int, int, int, int],
        outputs: int,
        norm: Norm,
    ):
        super().__init__()
        self.convnormrelu = conv_norm_relu(3, widths[0], 7, stride=2, norm=norm)
        pairs = [
            nn.Sequential(block(before, after, stride, norm), block(after, after, 1, norm))
            for before, after, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        ]
        self.layer1, self.layer2, self.layer3 = pairs
        self.conv = nn.Conv2d(widths[3], outputs, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.layer3(self.layer2(self.layer1(self.convnormrelu(images)))))
