"""Cost volumes: how well source views, warped over planes of constant inverse depth, fit a target view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import invert_se3, pixel_centers
from som.depth.errors import DepthError
from som.depth.sweep.costs import MatchingCost

MIN_DEPTH_RATIO = 0.05
"""A point counts in a source only if its depth there is at least this share of its depth in the target."""
CHUNK = {"cpu": 2**18}
"""Pixels x planes that are compared at once; on the CPU about what its caches hold."""


def inverse_depth_planes(near: float, far: float, num: int) -> Float[Tensor, "d"]:
    """``num`` inverse depths from 1 / far up to 1 / near in equal steps, float32, so that disparity steps are equal.

    Args:
        near: depth of the nearest plane, > 0.
        far: depth of the farthest plane, > near; may be infinite.
        num: number of planes, at least 3.

    Raises:
        DepthError: the range is empty or the number too small.
    """
    if not 0 < near < far:
        raise DepthError(f"depth planes need 0 < near < far, got near {near:g} and far {far:g}.")
    if num < 3:
        raise DepthError(f"depth planes: at least 3 are needed to place a depth between them, got {num}.")
    return torch.linspace(1 / far, 1 / near, num, dtype=torch.float64).float()


def plane_rays(
    K_target: Float[Tensor, "3 3"],
    K_source: Float[Tensor, "3 3"],
    T_src_tgt: Float[Tensor, "4 4"],
    size: tuple[int, int],
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3"]]:
    """a and b such that a target pixel at inverse depth q lies in the source at (a + b q), homogeneous.

    The source's coordinates are those of ``grid_sample`` with align_corners=False: -1 and 1 are the image's borders.
    The third component is the ratio of the point's depths in source and target.
    """
    h, w = size
    K_target, K_source, T = K_target.double(), K_source.double(), T_src_tgt.double()
    normalize = K_source.new_tensor([[2 / w, 0, -1], [0, 2 / h, -1], [0, 0, 1]]) @ K_source
    xy = pixel_centers(h, w, device=T.device, dtype=T.dtype)
    pixels = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
    rays = pixels @ (normalize @ T[:3, :3] @ torch.linalg.inv(K_target)).T
    return rays.permute(2, 0, 1).float(), (normalize @ T[:3, 3]).float()


def warp_over_planes(
    source: Float[Tensor, "c h w"],
    rays: Float[Tensor, "3 h w"],
    shift: Float[Tensor, "3"],
    inverse_depth: Float[Tensor, "d #h #w"],
) -> tuple[Float[Tensor, "c d h w"], Bool[Tensor, "d h w"]]:
    """The source as the target would see it, were the scene at each inverse depth; and where it is in the image.

    Args:
        source: image or features.
        rays, shift: of ``plane_rays``.
        inverse_depth: (d,1,1) planes, or (d,h,w) one value per pixel.
    """
    c, h, w = source.shape
    ratio = rays[2] + shift[2] * inverse_depth
    scale = ratio.clamp(min=MIN_DEPTH_RATIO).reciprocal_()
    grid = torch.empty(*scale.shape, 2, device=source.device, dtype=source.dtype)
    for axis in (0, 1):
        torch.mul(rays[axis] + shift[axis] * inverse_depth, scale, out=grid[..., axis])
    inside = (grid.abs().amax(-1) < 1) & (ratio > MIN_DEPTH_RATIO)
    flat = grid.view(1, -1, w, 2)
    warped = F.grid_sample(source[None], flat, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.view(c, -1, h, w), inside


def cost_volume(
    cost: MatchingCost,
    features: Float[Tensor, "t c h w"],
    Ks: Float[Tensor, "t 3 3"],
    w2cs: Float[Tensor, "t 4 4"],
    target: int,
    sources: Sequence[int],
    inverse_depth: Float[Tensor, "d #h #w"],
    moving: Bool[Tensor, "t h w"] | None = None,
    keep: float = 0.75,
) -> tuple[Float[Tensor, "d h w"], Bool[Tensor, "h w"]]:
    """Cost of a target view at every pixel and inverse depth, combined over the source views that see the point.

    Of these n views the floor(n (1 - keep)) with the highest costs are left out, pixel by pixel and plane by plane:
    where something hides the point they show something else. (Best half: Kang, Szeliski and Chai, CVPR 2001.)

    Args:
        cost: which comparison; set to the target by this function.
        features: ``cost.features`` of all images.
        Ks, w2cs: cameras in pixels of the images and poses, better in float64.
        target: index of the target view.
        sources: indices of the source views, not empty.
        inverse_depth: (d,1,1) planes or (d,h,w) one value per pixel.
        moving: pixels of objects that move; in a source they are unseen, in the target they decide nothing.
        keep: share of the views that counts, in (0, 1].

    Returns:
        the costs, the mean of a pixel's other planes where no source sees it at a plane; and which pixels are seen at
        all. Unseen pixels cost the same at all planes.
    """
    channels, h, w = features.shape[1:]
    device = features.device
    cost.set_target(features[target])
    geometry = [plane_rays(Ks[target], Ks[j], w2cs[j] @ invert_se3(w2cs[target]), (h, w)) for j in sources]
    if moving is not None:
        features = torch.cat([features, moving[:, None].to(features.dtype)], dim=1)
    per_chunk = max(1, CHUNK.get(device.type, 2**24) // (h * w))
    parts = []
    for planes in inverse_depth.split(per_chunk):
        views = _TrimmedMean((len(planes), h, w), len(sources), keep, device)
        for j, (rays, shift) in zip(sources, geometry, strict=True):
            warped, seen = warp_over_planes(features[j], rays, shift, planes)
            ignored = None
            if moving is not None:
                moves = warped[channels] > 0.01
                seen &= ~moves
                ignored = moves | moving[target]
            views.add(cost.compare(warped[:channels], ignored), seen)
        parts.append(views.mean())
    return _fill_unseen(torch.cat(parts))


class _TrimmedMean:
    """Mean over views less the highest values, element by element; holds only the sum and the highest values."""

    def __init__(self, shape: tuple[int, ...], views: int, keep: float, device: torch.device):
        self.keep = keep
        self.total, self.count = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        self.highest = [torch.full(shape, -torch.inf, device=device) for _ in range(int(self._left_out(views)))]

    def _left_out(self, count):
        """How many of ``count`` values are left out; the small term keeps 0.25 x 8 from becoming 1."""
        return count * (1 - self.keep) + 1e-4

    def add(self, values: Tensor, seen: Tensor) -> None:
        """Adds the values of one view where ``seen``; overwrites ``values``."""
        self.count += seen
        self.total += values.masked_fill_(~seen, 0.0)
        if self.highest:
            values.masked_fill_(~seen, -torch.inf)
        for k, highest in enumerate(self.highest):
            self.highest[k] = torch.maximum(highest, values)
            values = torch.minimum(highest, values)

    def mean(self) -> Tensor:
        """The mean; NaN where nothing was seen."""
        left_out = self._left_out(self.count)
        total, count = self.total, self.count.clone()
        for k, highest in enumerate(self.highest):
            drop = left_out >= k + 1
            total = total - highest.masked_fill(~drop, 0.0)
            count -= drop.float()
        return total / count  # 0 / 0 where nothing was seen


def _fill_unseen(volume: Float[Tensor, "d h w"]) -> tuple[Float[Tensor, "d h w"], Bool[Tensor, "h w"]]:
    known = ~volume.isnan()
    seen = known.any(0)
    if bool(known.all()):
        return volume, seen
    fill = torch.where(seen, volume.nanmean(0), torch.zeros_like(volume[0]))
    return torch.where(known, volume, fill), seen
