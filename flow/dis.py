"""Dense inverse search, the flow estimator that needs no weights (Kroeger et al., ECCV 2016), by way of OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError
from flow.estimator import FlowEstimator

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
"""OpenCV's parameter sets, from the fastest to the most accurate."""


@dataclass(frozen=True)
class DISEstimator(FlowEstimator):
    """Inverse compositional search of patches from coarse to fine, densified and refined variationally.

    Works on grey values, on the CPU. The result is the same for any number of threads; it differs slightly between
    versions of OpenCV. Every call has an OpenCV object of its own, because that object changes its own parameters to
    fit the size of the images, and its buffers must not be shared by threads.
    """

    preset: str = "medium"
    """One of ``PRESETS``."""
    finest_scale: int | None = 0
    """Pyramid level where the search ends: 0 is full resolution, 1 half, ...; None is the preset's. Level 0 halves
    the error of the preset's level 1 at three times the cost."""
    variational_iterations: int | None = None
    """Steps of variational refinement at every level; None is the preset's (5 for medium)."""
    enlarge_to: int = 640
    """Images whose longer side is shorter than this are enlarged towards it, at most twice, before the search: patches
    of 8 px are coarse for them. At 320x180 it takes a tenth off the error of visible pixels; 0 never does."""

    name = "dis"
    min_side = 12
    parallel = True

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise FlowError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}.")
        for field in ("finest_scale", "variational_iterations", "enlarge_to"):
            value = getattr(self, field)
            optional = value is None and field != "enlarge_to"
            if not optional and (not isinstance(value, int) or value < 0):
                raise FlowError(f"{field} must be an integer >= 0, or None for the preset's, got {value!r}.")

    def estimate(self, images0: Tensor, images1: Tensor, initial: Tensor | None) -> Tensor:
        size = images0.shape[2], images0.shape[1]
        factor = min(2.0, max(1.0, self.enlarge_to / max(size)))
        larger = round(factor * size[0]), round(factor * size[1])
        grey0, grey1 = (_to_grey(images, larger) for images in (images0, images1))
        scale = np.array([larger[0] / size[0], larger[1] / size[1]], np.float32)
        flows = np.empty((*images0.shape[:3], 2), np.float32)
        for i, (first, second) in enumerate(zip(grey0, grey1, strict=True)):
            # OpenCV takes any array of fitting size as the initial flow and writes into it.
            guess = None if initial is None else np.array(initial[i].cpu().numpy(), np.float32, order="C")
            if guess is not None and larger != size:
                guess = cv2.resize(guess, larger, interpolation=cv2.INTER_LINEAR) * scale
            flow = self._make_dis().calc(first, second, guess)  # type: ignore[arg-type]  # None is missing in its stubs
            flows[i] = flow if larger == size else cv2.resize(flow, size, interpolation=cv2.INTER_AREA) / scale
        return torch.from_numpy(flows)

    def provenance(self) -> dict[str, str | int | float]:
        dis = self._make_dis()
        return {
            "method": "dis",
            "preset": self.preset,
            "finest_scale": dis.getFinestScale(),
            "variational_iterations": dis.getVariationalRefinementIterations(),
            "enlarge_to": self.enlarge_to,
            "opencv": cv2.__version__,
        }

    def _make_dis(self) -> cv2.DISOpticalFlow:
        dis = cv2.DISOpticalFlow.create(PRESETS[self.preset])
        if self.finest_scale is not None:
            dis.setFinestScale(self.finest_scale)
        if self.variational_iterations is not None:
            dis.setVariationalRefinementIterations(self.variational_iterations)
        return dis


def _to_grey(images: Tensor, size: tuple[int, int]) -> list[np.ndarray]:
    """8-bit grey images of (width, height)."""
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images.cpu().numpy()]
    if images.shape[1:3] == size[::-1]:
        return grey
    return [cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in grey]
