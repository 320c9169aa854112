"""Settings of the fusion of depth maps."""

from __future__ import annotations

from dataclasses import dataclass

from som.depth.errors import DepthError


@dataclass(frozen=True)
class FusionOptions:
    """Which pixels are trusted and how their points are merged."""

    min_views: int = 2
    """Number of other views that must agree with a pixel; all that it is compared with where those are fewer."""
    max_depth_error: float = 0.01
    """Relative difference of depth up to which another view agrees."""
    max_reprojection: float = 1.0
    """Pixels of the depth maps by which the way into the other view and back may miss."""
    num_views: int = 8
    """Views that each one is compared with."""
    angles: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """Wanted parallax of these views in degrees at the median depth; views with less than a quarter of the smallest
    confirm nothing and are left out."""
    border: int = 5
    """Pixels along the border of the depth maps that are dropped."""
    max_jump: float = 0.05
    """Pixels are dropped whose depth differs from a neighbour's by more than this share."""
    near: float | None = None
    """Depths down to this one and up to ``far`` are the ends of the searched range and are dropped; None keeps them."""
    far: float | None = None
    """See ``near``."""
    average: bool = True
    """A point is the mean of its pixel's point and those of the views that agree."""
    voxel: float | None = None
    """Side of the cubes in which points are merged, in scene units; 0 merges none, None takes the median size of a
    pixel on the surface."""
    neighbors: int = 16
    """Statistical outlier removal: neighbours to which the mean distance is taken; 0 removes none."""
    max_sigma: float = 2.0
    """Standard deviations above the mean at which such a distance makes a point an outlier."""

    def __post_init__(self) -> None:
        limits = (
            ("min_views", self.min_views >= 0, "at least 0"),
            ("max_depth_error", self.max_depth_error > 0, "above 0"),
            ("max_reprojection", self.max_reprojection > 0, "above 0"),
            ("num_views", self.num_views >= 1, "at least 1"),
            ("angles", bool(self.angles) and all(0 < a < 90 for a in self.angles), "between 0 and 90 degrees"),
            ("border", self.border >= 0, "at least 0"),
            ("max_jump", self.max_jump > 0, "above 0"),
            ("voxel", self.voxel is None or self.voxel >= 0, "None or at least 0"),
            ("neighbors", self.neighbors >= 0, "at least 0"),
            ("max_sigma", self.max_sigma > 0, "above 0"),
        )
        for name, holds, wanted in limits:
            if not holds:
                raise DepthError(f"{name} of the fusion must be {wanted}, got {getattr(self, name)}.")
