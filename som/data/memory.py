"""A video that is already in memory, as a ``DepthSequence``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.data.recording import FrameRecord, Recording, Size
from som.data.sequence import DepthSequence


def memory_sequence(
    frames: Float[Tensor, "t 3 h w"],
    K: Float[Tensor, "t 3 3"] | None,
    w2c: Float[Tensor, "t 4 4"] | None = None,
    moving: Bool[Tensor, "t h w"] | None = None,
    *,
    speeds: Float[Tensor, "t"] | None = None,
    timestamps: Float[Tensor, "t"] | None = None,
    flows: Mapping[tuple[int, int], Float[Tensor, "h w 2"]] | None = None,
    size: Size | None = None,
    name: str = "clip",
) -> DepthSequence:
    """The sequence of these frames; images are kept as 8-bit, at ``size``.

    Args:
        frames: RGB in [0, 1].
        K: intrinsics in pixels of ``frames``.
        w2c: world to camera.
        moving: pixels of objects that move by themselves.
        speeds, timestamps: metres per second and seconds.
        flows: optical flow in pixels of ``frames`` by (from, to).
        size: (height, width) at which images are given out; None is their own.
    """
    pictures = (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    stored = pictures.shape[1:3]
    records = []
    for t, picture in enumerate(pictures):
        record = FrameRecord(f"{t:05d}", partial(_same, picture), f"frame {t}", stored)
        record.K = None if K is None else K[t].double().cpu().numpy()
        record.w2c = None if w2c is None else w2c[t].double().cpu().numpy()
        record.moving = None if moving is None else partial(_same, moving[t].cpu().numpy())
        record.speed = None if speeds is None else float(speeds[t])
        record.timestamp = None if timestamps is None else float(timestamps[t])
        if flows is not None:
            record.time, record.flow = t, partial(_flow_of, flows, t)
        records.append(record)
    return DepthSequence(Recording(name, "memory", records), size=size, cache_images=True)


def _flow_of(flows: Mapping[tuple[int, int], Tensor], source: int, target: int) -> tuple[np.ndarray, None] | None:
    found = flows.get((source, target))
    return None if found is None else (found.float().cpu().numpy(), None)


def _same(values: np.ndarray) -> np.ndarray:
    return values
