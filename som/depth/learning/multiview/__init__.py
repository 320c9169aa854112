"""Multi-view stereo by a network: MVDepthNet trained on posed video, and at work on a clip."""

from som.depth.learning.multiview.network import MultiViewConfig, MultiViewNet
from som.depth.learning.multiview.prediction import MEASUREMENTS, MultiViewDepth, predict_views
from som.depth.learning.multiview.units import ClipScale, clip_scale, in_network_units

__all__ = [
    "MEASUREMENTS",
    "ClipScale",
    "MultiViewConfig",
    "MultiViewDepth",
    "MultiViewNet",
    "clip_scale",
    "in_network_units",
    "predict_views",
]
