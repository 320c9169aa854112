"""Recognises depth that is no result: flat, stuck at an end of its range, or got by gaming the masks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.learning.training.config import CollapseLimits

END_RANGE_SHARE = 0.01
"""Disparities within this share of the range of an end lie at that end."""

MIN_FRAME_DIFFERENCE = 0.01
"""Mean absolute difference of the frames, in [0, 1], from their mean above which they differ."""


class CollapseError(DepthError):
    """A depth result is flat or collapsed; the message says how, why that happens and what to do."""


def depth_variation(depth: Float[Tensor, "t h w"], valid: Bool[Tensor, "t h w"] | None = None) -> Float[Tensor, "t"]:
    """Spatial standard deviation of each map over its median, of known (> 0) pixels; nan where there are none."""
    known = depth > 0 if valid is None else (depth > 0) & valid
    values = torch.full((len(depth),), math.nan, dtype=torch.float64)
    for t, (z, mask) in enumerate(zip(depth, known, strict=True)):
        chosen = z[mask].double()
        if len(chosen) > 1:
            values[t] = chosen.std() / chosen.median()
    return values


def collapse_reason(
    depth: Float[Tensor, "t h w"],
    depth_range: tuple[float, float] | None,
    limits: CollapseLimits,
    poses_learned: bool = False,
) -> str | None:
    """Why depth maps are no result; None if they look like one.

    Args:
        depth: z-depth, 0 = unknown.
        depth_range: of the network that made them; None where there is no range.
        limits: see there.
        poses_learned: whether a pose network was trained too, which changes the advice.
    """
    known = depth > 0
    if not bool(depth.isfinite().all()):
        return "depth is not finite: training diverged; lower the learning rate"
    if not bool(known.any()):
        return "no pixel has a depth"
    if depth_range is not None:
        reason = _at_end(depth[known], depth_range, limits, poses_learned)
        if reason is not None:
            return reason
    spread = float(depth_variation(depth).nanmedian())
    if spread >= limits.min_depth_variation:
        return None
    advice = (
        "a pose network that starts from nothing needs a long run; give camera poses if there are any"
        if poses_learned
        else "the camera may stand still or only turn, the poses may be wrong, or the run was too short"
    )
    return (
        f"depth is flat: its spatial deviation is {100 * spread:.1f} % of its median "
        f"(limit {100 * limits.min_depth_variation:g} %): {advice}"
    )


def ramp_share(depth: Float[Tensor, "t h w"], degree: int = 3) -> float:
    """Share of the variance of log depth that one smooth ramp, common to all frames, explains; in [0, 1].

    The ramp is sum_k a_k x^k + b_k y^k, k = 1 ... ``degree``, over columns x and rows y, fitted to all maps at once by
    least squares; the mean of every map is taken out, so that their scales may differ. 0 = unknown does not count; nan
    where depth has no variance.
    """
    H, W = depth.shape[1:]
    x = torch.linspace(-1, 1, W, dtype=torch.float64, device=depth.device).expand(H, W)
    y = torch.linspace(-1, 1, H, dtype=torch.float64, device=depth.device)[:, None].expand(H, W)
    terms = torch.stack([axis**k for axis in (x, y) for k in range(1, degree + 1)], dim=-1).flatten(0, 1)
    gram, moment = terms.new_zeros(2 * degree, 2 * degree), terms.new_zeros(2 * degree)
    total = 0.0
    for z in depth.flatten(1):
        known = z > 0
        if int(known.sum()) > 1:
            value, basis = z[known].double().log(), terms[known]
            value, basis = value - value.mean(), basis - basis.mean(0)
            gram, moment = gram + basis.T @ basis, moment + basis.T @ value
            total += float(value.square().sum())
    if total == 0:
        return math.nan
    return float(moment @ torch.linalg.pinv(gram, hermitian=True) @ moment) / total


def ramp_warning(depth: Float[Tensor, "t h w"], frames: Float[Tensor, "t 3 _ _"], limits: CollapseLimits) -> str | None:
    """A warning if depth is the same smooth ramp in all frames although the frames differ; None if not.

    A network that has learned nothing of the images often gives a gradient from near below to far above, which is not
    flat. An empty road looks nearly like that, so that this is no error.

    Args:
        depth: z-depth, 0 = unknown.
        frames: the images that it is the depth of, of any size.
    """
    share = ramp_share(depth)
    varies = float((frames - frames.mean(0)).abs().mean()) > MIN_FRAME_DIFFERENCE
    if not varies or not share > limits.max_ramp:
        return None
    return (
        f"{100 * share:.0f} % of the depth's variation is one smooth ramp, the same in every frame (limit "
        f"{100 * limits.max_ramp:.0f} %): unless the scene is bare ground or a wall, the network has not learned to "
        "look at the images; give camera poses or pretrained weights, or train longer."
    )


def _at_end(
    values: Float[Tensor, "n"], depth_range: tuple[float, float], limits: CollapseLimits, poses_learned: bool
) -> str | None:
    near, far = depth_range
    span = 1 / near - 1 / far
    share = (1 / values.double() - 1 / far) / span
    for end, count, what in (
        ("near", (share > 1 - END_RANGE_SHARE).double().mean(), near),
        # in disparity the far end is wide: a share of 1 % can be many metres
        ("far", (values.double() > far / (1 + END_RANGE_SHARE)).double().mean(), far),
    ):
        if float(count) > limits.max_share_at_end:
            advice = (
                "depth and motion shrink or grow together in the pose network's training"
                if poses_learned
                else "the range does not bracket the scene in the unit of the poses; set network.depth_range"
            )
            return (
                f"depth lies at the {end} end of its range ({what:g}) on {100 * float(count):.0f} % of pixels: {advice}"
            )
    return None


class MaskWatch:
    """Watches for masks that are gamed: the photometric term falls because the depths of the views disagree.

    Args:
        limits: ``max_geometry`` is the geometry term that raises the alarm.
    """

    def __init__(self, limits: CollapseLimits):
        self.limits = limits
        self.first: tuple[float, float] | None = None
        """Photometric and geometry term of the first report."""

    def add(self, photometric: float, geometry: float) -> None:
        """The mean terms of some steps.

        Raises:
            CollapseError: the geometry term is above its limit and twice what it was, the photometric term below.
        """
        if self.first is None:
            self.first = photometric, geometry
            return
        before_photo, before_geometry = self.first
        gamed = geometry > self.limits.max_geometry and geometry > 2 * before_geometry
        if gamed and photometric < before_photo:
            raise CollapseError(
                f"training collapses: the depths of neighbouring views disagree more and more (geometry term "
                f"{before_geometry:.2f} -> {geometry:.2f}) while the photometric term falls ({before_photo:.3f} -> "
                f"{photometric:.3f}): the masks hide the disagreement; raise weights.geometry."
            )

    def state(self) -> list[float] | None:
        """For a checkpoint."""
        return None if self.first is None else list(self.first)

    def load_state(self, state: list[float] | None) -> None:
        """Inverse of ``state``."""
        self.first = None if state is None else (state[0], state[1])
