"""The network of a command: from a checkpoint of som4d depth train, or from published weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from som.commands.depth.options import ModelOptions
from som.depth.errors import DepthError
from som.depth.estimate.prior import Units
from som.depth.learning.multiview import MEASUREMENTS, MultiViewConfig, MultiViewNet
from som.depth.learning.multiview.build import measurement_rule
from som.depth.learning.training.checkpoint import DepthCheckpoint, load_checkpoint
from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.networks import DepthNet, NetworkConfig, make_depth_net
from som.depth.views import SourceConfig
from som.depth.weights import load_weights
from som.runs.progress import say
from som.runs.work_dir import checkpoint_path
from som.settings.plain import merge

PUBLISHED_SIZE = (192, 640)
"""(height, width) that most published networks were trained at."""
MULTIVIEW_SIZE = (256, 320)
"""(height, width) that the published MVDepthNet was trained at."""


@dataclass
class LoadedModel:
    """A network and what it gives."""

    net: DepthNet | MultiViewNet
    size: tuple[int, int]
    """(height, width) of its images."""
    units: Units
    """``metric``, ``scene`` or ``relative``; a multi-view network has the unit of the poses."""
    scale: float
    """Factor on its depth."""
    poses_learned: bool
    description: str
    views: SourceConfig = MEASUREMENTS
    """How a multi-view network's measurement frames are chosen."""
    scene_range: tuple[float, float] | None = None
    """Of a multi-view network: nearest and farthest depth of the scene, if it is given."""


def load_model(options: ModelOptions, device: torch.device) -> LoadedModel | None:
    """The network that the options name; None if they name none.

    Raises:
        DepthError: both a model and weights, or a file that cannot be used.
    """
    if options.model is not None and options.weights is not None:
        raise DepthError("give --model or --weights, not both.")
    if options.scale <= 0:
        raise DepthError(f"--scale must be positive, got {options.scale}.")
    if options.model is not None:
        loaded = _trained(options, options.model)
    elif options.weights is not None:
        loaded = _published(options, options.weights)
    else:
        return None
    loaded.net.to(device).eval()
    return loaded


def _trained(options: ModelOptions, model: Path) -> LoadedModel:
    path = checkpoint_path(model) if model.is_dir() else model
    checkpoint = load_checkpoint(path)
    if checkpoint.network.get("name") == "mvdepthnet":
        return _trained_multiview(options, path, checkpoint)
    plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in checkpoint.network.items()}
    try:
        net = make_depth_net(NetworkConfig(**plain))
        net.load_state_dict(checkpoint.depth_net)
        trained_at = checkpoint.config["height"], checkpoint.config["width"]
    except (TypeError, KeyError, RuntimeError) as error:
        raise DepthError(f"{path}: does not fit itself ({str(error).splitlines()[0]}); train it anew.") from error
    size = options.height or trained_at[0], options.width or trained_at[1]
    described = f"network {net.config.name} after {checkpoint.step} steps"
    return LoadedModel(net, size, cast(Units, checkpoint.units), options.scale, checkpoint.pose is not None, described)


def _trained_multiview(options: ModelOptions, path: Path, checkpoint: DepthCheckpoint) -> LoadedModel:
    config = merge(DepthTrainingConfig(), checkpoint.config, str(path))
    try:
        net = MultiViewNet(MultiViewConfig(**checkpoint.network))
        net.load_state_dict(checkpoint.depth_net)
    except (TypeError, RuntimeError) as error:
        raise DepthError(f"{path}: does not fit itself ({str(error).splitlines()[0]}); train it anew.") from error
    size = options.height or config.height, options.width or config.width
    described = f"network mvdepthnet after {checkpoint.step} steps"
    rule = measurement_rule(config)
    return LoadedModel(net, size, "scene", options.scale, False, described, rule, options.scene_range)


def _published_multiview(options: ModelOptions, weights: Path) -> LoadedModel:
    net = MultiViewNet(MultiViewConfig(width=1.0, matching="published", num_scales=1, initial_depth=None))
    say(str(load_weights(net.net, weights)))
    size = options.height or MULTIVIEW_SIZE[0], options.width or MULTIVIEW_SIZE[1]
    described = f"mvdepthnet with {weights.name}"
    return LoadedModel(net, size, "scene", options.scale, False, described, scene_range=options.scene_range)


def _published(options: ModelOptions, weights: Path) -> LoadedModel:
    if options.network == "mvdepthnet":
        return _published_multiview(options, weights)
    span = options.depth_range
    net = make_depth_net(NetworkConfig(options.network, depth_range=span, num_scales=4))
    report = load_weights(net, weights)
    say(str(report))
    height, width = report.metadata.get("height"), report.metadata.get("width")
    trained_at = (height, width) if isinstance(height, int) and isinstance(width, int) else PUBLISHED_SIZE
    size = options.height or trained_at[0], options.width or trained_at[1]
    units: Units = "relative" if options.scale == 1.0 else "metric"
    return LoadedModel(net, size, units, options.scale, True, f"{options.network} with {weights.name}")
