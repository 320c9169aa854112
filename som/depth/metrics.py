"""Scores of depth maps under named protocols: which pixels count, how scale is treated.

The KITTI protocol is Eigen et al.'s (NeurIPS 2014) with Garg et al.'s crop (ECCV 2016), as the self-supervised
literature since Zhou et al. (CVPR 2017) and Monodepth2 (ICCV 2019) computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from som.depth.errors import DepthError

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "silog", "mae")
"""Names of the errors, in the order of the literature's tables; the last two are additions."""
SCALES = ("none", "median", "sequence", "affine")
"""How a prediction's scale is treated, see ``depth_metrics`` and ``som.depth.evaluation``."""
GARG_ROWS = (0.40810811, 0.99189189)
GARG_COLUMNS = (0.03594771, 0.96405229)

Missing = Literal["raise", "skip"]


@dataclass(frozen=True)
class Protocol:
    """Which pixels are scored, and the range that a prediction is clipped to."""

    min_depth: float
    """True depths above this count."""
    max_depth: float
    """True depths below this count."""
    clip: tuple[float, float]
    """Range of the prediction, applied after scaling."""
    garg_crop: bool = False
    """Only the part of a driving image that the laser scanner covers."""


PROTOCOLS: dict[str, Protocol] = {
    "eigen": Protocol(1e-3, 80.0, (1e-3, 80.0), garg_crop=True),
    "eigen_improved": Protocol(0.0, math.inf, (1e-3, 80.0)),
    "rgbd": Protocol(0.1, 10.0, (0.1, 10.0)),
    "plain": Protocol(0.0, math.inf, (1e-6, math.inf)),
}
"""``eigen``: KITTI, projected scans. ``eigen_improved``: KITTI's accumulated ground truth, no crop. ``rgbd``: indoor
sensors. ``plain``: generated scenes in any unit, all known pixels."""


def garg_crop(height: int, width: int) -> tuple[int, int, int, int]:
    """Rows [top, bottom) and columns [left, right) of Garg et al.'s crop, as (top, bottom, left, right)."""
    top, bottom = (int(height * share) for share in GARG_ROWS)
    left, right = (int(width * share) for share in GARG_COLUMNS)
    return top, bottom, left, right


def resize_by_disparity(depth: Float[Tensor, "*b h w"], height: int, width: int) -> Float[Tensor, "*b H W"]:
    """Depth at another size: disparity is interpolated bilinearly (half-pixel centres, no smoothing) and inverted.

    Unknown depth (0 or not finite) spreads to every pixel that would draw on it, and is 0 in the result.
    """
    if depth.shape[-2:] == (height, width):
        return torch.where(depth.isfinite() & (depth > 0), depth, torch.zeros_like(depth))
    known = depth.isfinite() & (depth > 0)
    disparity = torch.where(known, 1 / torch.where(known, depth, torch.ones_like(depth)), torch.zeros_like(depth))
    flat = torch.stack([disparity, known.to(depth.dtype)]).reshape(1, -1, *depth.shape[-2:])
    resized = F.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
    disparity, share = resized.reshape(2, *depth.shape[:-2], height, width)
    complete = share > 1 - 1e-4
    return torch.where(complete, 1 / torch.where(complete, disparity, torch.ones_like(share)), torch.zeros_like(share))


def average_flipped(
    disparity: Float[Tensor, "*b h w"], disparity_of_flipped: Float[Tensor, "*b h w"]
) -> Float[Tensor, "*b h w"]:
    """Combines disparity from an image and from its mirror image (Godard et al. 2017, post-processing).

    Both are averaged, except that towards the left border, over ramps between 5 % and 10 % of the width, the mirrored
    prediction takes over, and towards the right border the plain one: each where its own view has context.

    Args:
        disparity: predicted from the image.
        disparity_of_flipped: predicted from the mirrored image, as the network gave it (still mirrored).

    Raises:
        ValueError: the shapes differ.
    """
    if disparity.shape != disparity_of_flipped.shape:
        shapes = f"{tuple(disparity.shape)} and {tuple(disparity_of_flipped.shape)}"
        raise ValueError(f"average_flipped: both disparities must have one shape, got {shapes}.")
    back = disparity_of_flipped.flip(-1)
    position = torch.linspace(0, 1, disparity.shape[-1], dtype=disparity.dtype, device=disparity.device)
    left = 1 - (20 * (position - 0.05)).clamp(0, 1)
    right = left.flip(0)
    return right * disparity + left * back + (1 - left - right) * (disparity + back) / 2


def depth_metrics(
    pred: Float[Tensor | np.ndarray, "h w"],
    target: Float[Tensor | np.ndarray, "H W"],
    valid: Bool[Tensor | np.ndarray, "H W"] | None = None,
    *,
    protocol: str | Protocol = "eigen",
    scale: str | float = "median",
    missing: Missing = "raise",
) -> dict[str, float]:
    """Errors of one depth map.

    Order of operations: the prediction is resized to the truth's size (``resize_by_disparity``), pixels are chosen,
    the prediction is scaled, then clipped, then compared.

    Args:
        pred: predicted z-depth at any size; 0 or not finite = nothing predicted.
        target: true z-depth; 0 = unknown.
        valid: pixels of the truth that may count, beside the protocol's own choice.
        protocol: a name in ``PROTOCOLS``, or a ``Protocol``.
        scale: ``none``: the prediction is metric. ``median``: it is multiplied by median(target) / median(pred).
            ``affine``: its disparity is fitted to the true disparity by a scale and a shift (least squares), for
            relative priors. A number: it is multiplied by this.
        missing: what to do if pixels to be scored have no prediction: ``raise``, or ``skip`` them (``coverage`` says
            how many are left).

    Returns:
        ``abs_rel`` = mean |d| / g with d = pred - target and g = target; ``sq_rel`` = mean d^2 / g; ``rmse``;
        ``rmse_log`` (natural logarithm); ``a1``, ``a2``, ``a3``: share with max(pred / g, g / pred) < 1.25^k;
        ``silog`` = 100 std(log pred - log g); ``mae`` = mean |d|; then ``ratio`` = median(target) / median(pred) before
        any scaling, ``coverage`` in [0, 1], ``pixels``. ``rmse`` and ``mae`` are in the truth's unit.

    Raises:
        DepthError: an unknown protocol or scale, no pixel to score, or pixels without prediction.
        ValueError: the maps are not (H,W), or ``valid`` has another shape than ``target``.
    """
    rules = named_protocol(protocol)
    if scale == "sequence":
        raise DepthError('scale "sequence" needs all images of the sequence; use DepthEvaluation.')
    check_scale(scale)
    pixels = scored_pixels(pred, target, valid, rules, missing)
    if len(pixels.target) == 0:
        raise DepthError("no pixel has both a true depth that this protocol scores and a prediction; nothing to score.")
    return score_pixels(pixels, rules, scale)


@dataclass
class ScoredPixels:
    """Predicted and true depth of the pixels of one image that are scored."""

    pred: Float[np.ndarray, "n"]
    """Before any scaling."""
    target: Float[np.ndarray, "n"]
    chosen: int
    """Number of pixels that the protocol chose, with or without a prediction."""
    name: str = ""

    @property
    def coverage(self) -> float:
        """Share of the chosen pixels that have a prediction."""
        return len(self.target) / self.chosen if self.chosen else 0.0

    @property
    def ratio(self) -> float:
        """median(target) / median(pred)."""
        return float(np.median(self.target) / np.median(self.pred))


def named_protocol(protocol: str | Protocol) -> Protocol:
    """The protocol of that name. Raises DepthError if there is none."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise DepthError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[protocol]


def check_scale(scale: str | float) -> None:
    """Raises DepthError unless it is one of ``SCALES`` or a positive number."""
    is_positive = isinstance(scale, (int, float)) and not isinstance(scale, bool) and 0 < scale < math.inf
    if not (is_positive or scale in SCALES):
        raise DepthError(f"scale must be one of {', '.join(SCALES)} or a positive number, got {scale!r}.")


def scored_pixels(
    pred: Float[Tensor | np.ndarray, "h w"],
    target: Float[Tensor | np.ndarray, "H W"],
    valid: Bool[Tensor | np.ndarray, "H W"] | None,
    rules: Protocol,
    missing: Missing,
) -> ScoredPixels:
    """Resizes the prediction and picks the pixels to score; arguments and errors as for ``depth_metrics``."""
    pred, target = (torch.as_tensor(depth).detach().cpu() for depth in (pred, target))
    if pred.ndim != 2 or target.ndim != 2:
        raise ValueError(f"depth maps must be (H,W), got {tuple(pred.shape)} and {tuple(target.shape)}.")
    height, width = target.shape
    counted = target.isfinite() & (target > rules.min_depth) & (target < rules.max_depth)
    if valid is not None:
        valid = torch.as_tensor(valid).cpu()
        if valid.shape != target.shape:
            raise ValueError(f"valid {tuple(valid.shape)} and the truth {tuple(target.shape)} differ in shape.")
        counted &= valid.bool()
    if rules.garg_crop:
        top, bottom, left, right = garg_crop(height, width)
        inside = torch.zeros_like(counted)
        inside[top:bottom, left:right] = True
        counted &= inside
    # float32, as predictions and ground truth are stored; sums are taken in float64 by the errors
    resized = resize_by_disparity(pred.float(), height, width)
    predicted = resized > 0
    kept = counted & predicted
    chosen, scored = int(counted.sum()), int(kept.sum())
    if scored < chosen and missing == "raise":
        raise DepthError(
            f'{chosen - scored} of {chosen} pixels to be scored have no predicted depth; pass missing="skip" to score '
            "the others and read the coverage."
        )
    return ScoredPixels(resized[kept].numpy(), target[kept].float().numpy(), chosen)


def score_pixels(pixels: ScoredPixels, rules: Protocol, scale: str | float) -> dict[str, float]:
    """Scales, clips and compares; see ``depth_metrics``."""
    pred, target = pixels.pred.astype(np.float64), pixels.target.astype(np.float64)
    if scale == "affine":
        pred = _fit_disparity(pred, target, rules)
    elif scale == "median":
        pred = pred * pixels.ratio
    elif scale != "none":
        pred = pred * float(scale)
    errors = _errors(pred.clip(*rules.clip), target)
    return {**errors, "ratio": pixels.ratio, "coverage": pixels.coverage, "pixels": len(target)}


def _fit_disparity(pred: np.ndarray, target: np.ndarray, rules: Protocol) -> np.ndarray:
    """Depth whose disparity is the least-squares fit s/pred + t to 1/target (Ranftl et al. 2020, section 5).

    Fitted disparity at or below that of the farthest depth that the protocol knows becomes that depth.
    """
    a, b = 1 / pred, 1 / target
    spread = a - a.mean()
    variance = float((spread**2).mean())
    flat = variance <= (1e-6 * float(a.mean())) ** 2
    slope = 0.0 if flat else float((spread * b).mean()) / variance
    farthest = rules.clip[1] if math.isfinite(rules.clip[1]) else float(target.max())
    return 1 / np.maximum(b.mean() + slope * spread, 1 / farthest)


def _errors(pred: np.ndarray, target: np.ndarray) -> dict[str, float]:
    difference = pred - target
    log_difference = np.log(pred) - np.log(target)
    worse = np.maximum(pred / target, target / pred)
    return {
        "abs_rel": float(np.mean(np.abs(difference) / target)),
        "sq_rel": float(np.mean(difference**2 / target)),
        "rmse": float(np.sqrt(np.mean(difference**2))),
        "rmse_log": float(np.sqrt(np.mean(log_difference**2))),
        **{f"a{k}": float(np.mean(worse < 1.25**k)) for k in (1, 2, 3)},
        "silog": 100 * float(np.std(log_difference)),
        "mae": float(np.mean(np.abs(difference))),
    }
