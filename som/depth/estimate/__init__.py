"""Depth of one clip, as a prior for whatever is built from it: ``estimate_depth``. See docs/depth.md."""

from som.depth.estimate.layout import guess_layout
from som.depth.estimate.pipeline import check_weights, estimate_depth
from som.depth.estimate.prior import KINDS, DepthPrior
from som.depth.estimate.student import predict_depth
from som.depth.learning.training.config import DepthConfig

__all__ = ["KINDS", "DepthConfig", "DepthPrior", "check_weights", "estimate_depth", "guess_layout", "predict_depth"]
