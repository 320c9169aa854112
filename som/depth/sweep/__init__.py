"""Depth from known poses without training: a plane sweep whose result is confirmed by several views."""

from som.depth.sweep.config import SweepConfig, SweepResult
from som.depth.sweep.depth_range import estimate_range, range_from_points
from som.depth.sweep.pose_refinement import RefinementConfig, refine_poses
from som.depth.sweep.sweep import plane_sweep
from som.depth.sweep.volume import cost_volume, inverse_depth_planes

__all__ = [
    "RefinementConfig",
    "SweepConfig",
    "SweepResult",
    "cost_volume",
    "estimate_range",
    "inverse_depth_planes",
    "plane_sweep",
    "range_from_points",
    "refine_poses",
]
