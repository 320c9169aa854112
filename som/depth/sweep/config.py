"""Settings and result of the plane sweep."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.sweep.costs import CostName, make_cost


@dataclass(frozen=True)
class SweepConfig:
    """How depth is swept, regularised and filtered. The defaults were chosen on docs/plane-sweep.md's measurements."""

    num_planes: int = 64
    """Planes of equal steps in inverse depth between ``near`` and ``far``."""
    near: float | None = None
    """Depth of the nearest plane in the unit of the poses; None estimates the range from the images."""
    far: float | None = None
    """Depth of the farthest plane; may be infinite. Given together with ``near``."""
    cost: CostName = "census"
    """``census`` (soft census transform), ``zncc`` (normalised cross-correlation) or ``absolute`` (difference)."""
    window: int = 5
    """Side in pixels of the window that costs are summed over; odd."""
    num_sources: int = 8
    """Views that each target is compared with, when chosen by parallax."""
    angles: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)
    """Wanted parallax of the sources in degrees, at the geometric mean of near and far (of at most
    ``max_source_depth_ratio`` times near). For each angle an earlier and a later view."""
    max_source_depth_ratio: float = 20.0
    """What is farther than this many times the nearest depth does not count for the choice of sources."""
    min_parallax: float = 1.0
    """Pixels of parallax at the nearest plane, of the widest pair of views, below which there is nothing to measure."""
    min_overlap: float = 0.5
    """Share of the target, at that depth, that a source must see."""
    offsets: tuple[int, ...] | None = None
    """Sources by their distance in frames, such as (-2, -1, 1, 2), instead of by parallax."""
    keep_views: float = 0.75
    """Share of the sources with the lowest costs that counts, per pixel and plane; 0.5 is the best half."""
    small_step: float = 0.05
    """Semi-global regularisation: penalty of a step by one plane along a path, as a share of what a wrong match costs
    more than a right one."""
    large_step: float = 1.0
    """Semi-global regularisation: penalty of a larger step where the image is flat. 0 turns the regularisation off."""
    edge_difference: float = 0.1
    """Semi-global regularisation: difference of neighbouring grey values, in [0, 1], that lowers the penalty of a
    larger step to 1/e."""
    refine_planes: int = 5
    """Planes of a second, unregularised sweep within one step of the first result; 0 leaves it out."""
    max_depth_error: float = 0.05
    """Cross-view filter: relative difference of depth up to which another view agrees."""
    max_reprojection: float = 1.0
    """Cross-view filter: pixels by which the way into the other view and back may miss."""
    min_views: int = 3
    """Cross-view filter: number of sources that must agree; all of them where a frame has fewer."""
    max_jump: float = 0.1
    """Pixels at and next to a relative step of inverse depth above this are dropped, since windows smear the nearer
    side over it. Slanted planes have none."""
    min_distinctness: float = 0.0
    """Pixels are dropped if their lowest cost is not lower by this share than that of any other depth, in [0, 1)."""
    average: bool = True
    """Inverse depth is averaged with that of the views that agree."""

    def __post_init__(self) -> None:
        make_cost(self.cost, self.window)
        if (self.near is None) != (self.far is None):
            raise DepthError("near and far of the sweep must be given together; leave both out to estimate the range.")
        near, far = self.depth_range or (1.0, 2.0)
        if not 0 < near < far:
            raise DepthError(f"the sweep needs 0 < near < far, got near {near:g} and far {far:g}.")
        if self.offsets is not None and (not self.offsets or 0 in self.offsets):
            raise DepthError(f"offsets of the sweep's sources must not be empty or 0, got {self.offsets}.")
        if not self.angles or min(self.angles) <= 0 or max(self.angles) >= 90:
            raise DepthError(f"angles of the sweep's sources must lie between 0 and 90 degrees, got {self.angles}.")
        limits = (
            ("num_planes", self.num_planes >= 3, "at least 3"),
            ("num_sources", self.num_sources >= 1, "at least 1"),
            ("min_overlap", 0 < self.min_overlap <= 1, "in (0, 1]"),
            ("keep_views", 0 < self.keep_views <= 1, "in (0, 1]"),
            ("max_source_depth_ratio", self.max_source_depth_ratio >= 1, "at least 1"),
            ("min_parallax", self.min_parallax > 0, "above 0"),
            ("edge_difference", self.edge_difference > 0, "above 0"),
            ("small_step", self.small_step >= 0, "at least 0"),
            ("large_step", self.large_step == 0 or self.large_step >= self.small_step, "0, or at least small_step"),
            ("refine_planes", self.refine_planes == 0 or self.refine_planes >= 3, "0, or at least 3"),
            ("max_depth_error", self.max_depth_error > 0, "above 0"),
            ("max_reprojection", self.max_reprojection > 0, "above 0"),
            ("max_jump", self.max_jump > 0, "above 0"),
            ("min_views", self.min_views >= 0, "at least 0"),
            ("min_distinctness", 0 <= self.min_distinctness < 1, "in [0, 1)"),
        )
        for name, holds, wanted in limits:
            if not holds:
                raise DepthError(f"{name} of the sweep must be {wanted}, got {getattr(self, name)}.")

    @property
    def depth_range(self) -> tuple[float, float] | None:
        """Depth of the nearest and the farthest plane; None where it is to be estimated."""
        return None if self.near is None or self.far is None else (self.near, self.far)


@dataclass(frozen=True, eq=False)
class SweepResult:
    """Depth of every frame, in the unit of the poses."""

    depth: Float[Tensor, "t h w"]
    """z-depth confirmed by other views; 0 = unknown."""
    confidence: Float[Tensor, "t h w"]
    """In [0, 1], 0 where depth is unknown: the share of sources that agree x sqrt(distinctness) x exp(-2 spread /
    max_depth_error), with the relative standard deviation of what agrees as spread. A rank, not a probability."""
    range: tuple[float, float]
    """Depth of the nearest and the farthest plane; the farthest may be infinite."""
    raw_depth: Float[Tensor, "t h w"]
    """The best depth of every pixel that any source sees, unfiltered; 0 elsewhere and on moving objects."""
    sources: list[list[int]]
    """Views that each frame was compared with; empty where the camera stood still."""
