"""Metric scale without depth labels: objects of known height and a camera of constant height above the road."""

from som.depth.metric_scale.consensus import height_candidates
from som.depth.metric_scale.estimate import MetricScale, MetricScaleConfig, metric_scale
from som.depth.metric_scale.instances import Instances, instances_from_masks, remove_fragments
from som.depth.metric_scale.label import CameraHeightLabel, LabelConfig
from som.depth.metric_scale.objects import FrameConfig, ObjectStatus
from som.depth.metric_scale.priors import DEFAULT_PRIORS, HeightPrior, HeightPriors, read_priors
from som.depth.metric_scale.schedule import MetricSchedule

__all__ = [
    "DEFAULT_PRIORS",
    "CameraHeightLabel",
    "FrameConfig",
    "HeightPrior",
    "HeightPriors",
    "Instances",
    "LabelConfig",
    "MetricScale",
    "MetricScaleConfig",
    "MetricSchedule",
    "ObjectStatus",
    "height_candidates",
    "instances_from_masks",
    "metric_scale",
    "read_priors",
    "remove_fragments",
]
