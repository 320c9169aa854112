"""Settings of the depth of moving objects. Free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SegmentOptions:
    """How connected regions of moving pixels are linked by tracks into objects."""

    strides: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Distances in frames over which segments are compared."""
    min_tracks: int = 12
    """Tracks that two segments of an object must share to be compared."""
    same_share: float = 0.8
    """Two regions show the same object if this share of the tracks of either are on the other."""
    present_share: float = 0.15
    """Share of a region's tracks from which on a second object has a part of the region."""
    mixed_share: float = 0.05
    """The same share from which on a region says nothing about which object its other tracks belong to."""
    max_rounds: int = 5
    """Alternations between finding mixed regions and the objects of tracks."""
    min_fragment_share: float = 0.2
    """Pieces of an object smaller than this share of its largest one in the region belong to their neighbours."""
    num_neighbors: int = 5
    """A pixel of a region of several objects belongs to the one that most of so many nearest tracks are on."""


@dataclass(frozen=True)
class ShapeOptions:
    """Structure from motion on the tracks of one object."""

    min_frames: int = 6
    """Frames below which no shape is tried."""
    min_points: int = 60
    """Tracks, each seen in three frames or more, below which no shape is tried."""
    min_tracks_per_frame: int = 16
    """Tracks that a frame must show to take part."""
    points_per_frame: int = 50
    """Tracks used of those that begin in one frame; the others are triangulated afterwards."""
    max_frames: int = 40
    """Frames from which the motion is found; those between are added afterwards."""
    loss_scales: tuple[float, float] = (1.0, 0.4)
    """Pixels; scales of the robust loss, from tolerant to strict."""
    max_median_error: float = 0.8
    """Pixels; median reprojection error above which an object is not rigid."""
    inlier_error: float = 1.0
    """Pixels; reprojection error below which an observation of a point is an inlier."""
    min_inlier_ratio: float = 0.6
    """A frame whose inlier share is below this ratio of the median over the frames has a wrong pose."""
    min_observations: int = 4
    """Observations that a further track needs to be assigned to an object; three views fit many a depth."""
    min_inlier_share: float = 0.7
    """Share of a further track's observations that must be inliers."""
    initial_bulge: float = 1.0
    """Shape to start from: how much nearer the middle of an object is than its outline, in standard deviations of the
    positions of its points."""
    max_cost_ratio: float = 2.0
    """Costs within this factor of each other cannot distinguish an object from its Necker reversal."""
    max_disagreement: float = 0.15
    """Median difference of log depth between two halves of the tracks, as a share of the object's extent over its
    distance, above which its shape is not known."""
    always_agreeing: float = 0.003
    """Difference of log depth below which the halves agree anyway: a flat object has no extent in depth."""


@dataclass(frozen=True)
class SizeOptions:
    """How the change of an object's depth follows from the change of its apparent size."""

    min_spread: float = 2.0
    """Pixels; least standard deviation, along both axes, of the positions of the tracks that are compared."""
    deformation: float = 0.03
    """Residual of the affine map, as a share of the object's extent, above which it deforms and its size says
    little."""


@dataclass(frozen=True)
class AssignmentOptions:
    """Which tracks follow which rigid object."""

    min_inlier_share: float = 0.5
    """A track is on a rigid object if this share of its observations fit the object's motion."""
    min_foreign_neighbors: float = 0.6
    """Share of a track's neighbours that must not fit either, for it to be on another object: poor tracks lie
    scattered."""
    max_objects: int = 20
    """Objects of a clip whose shape is tried, those of most tracks."""
    rounds: int = 3
    """Times that shapes are found and tracks are assigned anew."""


@dataclass(frozen=True)
class MovingDepthOptions:
    """How the depth of moving objects is corrected."""

    ground_sigma: tuple[float, float] = (0.3, 0.03)
    """Standard deviation of the log depth of the ground below an object where its confidence is 0, and where it is
    ``full_confidence`` or more."""
    full_confidence: float = 0.5
    """Confidence of the ground's depth above which it counts fully."""
    prior_sigma: float = 1.0
    """Standard deviation of the initial log depth of a segment, where no static surface is seen below it."""
    nearer_sigmas: float = 2.0
    """An object may be nearer than the ground below it, as when it flies: so many standard deviations nearer, the
    ground counts half."""
    size_sigma: float = 0.1
    """Least standard deviation of a comparison of sizes: objects stretch and bend, and frames overlap."""
    size_tolerance: float = 0.05
    """Error in log size above which a comparison counts less and less (Cauchy)."""
    motion_sigma: float = 0.1
    """Standard deviation of the change of an object's log depth from one frame to the next."""
    shape_sigma: float = 0.003
    """Standard deviation of the change of log depth that follows from the shape of a rigid object."""
    foot_share: float = 0.2
    """The foot of a rigid object is the lowest share of its height."""
    min_points: int = 8
    """Points of a rigid object, a pixel or more apart, from which the depth of a segment is interpolated."""
    max_change: float = math.log(4.0)
    """Largest correction of log depth."""
    in_front: float = 0.95
    """A moving object is taken to be nearer than this share of the depth that it hides."""
    segments: SegmentOptions = field(default_factory=SegmentOptions)
    """Linking of regions."""
    shape: ShapeOptions = field(default_factory=ShapeOptions)
    """Shape of rigid objects."""
    size: SizeOptions = field(default_factory=SizeOptions)
    """Comparison of sizes."""
    assignment: AssignmentOptions = field(default_factory=AssignmentOptions)
    """Assignment of tracks to objects."""
