"""Options of the motion masks. Free of torch and OpenCV, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from som.errors import UserError


@dataclass(frozen=True)
class MaskWarningOptions:
    """When the user is warned about the masks."""

    min_trusted_flow: float = 0.3
    """Share of trusted flow between neighbouring frames below which the masks are guesses."""
    min_moving: float = 0.001
    """Share of the picture below which, in every frame, nothing moves."""
    max_moving: float = 0.5
    """Share of the picture, in the median frame, above which too much moves."""
    max_area_change: float = 0.5
    """Median relative change of the mask's area from frame to frame above which the masks flicker."""
    min_explained_ratio: float = 0.8
    """Share of the flow that cameras explain, over that which a homography explains, below which cameras are wrong."""


@dataclass(frozen=True)
class MaskOptions:
    """How moving pixels are found. Lengths called px are pixels of the flow fields; radii and sizes of clean-up are for
    fields whose longer side is 427 px, and scale with it."""

    homography_strides: tuple[int, ...] = (1, 2, 4)
    """Distances in frames, both ways, over which a homography is compared with the flow."""
    multi_view_strides: tuple[int, ...] = (1, 2, 4, 8)
    """Distances in frames, both ways, of the frames that a static point has to fit."""
    inlier_px: float = 1.0
    """Largest noise of flow that follows the homography."""
    min_threshold_px: float = 1.0
    """Residuals below this never count as motion."""
    max_threshold_px: float = 6.0
    """Residuals above this always count as motion."""
    static_camera_px: float = 1.0
    """The camera stands still where the median length of the flow over the longest distance in time is below this."""
    depth_tolerance: float = 0.3
    """Where depth is given, a static point's depth may differ from it by this share."""
    keep_vote: float = 0.6
    """A pixel moves where at least this share of the earlier, or of the later, frames that flow links it to say so,
    whatever its own frame says: objects that stop for a while stay foreground."""
    drop_vote: float = 0.1
    """A pixel does not move where at most this share of all those frames says so."""
    open_px: int = 3
    """Diameter of the opening that removes specks."""
    close_px: int = 9
    """Diameter of the closing that bridges gaps."""
    min_component: float = 0.002
    """Regions smaller than this share of the picture are dropped."""
    max_hole: float = 0.01
    """Holes smaller than this share of the picture are filled."""
    grabcut: bool = True
    """Whether outlines are fitted to the colours of the image (GrabCut)."""
    grabcut_erode_px: int = 9
    """What is left of the mask after erosion by this diameter is foreground for sure."""
    grabcut_dilate_px: int = 7
    """What lies outside the mask's dilation by this diameter is background for sure."""
    doubt_px: int = 41
    """Within the mask's dilation by this diameter colours also decide about pixels whose motion is doubtful: unknown,
    or with a residual of at least half the threshold."""
    grow_px: int = 3
    """Diameter by which the final mask is dilated. Masks are generous on purpose: a missed part of a moving object
    stays in the background as a ghost, a bit of background in the foreground does no harm."""
    warn: MaskWarningOptions = field(default_factory=MaskWarningOptions)
    """Warnings."""

    def __post_init__(self):
        for name in ("homography_strides", "multi_view_strides"):
            strides = getattr(self, name)
            if not strides or min(strides) < 1 or len(set(strides)) != len(strides):
                raise UserError(f"`masks.{name}`: different distances of at least 1 are expected, got {strides}.")
        for name in ("inlier_px", "min_threshold_px"):
            if not getattr(self, name) > 0:
                raise UserError(f"`masks.{name}`: must be positive, got {getattr(self, name)}.")
        if not self.max_threshold_px >= self.min_threshold_px:
            raise UserError(
                f"`masks.max_threshold_px`: must be at least `masks.min_threshold_px` = {self.min_threshold_px}, "
                f"got {self.max_threshold_px}."
            )
        for name in ("depth_tolerance", "keep_vote", "drop_vote", "min_component", "max_hole"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"`masks.{name}`: must lie in [0, 1), got {getattr(self, name)}.")
        for option in fields(self):
            if option.type == "int" and getattr(self, option.name) < 0:
                raise UserError(f"`masks.{option.name}`: must not be negative, got {getattr(self, option.name)}.")
