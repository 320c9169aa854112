"""Evidence and decisions of other frames, carried to a frame along the flow."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from som.preprocessing.masks.evidence import CheckedFlow
from som.preprocessing.masks.residuals import centers

AVERAGED_STRIDES = (1, 2)
"""Scores are averaged with those of the frames at these distances; further ones blur outlines."""


def carry(field: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """(H,W) float32 ``field`` of another frame, read where the flow (H,W,2) to it leads."""
    where = centers(*flow.shape[:2]) + flow - 0.5  # cv2.remap puts pixel centres at integers
    return cv2.remap(
        field.astype(np.float32), where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def average_scores(checked: CheckedFlow, scores: np.ndarray, tick: Callable[[], None]) -> np.ndarray:
    """Mean of each frame's scores (T,H,W) px with those of its neighbours in time where flow can be trusted.

    The mean is that of log2(1 + score), so that one wild residual does not outweigh the others. Unknown scores (nan)
    are left out; where nothing is known, the result is nan.
    """
    known = np.isfinite(scores)
    logs = np.where(known, np.log2(1 + np.where(known, scores, 0)), 0).astype(np.float32)
    averaged = np.empty_like(logs)
    for t in range(len(scores)):
        total, weight = logs[t].copy(), known[t].astype(np.float32)
        for s in checked.targets(t, AVERAGED_STRIDES):
            flow, trusted = checked.get(t, s), checked.consistent[t, s]
            total += carry(logs[s], flow) * trusted
            weight += carry(known[s], flow) * trusted
        averaged[t] = 2 ** (total / np.maximum(weight, 1e-6)) - 1
        averaged[t][weight <= 1e-3] = np.nan
        tick()
    return averaged


def vote(checked: CheckedFlow, masks: np.ndarray, keep: float, drop: float, tick: Callable[[], None]) -> np.ndarray:
    """Masks (T,H,W) bool after a vote of all frames that trusted flow links a pixel to.

    First, pixels go of which at most a share of ``drop`` of the frames says that they move. Then two sweeps, forward
    and backward in time, add those of which at least a share of ``keep`` of the frames already swept says so. What a
    sweep has added votes in the next frame, so that an object stays foreground however long it stops, as long as flow
    can follow it. Fewer than two frames have no vote.
    """
    T, strides = len(masks), sorted({abs(b - a) for a, b in checked.consistent})
    voted = masks.copy()
    for t in range(T):
        share, votes = _share(checked, masks, t, checked.targets(t, strides))
        voted[t] &= (share > drop) | (votes < 2)
        tick()
    for order, sign in ((range(T), -1), (reversed(range(T)), 1)):
        for t in order:
            swept = [s for s in checked.targets(t, strides) if (s - t) * sign > 0]
            share, votes = _share(checked, voted, t, swept)
            voted[t] |= (share >= keep) & (votes >= 2)
            tick()
    return voted


def _share(checked: CheckedFlow, masks: np.ndarray, t: int, voters: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(H,W) share of the ``voters`` linked to a pixel of frame t that call it moving, and (H,W) how many are linked."""
    total, votes = np.zeros(checked.size, np.float32), np.zeros(checked.size, np.float32)
    for s in voters:
        trusted = checked.consistent[t, s]
        total += carry(masks[s], checked.get(t, s)) * trusted
        votes += trusted
    return total / np.maximum(votes, 1), votes
