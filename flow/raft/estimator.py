"""RAFT as a flow estimator: padding, scaling, batches, warm start and provenance around the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from flow.errors import FlowError
from flow.estimator import FlowEstimator
from flow.raft.correlation import Kind, check_kind
from flow.raft.model import CELL_PX, MIN_SIDE_PX, RAFT
from flow.raft.weights import load_raft


@dataclass(frozen=True, eq=False)
class RAFTEstimator(FlowEstimator):
    """Estimates flow with RAFT. Make one with ``load``, or give a network of your own."""

    model: RAFT
    """The network, in evaluation mode, on the device where it shall run."""
    weights: str
    """Name of the weights, for the records."""
    weights_sha256: str
    """Their SHA-256, for the records."""
    iterations: int = 20
    """Updates of the flow. The published demo takes 20, the published scores 24 to 32; time grows with them."""
    mixed_precision: bool = False
    """Run the convolutions in half precision; CUDA only. Faster, and off by some hundredths of a pixel."""
    correlation: Kind = "auto"
    """``full`` keeps the correlation of all pairs, ``on_demand`` only what is read; ``auto`` chooses by size."""

    def __post_init__(self):
        if self.iterations < 1:
            raise FlowError(f"RAFT's iterations must be at least 1, got {self.iterations}.")
        if self.model.training:
            raise FlowError("RAFT's network must be in evaluation mode; call its eval() first.")
        check_kind(self.correlation)
        if self.mixed_precision and self.device.type != "cuda":
            raise FlowError(f"mixed_precision needs a CUDA device, got {self.device}; leave it out.")

    @classmethod
    def load(
        cls,
        weights: str | Path | None = None,
        variant: str | None = None,
        device: str | torch.device = "cpu",
        **options,
    ) -> RAFTEstimator:
        """The estimator with weights from a file.

        Args:
            weights, variant: see ``flow.raft.weights.load_raft``.
            device: where it runs.
            options: ``iterations``, ``mixed_precision``, ``correlation``.

        Raises:
            FlowError: the weights cannot be used, the device is not there, or an option is out of range.
        """
        try:
            device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise FlowError(f"device {str(device)!r} is not available here; choose cpu or another one.") from error
        loaded = load_raft(weights, variant)
        return cls(loaded.model.to(device), loaded.file, loaded.sha256, **options)

    @property
    def name(self) -> str:
        """``raft-large`` or ``raft-small``."""
        return self.model.variant

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def estimate(self, images0: Tensor, images1: Tensor, initial: Tensor | None) -> Tensor:
        """See ``FlowEstimator``. Pairs are processed one by one, which bounds the memory."""
        guesses = [None] * len(images0) if initial is None else initial
        flows = [self._pair(*pair) for pair in zip(images0, images1, guesses, strict=True)]
        return torch.stack(flows) if flows else torch.zeros(*images0.shape[:3], 2)

    def provenance(self) -> dict[str, str | int | float]:
        """Method, iterations, precision, and the weights with their hash. Device and kind of correlation change
        the result by rounding only and are left out."""
        return {
            "method": self.name,
            "iterations": self.iterations,
            "mixed_precision": int(self.mixed_precision),
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
        }

    def _pair(self, image0: Tensor, image1: Tensor, initial: Tensor | None) -> Tensor:
        """Flow (H,W,2) of one pair of images (H,W,3) uint8."""
        H, W = image0.shape[:2]
        horizontal, vertical = centred_padding(W), centred_padding(H)
        left, top = horizontal[0], vertical[0]

        def prepared(field: Tensor) -> Tensor:
            field = field.to(self.device).permute(2, 0, 1)[None].float()
            return F.pad(field, (*horizontal, *vertical), mode="replicate")

        # The mean over a cell's pixels, in cells: what convex upsampling spreads over them again.
        coarse = None if initial is None else F.avg_pool2d(prepared(initial), CELL_PX) / CELL_PX
        flow = self.model(
            prepared(image0) / 127.5 - 1,
            prepared(image1) / 127.5 - 1,
            self.iterations,
            coarse,
            correlation=self.correlation,
            mixed_precision=self.mixed_precision,
        )
        return flow[0, :, top : top + H, left : left + W].permute(1, 2, 0).float().cpu().contiguous()


def centred_padding(size: int) -> tuple[int, int]:
    """Pixels before and after a side of ``size`` that make it a multiple of 8 and at least 128; the published padding,
    half on either side, the odd pixel after."""
    total = max(-size % CELL_PX, MIN_SIDE_PX - size)
    return total // 2, total - total // 2
