"""Depth and pose networks. See docs/depth-networks.md."""

from som.depth.networks.depth_net import DepthModule, DepthNet, DepthOutput, NetworkConfig, make_depth_net
from som.depth.networks.mvdepthnet import MVDepthNet
from som.depth.networks.pose import PoseNet, make_pose_net

__all__ = [
    "DepthModule",
    "DepthNet",
    "DepthOutput",
    "MVDepthNet",
    "NetworkConfig",
    "PoseNet",
    "make_depth_net",
    "make_pose_net",
]
