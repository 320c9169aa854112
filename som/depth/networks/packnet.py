"""PackNet (Guizilini et al., arXiv 1905.02693): packing and unpacking with 3D convolutions.

Parameters are called as in packnet-sfm, so that its checkpoints load by prefix.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from som.depth.networks.heads import Head

Variant = Literal["1A", "1B", "slim"]
NUM_NORM_GROUPS = 16
"""Groups of every group normalisation."""


class ConvGroupNorm(nn.Module):
    """Convolution with zero padding, group normalisation, ELU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.conv_base = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.normalize = nn.GroupNorm(NUM_NORM_GROUPS, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.normalize(self.conv_base(x)), inplace=True)


class ResidualConv(nn.Module):
    """Two ``ConvGroupNorm`` and a 1x1 shortcut, normalised again after their sum."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = ConvGroupNorm(in_channels, out_channels, 3)
        self.conv2 = ConvGroupNorm(out_channels, out_channels, 3)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.normalize = nn.GroupNorm(NUM_NORM_GROUPS, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.normalize(self.conv2(self.conv1(x)) + self.conv3(x)), inplace=True)


def residual_block(in_channels: int, out_channels: int, count: int) -> nn.Sequential:
    """``count`` residual convolutions, the first of which changes the number of channels."""
    rest = [ResidualConv(out_channels, out_channels) for _ in range(count - 1)]
    return nn.Sequential(ResidualConv(in_channels, out_channels), *rest)


class PackLayer(nn.Module):
    """Halves height and width: 2x2 pixels become channels, a 3D convolution mixes them, a 2D one compresses.

    Args:
        channels: of input and output.
        kernel_size: of the compressing convolution.
        features: channels of the 3D convolution; None is the variant without it.
    """

    def __init__(self, channels: int, kernel_size: int, features: int | None = 8):
        super().__init__()
        self.conv = ConvGroupNorm(4 * channels * (features or 1), channels, kernel_size)
        self.conv3d = None if features is None else nn.Conv3d(1, features, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        x = F.pixel_unshuffle(x, 2)
        if self.conv3d is not None:
            x = self.conv3d(x.unsqueeze(1)).flatten(1, 2)
        return self.conv(x)


class UnpackLayer(nn.Module):
    """Doubles height and width: the reverse of ``PackLayer``.

    Args:
        in_channels, out_channels: of the map; 4 ``out_channels`` must be a multiple of ``features``.
        kernel_size: of the 2D convolution.
        features: channels of the 3D convolution; None is the variant without it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, features: int | None = 8):
        super().__init__()
        self.conv = ConvGroupNorm(in_channels, 4 * out_channels // (features or 1), kernel_size)
        self.conv3d = None if features is None else nn.Conv3d(1, features, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        x = self.conv(x)
        if self.conv3d is not None:
            x = self.conv3d(x.unsqueeze(1)).flatten(1, 2)
        return F.pixel_shuffle(x, 2)


class OutputLayer(nn.Module):
    """The 3x3 convolution, with zero padding, that makes the logits of one scale."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(x)


class PackNet(nn.Module):
    """PackNet01 in its versions 1A and 1B, and PackNetSlim01 (1A).

    Skip connections are concatenated in 1A and slim, added in 1B. From 1/8 of the image on, the disparity of the
    coarser scale, scaled to 0..2 over the head's range, is repeated to twice its size and seen by the next scale; with
    ``SigmoidHead(0.5, inf)`` that is the published network.

    Args:
        head: what the logits mean.
        variant: ``1A``, ``1B`` or ``slim``.
        width: factor on the number of channels of every layer, at least 1/2.
    """

    def __init__(self, head: Head, variant: Variant = "1A", width: float = 1.0):
        super().__init__()
        if variant not in ("1A", "1B", "slim"):
            raise ValueError(f"PackNet: variant must be 1A, 1B or slim, got {variant!r}.")
        self.head = head
        self.adds_skips = variant == "1B"
        first, features = (32, 4) if variant == "slim" else (64, 8)
        # Of the input layer and of the five levels.
        channels = [round(c * width) for c in (first, first, 64, 128, 256, 512)]
        self.pre_calc = ConvGroupNorm(3, channels[0], 5)
        for level in range(1, 6):
            setattr(self, f"pack{level}", PackLayer(channels[level], 5 if level == 1 else 3, features))
        self.conv1 = ConvGroupNorm(channels[0], channels[1], 7)
        for level, count in ((2, 2), (3, 2), (4, 3), (5, 3)):
            setattr(self, f"conv{level}", residual_block(channels[level - 1], channels[level], count))
        below = channels[5]
        for level in range(5, 0, -1):
            skip = channels[level - 1]
            unpacked = skip if self.adds_skips else channels[level]
            merged = (skip if self.adds_skips else unpacked + skip) + (1 if level < 4 else 0)
            setattr(self, f"unpack{level}", UnpackLayer(below, unpacked, 3, features))
            setattr(self, f"iconv{level}", ConvGroupNorm(merged, channels[level], 3))
            if level < 5:
                setattr(self, f"disp{level}_layer", OutputLayer(channels[level], head.channels))
            below = channels[level]
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def output_convs(self) -> list[nn.Conv2d]:
        """The convolutions that make the logits, finest scale first."""
        return [getattr(self, f"disp{level}_layer").conv1 for level in range(1, 5)]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c _ _"]]:
        """Logits at full size, 1/2, 1/4 and 1/8; sides must be multiples of 32."""
        x = self.pre_calc(images)
        skips = [x]
        for level in range(1, 6):
            x = getattr(self, f"pack{level}")(getattr(self, f"conv{level}")(x))
            skips.append(x)
        logits: list[Tensor] = []
        for level in range(5, 0, -1):
            unpacked, skip = getattr(self, f"unpack{level}")(x), skips[level - 1]
            parts = [unpacked + skip] if self.adds_skips else [unpacked, skip]
            if logits:
                disparity = 2 * self.head.unit_disparity(logits[-1])
                parts.append(F.interpolate(disparity.to(unpacked.dtype), scale_factor=2, mode="nearest"))
            x = getattr(self, f"iconv{level}")(torch.cat(parts, dim=1))
            if level < 5:
                logits.append(getattr(self, f"disp{level}_layer")(x))
        return logits[::-1]
