"""som4d depth predict, som4d depth sweep"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from som.commands.depth.common import (
    height_priors,
    known_cameras,
    known_intrinsics,
    masks_of,
    open_input,
    road_and_objects,
    write_depth_pictures,
)
from som.commands.depth.model import LoadedModel, load_model
from som.commands.depth.options import MetricOptions, PredictCommand, SweepCommand
from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.estimate import KINDS, DepthPrior, estimate_depth, predict_depth
from som.depth.estimate.prior import Units
from som.depth.estimate.teacher import sweep_config
from som.depth.learning.multiview import MultiViewNet, predict_views
from som.depth.learning.training.collapse import CollapseError, collapse_reason, ramp_warning
from som.depth.learning.training.config import CollapseLimits
from som.depth.metric_scale import metric_scale
from som.depth.metrics import resize_by_disparity
from som.depth.records import write_depth_folder, write_depth_prior
from som.depth.sweep import plane_sweep
from som.files import write_bytes
from som.runs.device import choose_device, set_up_process
from som.runs.progress import ProgressLine, say

NETWORK_CONFIDENCE = 0.5
"""Confidence of a network's depth that nothing checks."""


def predict(command: PredictCommand) -> int:
    """Writes depth and confidence; returns the exit code (0 done, 1 the depth is flat or collapsed).

    Raises:
        DepthError: something in the options or the data is wrong.
    """
    set_up_process(command.threads)
    device = choose_device(command.device)
    model = load_model(command.model, device)
    sequence = open_input(command.input, cache_images=True)
    say(f"{sequence.name}: {len(sequence)} frames of {sequence.size[1]}x{sequence.size[0]}")
    target = _target(command, sequence)
    try:
        prior = _estimate(command, sequence, device) if model is None else _apply(command, model, sequence, device)
    except CollapseError as error:
        say(f"error: {error} Nothing was written.")
        return 1
    for warning in prior.scale_log.get("warnings", []):
        say(f"warning: {warning}")
    _write(command, sequence, prior, target)
    summary = {key: value for key, value in prior.scale_log.items() if value is not None}
    print(json.dumps({"units": prior.units, **summary}, indent=1))
    return 0


def _target(command: PredictCommand, sequence: DepthSequence) -> Path | None:
    """The data set folder to write into; None writes to the output folder.

    Raises:
        DepthError: there is nowhere to write, or depth there already.
    """
    if command.output is not None:
        if (command.output / "depth.json").is_file() and not command.overwrite:
            raise DepthError(f"{command.output}: holds depth already; pass --overwrite True to replace it.")
        return None
    if sequence.layout != "native":
        raise DepthError(f"{sequence.name} is no data set folder to write depth into; name a folder with --output.")
    if command.clip.refine_poses and command.model.model is None and command.model.weights is None:
        raise DepthError(
            "--clip.refine-poses: depth would fit other poses than those of the data set folder; "
            "name a folder with --output, which gets the poses too."
        )
    if any(sequence.has_depth) and not command.overwrite:
        raise DepthError(f"{command.input.data[0]}: has depth already; pass --overwrite True to replace it.")
    return command.input.data[0]


def _estimate(command: PredictCommand, sequence: DepthSequence, device: torch.device) -> DepthPrior:
    """By sweep and a network of the clip's own."""
    Ks = known_intrinsics(sequence)
    road, objects = road_and_objects(command.metric, sequence) or (None, None)
    if objects is not None and command.metric.priors is not None:
        # the priors of the file take the place of the built-in ones
        heights = objects.class_heights(height_priors(command.metric))[0]
        objects = dataclasses.replace(objects, heights=heights)
    moving, valid = masks_of(sequence)
    prior = estimate_depth(
        sequence.images(),
        Ks,
        sequence.w2cs,
        moving,
        valid=valid,
        road=road,
        objects=objects,
        distances=_distances(command.metric, sequence),
        config=command.clip,
        device=device,
        budget_s=command.budget_s,
        progress=ProgressLine(),
    )
    if prior.units == "scene" and sequence.world_scale == "metric":
        prior.units = "metric"
    return prior


def _distances(options: MetricOptions, sequence: DepthSequence) -> Float[Tensor, "t"] | None:
    """Metres from each frame to the next, by the option's speed or, where poses are not metric, by the data's own."""
    times = sequence.timestamps
    if options.speed is not None:
        if times is None:
            raise DepthError("--speed needs the time between frames, but the data does not say its frame rate.")
        speeds = torch.full((len(sequence),), options.speed)
    elif sequence.w2cs is None or sequence.world_scale == "metric" or times is None or sequence.speeds is None:
        return None
    else:
        speeds = sequence.speeds
    gaps = times.diff().float()
    return torch.cat([(speeds[1:] + speeds[:-1]) / 2 * gaps, torch.zeros(1)])


def _apply(command: PredictCommand, model: LoadedModel, sequence: DepthSequence, device: torch.device) -> DepthPrior:
    """By a given network."""
    if isinstance(model.net, MultiViewNet):
        return _match(command, model, model.net, sequence, device)
    depth, deviation = predict_depth(model.net, sequence.resized(model.size), sequence.size, device, ProgressLine())
    depth = depth * model.scale
    span = None if model.net.config.head == "softplus" else model.net.config.depth_range
    span = None if span is None else (span[0] * model.scale, span[1] * model.scale)
    reason = collapse_reason(depth, span, CollapseLimits(), model.poses_learned)
    if reason is not None:
        raise CollapseError(f"no depth to write: {reason}.")
    warning = ramp_warning(depth, sequence.images(), CollapseLimits())
    confidence = torch.full_like(depth, NETWORK_CONFIDENCE)
    if deviation is not None:
        confidence = confidence / (1 + deviation / 0.1)
    Ks = torch.zeros(len(sequence), 3, 3) if sequence.Ks is None else sequence.Ks
    log = {"method": model.description, "factor": 1.0} | ({} if warning is None else {"warnings": [warning]})
    prior = DepthPrior(depth, confidence, Ks, sequence.w2cs, model.units, log)
    given = road_and_objects(command.metric, sequence)
    if given is not None:
        found = metric_scale(depth, known_intrinsics(sequence), *given, height_priors(command.metric))
        prior.depth, prior.units = depth * found.scale, "metric"
        prior.scale_log |= {"factor": found.scale, "camera_height": found.camera_height}
    return prior


def _match(
    command: PredictCommand, model: LoadedModel, net: MultiViewNet, sequence: DepthSequence, device: torch.device
) -> DepthPrior:
    """By a multi-view network: depth in the unit of the poses, with the share of views that agree as confidence."""
    if command.metric.road is not None:
        raise DepthError("--road: mvdepthnet has the scale of its poses; leave --road and --objects out.")
    resized = sequence.resized(model.size)
    found = predict_views(net, resized, model.views, model.scene_range, device, ProgressLine())
    depth = resize_by_disparity(found.depth * model.scale, *sequence.size)
    reason = collapse_reason(depth, None, CollapseLimits())
    if reason is not None:
        raise CollapseError(f"no depth to write: {reason}.")
    confidence = torch.nn.functional.interpolate(found.confidence[:, None], sequence.size, mode="bilinear")[:, 0]
    units: Units = "metric" if sequence.world_scale == "metric" else "scene"
    log = {"method": model.description, "factor": 1.0}
    return DepthPrior(depth, confidence.clamp(0, 1), known_intrinsics(sequence), sequence.w2cs, units, log)


def _write(command: PredictCommand, sequence: DepthSequence, prior: DepthPrior, target: Path | None) -> None:
    source = {key: value for key, value in prior.scale_log.items() if value is not None}
    if target is None:
        assert command.output is not None  # one of the two is given
        write_depth_folder(
            command.output,
            sequence.names,
            prior.depth,
            prior.confidence,
            KINDS[prior.units],
            source,
            png_unit=command.png_unit,
        )
        if source.get("poses_refined") and prior.w2c is not None:
            poses = io.BytesIO()
            np.save(poses, prior.w2c.numpy())
            write_bytes(command.output / "w2c.npy", poses.getvalue())
        write_depth_pictures(command.output / "pictures", sequence, prior.depth, prior.confidence, command.pictures)
        say(f"wrote {len(sequence)} depth maps ({prior.units}) to {command.output}")
        return
    depth, kind = prior.depth, KINDS[prior.units]
    factor = source.get("factor", 1.0)
    if prior.units == "metric" and factor != 1.0:
        # a data set's depth is in the unit of its poses
        depth, kind = depth / factor, "scale"
        source["metres_per_unit"] = factor
    write_depth_prior(
        target,
        depth,
        prior.confidence,
        kind,
        source,
        names=sequence.names,
        png_unit=command.png_unit,
        overwrite=command.overwrite,
    )
    say(f"wrote {len(sequence)} depth maps ({kind}) into {target}")


def sweep(command: SweepCommand) -> int:
    """Writes the plane sweep's depth.

    Raises:
        DepthError: something in the options or the data is wrong.
    """
    set_up_process(command.threads)
    device = choose_device(command.device)
    sequence = open_input(command.input, max_side=command.max_side, cache_images=True)
    Ks, w2cs = known_cameras(sequence)
    moving, valid = masks_of(sequence)
    ignored = moving if valid is None else ~valid if moving is None else moving | ~valid
    progress = ProgressLine()
    found = plane_sweep(
        sequence.images().to(device),
        Ks,
        w2cs,
        sweep_config(command.sweep),
        ignored,
        progress,
    )
    depth, confidence = found.depth.cpu(), found.confidence.cpu()
    coverage = float((depth > 0).float().mean())
    near, far = found.range
    source = {"method": "plane sweep", "coverage": coverage, "near": near, "far": far if far < 1e9 else "infinite"}
    kind = "metric" if sequence.world_scale == "metric" else "scale"
    write_depth_folder(command.output, sequence.names, depth, confidence, kind, source)
    write_depth_pictures(command.output / "pictures", sequence, depth, confidence, command.pictures)
    say(f"wrote {len(sequence)} depth maps to {command.output}")
    print(json.dumps({**source, "range": f"{near:.3g} to {far:.3g}"}, indent=1))
    return 0
