"""The RAFT network, large and small, with the arithmetic that the published weights were trained with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow.errors import FlowError
from flow.raft.correlation import NUM_LEVELS, Kind, make_correlation
from flow.raft.extractor import BottleneckBlock, Encoder, Norm, ResidualBlock
from flow.raft.update import FlowHead, MaskPredictor, MotionEncoder, RecurrentBlock, UpdateBlock

CELL_PX = 8
"""Side in pixels of a cell of the feature maps."""
MIN_SIDE_PX = 128
"""Smallest image side in pixels: below, the coarsest correlation would be a single cell, which was never trained."""


@dataclass(frozen=True)
class Architecture:
    """What distinguishes the two published networks."""

    block: type[ResidualBlock] | type[BottleneckBlock]
    """Block of both encoders."""
    widths: tuple[int, int, int, int]
    """Channels inside both encoders."""
    features: int
    """Channels of the feature maps that are correlated."""
    context_norm: Norm
    """Normalisation in the context encoder; the feature encoder has instance norm."""
    hidden: int
    """Channels of the hidden state."""
    context: int
    """Channels of the context."""
    radius: int
    """Radius of the correlation windows, in cells."""
    correlation_widths: tuple[int, ...]
    """Channels of the motion encoder's branch for the correlation."""
    flow_widths: tuple[int, int]
    """Channels of the motion encoder's branch for the flow."""
    motion: int
    """Channels of the motion features."""
    kernels: tuple[tuple[int, int], ...]
    """(rows, columns) of the recurrent units' kernels."""
    flow_head: int
    """Channels inside the flow head."""
    mask_head: int | None
    """Channels inside the mask predictor; None upsamples bilinearly."""


ARCHITECTURES = {
    "raft-large": Architecture(
        block=ResidualBlock,
        widths=(64, 64, 96, 128),
        features=256,
        context_norm="batch",
        hidden=128,
        context=128,
        radius=4,
        correlation_widths=(256, 192),
        flow_widths=(128, 64),
        motion=128,
        kernels=((1, 5), (5, 1)),
        flow_head=256,
        mask_head=256,
    ),
    "raft-small": Architecture(
        block=BottleneckBlock,
        widths=(32, 32, 64, 96),
        features=128,
        context_norm="none",
        hidden=96,
        context=64,
        radius=3,
        correlation_widths=(96,),
        flow_widths=(64, 32),
        motion=82,
        kernels=((3, 3),),
        flow_head=128,
        mask_head=None,
    ),
}


def upsample_convex(flow: Tensor, logits: Tensor) -> Tensor:
    """Each pixel's flow is a convex combination of the 3x3 cells around its own (paper section 3.3, appendix B).

    Args:
        flow: (B,2,h,w) in cells.
        logits: (B,9*8*8,h,w), see ``MaskPredictor``; neighbours count row by row, those outside have zero flow.

    Returns:
        (B,2,8h,8w) in pixels.
    """
    B, _, h, w = flow.shape
    weights = logits.view(B, 1, 9, CELL_PX, CELL_PX, h, w).softmax(dim=2)
    neighbours = F.unfold(CELL_PX * flow, 3, padding=1).view(B, 2, 9, 1, 1, h, w)
    pixels = (weights * neighbours).sum(dim=2)
    return pixels.permute(0, 1, 4, 2, 5, 3).reshape(B, 2, CELL_PX * h, CELL_PX * w)


def upsample_bilinear(flow: Tensor) -> Tensor:
    """(B,2,h,w) in cells to (B,2,8h,8w) in pixels. As published, corner cells fall on corner pixels."""
    return CELL_PX * F.interpolate(flow, scale_factor=CELL_PX, mode="bilinear", align_corners=True)


class RAFT(nn.Module):
    """RAFT (Teed & Deng, ECCV 2020). Its state dict has torchvision's names, so published files load strictly.

    Args:
        variant: ``raft-large`` (5,257,536 parameters) or ``raft-small`` (990,162).
    """

    def __init__(self, variant: str):
        super().__init__()
        if variant not in ARCHITECTURES:
            raise FlowError(f"unknown RAFT variant {variant!r}; choose one of {', '.join(ARCHITECTURES)}.")
        a = ARCHITECTURES[variant]
        self.variant, self.architecture = variant, a
        self.feature_encoder = Encoder(a.block, a.widths, a.features, "instance")
        self.context_encoder = Encoder(a.block, a.widths, a.hidden + a.context, a.context_norm)
        self.update_block = UpdateBlock(
            MotionEncoder(NUM_LEVELS * (2 * a.radius + 1) ** 2, a.correlation_widths, a.flow_widths, a.motion),
            RecurrentBlock(a.hidden, a.context + a.motion, a.kernels),
            FlowHead(a.hidden, a.flow_head),
        )
        self.mask_predictor = None if a.mask_head is None else MaskPredictor(a.hidden, a.mask_head)

    def forward(
        self,
        images0: Tensor,
        images1: Tensor,
        iterations: int,
        initial_flow: Tensor | None = None,
        *,
        all_iterations: bool = False,
        correlation: Kind = "auto",
        mixed_precision: bool = False,
    ) -> Tensor | list[Tensor]:
        """Optical flow from ``images0`` to ``images1``.

        Args:
            images0, images1: (B,3,H,W) RGB in [-1, 1]; H and W multiples of 8 and at least 128.
            iterations: how often the flow is updated, at least 1.
            initial_flow: (B,2,H/8,W/8) in cells of 8 px, from which the updates start; None is zero.
            all_iterations: return the flow after every iteration instead of the last; training needs them all.
            correlation: ``full``, ``on_demand`` or ``auto``, see ``flow.raft.correlation``.
            mixed_precision: run the convolutions under autocast; the correlation keeps the images' precision.

        Returns:
            (B,2,H,W) in pixels, channel 0 right and 1 down; or a list of them, one for each iteration.

        Raises:
            FlowError: sizes do not fit, or ``iterations`` is below 1.
        """
        _check(images0, images1, initial_flow, iterations)
        device = images0.device.type
        with torch.autocast(device, enabled=mixed_precision):
            features0, features1 = self.feature_encoder(torch.cat((images0, images1))).chunk(2)
            widths = (self.architecture.hidden, self.architecture.context)
            hidden, context = self.context_encoder(images0).split(widths, dim=1)
            hidden, context = hidden.tanh(), context.relu()
        features0, features1 = features0.to(images0.dtype), features1.to(images0.dtype)
        volume = make_correlation(correlation, features0, features1, self.architecture.radius)
        cells = _cell_grid(features0)
        flow = torch.zeros_like(cells) if initial_flow is None else initial_flow.to(cells)
        flows = []
        for step in range(iterations):
            flow = flow.detach()  # As published: no gradient through the sequence of flows, only through the state.
            seen = volume.lookup(cells + flow)
            with torch.autocast(device, enabled=mixed_precision):
                hidden, change = self.update_block(hidden, context, seen, flow)
            flow = flow + change
            if all_iterations or step == iterations - 1:
                flows.append(self._upsample(flow, hidden, mixed_precision))
        return flows if all_iterations else flows[-1]

    def _upsample(self, flow: Tensor, hidden: Tensor, mixed_precision: bool) -> Tensor:
        if self.mask_predictor is None:
            return upsample_bilinear(flow)
        with torch.autocast(flow.device.type, enabled=mixed_precision):
            logits = self.mask_predictor(hidden)
        return upsample_convex(flow, logits.to(flow.dtype))


def _cell_grid(features: Tensor) -> Tensor:
    """Column and row (B,2,h,w) of every cell of features (B,C,h,w), in their type."""
    B, _, h, w = features.shape
    x = torch.arange(w, device=features.device, dtype=features.dtype)
    y = torch.arange(h, device=features.device, dtype=features.dtype)
    return torch.stack((x.expand(h, w), y[:, None].expand(h, w))).expand(B, 2, h, w)


def _check(images0: Tensor, images1: Tensor, initial_flow: Tensor | None, iterations: int) -> None:
    if images0.ndim != 4 or images0.shape[1] != 3 or images0.shape != images1.shape:
        shapes = f"{tuple(images0.shape)} and {tuple(images1.shape)}"
        raise FlowError(f"RAFT takes two image batches of the same shape (B,3,H,W), got {shapes}.")
    B, _, H, W = images0.shape
    if H % CELL_PX or W % CELL_PX or min(H, W) < MIN_SIDE_PX:
        raise FlowError(
            f"RAFT takes sides that are multiples of 8 and at least {MIN_SIDE_PX} px, got {W}x{H}; pad them."
        )
    if initial_flow is not None and initial_flow.shape != (B, 2, H // CELL_PX, W // CELL_PX):
        expected = (B, 2, H // CELL_PX, W // CELL_PX)
        raise FlowError(f"RAFT's initial flow must have shape {expected}, got {tuple(initial_flow.shape)}.")
    if iterations < 1:
        raise FlowError(f"RAFT's iterations must be at least 1, got {iterations}.")
