"""Choice of source views: which frames a target frame is compared with.

Neighbours in time are one choice. Any two posed views of the same static scene serve as well; what matters is that they
see the same points (overlap) from different places (baseline, parallax).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.cameras.geometry import in_image, invert_se3, project_from_world, unproject_to_world
from som.depth.errors import DepthError

RULES = ("index", "baseline", "overlap", "two_view")
"""Names of the rules of ``choose_sources``."""


@dataclass(frozen=True)
class SourceConfig:
    """How the source views of a target are chosen."""

    rule: Literal["index", "baseline", "overlap", "two_view"] = "index"
    """``index``: by distance in time; ``baseline``: by distance of the cameras over scene depth; ``overlap``: by the
    share of the target's points that the source sees; ``two_view``: the widest parallax with enough overlap in both
    directions. All but the first need poses."""
    offsets: tuple[int, ...] = (-1, 1)
    """Sources of the rule ``index``, in frames from the target; not 0."""
    count: int = 2
    """Number of sources of the other rules."""
    baseline: tuple[float, float] = (0.02, 0.2)
    """Least and largest distance of the cameras over the median depth of the target; rule ``baseline``."""
    max_turn: float = 40.0
    """Largest angle in degrees between the optical axes; rules ``baseline`` and ``two_view``."""
    overlap: tuple[float, float] = (0.5, 0.95)
    """Least and largest share of the target's points that the source sees; ``two_view`` uses the least only."""
    parallax: tuple[float, float] = (1.0, 20.0)
    """Least and largest median angle in degrees under which the target's points see both cameras; ``two_view``."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise DepthError(f"unknown rule of source views {self.rule!r}; choose one of {', '.join(RULES)}.")
        if not self.offsets or 0 in self.offsets:
            raise DepthError(f"offsets of source views must be given and not 0, got {self.offsets}; e.g. (-1, 1).")
        if self.count < 1:
            raise DepthError(f"count of source views must be at least 1, got {self.count}.")
        for name in ("baseline", "overlap", "parallax"):
            low, high = getattr(self, name)
            if not 0 <= low < high:
                raise DepthError(f"{name} of source views must be a range (low, high), got {(low, high)}.")


def choose_sources(
    config: SourceConfig,
    frames: int,
    *,
    w2c: Float[Tensor, "t 4 4"] | None = None,
    K: Float[Tensor, "*t 3 3"] | None = None,
    depth: float | Float[Tensor, "t"] | Float[Tensor, "t h w"] | None = None,
    size: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "t s"]:
    """Source frames of every target frame.

    Of the frames that meet the rule, the best come first: for ``baseline`` and ``overlap`` those nearest to the middle
    of the range, for ``two_view`` those of the widest parallax. With a generator the order is random instead, for new
    pairs in every epoch. The second source is taken from the other side of the target where there is one, since what
    is hidden from one side is often seen from the other.

    Args:
        config: the rule and its ranges.
        frames: T, number of frames.
        w2c: poses of all frames; not needed by ``index``.
        K: intrinsics in pixels, (3,3) or (T,3,3); needed by ``overlap`` and ``two_view``.
        depth: of the scene in the unit of the poses: one number, one per frame, or maps (0 = unknown).
        size: (height, width) of the images that K belongs to; None takes that of the depth maps.
        generator: draws the order of the frames that meet the rule; on the CPU. None is deterministic.

    Returns:
        frame indices, int64 on the CPU; -1 in place of each source that a target lacks. Never the target itself.

    Raises:
        DepthError: fewer than two frames, or the rule lacks an input or gets one of the wrong shape.
    """
    if frames < 2:
        raise DepthError(f"source views need at least two frames, got {frames}.")
    if config.rule == "index":
        index = torch.arange(frames)[:, None] + torch.tensor(config.offsets)
        return torch.where((index >= 0) & (index < frames), index, torch.full_like(index, -1))
    if w2c is None or w2c.shape != (frames, 4, 4):
        given = "none" if w2c is None else f"shape {tuple(w2c.shape)}"
        raise DepthError(f"source views by {config.rule} need poses w2c ({frames},4,4), got {given}; or use index.")
    if depth is None:
        raise DepthError(f"source views by {config.rule} need the depth of the scene; give a number or depth maps.")
    w2c = w2c.detach().cpu().double()
    if config.rule == "baseline":
        value = relative_baselines(w2c, depth)
        fits = (value >= config.baseline[0]) & (value <= config.baseline[1]) & (_turns(w2c) <= config.max_turn)
        low, high = (math.log(max(end, 1e-6)) for end in config.baseline)
        score = -(value.clamp(min=1e-9).log() - (low + high) / 2).abs()
    else:
        if K is None:
            raise DepthError(f"source views by {config.rule} need the intrinsics K.")
        share, angle = overlap_and_parallax(w2c, K, depth, size)
        if config.rule == "overlap":
            fits = (share >= config.overlap[0]) & (share <= config.overlap[1])
            score = -(share - sum(config.overlap) / 2).abs()
        else:
            fits = (torch.minimum(share, share.T) >= config.overlap[0]) & (_turns(w2c) <= config.max_turn)
            fits &= (angle >= config.parallax[0]) & (angle <= config.parallax[1])
            score = angle
    if generator is not None:
        score = torch.rand(score.shape, generator=generator, dtype=torch.float64)
    return _pick(score, fits & ~torch.eye(frames, dtype=torch.bool), w2c, config.count)


def _pick(
    score: Float[Tensor, "t t"], fits: Bool[Tensor, "t t"], w2c: Float[Tensor, "t 4 4"], count: int
) -> Int[Tensor, "t s"]:
    """The best of those that fit; each next one opposite to the sum of directions so far, if any there fits."""
    centers = invert_se3(w2c)[:, :3, 3]
    directions = torch.nn.functional.normalize(centers[None] - centers[:, None], dim=-1)
    frames = torch.arange(len(w2c))
    score = torch.where(fits, score, torch.full_like(score, -torch.inf))
    reached = torch.zeros_like(centers)
    chosen = []
    for _ in range(count):
        opposite = (directions * reached[:, None]).sum(-1) < 0
        beyond = torch.where(opposite, score, torch.full_like(score, -torch.inf))
        best = torch.where(beyond.amax(1).isfinite(), beyond.argmax(1), score.argmax(1))
        found = score[frames, best].isfinite()
        chosen.append(torch.where(found, best, torch.full_like(best, -1)))
        reached = reached + directions[frames, best] * found[:, None]
        score[frames, best] = -torch.inf
    return torch.stack(chosen, dim=1)


def _frame_depths(depth: float | Tensor, frames: int) -> Float[Tensor, "t"]:
    """Median depth of each frame, float64; NaN where a map knows nothing."""
    depth = torch.as_tensor(depth, dtype=torch.float64).detach().cpu()
    if depth.ndim == 3 and len(depth) == frames:
        return torch.where(depth > 0, depth, torch.full_like(depth, torch.nan)).flatten(1).nanmedian(1).values
    if depth.ndim == 0 or depth.shape == (frames,):
        return depth.expand(frames)
    raise DepthError(f"depth must be a number, ({frames},) or ({frames},H,W), got shape {tuple(depth.shape)}.")


def _turns(w2c: Float[Tensor, "t 4 4"]) -> Float[Tensor, "t t"]:
    """Angle in degrees between the optical axes of all pairs."""
    axes = w2c[:, 2, :3]
    return (axes @ axes.T).clamp(-1, 1).acos().rad2deg()


def relative_baselines(
    w2c: Float[Tensor, "t 4 4"], depth: float | Float[Tensor, "t"] | Float[Tensor, "t h w"]
) -> Float[Tensor, "t t"]:
    """Distance of camera j from camera i over the median depth of frame i, in row i and column j; float64.

    Args:
        w2c: poses.
        depth: of the scene in the unit of the poses: one number, one per frame, or maps (0 = unknown).

    Raises:
        DepthError: the shape of the depth is wrong.
    """
    centers = invert_se3(w2c.detach().cpu().double())[:, :3, 3]
    return (centers[:, None] - centers[None]).norm(dim=-1) / _frame_depths(depth, len(w2c))[:, None]


def overlap_and_parallax(
    w2c: Float[Tensor, "t 4 4"],
    K: Float[Tensor, "*t 3 3"],
    depth: float | Float[Tensor, "t"] | Float[Tensor, "t h w"],
    size: tuple[int, int] | None = None,
    grid: int = 16,
) -> tuple[Float[Tensor, "t t"], Float[Tensor, "t t"]]:
    """What frame j sees of frame i, in row i and column j; float64 on the CPU.

    Looks at a grid of pixels. Whether something lies between the point and camera j is not looked at.

    Args:
        w2c: poses.
        K: intrinsics in pixels, (3,3) or (T,3,3).
        depth: one number, one per frame, or maps (0 = unknown, those pixels are left out), in the unit of the poses.
        size: (height, width) of the images that K belongs to; None takes that of the depth maps.
        grid: pixels per side of the grid.

    Returns:
        share in [0, 1] of i's points that project into image j, in front of it; and the median angle in degrees
        between the rays from these points to the two cameras. Both 0 where i has no known point or j sees none.

    Raises:
        DepthError: a shape is wrong, or the size is missing.
    """
    T = len(w2c)
    depth = torch.as_tensor(depth, dtype=torch.float64).detach().cpu()
    if size is None:
        if depth.ndim != 3:
            raise DepthError("overlap of views needs the image size; give size=(height, width) or depth maps.")
        size = (depth.shape[-2], depth.shape[-1])
    if K.shape not in ((3, 3), (T, 3, 3)):
        raise DepthError(f"K must be (3,3) or ({T},3,3), got shape {tuple(K.shape)}.")
    w2c, K = w2c.detach().cpu().double(), K.detach().cpu().double().expand(T, 3, 3)
    xy, z = _grid_points(depth, T, size, grid)
    points = unproject_to_world(xy.expand(T, -1, 2), z, K, w2c)
    centers = invert_se3(w2c)[:, :3, 3]
    share, parallax = torch.zeros(T, T, dtype=torch.float64), torch.zeros(T, T, dtype=torch.float64)
    for i in range(T):
        known = z[i] > 0
        if not bool(known.any()):
            continue
        seen_from = points[i, known].expand(T, -1, 3)
        at, depth_there = project_from_world(seen_from, K, w2c)
        seen = in_image(at, *size) & (depth_there > 0)
        rays = torch.nn.functional.normalize(centers[:, None] - seen_from, dim=-1)
        chord = (rays - rays[i]).norm(dim=-1)  # exact for small angles too, unlike acos
        angles = 2 * (chord / 2).clamp(max=1).asin().rad2deg()
        share[i] = seen.double().mean(1)
        median = torch.where(seen, angles, torch.full_like(angles, torch.nan)).nanmedian(1).values
        parallax[i] = median.nan_to_num(0.0)
    return share, parallax


def _grid_points(
    depth: Tensor, frames: int, size: tuple[int, int], grid: int
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "t n"]]:
    """Image coordinates spread over the image and the depth of every frame there."""
    H, W = size
    y, x = ((torch.arange(grid, dtype=torch.float64) + 0.5) / grid * side for side in (H, W))
    xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
    if depth.ndim == 3 and len(depth) == frames:
        h, w = depth.shape[-2:]
        column, row = (xy[:, 0] * w / W).long(), (xy[:, 1] * h / H).long()
        xy = torch.stack([(column + 0.5) * W / w, (row + 0.5) * H / h], dim=-1)
        return xy, depth[:, row, column]
    return xy, _frame_depths(depth, frames)[:, None].expand(frames, len(xy))
