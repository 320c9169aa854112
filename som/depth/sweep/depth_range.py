"""The range of depth to sweep: from sparse points, or from the images themselves."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import in_image, project_from_world, resize_intrinsics
from som.depth.errors import DepthError, NoParallaxError
from som.depth.sweep.config import SweepConfig
from som.depth.sweep.costs import make_cost
from som.depth.sweep.curve import best_plane
from som.depth.sweep.semi_global import semi_global
from som.depth.sweep.volume import cost_volume
from som.depth.views import overlap_and_parallax

PILOT_SIDE_PX = 128
"""Longer side in pixels of the images that the range is searched on."""
PILOT_FRAMES = 6
PILOT_PLANES = 96
MIN_MEDIAN_DISPARITY_SHARE = 0.03
"""Median disparity, as a share of the image width, at which the distance between frames is no longer doubled."""
RANGE_MARGIN_SHARE = 0.3
"""Share by which a measured range of inverse depth is widened at both ends."""
MAX_OUTLIER_SHARE = 0.005
"""Share of the depths that may lie outside the range at either end."""


def range_from_points(
    points: Float[Tensor, "n 3"], Ks: Float[Tensor, "t 3 3"], w2cs: Float[Tensor, "t 4 4"], size: tuple[int, int]
) -> tuple[float, float]:
    """Near and far of what the cameras see of a sparse cloud, such as the points of structure from motion.

    The 0.5 % and 99.5 % quantiles of inverse depth over all views, widened by 30 %.

    Args:
        points: in the world frame.
        size: (height, width) of the images that ``Ks`` belong to.

    Raises:
        DepthError: fewer than ten points are in view.
    """
    at, z = project_from_world(points.double(), Ks.double(), w2cs.double())
    visible = in_image(at, *size) & (z > 0)
    if int(visible.sum()) < 10:
        raise DepthError(
            f"the cameras see only {int(visible.sum())} of {len(points)} points; give near and far instead."
        )
    return _widened(1 / z[visible])


def _widened(inverse_depth: Float[Tensor, "n"]) -> tuple[float, float]:
    """Near and far that leave few inverse depths outside, and some room."""
    ordered = inverse_depth.sort().values
    last = len(ordered) - 1
    low, high = (float(ordered[round(share * last)]) for share in (MAX_OUTLIER_SHARE, 1 - MAX_OUTLIER_SHARE))
    low *= 1 - RANGE_MARGIN_SHARE
    return 1 / (high * (1 + RANGE_MARGIN_SHARE)), 1 / low if low > 0 else math.inf


@torch.no_grad()
def estimate_range(
    images: Float[Tensor, "t 3 h w"],
    Ks: Float[Tensor, "t 3 3"],
    w2cs: Float[Tensor, "t 4 4"],
    moving: Bool[Tensor, "t h w"] | None,
    config: SweepConfig,
) -> tuple[float, float]:
    """Near and far of the scene by a coarse sweep of a few frames over all depths that the motion can distinguish.

    The planes cover disparities from 0 to a third of the image width. The distance in time between the frames that are
    compared is doubled until the scene moves by some pixels. The range holds the depths of the clearest half of the
    pixels, widened by 30 %.

    Raises:
        NoParallaxError: nothing moves by a pixel between any frames: the camera stands still or only turns.
    """
    T, _, H, W = images.shape
    scale = min(1.0, PILOT_SIDE_PX / max(H, W))
    size = max(8, round(H * scale)), max(8, round(W * scale))
    small = F.interpolate(images, size, mode="area")
    K = resize_intrinsics(Ks, size[1] / W, size[0] / H)
    moves = None if moving is None else F.interpolate(moving[:, None].float(), size, mode="area")[:, 0] > 0
    targets = torch.linspace(0, T - 1, min(PILOT_FRAMES, T)).round().long().unique().tolist()
    gap = 1
    refusal = NoParallaxError("the camera does not move: all poses are in one place, so that nothing shows parallax.")
    while gap < T:
        offsets = {gap, -gap, -(gap + 1) // 2, (gap + 1) // 2}
        sources = {t: sorted(t + o for o in offsets if 0 <= t + o < T) for t in targets}
        unit = _pixels_per_inverse_depth(K, w2cs, sources, size)
        if unit > 0:
            pixels = _pilot_disparities(small, K, w2cs, moves, sources, unit, config)
            median = float(pixels.median())
            if median >= MIN_MEDIAN_DISPARITY_SHARE * size[1] or (gap * 2 >= T and median >= 1.0):
                return _widened(pixels / unit)
            refusal = NoParallaxError(
                f"the images show no parallax for these poses (median {median:.2g} px): the camera stands still, only "
                "turns, or moves too little to measure depth."
            )
        gap *= 2
    raise refusal


def _pixels_per_inverse_depth(K: Tensor, w2cs: Tensor, sources: dict[int, list[int]], size: tuple[int, int]) -> float:
    """Disparity in pixels of far points over their inverse depth: focal length x baseline across the view; a median."""
    centers = -(w2cs[:, :3, :3].transpose(1, 2) @ w2cs[:, :3, 3:])[..., 0]
    pairs = [(t, j) for t, others in sources.items() for j in others]
    baseline = max(float((centers[t] - centers[j]).norm()) for t, j in pairs)
    if baseline <= 1e-6 * max(1e-6, float(centers.norm(dim=-1).max())):
        return 0.0
    distance = 20 * baseline
    _, angle = overlap_and_parallax(w2cs, K, distance, size)
    widest = torch.tensor([max(float(angle[t, j]) for j in others) for t, others in sources.items()])
    return float(widest.deg2rad().median()) * distance * float(K[:, 0, 0].median())


def _pilot_disparities(
    images: Tensor,
    K: Tensor,
    w2cs: Tensor,
    moving: Tensor | None,
    sources: dict[int, list[int]],
    unit: float,
    config: SweepConfig,
) -> Float[Tensor, "n"]:
    """Disparities in pixels of the clearest half of the pixels of some frames."""
    planes = torch.linspace(0, images.shape[-1] / 3 / unit, PILOT_PLANES, device=images.device)[:, None, None]
    cost = make_cost(config.cost, config.window)
    features = cost.features(images)
    found, clear = [], []
    for t, others in sources.items():
        volume, seen = cost_volume(cost, features, K, w2cs, t, others, planes, moving, config.keep_views)
        volume = semi_global(volume, images[t].mean(0), 0.05 * cost.smoothness, cost.smoothness)
        best = best_plane(volume, planes)
        use = seen if moving is None else seen & ~moving[t]
        found.append(best.inverse_depth[use])
        clear.append(best.distinctness[use])
    inverse, distinctness = torch.cat(found), torch.cat(clear)
    if not len(inverse):
        raise DepthError("no static pixel is seen by two frames; check the poses and the masks of moving objects.")
    return inverse[distinctness >= distinctness.median()] * unit
