"""The interface of every flow estimator."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flow.errors import FlowError


class FlowEstimator(ABC):
    """Estimates the motion of every pixel from one image to another.

    Called with two images or two batches of them; see ``__call__``. Implementations are safe to call from several
    threads at once.
    """

    min_side: int = 16
    """Smallest image side in pixels that it takes."""
    parallel: bool = False
    """Whether calls from several threads at once are faster than one after the other."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The estimator's name, as ``make_estimator`` and the records know it."""

    @abstractmethod
    def estimate(self, images0: Tensor, images1: Tensor, initial: Tensor | None) -> Tensor:
        """Flow (B,H,W,2) float32 from uint8 images (B,H,W,3); arguments are already checked by ``__call__``."""

    @abstractmethod
    def provenance(self) -> dict[str, str | int | float]:
        """What produced the flow, for records: method, settings, weights and their hash. Equal for equal results."""

    def __call__(self, images0: Tensor, images1: Tensor, initial: Tensor | None = None) -> Tensor:
        """Optical flow from ``images0`` to ``images1``.

        Args:
            images0: (H,W,3) or (B,H,W,3), RGB, uint8, or floating point in [0, 1].
            images1: the same shape.
            initial: a first guess of the flow, (H,W,2) or (B,H,W,2) in pixels, from which the search starts.

        Returns:
            (H,W,2) or (B,H,W,2) float32 on the CPU, in pixels: what is at x in image 0 is at x + flow(x) in image 1;
            channel 0 points right, channel 1 down.

        Raises:
            FlowError: shapes or types do not fit, or the images are too small.
        """
        images0, images1 = _as_bytes(images0, "images0"), _as_bytes(images1, "images1")
        if images0.shape != images1.shape:
            shapes = f"{tuple(images0.shape)} and {tuple(images1.shape)}"
            raise FlowError(f"both images must have the same size, got {shapes}; resize one of them.")
        if images0.ndim == 3:
            guess = None if initial is None else initial[None]
            return self(images0[None], images1[None], guess)[0]
        H, W = images0.shape[1:3]
        if min(H, W) < self.min_side:
            raise FlowError(f"{self.name} needs at least {self.min_side} px a side, got {W}x{H}; enlarge the images.")
        if initial is not None:
            if initial.shape != (*images0.shape[:3], 2):
                expected = (*images0.shape[:3], 2)
                raise FlowError(f"the initial flow must have shape {expected}, got {tuple(initial.shape)}.")
            if not bool(initial.isfinite().all()):
                raise FlowError("the initial flow must be finite; it holds nan or inf.")
            initial = initial.float()
        return self.estimate(images0, images1, initial)


def _as_bytes(images: Tensor, name: str) -> Tensor:
    if images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise FlowError(f"{name} must be RGB, (H,W,3) or (B,H,W,3), got shape {tuple(images.shape)}.")
    if images.dtype == torch.uint8:
        return images
    if not images.dtype.is_floating_point:
        raise FlowError(f"{name} must be uint8, or floating point in [0, 1], got {images.dtype}.")
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
