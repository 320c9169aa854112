"""Masks of what moves by itself in a video, from its flow and, where known, its cameras."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from flow.progress import Progress
from flow.video_flow import VideoFlow
from som.errors import UserError
from som.preprocessing.masks import shapes
from som.preprocessing.masks.evidence import (
    Cameras,
    CheckedFlow,
    combine,
    explained_share,
    homography_evidence,
    rigid_evidence,
    static_evidence,
)
from som.preprocessing.masks.options import MaskOptions, MaskWarningOptions
from som.preprocessing.masks.temporal import AVERAGED_STRIDES, average_scores, vote

Method = Literal["auto", "homography", "multi_view", "none"]
MAX_LOG2_SCORE = 6.0
"""Otsu's histogram covers log2(1 + score) from 0 to this, 63 px."""
NUM_PASSES = 7
"""Passes over the frames, of equal weight in the progress."""


@dataclass
class MaskEstimate:
    """What moves by itself, and how it was found."""

    foreground: Bool[Tensor, "T H W"]
    """At the size of the images: True where something moves."""
    score: Float[Tensor, "T h w"]
    """px at the size of the flow fields: how far the flow is from that of a static scene, averaged over time."""
    method: str
    """``static_camera``, ``homography``, ``multi_view``, ``homography+multi_view`` or ``none``."""
    findings: dict = field(default_factory=dict)
    """Numbers for the record; plain JSON."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that the user can act on."""


def estimate_masks(
    flow: VideoFlow,
    frames: UInt8[Tensor, "T H W 3"] | UInt8[np.ndarray, "T H W 3"],
    *,
    K: Float[Tensor | np.ndarray, "3 3"] | None = None,
    w2c: Float[Tensor | np.ndarray, "T 4 4"] | None = None,
    registered: Bool[Tensor | np.ndarray, "T"] | None = None,
    depth: Float[Tensor | np.ndarray, "T _ _"] | None = None,
    method: Method = "auto",
    options: MaskOptions | None = None,
    progress: Progress | None = None,
) -> MaskEstimate:
    """Finds what moves by itself.

    1. Residuals of the flow, over several distances in time and only where it is consistent forward and backward:
       to zero motion, to a homography (MAGSAC++) and, with cameras, to the best static point at any depth. The
       weighted geometric mean of the latter two is the score (``combine``).
    2. Scores are averaged along the flow; one threshold for the clip splits log2(1 + score) (Otsu, IEEE SMC 1979).
    3. Morphology, votes along the flow over all distances in time, and outlines from the colours (GrabCut).

    Masks are generous on purpose, moving shadows included: see ``MaskOptions.grow_px``.

    Args:
        flow: fields of both directions, at distances 1, 2, 4 and more.
        frames: the images, uint8 RGB.
        K: intrinsics in pixels of the images; with ``w2c`` the multi-view residual can be used.
        w2c: world-to-camera poses, OpenCV axes.
        registered: frames whose pose is known; by default all.
        depth: z in units of ``w2c`` at any size, 0 = unknown; narrows the depths at which a static point may lie.
        method: ``homography``: what does not follow the homography of most of the picture moves. ``multi_view``: what
            no static point at any depth explains under the cameras. auto: both together once there are cameras that
            fit, and plain flow where the camera stands still. ``none``: nothing moves.
        options: how; by default ``MaskOptions()``.
        progress: called with the share of the steps that is done.

    Raises:
        UserError: sizes do not fit, or ``multi_view`` without cameras.
    """
    options = options or MaskOptions()
    start = time.perf_counter()
    frames = np.asarray(frames)
    _check_input(flow, frames, K, w2c, registered, depth)
    if method == "multi_view" and w2c is None:
        raise UserError("`masks.provider` multi-view needs cameras; choose auto or homography, or give cameras.")
    if method == "none":
        empty = torch.zeros(frames.shape[:3], dtype=torch.bool)
        score = torch.zeros(flow.num_frames, flow.height, flow.width)
        return MaskEstimate(empty, score, "none", {"method": "none"})

    tick = _Ticker(progress, NUM_PASSES * flow.num_frames)
    checked = CheckedFlow.of(flow, frames, tick)
    cameras = None if w2c is None else _cameras(flow, K, w2c, registered, depth)
    scores, evidence, findings, warnings = _score(checked, cameras, method, options, tick)
    scores = average_scores(checked, scores, tick)
    unknown = np.isnan(scores)
    scores[unknown] = 0  # no evidence of motion
    threshold, split = _threshold(scores, options)
    masks = np.stack([shapes.clean(score > threshold, options) for score in scores])
    masks = vote(checked, masks, options.keep_vote, options.drop_vote, tick)
    doubtful = unknown | (scores > threshold / 2)
    foreground = np.stack([_finish(masks[t], doubtful[t], frames[t], options, tick) for t in range(len(masks))])

    findings |= {"method": evidence, "threshold_px": threshold, "otsu_px": split}
    findings |= _describe(checked, foreground)
    findings["seconds"] = round(time.perf_counter() - start, 2)
    warnings += _warnings(findings, options.warn)
    return MaskEstimate(torch.from_numpy(foreground), torch.from_numpy(scores), evidence, findings, warnings)


class _Ticker:
    """Counts steps for ``progress``."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress("masks", self.done / max(self.total, 1))


def _check_input(flow, frames, K, w2c, registered, depth) -> None:
    T = flow.num_frames
    expected = (T, flow.image_height, flow.image_width, 3)
    if frames.shape != expected or frames.dtype != np.uint8:
        raise UserError(
            f"frames: uint8 {expected} are expected, as the flow is for; got {frames.dtype} {frames.shape}."
        )
    if (K is None) != (w2c is None):
        raise UserError("cameras: K and w2c are expected together; give both or none.")
    shapes_of = {"K": (K, (3, 3)), "w2c": (w2c, (T, 4, 4)), "registered": (registered, (T,))}
    for name, (value, shape) in shapes_of.items():
        if value is not None and tuple(value.shape) != shape:
            raise UserError(f"{name}: the shape {shape} is expected for {T} frames, got {tuple(value.shape)}.")
    if depth is not None and (depth.ndim != 3 or len(depth) != T):
        raise UserError(f"depth: the shape ({T}, height, width) is expected, got {tuple(depth.shape)}.")


def _cameras(flow: VideoFlow, K, w2c, registered, depth) -> Cameras:
    """Cameras and depth at the size of the flow fields."""
    scale = np.array([flow.width / flow.image_width, flow.height / flow.image_height, 1])
    known = np.ones(flow.num_frames, bool) if registered is None else np.asarray(registered, bool)
    # poses of other frames are never used, but inverted with the rest
    poses = np.where(known[:, None, None], np.asarray(w2c, np.float64), np.eye(4))
    if depth is not None:
        size = (flow.width, flow.height)
        depth = np.stack([cv2.resize(np.asarray(z, np.float32), size, interpolation=cv2.INTER_NEAREST) for z in depth])
    return Cameras(np.asarray(K, np.float64) * scale[:, None], poses, known, depth)


def _score(
    checked: CheckedFlow, cameras: Cameras | None, method: Method, options: MaskOptions, tick: Callable[[], None]
) -> tuple[np.ndarray, str, dict, list[str]]:
    """(T,H,W) px residuals, nan where unknown, with what it was found by, findings and warnings."""
    T = checked.flow.num_frames
    findings: dict[str, Any] = {}
    warnings: list[str] = []
    if method != "homography" and _stands_still(checked, cameras, options, findings):
        still = []
        for t in range(T):
            still.append(static_evidence(checked, t, options.homography_strides))
            tick()
        return np.stack(still), "static_camera", findings, warnings

    by_homography, by_cameras, shares = [], [], []
    for t in range(T):
        evidence, share = homography_evidence(checked, t, options)
        by_homography.append(evidence)
        shares += share
        if cameras is not None and method != "homography":
            by_cameras.append(rigid_evidence(checked, t, cameras, options))
        tick()
    planar = np.stack(by_homography)
    findings["homography_inliers"] = _summary(shares)
    if not by_cameras:
        return planar, "homography", findings, warnings
    rigid = np.stack(by_cameras)
    known = rigid[np.isfinite(rigid)]
    findings["camera_residual_px"] = float(np.median(known)) if len(known) else None
    if method == "multi_view":
        return rigid, "multi_view", findings, warnings
    explained = {name: explained_share(r, options.inlier_px) for name, r in (("plane", planar), ("cameras", rigid))}
    findings["explained_share"] = {name: round(share, 4) for name, share in explained.items()}
    if explained["cameras"] < options.warn.min_explained_ratio * explained["plane"]:
        warnings.append(
            f"The cameras explain {explained['cameras']:.0%} of the flow within {options.inlier_px:g} px, a homography "
            f"{explained['plane']:.0%}: they are probably wrong; check them in the report, or give better ones with "
            "`cameras.given`."
        )
    scores, findings["multi_view_weight"] = combine(planar, rigid, options.inlier_px)
    # A frame without a pose lives on what the flow carries from its neighbours, or else on the homography.
    posed = np.isfinite(rigid).any((1, 2))
    near = np.convolve(posed, np.ones(2 * max(AVERAGED_STRIDES) + 1), "same") > 0
    scores[~posed & near] = np.nan
    scores[~near] = planar[~near]
    return scores, "homography+multi_view", findings, warnings


def _stands_still(checked: CheckedFlow, cameras: Cameras | None, options: MaskOptions, findings: dict) -> bool:
    """Whether the camera does not move: by its poses, or by the flow where they are unknown."""
    if cameras is not None:
        return cameras.stands_still
    length = checked.median_length()
    findings["median_flow_px"] = length if math.isfinite(length) else None
    return length < options.static_camera_px


def _threshold(scores: np.ndarray, options: MaskOptions) -> tuple[float, float]:
    """Residual in px from which pixels move, and the same before it is kept within the options' bounds."""
    logs = np.log2(1 + scores)
    levels = np.clip(logs / MAX_LOG2_SCORE * 255, 0, 255).astype(np.uint8).reshape(-1, 1)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    split = 2 ** (level / 255 * MAX_LOG2_SCORE) - 1
    return float(np.clip(split, options.min_threshold_px, options.max_threshold_px)), float(split)


def _finish(
    mask: np.ndarray, doubtful: np.ndarray, image: np.ndarray, options: MaskOptions, tick: Callable[[], None]
) -> np.ndarray:
    """(H,W) bool at the image's size."""
    mask = shapes.clean(mask, options)
    if options.grabcut:
        small = cv2.resize(image, mask.shape[::-1], interpolation=cv2.INTER_AREA)
        mask = shapes.clean(shapes.fit_outline(small, mask, doubtful, options), options)
    mask = shapes.dilate(mask, shapes.scaled(options.grow_px, mask)) if options.grow_px else mask
    tick()
    return shapes.enlarge(mask, *image.shape[:2])


def _summary(values) -> dict[str, float]:
    values = np.asarray(values, np.float64)
    if not len(values):
        return {}
    return {name: round(float(f(values)), 4) for name, f in (("min", np.min), ("median", np.median), ("max", np.max))}


def _describe(checked: CheckedFlow, foreground: np.ndarray) -> dict:
    """Findings about the flow and the masks."""
    areas = foreground.reshape(len(foreground), -1).mean(1)
    regions = [cv2.connectedComponents(mask.astype(np.uint8))[0] - 1 for mask in foreground]
    trusted = [mask.mean() for (a, b), mask in checked.consistent.items() if abs(a - b) == 1]
    changes = np.abs(np.diff(areas)) / np.maximum(np.maximum(areas[1:], areas[:-1]), 1e-9)
    return {
        "moving_share": _summary(areas),
        "regions": _summary(regions),
        "area_change": _summary(changes),
        "trusted_flow": round(float(np.mean(trusted)), 4) if trusted else 0.0,
    }


def _warnings(findings: dict, options: MaskWarningOptions) -> list[str]:
    found, moving = [], findings["moving_share"]["median"]
    if findings["trusted_flow"] < options.min_trusted_flow:
        found.append(
            f"Only {findings['trusted_flow']:.0%} of the flow between neighbouring frames is consistent, so the masks "
            "are guesses; use a higher frame rate or sharper frames, or give masks with `masks.given`."
        )
    if findings["moving_share"]["max"] < options.min_moving:
        found.append(
            "Nothing that moves by itself was found; if something does, give masks with `masks.given` or lower "
            "`masks.min_threshold_px`."
        )
    elif moving > options.max_moving:
        found.append(
            f"{moving:.0%} of the picture seems to move by itself, more than a static background can be separated "
            "from; check the masks and give better ones with `masks.given`."
        )
    if findings["area_change"].get("median", 0) > options.max_area_change:
        found.append(
            "The masks change by more than half from one frame to the next; look at them in the report and give better "
            "ones with `masks.given`."
        )
    return found
