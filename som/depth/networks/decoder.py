"""The depth decoder of Monodepth2 (arXiv 1806.01260) and SC-SfMLearner (arXiv 1908.10553); four ways to upsample."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from som.depth.networks.fcrn import UpProjection

Upsampling = Literal["nearest", "bilinear", "subpixel", "up_projection"]
DECODER_CHANNELS = (16, 32, 64, 128, 256)
"""Channels at full size, 1/2, ... 1/16 of it."""


class ReflectConv(nn.Module):
    """3x3 convolution with reflected borders."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        # One row or column has nothing to reflect; there the border is repeated.
        mode = "reflect" if min(x.shape[-2:]) > 1 else "replicate"
        return self.conv(F.pad(x, (1, 1, 1, 1), mode=mode))


class ConvELU(nn.Module):
    """``ReflectConv`` and ELU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ReflectConv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.conv(x), inplace=True)


class UpConv(ConvELU):
    """``ConvELU``, then twice the height and width by repetition, bilinear, or from four sub-pixel channels."""

    def __init__(self, in_channels: int, out_channels: int, upsampling: Upsampling):
        super().__init__(in_channels, 4 * out_channels if upsampling == "subpixel" else out_channels)
        self.upsampling = upsampling
        if upsampling == "subpixel":
            init_icnr(self.conv.conv)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.upsampling == "subpixel":
            return F.pixel_shuffle(x, 2)
        if self.upsampling == "bilinear":
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return F.interpolate(x, scale_factor=2, mode="nearest")


def init_icnr(conv: nn.Conv2d) -> None:
    """Makes the four sub-pixel kernels of each channel equal (ICNR, arXiv 1707.02937): no checkerboard at the start."""
    with torch.no_grad():
        conv.weight.copy_(conv.weight[::4].repeat_interleave(4, dim=0))
        if conv.bias is not None:
            conv.bias.copy_(conv.bias[::4].repeat_interleave(4))


class DepthDecoder(nn.Module):
    """Features of an encoder to one map of logits per scale.

    ``decoder`` holds, in the published order, the convolutions (4,0), (4,1), (3,0) ... (0,1), where (i,0) ends in the
    upsampling to 1/2^i of the image and (i,1) sees the skip connection too; then the output convolutions of scale
    0, 1, ... ``num_scales`` - 1.

    Args:
        encoder_channels: of the five feature maps, finest first.
        out_channels: of each map of logits.
        num_scales: 1 to 4 maps, at full size, 1/2, 1/4 and 1/8.
        upsampling: ``nearest`` is Monodepth2's, ``bilinear`` that of sc_depth_pl, ``subpixel`` that of ESPCN
            (arXiv 1609.05158), ``up_projection`` that of FCRN.
        width: factor on the decoder's channels.
    """

    def __init__(
        self,
        encoder_channels: list[int],
        out_channels: int = 1,
        num_scales: int = 4,
        upsampling: Upsampling = "nearest",
        width: float = 1.0,
    ):
        super().__init__()
        if upsampling not in get_args(Upsampling):
            raise ValueError(f"DepthDecoder: upsampling must be one of {get_args(Upsampling)}, got {upsampling!r}.")
        channels = [round(c * width) for c in DECODER_CHANNELS]
        layers: list[nn.Module] = []
        below = encoder_channels[-1]
        for i in range(4, -1, -1):
            skip = encoder_channels[i - 1] if i > 0 else 0
            if upsampling == "up_projection":
                layers.append(UpProjection(below, channels[i]))
            else:
                layers.append(UpConv(below, channels[i], upsampling))
            layers.append(ConvELU(channels[i] + skip, channels[i]))
            below = channels[i]
        layers += [ReflectConv(channels[scale], out_channels) for scale in range(num_scales)]
        self.decoder = nn.ModuleList(layers)
        self.num_scales = num_scales

    def output_convs(self) -> list[nn.Conv2d]:
        """The convolutions that make the logits, finest scale first."""
        return [m for layer in self.decoder[10:] for m in layer.modules() if isinstance(m, nn.Conv2d)]

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b c _ _"]]:
        """Logits of each scale, finest first."""
        logits = []
        x = features[-1]
        for i in range(4, -1, -1):
            x = self.decoder[8 - 2 * i](x)
            if i > 0:
                x = torch.cat([x, features[i - 1]], dim=1)
            x = self.decoder[9 - 2 * i](x)
            if i < self.num_scales:
                logits.append(self.decoder[10 + i](x))
        return logits[::-1]
