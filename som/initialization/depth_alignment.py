"""Brings depth priors of unknown scale and shift to the cameras, frame by frame.

A prior's disparity d = 1/D in frame s becomes a_s d + b_s; then, since a prior knows the order of depths better than
their ratios, a rising curve through some knots of it. The numbers of all frames are found together from static points
that optical flow links between frames with known cameras. A link from pixel p in frame s to q in frame t says

* where p has to project to in t: with u = R K_s^-1 p, the rotated ray, and translation tau, both of T_t_s, and the
  aligned disparity delta, the projection of u + delta tau must be q. Parallax alone fixes the scale this way;
* that both priors see one surface: the aligned disparity of t at q is delta / (u_z + delta tau_z).

Robust Gauss-Newton (Cauchy weights) on both; without parallax the second kind still makes the frames agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from som.cameras.geometry import invert_se3, sample_depth
from som.data.dataset import VideoDataset, Views

MAX_ITERATIONS = 30
FLOW_SIGMA_PX = 0.5
"""Expected error of a flow vector, pixels."""
RELATIVE_DEPTH_SIGMA = 0.05
"""Expected relative disagreement of two aligned priors."""
RELATIVE_ANCHOR_SIGMA = 10.0
"""How far, relatively, a frame's numbers may lie from the start; only matters where nothing else fixes them."""
KNOT_QUANTILES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.98)
"""Where a frame's curve has its knots: quantiles of the aligned disparity of its static points."""
SLOPE_CHANGE_SIGMA = 0.3
"""Expected change of a curve's slope from one knot to the next."""
SLOPE_RANGE = (0.1, 10.0)
"""Least and largest slope of a curve: it never turns an order around."""
MIN_DISPARITY_RATIO = 0.02
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
    """Aligned disparity of view i is ``curve_i(scale[i] / depth + shift[i])``."""

    scale: Float[Tensor, "n"]
    shift: Float[Tensor, "n"]
    curves: tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]] | None
    """Places of each curve's knots and the values there; in between and beyond the curve goes straight on. None: the
    curves are the identity."""
    reprojection_error: float
    """Median distance in pixels between where static points project and where flow leads, after alignment."""
    disagreement: float
    """Median relative difference of linked disparities after alignment."""
    parallax: float
    """Median distance in pixels between where static points project and where they would at infinite depth."""

    def apply(self, depths: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """Aligned depth in the cameras' unit; unknown (0) stays unknown."""
        out = torch.zeros_like(depths)
        for i, depth in enumerate(depths):
            known = depth > 0
            if not bool(known.any()):
                continue
            aligned = self.scale[i].to(depth) / depth[known] + self.shift[i].to(depth)
            if self.curves is not None:
                knots, values = (curves[i].to(depth) for curves in self.curves)
                aligned = _linear_basis(aligned, knots) @ values
            out[i][known] = 1 / aligned.clamp(min=MIN_DISPARITY_RATIO * float(aligned.median().clamp(min=1e-9)))
        return out


def align_depth(
    views: Views, links: StaticLinks, kind: Literal["scale", "scale_shift", "monotone"] = "scale_shift"
) -> DepthAlignment:
    """Brings every view's disparity to the cameras.

    Args:
        views: with depths (0 = unknown) and cameras; the unit of the result is the cameras'.
        links: static; wrong ones are outvoted up to about a third.
        kind: what is found for every view: a scale; a scale and a shift; these and a rising curve.
    """
    geometry = _LinkGeometry(views, links)
    scale, shift = _find_affine(geometry, with_shift=kind != "scale")
    straight = [d * scale[i] + shift[i] for d, i in ((geometry.d_s, geometry.s), (geometry.d_t, geometry.t))]
    if kind != "monotone":
        return DepthAlignment(scale.float(), shift.float(), None, *geometry.quality(*straight))
    knots, values = _find_curves(geometry, *straight)
    curved = [_curve(d, knots[i], values[i]) for d, i in zip(straight, (geometry.s, geometry.t), strict=True)]
    curves = knots.float(), values.float()
    return DepthAlignment(scale.float(), shift.float(), curves, *geometry.quality(*curved))


def _find_affine(geometry: _LinkGeometry, with_shift: bool) -> tuple[Tensor, Tensor]:
    """Scale and shift (N,) of all views."""
    scale, shift = geometry.start()
    unit = torch.stack([scale, scale * geometry.median.nan_to_num(1.0)], 1)  # of the two numbers
    relative = [RELATIVE_ANCHOR_SIGMA, RELATIVE_ANCHOR_SIGMA if with_shift else 1e-9]
    sigma = unit * torch.tensor(relative, dtype=unit.dtype)
    stiffness = (1 / sigma.square()).diag_embed()
    basis_s, basis_t = (torch.stack([d, torch.ones_like(d)], 1) for d in (geometry.d_s, geometry.d_t))
    numbers = torch.stack([scale, shift], 1)
    anchor = numbers.clone()
    for _ in range(MAX_ITERATIONS):
        step = geometry.solve(numbers, basis_s, basis_t, stiffness, (stiffness @ (numbers - anchor)[..., None])[..., 0])
        scale = (numbers[:, 0] + step[:, 0]).maximum(0.2 * numbers[:, 0]).minimum(5 * numbers[:, 0])  # stays positive
        moved = (step[:, 0] / scale).abs().max()
        numbers = torch.stack([scale, numbers[:, 1] + step[:, 1]], 1)
        if float(moved) < 1e-6:
            break
    return numbers[:, 0], numbers[:, 1]


def _find_curves(geometry: _LinkGeometry, delta_s: Tensor, delta_t: Tensor) -> tuple[Tensor, Tensor]:
    """Knots and values (N,K) of all views' curves over the disparities of the affine alignment."""
    knots = torch.stack([_place_knots(delta_s[geometry.s == i]) for i in range(geometry.count)])
    basis_s, basis_t = (_linear_basis(d, knots[i]) for d, i in ((delta_s, geometry.s), (delta_t, geometry.t)))
    gaps = knots.diff(dim=1)
    # rows of second differences: the change of slope at every inner knot
    inner = torch.arange(knots.shape[1] - 2)
    bend = torch.zeros(*gaps.shape[:1], len(inner), knots.shape[1], dtype=knots.dtype)
    bend[:, inner, inner] = 1 / gaps[:, :-1]
    bend[:, inner, inner + 1] = -1 / gaps[:, :-1] - 1 / gaps[:, 1:]
    bend[:, inner, inner + 2] = 1 / gaps[:, 1:]
    stiffness = bend.transpose(1, 2) @ bend / SLOPE_CHANGE_SIGMA**2
    # holds a view that nothing else does
    stiffness = stiffness + (1 / (RELATIVE_ANCHOR_SIGMA * knots[:, -1:]).square()).expand_as(knots).diag_embed()
    values = knots.clone()
    for _ in range(MAX_ITERATIONS):
        step = geometry.solve(values, basis_s, basis_t, stiffness, (stiffness @ (values - knots)[..., None])[..., 0])
        new = values + step
        rises = (new.diff(dim=1) / gaps).clamp(*SLOPE_RANGE) * gaps
        new = torch.cat([new[:, :1], new[:, :1] + rises.cumsum(1)], 1)
        moved = ((new - values).abs() / knots[:, -1:]).max()
        values = new
        if float(moved) < 1e-6:
            break
    return knots, values


def _place_knots(delta: Tensor) -> Tensor:
    """Rising knots (K,) at quantiles of disparities (L,), apart by at least 2 % of their median."""
    count = len(KNOT_QUANTILES)
    if not len(delta):
        return torch.linspace(0.5, 1.5, count, dtype=delta.dtype)
    places = delta.quantile(torch.tensor(KNOT_QUANTILES, dtype=delta.dtype))
    least = 0.02 * float(delta.median().abs().clamp(min=1e-9))
    return torch.cat([places[:1], places[:1] + places.diff().clamp(min=least).cumsum(0)])


def _linear_basis(values: Float[Tensor, "l"], knots: Tensor) -> Float[Tensor, "l k"]:
    """Weights of the knots, (K,) or (L,K), in a piecewise linear curve that goes straight on beyond them."""
    knots = knots.expand(len(values), -1)
    left = (torch.searchsorted(knots.contiguous(), values[:, None]) - 1).clamp(0, knots.shape[1] - 2)
    low, high = knots.gather(1, left)[:, 0], knots.gather(1, left + 1)[:, 0]
    share = (values - low) / (high - low)
    weights = torch.zeros_like(knots)
    weights.scatter_(1, left, (1 - share)[:, None])
    return weights.scatter_(1, left + 1, share[:, None])


def _curve(values: Float[Tensor, "l"], knots: Float[Tensor, "l k"], heights: Float[Tensor, "l k"]) -> Tensor:
    return (_linear_basis(values, knots) * heights).sum(1)


class _LinkGeometry:
    """Residuals of all links and their derivatives, in float64."""

    def __init__(self, views: Views, links: StaticLinks):
        s, t = links.source, links.target
        self.count = len(views)
        depths = views.require_depths()
        prior_s, prior_t = _sample(depths, s, links.source_xy), _sample(depths, t, links.target_xy)
        known = (prior_s > 0) & (prior_t > 0)
        self.s, self.t = s[known], t[known]
        self.d_s, self.d_t = 1 / prior_s[known].double(), 1 / prior_t[known].double()
        K, w2c = views.cameras.K.double(), views.cameras.w2c.double()
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
        trusted = (information * triangulated.square() > (3 * FLOW_SIGMA_PX) ** 2) & (triangulated > 0)
        ratio = triangulated / self.d_s
        scales = torch.stack([_median(ratio[trusted & (self.s == i)], minimum=30) for i in range(self.count)])
        found = scales.isfinite()
        if not bool(found.any()):
            return 1 / self.median.nan_to_num(1.0), torch.zeros_like(scales)
        typical = (scales * self.median)[found].median()  # aligned median disparity of an average view
        scales = torch.where(found, scales, typical / self.median.nan_to_num(1.0))
        return scales, torch.zeros_like(scales)

    def solve(
        self, numbers: Tensor, basis_s: Tensor, basis_t: Tensor, stiffness: Tensor, pull: Tensor
    ) -> Float[Tensor, "n m"]:
        """One Gauss-Newton step for the M numbers of every view, in which its aligned disparities are linear.

        Args:
            numbers: (N,M).
            basis_s, basis_t: (L,M), the aligned disparity of a link's end is its row times its view's numbers.
            stiffness, pull: (N,M,M) and (N,M), normal equations of what is known beforehand.
        """
        n, m = numbers.shape
        delta = (basis_s * numbers[self.s]).sum(1).clamp(min=1e-9)
        error, slope = self.project(delta)
        normal = torch.zeros(n, n, m, m, dtype=torch.float64)
        right = pull.clone()
        for axis in range(2):
            residual, row = error[:, axis] / FLOW_SIGMA_PX, (slope[:, axis] / FLOW_SIGMA_PX)[:, None] * basis_s
            _accumulate(normal, right, [(self.s, row)], residual)
        carried = (self.u[:, 2] + delta * self.tau[:, 2]).clamp(min=1e-6)
        seen = (basis_t * numbers[self.t]).sum(1).clamp(min=1e-9)
        residual = (seen.log() - delta.log() + carried.log()) / RELATIVE_DEPTH_SIGMA
        there = basis_t / (seen * RELATIVE_DEPTH_SIGMA)[:, None]
        here = basis_s * ((-1 / delta + self.tau[:, 2] / carried) / RELATIVE_DEPTH_SIGMA)[:, None]
        _accumulate(normal, right, [(self.t, there), (self.s, here)], residual)
        diagonal = torch.arange(n)
        normal[diagonal, diagonal] += stiffness
        return -torch.linalg.solve(normal.transpose(1, 2).reshape(n * m, n * m), right.flatten()).view(n, m)

    def quality(self, delta: Tensor, seen: Tensor) -> tuple[float, float, float]:
        """Median reprojection error, median relative disagreement, median parallax.

        Args:
            delta, seen: (L,) aligned disparities of the links' first and second ends.
        """
        delta, seen = delta.clamp(min=1e-9), seen.clamp(min=1e-9)
        error = self.project(delta)[0].norm(dim=1)
        carried = delta / (self.u[:, 2] + delta * self.tau[:, 2]).clamp(min=1e-6)
        far = self.project(torch.zeros_like(delta))[0]
        parallax = (self.project(delta)[0] - far).norm(dim=1)
        return float(_median(error)), float(_median((seen / carried).log().abs())), float(_median(parallax))


def _accumulate(normal: Tensor, right: Tensor, blocks: list[tuple[Tensor, Tensor]], residual: Tensor) -> None:
    """Adds residuals with Jacobian ``blocks`` (view index (L,), row (L,M)) to the normal equations, Cauchy-weighted.

    Args:
        normal: (N,N,M,M), one block per pair of views.
        right: (N,M).
    """
    weight = 1 / (1 + residual.square())
    flat = normal.view(-1, right.shape[1] ** 2)
    for index_a, row_a in blocks:
        weighted = weight[:, None] * row_a
        right.index_add_(0, index_a, weighted * residual[:, None])
        for index_b, row_b in blocks:
            flat.index_add_(0, index_a * len(right) + index_b, (weighted[:, :, None] * row_b[:, None]).flatten(1))


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
    depths = alignment.apply(dataset.train.require_depths())
    return replace(dataset, train=replace(dataset.train, depths=depths), depth_kind="scale")
