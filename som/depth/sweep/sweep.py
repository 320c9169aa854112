"""Depth by plane sweep: no training, only known poses and parallax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from flow.progress import Progress
from som.depth.errors import DepthError, NoParallaxError
from som.depth.fusion.checks import check_cameras, check_maps
from som.depth.fusion.consistency import compare_views, pick_views
from som.depth.sweep.config import SweepConfig, SweepResult
from som.depth.sweep.costs import make_cost
from som.depth.sweep.curve import best_plane
from som.depth.sweep.depth_range import estimate_range
from som.depth.sweep.semi_global import semi_global
from som.depth.sweep.volume import cost_volume, inverse_depth_planes
from som.depth.views import overlap_and_parallax


@torch.no_grad()
def plane_sweep(
    images: Float[Tensor, "t 3 h w"],
    Ks: Float[Tensor, "t 3 3"],
    w2cs: Float[Tensor, "t 4 4"],
    config: SweepConfig = SweepConfig(),  # noqa: B008 (frozen)
    moving: Bool[Tensor, "t h w"] | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Depth of every frame of a video of a static scene with known cameras, confirmed by several views.

    For every frame: a cost volume against source views with parallax (Collins, CVPR 1996), semi-global regularisation
    (Hirschmueller, PAMI 2008), the best plane refined between planes, a second narrow sweep around it; then the frames'
    depths are compared and only what enough views agree on is kept. Deterministic; runs on the device of ``images``.

    Args:
        images: RGB in [0, 1].
        Ks: intrinsics in pixels of the images, centres at +0.5, without skew.
        w2cs: world-to-camera poses; their unit is that of the depth.
        moving: True where something moves; such pixels get no depth and do not disturb that of others.
        progress: called with the share of the frames that is done.

    Raises:
        NoParallaxError: the camera does not move (enough) to measure depth.
        DepthError: bad input.
    """
    check_maps("images", images, (-1, 3, -1, -1))
    T, _, H, W = images.shape
    if T < 2:
        raise DepthError(f"a plane sweep needs at least two images, got {T}.")
    if float(images.amin()) < -1e-3 or float(images.amax()) > 1 + 1e-3:
        raise DepthError("images of a plane sweep must lie in [0, 1]; divide bytes by 255.")
    K, w2c = check_cameras(Ks, w2cs, T, (H, W))
    if moving is not None:
        check_maps("moving", moving, (T, H, W), torch.bool)
        moving = moving.to(images.device)
    K, w2c, images = K.to(images.device), w2c.to(images.device), images.float()
    near, far = config.depth_range or estimate_range(images, K, w2c, moving, config)
    sources = _choose_sources(K, w2c, (H, W), near, far, config)
    raw, distinct, usable = _sweep_all(images, K, w2c, moving, sources, (near, far), config, progress)
    step = (1 / near - 1 / far) / (config.num_planes - 1)
    depth, confidence = _filter(raw, distinct, usable, K, w2c, sources, step, config)
    return SweepResult(depth, confidence, (near, far), raw, sources)


def _choose_sources(
    K: Tensor, w2c: Tensor, size: tuple[int, int], near: float, far: float, config: SweepConfig
) -> list[list[int]]:
    """Sources of every frame; refuses a camera that does not move."""
    T = len(K)
    typical = math.sqrt(near * min(far, config.max_source_depth_ratio * near))
    share, angle = overlap_and_parallax(w2c, K, typical, size)
    parallax = float((angle.deg2rad() * K[:, 0, 0].cpu()[:, None]).max()) * typical / near
    if parallax < config.min_parallax:
        raise NoParallaxError(
            f"the camera does not move enough to measure depth: at the nearest depth {near:g} the widest parallax is "
            f"{parallax:.2g} px (a camera that stands or only turns shows none)."
        )
    if config.offsets is not None:
        return [sorted(t + o for o in set(config.offsets) if 0 <= t + o < T) for t in range(T)]
    chosen = pick_views(share, angle, config.num_sources, config.angles, config.min_overlap)
    if not any(chosen):
        raise DepthError(
            f"no two frames see the same part of the scene at depth {typical:g} with enough parallax; "
            "check the poses and the depth range, or give the sources by offsets."
        )
    return chosen


def _sweep_all(
    images: Tensor,
    K: Tensor,
    w2c: Tensor,
    moving: Tensor | None,
    sources: Sequence[Sequence[int]],
    depth_range: tuple[float, float],
    config: SweepConfig,
    progress: Progress | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Unfiltered depth, its distinctness, and where it may be used, all (T,H,W)."""
    T = len(images)
    planes = inverse_depth_planes(*depth_range, config.num_planes).to(images.device)[:, None, None]
    cost = make_cost(config.cost, config.window)
    features, grey = cost.features(images), images.mean(1)
    depth, distinct = torch.zeros_like(grey), torch.zeros_like(grey)
    usable = torch.zeros_like(grey, dtype=torch.bool)
    for t, others in enumerate(sources):
        if others:
            volume, seen = cost_volume(cost, features, K, w2c, t, others, planes, moving, config.keep_views)
            if config.large_step:
                penalties = config.small_step * cost.smoothness, config.large_step * cost.smoothness
                volume = semi_global(volume, grey[t], *penalties, config.edge_difference)
            best = best_plane(volume, planes)
            inverse = best.inverse_depth
            if config.refine_planes:
                steps = torch.linspace(-1, 1, config.refine_planes, device=images.device)[:, None, None]
                around = inverse + steps * (planes[1] - planes[0])
                volume, _ = cost_volume(cost, features, K, w2c, t, others, around, moving, config.keep_views)
                finer = best_plane(volume, around)
                inverse = torch.where(finer.at_end, inverse, finer.inverse_depth)
            known = seen & (inverse > 0) if moving is None else seen & (inverse > 0) & ~moving[t]
            depth[t] = torch.where(known, 1 / inverse.clamp(min=1e-12), 0.0)
            distinct[t] = best.distinctness
            usable[t] = known & ~best.at_end
        if progress is not None:
            progress("sweep", (t + 1) / T)
    return depth, distinct, usable


def _filter(
    raw: Tensor,
    distinct: Tensor,
    usable: Tensor,
    K: Tensor,
    w2c: Tensor,
    sources: Sequence[Sequence[int]],
    step: float,
    config: SweepConfig,
) -> tuple[Tensor, Tensor]:
    """Depth that enough sources agree on, averaged with theirs, and its confidence."""
    usable = usable & ~_near_steps(raw, config.max_jump, step) & (distinct >= config.min_distinctness)
    candidate = torch.where(usable, raw, torch.zeros_like(raw))
    depth, confidence = torch.zeros_like(raw), torch.zeros_like(raw)
    for t, others in enumerate(sources):
        if not others:
            continue
        check = compare_views(candidate, K, w2c, t, others, config.max_depth_error, config.max_reprojection)
        votes = check.agrees.sum(0)
        kept = usable[t] & (votes >= min(config.min_views, len(others)))
        own = 1 / candidate[t].clamp(min=1e-12)
        theirs = 1 / check.points[..., 2].clamp(min=1e-12)
        mean = (own + torch.where(check.agrees, theirs, 0.0).sum(0)) / (votes + 1)
        square = (own - mean) ** 2 + torch.where(check.agrees, (theirs - mean) ** 2, 0.0).sum(0)
        spread = (square / (votes + 1)).sqrt() / mean
        depth[t] = torch.where(kept, 1 / (mean if config.average else own), 0.0)
        sure = distinct[t].sqrt() * torch.exp(-2 * spread / config.max_depth_error)
        confidence[t] = torch.where(kept, votes / len(others) * sure, 0.0)
    return depth, confidence


def _near_steps(depth: Tensor, max_jump: float, step: float) -> Tensor:
    """Pixels at or next to a step of inverse depth, above ``max_jump`` of it and 1.5 planes; (T,H,W) bool.

    Measured by second differences, which vanish on planes however much they slant.
    """
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-12), 0.0)
    steps = torch.zeros_like(inverse)
    for dim in (1, 2):
        inner = inverse.shape[dim] - 2
        before, at, after = (inverse.narrow(dim, k, inner) for k in range(3))
        part = steps.narrow(dim, 1, inner)
        known = (before > 0) & (at > 0) & (after > 0)
        torch.maximum(part, (before - 2 * at + after).abs() * known, out=part)
    steps = steps > (max_jump * inverse).clamp(min=1.5 * step)
    return F.max_pool2d(steps[:, None].float(), 3, 1, 1)[:, 0] > 0
