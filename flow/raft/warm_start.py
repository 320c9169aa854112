"""Warm start for video: the flow of one frame as the first guess for the next (RAFT paper, section 3.3)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError


def forward_interpolate(flow: Tensor) -> Tensor:
    """The flow of a frame carried along itself into the next frame, assuming that motion goes on.

    Each vector moves to where it points. A pixel where one arrives takes it (of several, the one nearest to its
    centre); any other pixel takes what the nearest of these has. The published code searches the nearest arriving
    vector exactly; what is taken here arrives about 1 px farther away at most, 0.1 px on average.

    Args:
        flow: (H,W,2) from frame t to t + 1, in pixels, finite.

    Returns:
        (H,W,2) float32 on the CPU, a first guess of the flow from t + 1 to t + 2; zero where no vector stays inside.

    Raises:
        FlowError: the shape is wrong or the flow is not finite.
    """
    if flow.ndim != 3 or flow.shape[-1] != 2:
        raise FlowError(f"flow must have shape (H,W,2), got {tuple(flow.shape)}.")
    if not flow.isfinite().all():
        raise FlowError("flow must be finite; it holds nan or inf.")
    vectors = flow.detach().float().cpu().numpy().reshape(-1, 2)
    H, W = flow.shape[:2]
    y, x = np.divmod(np.arange(H * W), W)
    end = vectors + np.stack((x, y), axis=-1) + 0.5
    (inside,) = np.nonzero(((end > 0) & (end < (W, H))).all(axis=1))
    if not len(inside):
        return torch.zeros(H, W, 2)
    cell = end[inside].astype(np.int64)
    distance = np.square(end[inside] - cell - 0.5).sum(axis=1)
    # Of several vectors in one pixel the last one written stays: the nearest, and of equals the first.
    order = np.lexsort((-inside, -distance))
    source = np.full(H * W, -1)
    source[(cell @ (1, W))[order]] = inside[order]
    filled = _nearest_filled(source.reshape(H, W) >= 0)
    return torch.from_numpy(vectors[source[filled]].reshape(H, W, 2))


def _nearest_filled(filled: np.ndarray) -> np.ndarray:
    """Flat index (H*W,) of the nearest True pixel to each pixel of a mask (H,W)."""
    sources = np.where(filled, 0, 255).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(sources, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    (position,) = np.nonzero(filled.ravel())
    by_label = np.zeros(labels.max() + 1, dtype=np.int64)
    by_label[labels.ravel()[position]] = position
    return by_label[labels.ravel()]
