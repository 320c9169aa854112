"""RAFT's update operator: what one iteration computes from correlation, flow and context (paper section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flow.raft.extractor import conv_norm_relu

MASK_SCALE = 0.25
"""Factor on the upsampling mask before its softmax. Published weights were trained with it."""


class MotionEncoder(nn.Module):
    """Correlation and flow to motion features (B,outputs,h,w), whose last two channels are the flow itself.

    Args:
        correlations: channels of the correlation.
        correlation_widths: channels of a 1x1 and, if there are two, a 3x3 convolution of the correlation.
        flow_widths: channels of a 7x7 and a 3x3 convolution of the flow.
        outputs: channels of the motion features.
    """

    def __init__(
        self, correlations: int, correlation_widths: tuple[int, ...], flow_widths: tuple[int, int], outputs: int
    ):
        super().__init__()
        self.convcorr1 = conv_norm_relu(correlations, correlation_widths[0], 1)
        self.convcorr2 = conv_norm_relu(*correlation_widths, 3) if len(correlation_widths) == 2 else nn.Identity()
        self.convflow1 = conv_norm_relu(2, flow_widths[0], 7)
        self.convflow2 = conv_norm_relu(*flow_widths, 3)
        self.conv = conv_norm_relu(correlation_widths[-1] + flow_widths[1], outputs - 2, 3)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        seen = self.convcorr2(self.convcorr1(correlation))
        moved = self.convflow2(self.convflow1(flow))
        return torch.cat((self.conv(torch.cat((seen, moved), dim=1)), flow), dim=1)


class ConvGRU(nn.Module):
    """One step of a gated recurrent unit whose matrices are convolutions (paper section 3.3)."""

    def __init__(self, hidden: int, inputs: int, kernel: tuple[int, int]):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convz = nn.Conv2d(hidden + inputs, hidden, kernel, padding=padding)
        self.convr = nn.Conv2d(hidden + inputs, hidden, kernel, padding=padding)
        self.convq = nn.Conv2d(hidden + inputs, hidden, kernel, padding=padding)

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        both = torch.cat((hidden, inputs), dim=1)
        update = self.convz(both).sigmoid()
        reset = self.convr(both).sigmoid()
        proposal = self.convq(torch.cat((reset * hidden, inputs), dim=1)).tanh()
        return (1 - update) * hidden + update * proposal


class RecurrentBlock(nn.Module):
    """A ConvGRU per kernel, one after the other: (1,5) then (5,1) in the large model, (3,3) in the small one."""

    def __init__(self, hidden: int, inputs: int, kernels: tuple[tuple[int, int], ...]):
        super().__init__()
        self.convgru1 = ConvGRU(hidden, inputs, kernels[0])
        self.convgru2 = ConvGRU(hidden, inputs, kernels[1]) if len(kernels) == 2 else None

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        hidden = self.convgru1(hidden, inputs)
        return hidden if self.convgru2 is None else self.convgru2(hidden, inputs)


class FlowHead(nn.Module):
    """Hidden state to the change of the flow (B,2,h,w)."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(hidden, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(self.conv1(hidden).relu())


class UpdateBlock(nn.Module):
    """One iteration: (hidden, context, correlation, flow) to (hidden, change of the flow)."""

    def __init__(self, motion_encoder: MotionEncoder, recurrent_block: RecurrentBlock, flow_head: FlowHead):
        super().__init__()
        self.motion_encoder = motion_encoder
        self.recurrent_block = recurrent_block
        self.flow_head = flow_head

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        motion = self.motion_encoder(flow, correlation)
        hidden = self.recurrent_block(hidden, torch.cat((context, motion), dim=1))
        return hidden, self.flow_head(hidden)


class MaskPredictor(nn.Module):
    """Hidden state to logits (B,9*8*8,h,w) of the convex upsampling; channel (k, i, j) of (9, 8, 8) weighs neighbour
    k for pixel (row i, column j) of a cell."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.convrelu = conv_norm_relu(hidden, width, 3)
        self.conv = nn.Conv2d(width, 9 * 8 * 8, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return MASK_SCALE * self.conv(self.convrelu(hidden))
