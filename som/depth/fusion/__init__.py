"""Fusion of depth maps: which pixels several views confirm, and the point cloud of those."""

from som.depth.fusion.cloud import PointCloud, ViewCheck, check_views, fuse_points
from som.depth.fusion.options import FusionOptions
from som.depth.fusion.ply import read_ply, write_ply

__all__ = ["FusionOptions", "PointCloud", "ViewCheck", "check_views", "fuse_points", "read_ply", "write_ply"]
