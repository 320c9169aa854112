"""The evidence of motion in every frame: the flow's residuals to other frames, joined robustly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flow.consistency import check_consistency
from flow.video_flow import VideoFlow
from som.preprocessing.masks.options import MaskOptions
from som.preprocessing.masks.residuals import EdgeMetric, fit_homography, homography_residual, rigid_residual

MIN_DEPTH_RATIO = 0.05
"""Least depth of a static point, as a share of the extent of the camera's path."""
MIN_POSE_CHANGE = 1e-4
"""Poses that differ by less than this (radians; share of one length unit) are those of a camera that stands still."""
Pair = tuple[int, int]


@dataclass(frozen=True)
class CheckedFlow:
    """Flow fields of a video with the places where they can be trusted."""

    flow: VideoFlow
    images: list[np.ndarray]
    """T images (H,W,3) uint8 RGB at the size of the fields."""
    consistent: dict[Pair, np.ndarray]
    """(H,W) bool for every pair whose opposite is there too: forward and backward flow agree."""

    @classmethod
    def of(cls, flow: VideoFlow, frames: np.ndarray, tick: Callable[[], None]) -> CheckedFlow:
        """Checks all pairs of a flow for ``frames`` (T,H',W',3) uint8; ``tick`` is called once for every frame."""
        size = flow.width, flow.height
        images = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
        consistent, pairs = {}, set(flow.pairs())
        for source in range(flow.num_frames):
            for target in range(source + 1, flow.num_frames):
                if (source, target) in pairs and (target, source) in pairs:
                    there, back = check_consistency(flow.get(source, target), flow.get(target, source))
                    consistent[source, target] = there.consistent.numpy()
                    consistent[target, source] = back.consistent.numpy()
            tick()
        return cls(flow, images, consistent)

    def metric(self, t: int) -> EdgeMetric:
        """How residuals of frame t are measured."""
        return EdgeMetric.of(self.images[t])

    @property
    def size(self) -> tuple[int, int]:
        """(H,W) of the fields."""
        return self.flow.height, self.flow.width

    def get(self, source: int, target: int) -> np.ndarray:
        """(H,W,2) float32 px."""
        return self.flow.get(source, target).numpy()

    def targets(self, source: int, strides: Sequence[int]) -> list[int]:
        """Frames at these distances from ``source``, before and after, to which there is checked flow."""
        reach = [source + sign * stride for stride in strides for sign in (1, -1)]
        return [target for target in reach if (source, target) in self.consistent]

    def median_length(self) -> float:
        """Median length in px of the trusted flow over the longest distance in time that is there; inf without any."""
        longest = max((abs(b - a) for a, b in self.consistent), default=0)
        lengths = [
            np.linalg.norm(self.get(a, b), axis=-1)[trusted]
            for (a, b), trusted in self.consistent.items()
            if abs(b - a) == longest
        ]
        joined = np.concatenate([np.zeros(0, np.float32), *lengths])
        return float(np.median(joined)) if len(joined) else float("inf")


def median_where(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(H,W) median over the first axis of ``values`` (S,H,W) where ``known``; nan where nothing is."""
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    count = known.sum(0)
    low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, len(values) - 1)
    middle = [np.take_along_axis(ordered, index[None], 0)[0] for index in (low, high)]
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, (middle[0] + middle[1]) / 2, np.nan).astype(np.float32)


def static_evidence(checked: CheckedFlow, t: int, strides: Sequence[int]) -> np.ndarray:
    """(H,W) px, nan where unknown: median length of the flow of frame t, for a camera that stands still."""
    targets = checked.targets(t, strides)
    return _joined(checked, t, targets, [checked.get(t, s) for s in targets])


def homography_evidence(checked: CheckedFlow, t: int, options: MaskOptions) -> tuple[np.ndarray, list[float]]:
    """(H,W) px, nan where unknown: median residual of frame t to a homography per pair; and their inlier shares."""
    targets, residuals, shares = [], [], []
    for s in checked.targets(t, options.homography_strides):
        flow = checked.get(t, s)
        H, share = fit_homography(flow, checked.consistent[t, s], options.inlier_px)
        if H is not None:
            targets.append(s)
            residuals.append(homography_residual(flow, H))
            shares.append(share)
    return _joined(checked, t, targets, residuals), shares


def _joined(checked: CheckedFlow, t: int, targets: list[int], residuals: list[np.ndarray]) -> np.ndarray:
    if not targets:
        return np.full(checked.size, np.nan, np.float32)
    metric = checked.metric(t)
    lengths = np.stack([metric.length(vectors) for vectors in residuals])
    return median_where(lengths, np.stack([checked.consistent[t, s] for s in targets]))


@dataclass(frozen=True)
class Cameras:
    """Cameras of a video at the size of its flow fields."""

    K: np.ndarray
    """(3,3) px of the fields, float64."""
    w2c: np.ndarray
    """(T,4,4) float64."""
    registered: np.ndarray
    """(T,) bool: the pose is known."""
    depth: np.ndarray | None
    """(T,H,W) z in units of ``w2c``, 0 where unknown, at the size of the fields; None without."""

    @property
    def extent(self) -> float:
        """Diagonal of the box around the camera's path."""
        positions = np.linalg.inv(self.w2c[self.registered])[:, :3, 3]
        return float(np.linalg.norm(positions.max(0) - positions.min(0))) if len(positions) else 0.0

    @property
    def stands_still(self) -> bool:
        """All poses are equal."""
        poses = self.w2c[self.registered]
        return bool(len(poses) and np.abs(poses - poses[0]).max() < MIN_POSE_CHANGE)

    def bounds(self, t: int, tolerance: float) -> tuple[np.ndarray | float, np.ndarray | float]:
        """Least and greatest depth of a static point, numbers or (H,W)."""
        nearest, farthest = max(MIN_DEPTH_RATIO * self.extent, 1e-6), np.inf
        if self.depth is None:
            return nearest, farthest
        depth = self.depth[t]
        known = depth > 0
        return np.where(known, depth * (1 - tolerance), nearest), np.where(known, depth * (1 + tolerance), farthest)


def rigid_evidence(checked: CheckedFlow, t: int, cameras: Cameras, options: MaskOptions) -> np.ndarray:
    """(H,W) px, nan where unknown: median disagreement of frame t's flow with the static point that fits it best.

    A pixel needs trusted flow to two frames, because one alone is always explained by some depth, but for the part
    across the epipolar line.
    """
    targets = [s for s in checked.targets(t, options.multi_view_strides) if cameras.registered[s]]
    if not cameras.registered[t] or len(targets) < 2:
        return np.full(checked.size, np.nan, np.float32)
    usable = np.stack([checked.consistent[t, s] for s in targets])
    residuals, _ = rigid_residual(
        np.stack([checked.get(t, s) for s in targets]),
        usable,
        cameras.K,
        cameras.w2c[targets] @ np.linalg.inv(cameras.w2c[t]),
        *cameras.bounds(t, options.depth_tolerance),
        checked.metric(t),
    )
    return np.where(usable.sum(0) >= 2, median_where(residuals, usable), np.nan)


def explained_share(residual: np.ndarray, inlier_px: float) -> float:
    """Share of the known (not nan) residuals that are at most ``inlier_px``; 0 where nothing is known."""
    known = residual[np.isfinite(residual)]
    return float((known <= inlier_px).mean()) if len(known) else 0.0


def combine(homography: np.ndarray, rigid: np.ndarray, inlier_px: float) -> tuple[np.ndarray, float]:
    """Joins both residuals (T,H,W) px into one score, and gives the weight of the rigid one, in [0, 1].

    Neither decides alone: parallax breaks the homography, wrong cameras and motion along epipolar lines mislead the
    rigid residual. A model that explains a share p of the picture is violated by a static pixel with probability
    1 - p, so that a violation speaks for motion with the weight -log(1 - p) (naive Bayes). The score is the geometric
    mean with these weights: the weighted sum of logarithms. A residual that is unknown (nan) says nothing, as
    one of 1 px does.
    """
    weights = [-np.log(1 - min(explained_share(r, inlier_px), 0.99)) for r in (homography, rigid)]
    share = float(weights[1] / max(sum(weights), 1e-9))
    score = np.nan_to_num(homography, nan=1) ** (1 - share) * np.nan_to_num(rigid, nan=1) ** share
    return np.where(np.isnan(homography) & np.isnan(rigid), np.nan, score), share
