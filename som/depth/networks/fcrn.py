"""The up-projection block of FCRN (Laina et al., arXiv 1606.00373) in its fast form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def interleaved_kernels(kernel: Float[Tensor, "o i 5 5"]) -> Float[Tensor, "o4 i 3 3"]:
    """The 3x3 kernels that do on the small map what a 5x5 kernel does on its zero-interleaved enlargement.

    Three quarters of the enlarged map are zeros, so an output pixel at (2 row + a, 2 column + b) meets only the taps
    of one parity: 3x3 of them for a = b = 0, then 3x2, 2x3 and 2x2, which are padded with zeros to 3x3 here so that
    one convolution serves all four. Output channels are ordered (o, a, b), as ``pixel_shuffle`` wants them.
    """
    rows = (kernel[:, :, 0::2], F.pad(kernel[:, :, 1::2], (0, 0, 1, 0)))
    parts = [part for r in rows for part in (r[..., 0::2], F.pad(r[..., 1::2], (1, 0)))]
    return torch.stack(parts, dim=1).flatten(0, 1)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # those of UpProjection are made with one
    return conv.bias


class UpProjection(nn.Module):
    """Doubles height and width: relu(conv3(relu(conv5(up(x)))) + conv5'(up(x))), up = zero-interleaved unpooling.

    The 5x5 convolutions run on the small map (see ``interleaved_kernels``), with exactly the result of the form with
    unpooling. The published network has a batch normalisation behind every convolution; there is none here, as in the
    rest of the decoder.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 5)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.projection = nn.Conv2d(in_channels, out_channels, 5)
        for conv in (self.conv1, self.projection):
            # A quarter of the taps meets a value, so the variance may be four times Kaiming's.
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            with torch.no_grad():
                conv.weight.mul_(2.0)
            nn.init.zeros_(_bias(conv))

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        weight = torch.cat([self.conv1.weight, self.projection.weight])
        bias = torch.cat([_bias(self.conv1), _bias(self.projection)]).repeat_interleave(4)
        both = F.pixel_shuffle(F.conv2d(x, interleaved_kernels(weight), bias, padding=1), 2)
        main, shortcut = both.chunk(2, dim=1)
        return F.relu(self.conv2(F.relu(main)) + shortcut)
