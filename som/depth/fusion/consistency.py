"""Do the depth maps of different views agree? The geometric check behind filtered depth and point clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import in_image, invert_se3, pixel_centers, project, sample_depth, transform_points, unproject


@dataclass(frozen=True)
class Agreement:
    """What S other views say about the depth of one view."""

    agrees: Bool[Tensor, "s h w"]
    """The other view has the same surface there."""
    seen: Bool[Tensor, "s h w"]
    """The pixel's point lies inside the other image, in front of it, where depth is known."""
    points: Float[Tensor, "s h w 3"]
    """The other view's surface point in the target's camera frame; only where ``seen``."""


def compare_views(
    depths: Float[Tensor, "t h w"],
    Ks: Float[Tensor, "t 3 3"],
    w2cs: Float[Tensor, "t 4 4"],
    target: int,
    others: Sequence[int],
    max_depth_error: float,
    max_reprojection: float,
) -> Agreement:
    """Carries the target's points into other views and back by the depth that is found there.

    A view agrees if its depth differs by less than ``max_depth_error``, relative to the point's depth in it, and the
    way back ends less than ``max_reprojection`` pixels from where it began (Yao et al., MVSNet, ECCV 2018).

    Args:
        depths: z-depth, 0 = unknown.
        Ks: in pixels of the depth maps.
        w2cs: poses; float64 keeps large coordinates exact.
        others: not empty.
    """
    h, w = depths.shape[1:]
    others = list(others)
    xy = pixel_centers(h, w, device=depths.device).view(1, -1, 2)
    K_target, K_others = Ks[target].float()[None], Ks[others].float()
    T_others_target = w2cs[others] @ invert_se3(w2cs[target])
    depth = depths[target].float().view(1, -1)
    points = transform_points(T_others_target.float(), unproject(xy, depth, K_target))
    at, z = project(points, K_others)
    found = sample_depth(depths[others].float(), at)
    seen = (depth > 0) & (z > 0) & in_image(at, h, w) & (found > 0)
    back = transform_points(invert_se3(T_others_target).float(), unproject(at, found, K_others))
    returned, z_back = project(back, K_target)
    near = (found - z).abs() < max_depth_error * z
    close = (returned - xy).square().sum(-1) < max_reprojection**2
    shape = (len(others), h, w)
    return Agreement((seen & near & close & (z_back > 0)).view(shape), seen.view(shape), back.view(*shape, 3))


def pick_views(
    share: Float[Tensor, "t t"],
    angle: Float[Tensor, "t t"],
    count: int,
    angles: Sequence[float],
    min_overlap: float = 0.5,
) -> list[list[int]]:
    """For every view, up to ``count`` others that see the same points from a little aside.

    For each of the wanted angles in turn, the earlier and the later view of the most similar angle are taken, since
    what is hidden from one side is often seen from the other; then those left whose angle is nearest to a wanted one.

    Args:
        share, angle: of ``som.depth.views.overlap_and_parallax``.
        angles: wanted parallax in degrees; views with less than a quarter of the smallest are of no use.
        min_overlap: smallest share of the points that both views see.
    """
    views = range(len(share))
    wanted = torch.as_tensor(angles, dtype=angle.dtype)
    usable = (share >= min_overlap) & (angle > 0.25 * min(angles))
    distance = (angle.clamp(min=1e-9).log()[..., None] - wanted.log()).abs()  # target, view, wanted
    chosen = []
    for t in views:
        left = [j for j in views if j != t and bool(usable[t, j])]
        picked: list[int] = []
        for k in range(len(wanted)):
            for side in (-1, 1):
                there = [j for j in left if (j - t) * side > 0]
                if there and len(picked) < count:
                    picked.append(min(there, key=lambda j: (float(distance[t, j, k]), abs(j - t))))
                    left.remove(picked[-1])
        left.sort(key=lambda j: (float(distance[t, j].min()), abs(j - t)))
        chosen.append(sorted(picked + left[: max(0, count - len(picked))]))
    return chosen
