"""Depth of one clip, as a prior for whatever is built from it: ``estimate_depth``. See docs/depth.md."""

from depth.estimate.layout import guess_layout
from depth.estimate.pipeline import estimate_depth
from depth.estimate.prior import KINDS, DepthPrior
from depth.estimate.student import predict_depth
from depth.training.config import DepthConfig

__all__ = ["KINDS", "DepthConfig", "DepthPrior", "estimate_depth", "guess_layout", "predict_depth"]
