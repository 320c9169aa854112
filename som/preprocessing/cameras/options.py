"""Options of the camera estimation. Free of torch, OpenCV and pycolmap, so that ``--help`` answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from som.errors import UserError


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
    """Focal length that is assumed where the video cannot tell, as a multiple of the longer side of the image; phones
    record video at 0.7 to 1.0."""
    query_stride: int = 5
    """Tracks start in every so manieth frame."""
    points_per_query: int = 200
    """Tracks that start in each of these frames, spread evenly over what does not move."""
    search_points: int = 70
    """So many of them serve while focal lengths are compared; all, to refine the best."""
    match_strides: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    """Distances in frames between the images that global mapping matches."""
    max_match_error: float = 1.5
    """Largest epipolar error of a match, in pixels of the flow fields."""
    max_variance: float = 0.15
    """Tracked positions that the tracker holds for less sure (variance in square pixels of the flow fields) are not
    used: on exact cameras the error triples between 0.1 and 0.3."""
    noise: float = 0.1
    """Expected scale of the Cauchy loss, in pixels of the flow fields: larger errors count less and less. The first
    adjustments are more tolerant, the last one takes the scale of the errors that it finds, 0.3 to 2 times this."""
    static_motion: float = 1.0
    """The camera is static if most points never move by this many pixels of the flow fields."""
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
