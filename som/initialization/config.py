"""Settings of the initialisation. Free of heavy imports, so that a command line can be parsed quickly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class InitializationConfig:
    """How the first scene is made from tracks, depth and masks."""

    num_foreground: int = 40_000
    """At most this many moving Gaussians."""

    num_background: int = 100_000
    """At most this many static Gaussians."""

    num_motion_bases: int = 20
    """Rigid motions shared by all moving Gaussians; fewer are made when there are too few tracks."""

    num_tracks: int = 8192
    """Tracks that take part, drawn evenly over the query times."""

    min_observations: int = 3
    """A track needs this many lifted positions (or as many as there are times, if fewer)."""

    depth_edge_ratio: float = 1.1
    """A pixel lies on a depth edge where the depths around it differ by more than this factor."""

    surface_depth_ratio: float = 1.03
    """Depths within this factor of the nearest or farthest one around lie on that surface; what lies between the two on
    a depth edge belongs to neither and is left out."""

    hole_footprints: float = 1.5
    """Pixels on edges or near masks are used where no clean pixel is within this many pixel footprints."""

    min_explained_share: float = 0.8
    """Share of the tracks that rigid parts should explain; the rest may be wrong tracks."""

    part_tolerance: float | None = None
    """Root mean square deviation from a rigid motion, in scene units, up to which a track belongs to a part;
    None estimates it from how rigidly close neighbours move."""

    optimization_steps: int = 200
    """Steps of the joint optimisation of bases, coefficients and track positions; 0 leaves the fitted motions."""

    optimization_batch: int = 36_000
    """Positions (tracks times frames) per step of that optimisation."""

    smoothness_weight: float = 0.01
    """Weight of the second differences of bases and tracks in that optimisation."""

    mask_margin: int = 4
    """Pixels around the foreground mask from which no background is taken, unless nothing else covers the place."""

    opacity: float = 0.7
    """Initial opacity of every Gaussian."""

    oversampling: float = 4.0
    """Pixels lifted per wanted Gaussian, before thinning."""
