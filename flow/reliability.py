"""Which pixels of a frame may be compared with where optical flow leads them in another frame.

Flow errs where a surface is hidden or leaves the image, where there is nothing to match (low texture), where one of the
frames is blurred, and at isolated wrong vectors; monocular depth errs far away. Each of these has a rule, which can be
switched off. The default thresholds were chosen on rendered video with exact flow (``benchmarks/pairs.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flow.consistency import check_consistency
from flow.errors import FlowError
from flow.sampling import pixel_centers, sample

MIN_RELIABLE_WEIGHT = 1 / 255
"""A reliable pixel never has less weight than this, so that "weight > 0" and "reliable" are the same."""
_LUMA = (0.299, 0.587, 0.114)  # Rec. 601
_SHARPNESS_FLOOR = 1.0  # grey levels: gradients that noise alone makes do not count as a change of sharpness


@dataclass(frozen=True)
class ReliabilityRules:
    """What makes a pixel unreliable. None (or False) switches a rule off; sizes are in pixels of the flow field."""

    consistency: bool = True
    """Remove pixels that leave the image, and those that the flow back does not bring home: occluded, or wrong."""
    alpha: float = 0.01
    """Of the forward-backward check: share of the squared flow that the squared error may have."""
    beta: float = 0.5
    """Of the forward-backward check: squared error in px² that is always allowed."""
    min_confidence: float | None = 0.5
    """Least ``Consistency.confidence``; 0.5 allows a forward-backward error of 0.5 px, however fast the motion."""
    min_texture: float | None = 1.0
    """Least root mean square image gradient in the window, in grey levels (of 255) per pixel."""
    min_sharpness_ratio: float | None = 0.5
    """Least ratio of the gradients around the pixel and around its target, whichever is less; blur lowers it."""
    max_deviation: float | None = 0.3
    """Most px between the flow and its median nearby. Finds isolated vectors and keeps straight motion boundaries."""
    max_appearance_error: float | None = 12.0
    """Most difference in grey level between the surroundings of the pixel and of its target, brightness aside."""
    far_quantile: float | None = 0.95
    """Where depth is given: keep this share of the known depths, the nearest, and their ties. Below 1, the very
    greatest depth goes whatever its share, because that is where depth was clamped (sky)."""
    window: int = 7
    """Side of the square in which texture, sharpness and appearance are averaged; odd."""
    weigh_by_confidence: bool = True
    """Weight of a reliable pixel: its ``Consistency.confidence``; 1 where False."""

    def __post_init__(self):
        if self.window < 1 or self.window % 2 == 0:
            raise FlowError(f"window must be an odd number of pixels, got {self.window}.")
        for name in ("min_confidence", "min_sharpness_ratio", "far_quantile"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise FlowError(f"{name} must lie in [0, 1] or be None, got {value}.")

    @staticmethod
    def none() -> ReliabilityRules:
        """All rules off: every pixel with finite flow passes with weight 1."""
        return ReliabilityRules(
            consistency=False, min_confidence=None, min_texture=None, min_sharpness_ratio=None, max_deviation=None,
            max_appearance_error=None, far_quantile=None, weigh_by_confidence=False,
        )  # fmt: skip


class RuleCount(NamedTuple):
    """How many pixels a rule removes."""

    removed: int
    """Pixels that fail this rule, whatever the other rules say."""
    alone: int
    """Pixels that fail this rule and no other: they would come back if it were switched off."""
    total: int
    """Pixels that were judged."""


@dataclass(frozen=True)
class Reliability:
    """Which pixels of a frame can be trusted, all of shape (H,W) or (B,H,W)."""

    mask: Tensor
    """bool: no rule objects."""
    weight: Tensor
    """float32 in [0, 1]: > 0 exactly where ``mask``."""
    failed: dict[str, Tensor]
    """bool per rule that was applied, in the order in which they are written: True where the rule objects.

    Names: ``finite`` (always applied), ``leaves``, ``occluded``, ``confidence``, ``texture``, ``sharpness``,
    ``deviation``, ``appearance``, ``valid``, ``far``."""

    @property
    def counts(self) -> dict[str, RuleCount]:
        """Pixels that each rule removes, over the whole batch. Reads from the device: for reports, not for loops."""
        objections = sum(failed.int() for failed in self.failed.values())
        return {
            name: RuleCount(int(failed.sum()), int((failed & (objections == 1)).sum()), failed.numel())
            for name, failed in self.failed.items()
        }


@torch.no_grad()
def reliable_pixels(
    forward: Tensor,
    backward: Tensor,
    image0: Tensor,
    image1: Tensor,
    *,
    rules: ReliabilityRules | None = None,
    valid0: Tensor | None = None,
    valid1: Tensor | None = None,
    depth0: Tensor | None = None,
) -> Reliability:
    """Judges every pixel of frame 0 by the flow that leads it to frame 1.

    Args:
        forward: flow from frame 0 to 1, (H,W,2) or (B,H,W,2), pixels.
        backward: flow from frame 1 to 0, the same shape.
        image0, image1: the frames, (H,W,3) or (B,H,W,3), RGB, uint8, or floating point in [0, 1].
        rules: thresholds; the defaults where None.
        valid0, valid1: (H,W) or (B,H,W) bool: pixels of each frame that may be used. A target counts as valid if all
            pixels that it is interpolated from are.
        depth0: depth in frame 0, (H,W) or (B,H,W), larger is farther, in any unit; <= 0 or nan is unknown, inf is far.
            Disparity is to be inverted first; only the order matters.

    Raises:
        FlowError: shapes or types do not fit.
    """
    _check_shapes(forward, backward, image0, image1, valid0, valid1, depth0)
    if forward.ndim == 3:
        masks = {"valid0": valid0, "valid1": valid1, "depth0": depth0}
        given = {name: mask[None] for name, mask in masks.items() if mask is not None}
        result = reliable_pixels(forward[None], backward[None], image0[None], image1[None], rules=rules, **given)
        failed = {name: x[0] for name, x in result.failed.items()}
        return Reliability(result.mask[0], result.weight[0], failed)
    rules = rules or ReliabilityRules()
    finite = forward.isfinite().all(-1)
    forward = torch.where(finite[..., None], forward, torch.zeros_like(forward))
    target = pixel_centers(*forward.shape[1:3], device=forward.device) + forward
    check, _ = check_consistency(forward, backward, rules.alpha, rules.beta)

    failed = {"finite": ~finite}
    if rules.consistency:
        failed["leaves"] = finite & check.leaves
        failed["occluded"] = finite & ~check.leaves & ~check.consistent
    if rules.min_confidence is not None:
        failed["confidence"] = check.confidence < rules.min_confidence
    failed |= _judge_images(image0, image1, target, rules)
    if rules.max_deviation is not None:
        failed["deviation"] = (forward - _nearby_median(forward)).norm(dim=-1) > rules.max_deviation
    if valid0 is not None or valid1 is not None:
        failed["valid"] = torch.zeros_like(finite) if valid0 is None else ~valid0
        if valid1 is not None:
            failed["valid"] = failed["valid"] | (sample(valid1.float()[..., None], target)[..., 0] < 1 - 1e-4)
    if rules.far_quantile is not None and depth0 is not None:
        failed["far"] = _far(depth0, rules.far_quantile)

    mask = ~torch.stack(tuple(failed.values())).any(0)
    weight = (
        check.confidence.clamp(min=MIN_RELIABLE_WEIGHT) if rules.weigh_by_confidence else torch.ones_like(mask).float()
    )
    return Reliability(mask, weight.float() * mask, failed)


def _judge_images(image0: Tensor, image1: Tensor, target: Tensor, rules: ReliabilityRules) -> dict[str, Tensor]:
    """The rules that look at what is around a pixel and around where it goes."""
    failed: dict[str, Tensor] = {}
    compares = rules.min_sharpness_ratio is not None or rules.max_appearance_error is not None
    if rules.min_texture is None and not compares:
        return failed
    gray0, gray1 = _gray(image0), _gray(image1)
    texture0 = _gradient_energy(gray0, rules.window).sqrt()
    if rules.min_texture is not None:
        failed["texture"] = texture0 < rules.min_texture
    if not compares:
        return failed
    texture1 = _gradient_energy(gray1, rules.window).sqrt()
    texture1, warped = sample(torch.stack([texture1, gray1], -1), target).unbind(-1)
    if rules.min_sharpness_ratio is not None:
        least, most = torch.minimum(texture0, texture1), torch.maximum(texture0, texture1)
        ratio = (least + _SHARPNESS_FLOOR) / (most + _SHARPNESS_FLOOR)
        failed["sharpness"] = ratio < rules.min_sharpness_ratio
    if rules.max_appearance_error is not None:
        difference = warped - gray0
        difference = difference - _window_mean(difference, rules.window)  # a change of exposure is no error
        failed["appearance"] = _window_mean(difference.abs(), rules.window) > rules.max_appearance_error
    return failed


def _gray(images: Tensor) -> Tensor:
    """(B,H,W) luma in grey levels, 0 to 255."""
    scale = 1.0 if images.dtype == torch.uint8 else 255.0
    return images.float() @ (scale * torch.tensor(_LUMA, device=images.device))


def _window_mean(field: Tensor, window: int) -> Tensor:
    """(B,H,W) averaged over the window; at the border, over the part of it that lies in the image."""
    return F.avg_pool2d(field[:, None], window, 1, window // 2, count_include_pad=False)[:, 0]


def _gradient_energy(gray: Tensor, window: int) -> Tensor:
    """Mean squared gradient in the window, which is the trace of the structure tensor (Sobel, per pixel)."""
    padded = F.pad(gray[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    columns = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    dx, dy = (rows[..., 2:] - rows[..., :-2]) / 2, (columns[:, 2:] - columns[:, :-2]) / 2
    return _window_mean(dx.square() + dy.square(), window)


def _nearby_median(flow: Tensor) -> Tensor:
    """Separable median (Narendra, PAMI 1981) of 5 x 5 vectors that are 2 px apart, per channel; (B,H,W,2)."""
    for dim in (2, 1):
        n = flow.shape[dim]
        nearby = torch.arange(-4, n + 4, device=flow.device).clamp(0, n - 1)
        padded = flow.index_select(dim, nearby)
        flow = _median_of_five(*(padded.narrow(dim, offset, n) for offset in (0, 2, 4, 6, 8)))
    return flow


def _median_of_five(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
    low, high = torch.minimum, torch.maximum
    a, b, d, e = low(a, b), high(a, b), low(d, e), high(d, e)
    a, b = high(a, d), low(b, e)  # the least and the greatest of the four have two others on either side
    return high(low(a, b), low(high(a, b), c))


def _far(depth: Tensor, quantile: float) -> Tensor:
    """Unknown depth, and what lies beyond the nearest ``quantile`` of the known depths of each frame."""
    known = (depth > 0) & depth.isfinite()
    if quantile == 1:
        return ~known
    flat = torch.where(known, depth.float(), torch.inf).flatten(1)
    count = known.flatten(1).sum(1, keepdim=True)
    kept = (count.double() * quantile - 1e-6).ceil().long()
    ordered = flat.sort(1).values
    limit, greatest = (ordered.gather(1, rank.clamp(min=1) - 1)[..., None] for rank in (kept, count))
    return ~known | (depth > limit) | (depth == greatest)


def _check_shapes(forward, backward, image0, image1, valid0, valid1, depth0) -> None:
    if forward.ndim not in (3, 4) or forward.shape[-1] != 2:
        raise FlowError(f"forward must be flow of shape (H,W,2) or (B,H,W,2), got {tuple(forward.shape)}.")
    grid = forward.shape[:-1]
    named = (("backward", backward, 2), ("image0", image0, 3), ("image1", image1, 3))
    for name, tensor, channels in named:
        if tensor.shape != (*grid, channels):
            raise FlowError(f"{name} must have shape {(*grid, channels)} like the flow, got {tuple(tensor.shape)}.")
    for name, tensor in (("valid0", valid0), ("valid1", valid1), ("depth0", depth0)):
        if tensor is not None and tensor.shape != grid:
            raise FlowError(f"{name} must have shape {tuple(grid)} like the flow, got {tuple(tensor.shape)}.")
    for name, tensor in (("image0", image0), ("image1", image1)):
        if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
            raise FlowError(f"{name} must be uint8, or floating point in [0, 1], got {tensor.dtype}.")
    for name, tensor in (("valid0", valid0), ("valid1", valid1)):
        if tensor is not None and tensor.dtype != torch.bool:
            raise FlowError(f"{name} must be bool, got {tensor.dtype}.")
