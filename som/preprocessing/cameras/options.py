"""Options of the camera estimation. Free of torch, OpenCV and pycolmap, so that ``--help`` answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from som.errors import UserError


@dataclass(frozen=True)
class SearchOptions:
    """How cameras and an unknown focal length are searched for."""

    loss_scales: tuple[float, ...] = (1.0, 0.4)
    """Scales of the Cauchy loss of the first adjustments, from tolerant to strict, in pixels of the flow fields;
    ``cameras.noise`` follows."""
    noise_range: tuple[float, float] = (0.3, 2.0)
    """The last adjustment takes the scale of the residuals' own spread, within these multiples of ``cameras.noise``."""
    max_cost_ratio: float = 1.15
    """Starts whose cost is within this factor of the lowest have a focal length that is possible."""
    min_inlier_share: float = 0.6
    """If fewer observations than this share fit the best cameras, provider auto asks global mapping too."""
    focal_change: float = 1.1
    """The focal length is held this factor longer and shorter, to see how much the cost rises."""

    def __post_init__(self):
        for name in ("max_cost_ratio", "focal_change"):
            if not getattr(self, name) > 1:
                raise UserError(f"`cameras.search.{name}` must be above 1, got {getattr(self, name)}.")
        for name in ("loss_scales", "noise_range"):
            values = getattr(self, name)
            if not values or not min(values) > 0:
                raise UserError(f"`cameras.search.{name}` must be positive, got {values}.")


@dataclass(frozen=True)
class IncrementalOptions:
    """How the reconstruction proceeds along the video. All are numbers of frames where nothing else is said."""

    initial_frames: int = 10
    """Adjusted first, from rotations and points at one depth."""
    frames_per_step: int = 5
    """Added at a time."""
    window_frames: int = 20
    """Adjusted after each step: the last ones,"""
    fixed_frames: int = 5
    """but for the first so many of them, which are held fixed and so keep position and scale."""
    full_growth: float = 1.5
    """All frames so far are adjusted whenever there are so many times as many as the time before."""
    max_reversal_frames: int = 45
    """Up to so many, the scene reversed in depth is tried too: a reversed beginning hardly ever turns round later."""
    max_iterations: int = 10
    """Of each of these adjustments."""
    min_observations: int = 3
    """Frames that must see a point before it takes part."""
    min_common_points: int = 8
    """Points that two frames must share for the rotation between them to be estimated."""

    def __post_init__(self):
        for name in ("frames_per_step", "fixed_frames", "max_iterations", "min_observations", "min_common_points"):
            if getattr(self, name) < 1:
                raise UserError(f"`cameras.incremental.{name}` must be at least 1, got {getattr(self, name)}.")
        if self.initial_frames < 2:
            raise UserError(f"`cameras.incremental.initial_frames` must be at least 2, got {self.initial_frames}.")
        if self.window_frames <= self.fixed_frames:
            raise UserError(
                f"`cameras.incremental.window_frames` must be above `cameras.incremental.fixed_frames`, got "
                f"{self.window_frames} and {self.fixed_frames}."
            )


@dataclass(frozen=True)
class TrustOptions:
    """Which cameras and points are used, and when the user is warned. Pixels are those of a longer side of 480."""

    min_inliers: int = 12
    """Observations within a pixel of the flow fields that a frame needs to count as registered."""
    min_registered_share: float = 0.25
    """Share of its observations within a pixel of the flow fields that a frame needs to count as registered."""
    max_depth: float = 1000.0
    """Median depths beyond which a point is at infinity: its depth is not known."""
    inlier_error: float = 2.0
    """Pixels within which an observation agrees with the cameras."""
    max_median_error: float = 1.0
    """Pixels; median reprojection error above which a warning is given."""
    min_inlier_share: float = 0.6
    """Share of observations that agree with the cameras below which a warning is given."""
    min_parallax: float = 1.0
    """Degrees; median over the points of the widest angle between two rays, below which a warning is given: depth
    cannot be triangulated."""
    max_focal_spread: float = 0.1
    """Relative spread of the possible focal lengths above which a warning is given."""
    min_focal_cost_rise: float = 0.01
    """Relative rise of the cost at a changed focal length below which a warning is given: the focal length cannot be
    determined."""


@dataclass(frozen=True)
class CameraOptions:
    """How cameras are estimated from flow. The focal length is the one thing worth giving where it is known."""

    focal: float | None = None
    """Focal length in pixels of the full-size frames, if known; it is then held fixed."""
    fov: float | None = None
    """Horizontal field of view in degrees, if known: another way to give the focal length."""
    focal_starts: tuple[float, ...] = (0.7, 0.95, 1.3)
    """Where the search for an unknown focal length starts, as multiples of the longer side of the image."""
    default_focal: float = 0.85
    """Focal length that is assumed where the video does not determine it, as a multiple of the longer side of the
    image; phones record video at 0.7 to 1.0."""
    query_stride: int = 5
    """Tracks start in every n-th frame, this being n."""
    points_per_query: int = 200
    """Tracks that start in each of these frames, spread evenly over what does not move."""
    search_points: int = 70
    """So many of them serve while focal lengths are compared; all, to refine the best."""
    match_strides: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    """Distances in frames between the images that global mapping matches."""
    max_match_error: float = 1.5
    """Largest epipolar error of a match, in pixels of the flow fields."""
    max_variance: float = 0.15
    """Tracked positions of a larger variance, by the tracker's estimate in square pixels of the flow fields, are not
    used: on exact cameras the error triples between 0.1 and 0.3."""
    noise: float = 0.1
    """Expected scale of the Cauchy loss, in pixels of the flow fields: larger errors count less and less. The first
    adjustments are more tolerant, the last one takes the scale of the errors that it finds, 0.3 to 2 times this."""
    static_motion: float = 1.0
    """The camera is static if most points never move by this many pixels of the flow fields."""
    search: SearchOptions = field(default_factory=SearchOptions)
    """Search for cameras and focal length."""
    incremental: IncrementalOptions = field(default_factory=IncrementalOptions)
    """Incremental reconstruction."""
    trust: TrustOptions = field(default_factory=TrustOptions)
    """What is used of the outcome, and warnings."""
    seed: int = 0
    """Of the choice of points and of all sampling."""
    num_threads: int | None = None
    """Threads of pycolmap; None takes torch's number. The result does not depend on it beyond rounding."""

    def __post_init__(self):
        if self.focal is not None and self.fov is not None:
            raise UserError("`cameras.focal` and `cameras.fov` say the same thing; give only one of them.")
        if self.focal is not None and not (math.isfinite(self.focal) and self.focal > 0):
            raise UserError(f"`cameras.focal`: the focal length in pixels must be positive, got {self.focal}.")
        if self.fov is not None and not 1 <= self.fov <= 170:
            raise UserError(
                f"`cameras.fov`: the horizontal field of view must lie in [1, 170] degrees, got {self.fov}."
            )
        if not self.focal_starts or not all(0.1 <= start <= 10 for start in self.focal_starts):
            raise UserError(
                "`cameras.focal_starts`: one or more multiples of the image's longer side in [0.1, 10] are expected, "
                f"got {self.focal_starts}."
            )
        for name in (
            "default_focal",
            "query_stride",
            "points_per_query",
            "search_points",
            "max_match_error",
            "max_variance",
            "noise",
            "static_motion",
        ):
            if not getattr(self, name) > 0:
                raise UserError(f"`cameras.{name}` must be positive, got {getattr(self, name)}.")
        if not self.match_strides or min(self.match_strides) < 1:
            raise UserError(
                f"`cameras.match_strides`: distances of at least 1 frame are expected, got {self.match_strides}."
            )

    def known_focal(self, width: int) -> float | None:
        """The focal length in pixels that the user gave for images of this width, or None."""
        if self.fov is not None:
            return width / (2 * math.tan(math.radians(self.fov) / 2))
        return self.focal
