"""Multi-view stereo by a network: MVDepthNet trained on posed video, and at work on a clip."""

from depth.multiview.network import MultiViewConfig, MultiViewNet
from depth.multiview.prediction import MEASUREMENTS, MultiViewDepth, predict_views
from depth.multiview.units import ClipScale, clip_scale, in_network_units

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
