"""Brings depth priors of unknown scale and shift to the cameras, frame by frame.

A prior's disparity d = 1/D in frame s becomes a_s d + b_s. The 2 numbers of every frame are found together from static
points that optical flow links between frames with known cameras. A link from pixel p in frame s to q in frame t says

* where p has to project to in t: with u = R K_s^-1 p, the rotated ray, and translation tau, both of T_t_s, and the
  aligned disparity delta, the projection of u + delta tau must be q. Parallax alone fixes the scale this way;
* that both priors see one surface: the aligned disparity of t at q is delta / (u_z + delta tau_z).

Robust Gauss-Newton (Cauchy weights) on both; without parallax the second kind still makes the frames agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from depth.geometry import invert_se3, sample_depth
from som.data.dataset import VideoDataset, Views

ITERATIONS = 30
PIXEL_SIGMA = 0.5
"""Expected error of a flow vector, pixels."""
DEPTH_SIGMA = 0.05
"""Expected relative disagreement of two aligned priors."""
ANCHOR_SIGMA = 10.0
"""How far, relatively, a frame's numbers may lie from the start; only matters where nothing else fixes them."""
SMALLEST_SHARE = 0.02
"""Aligned disparity is kept above this share of the frame's median: a shift may not push a surface behind infinity."""


@dataclass
class StaticLinks:
    """L pairs of pixels that show one static surface point in two training views."""

    source: Int[Tensor, "l"]
    """Index of the first view."""
    target: Int[Tensor, "l"]
    """Index of the second view."""
    source_xy: Float[Tensor, "l 2"]
    """Image coordinates in the first view."""
    target_xy: Float[Tensor, "l 2"]
    """Image coordinates in the second view."""


@dataclass
class DepthAlignment:
    """Aligned disparity of view i is ``scale[i] / depth + shift[i]``."""

    scale: Float[Tensor, "n"]
    shift: Float[Tensor, "n"]
    reprojection_error: float
    """Median distance in pixels between where static points project and where flow leads, after alignment."""
    disagreement: float
    """Median relative difference of linked disparities after alignment."""
    parallax: float
    """Median distance in pixels between where static points project and where they would at infinite depth."""

    def apply(self, depths: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """Aligned depth in the cameras' unit; unknown (0) stays unknown."""
        known = depths > 0
        disparity = torch.where(known, 1 / depths.clamp(min=1e-9), torch.zeros_like(depths))
        aligned = disparity * self.scale[:, None, None].to(depths) + self.shift[:, None, None].to(depths)
        for i in range(len(depths)):
            if bool(known[i].any()):
                aligned[i].clamp_(min=SMALLEST_SHARE * float(aligned[i][known[i]].median().clamp(min=1e-9)))
        return torch.where(known, 1 / aligned.clamp(min=1e-9), torch.zeros_like(depths))


def align_depth(views: Views, links: StaticLinks, with_shift: bool = True) -> DepthAlignment:
    """Scale (and shift) of every view's disparity.

    Args:
        views: with depths (0 = unknown) and cameras; the unit of the result is the cameras'.
        links: static; wrong ones are outvoted up to about a third.
        with_shift: False keeps every shift at 0.
    """
    geometry = _LinkGeometry(views, links)
    scale, shift = geometry.start()
    anchor = scale.clone()
    for _ in range(ITERATIONS):
        step_scale, step_shift = geometry.solve(scale, shift, anchor, with_shift)
        scale = (scale + step_scale).maximum(0.2 * scale).minimum(5 * scale)  # positive, whatever a bad step says
        shift = shift + step_shift
        if float((step_scale / scale).abs().max()) < 1e-6:
            break
    return DepthAlignment(scale.float(), shift.float(), *geometry.quality(scale, shift))


class _LinkGeometry:
    """Residuals of all links and their derivatives, in float64."""

    def __init__(self, views: Views, links: StaticLinks):
        s, t = links.source, links.target
        self.count = len(views)
        prior_s = _sample(views.depths, s, links.source_xy)
        prior_t = _sample(views.depths, t, links.target_xy)
        known = (prior_s > 0) & (prior_t > 0)
        self.s, self.t = s[known], t[known]
        self.d_s, self.d_t = 1 / prior_s[known].double(), 1 / prior_t[known].double()
        K, w2c = views.Ks.double(), views.w2cs.double()
        T_t_s = w2c[self.t] @ invert_se3(w2c)[self.s]
        xy = torch.cat([links.source_xy[known].double(), torch.ones(int(known.sum()), 1, dtype=torch.float64)], 1)
        rays = torch.linalg.solve(K[self.s], xy[..., None])
        self.u, self.tau = (T_t_s[:, :3, :3] @ rays)[..., 0], T_t_s[:, :3, 3]
        self.focal, self.center = K[self.t][:, [0, 1], [0, 1]], K[self.t][:, :2, 2]
        self.q = links.target_xy[known].double()
        # a unit of disparity in which numbers are near 1, and the typical prior of every view
        self.median = torch.stack([_median(self.d_s[self.s == i]) for i in range(self.count)])

    def project(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Distance (L,2) in pixels from q to the projection, and its derivative with respect to delta."""
        X = self.u + delta[:, None] * self.tau
        z = X[:, 2:].clamp(min=1e-6)
        error = self.focal * X[:, :2] / z + self.center - self.q
        slope = self.focal * (self.tau[:, :2] * self.u[:, 2:] - self.u[:, :2] * self.tau[:, 2:]) / z**2
        return error, slope

    def start(self) -> tuple[Tensor, Tensor]:
        """Scale from triangulated disparities where there is parallax, else 1 / the median prior; no shift."""
        error, slope = self.project(torch.zeros_like(self.d_s))
        information = slope.square().sum(1)
        triangulated = -(error * slope).sum(1) / information.clamp(min=1e-12)
        trusted = (information * triangulated.square() > (3 * PIXEL_SIGMA) ** 2) & (triangulated > 0)
        ratio = triangulated / self.d_s
        scales = torch.stack([_median(ratio[trusted & (self.s == i)], minimum=30) for i in range(self.count)])
        found = scales.isfinite()
        if not bool(found.any()):
            return 1 / self.median.nan_to_num(1.0), torch.zeros_like(scales)
        typical = (scales * self.median)[found].median()  # aligned median disparity of an average view
        scales = torch.where(found, scales, typical / self.median.nan_to_num(1.0))
        return scales, torch.zeros_like(scales)

    def solve(self, scale: Tensor, shift: Tensor, anchor: Tensor, with_shift: bool) -> tuple[Tensor, Tensor]:
        """One Gauss-Newton step for (scale, shift) of all views."""
        n = self.count
        delta = (scale[self.s] * self.d_s + shift[self.s]).clamp(min=1e-9)
        error, slope = self.project(delta)
        normal = torch.zeros(2 * n, 2 * n, dtype=torch.float64)
        right = torch.zeros(2 * n, dtype=torch.float64)
        own = torch.stack([self.d_s, torch.ones_like(self.d_s)], 1)  # d delta / d (scale_s, shift_s)
        for axis in range(2):
            residual, row = error[:, axis] / PIXEL_SIGMA, (slope[:, axis] / PIXEL_SIGMA)[:, None] * own
            _accumulate(normal, right, [(self.s, row)], residual)
        carried = self.u[:, 2] + delta * self.tau[:, 2]
        seen = (scale[self.t] * self.d_t + shift[self.t]).clamp(min=1e-9)
        residual = (seen.log() - delta.log() + carried.clamp(min=1e-6).log()) / DEPTH_SIGMA
        other = torch.stack([self.d_t, torch.ones_like(self.d_t)], 1) / (seen * DEPTH_SIGMA)[:, None]
        own = own * ((-1 / delta + self.tau[:, 2] / carried.clamp(min=1e-6)) / DEPTH_SIGMA)[:, None]
        _accumulate(normal, right, [(self.t, other), (self.s, own)], residual)
        index = torch.arange(n)
        normal[2 * index, 2 * index] += 1 / (ANCHOR_SIGMA * anchor) ** 2
        right[2 * index] += (scale - anchor) / (ANCHOR_SIGMA * anchor) ** 2
        unit = anchor * self.median.nan_to_num(1.0)
        sigma = unit * (ANCHOR_SIGMA if with_shift else 1e-9)
        normal[2 * index + 1, 2 * index + 1] += 1 / sigma**2
        right[2 * index + 1] += shift / sigma**2
        step = -torch.linalg.solve(normal, right)
        return step[0::2], step[1::2]

    def quality(self, scale: Tensor, shift: Tensor) -> tuple[float, float, float]:
        """Median reprojection error, median relative disagreement, median parallax."""
        delta = (scale[self.s] * self.d_s + shift[self.s]).clamp(min=1e-9)
        error = self.project(delta)[0].norm(dim=1)
        seen = (scale[self.t] * self.d_t + shift[self.t]).clamp(min=1e-9)
        carried = delta / (self.u[:, 2] + delta * self.tau[:, 2]).clamp(min=1e-6)
        far = self.project(torch.zeros_like(delta))[0]
        parallax = (self.project(delta)[0] - far).norm(dim=1)
        return tuple(float(_median(v)) for v in (error, (seen / carried).log().abs(), parallax))


def _accumulate(normal: Tensor, right: Tensor, blocks: list[tuple[Tensor, Tensor]], residual: Tensor) -> None:
    """Adds residuals with Jacobian ``blocks`` (view index (L,), row (L,2)) to the normal equations, Cauchy-weighted."""
    weight = 1 / (1 + residual.square())
    size = len(right)
    for index_a, row_a in blocks:
        for k in range(2):
            right.index_add_(0, 2 * index_a + k, weight * residual * row_a[:, k])
            for index_b, row_b in blocks:
                for m in range(2):
                    flat = (2 * index_a + k) * size + 2 * index_b + m
                    normal.view(-1).index_add_(0, flat, weight * row_a[:, k] * row_b[:, m])


def _sample(depths: Tensor, view: Tensor, xy: Tensor) -> Tensor:
    out = torch.zeros(len(view))
    for i in range(len(depths)):
        chosen = view == i
        out[chosen] = sample_depth(depths[i : i + 1].float(), xy[chosen][None].float())[0]
    return out


def _median(values: Tensor, minimum: int = 1) -> Tensor:
    return values.median() if len(values) >= minimum else values.new_tensor(torch.nan)


def with_aligned_depth(dataset: VideoDataset, alignment: DepthAlignment) -> VideoDataset:
    """The data set with its training depths in the cameras' unit."""
    depths = alignment.apply(dataset.train.depths)
    return replace(dataset, train=replace(dataset.train, depths=depths), depth_kind="scale")
