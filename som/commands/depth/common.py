"""What the commands share: opening videos, choosing the device, talking, pictures, reading depth folders."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from som.commands.depth.options import InputOptions, MetricOptions
from som.data.layouts import LAYOUTS, recognise
from som.data.load import open_sequence
from som.data.sequence import DepthSequence
from som.depth.draw import color_depth, disparity_range, sheet, to_bytes
from som.depth.errors import DepthError
from som.depth.metric_scale import DEFAULT_PRIORS, HeightPriors, Instances, read_priors
from som.depth.metric_scale.files import read_instances, read_road
from som.files import read_map, write_image
from som.runs.progress import say


def open_inputs(options: InputOptions, **sizing) -> list[DepthSequence]:
    """The videos, with intrinsics from the options where they have none.

    Args:
        sizing: size, max_side, multiple and cache_images of ``open_sequence``.

    Raises:
        DepthError: as ``open_sequence``.
    """
    if not options.data:
        raise DepthError("--data: name at least one video.")
    return [_open(path, options, sizing) for path in options.data]


def open_input(options: InputOptions, **sizing) -> DepthSequence:
    """The one video of a command that takes one.

    Raises:
        DepthError: several were given; and as ``open_sequence``.
    """
    if len(options.data) != 1:
        raise DepthError(f"--data: this command takes one video, got {len(options.data)}.")
    return open_inputs(options, **sizing)[0]


def _open(path: Path, options: InputOptions, sizing: dict[str, Any]) -> DepthSequence:
    kind = recognise(path).name if options.kind == "auto" else options.kind
    reader: dict[str, Any] = options.reader.given()
    given = options.intrinsics is not None or options.fov is not None
    if given and kind in ("folder", "video"):
        reader["K"] = _intrinsics(path, kind, options)
    elif given and kind in LAYOUTS:
        raise DepthError(f"{path}: this layout ({kind}) brings its own intrinsics; leave --intrinsics and --fov out.")
    sequence = open_sequence(
        path,
        kind,
        start=options.start,
        end=options.end,
        every=options.every,
        moving=options.moving,
        **sizing,
        **reader,
    )
    for note in sequence.notes:
        say(f"note: {sequence.name}: {note}")
    return sequence


def _intrinsics(path: Path, kind: str, options: InputOptions) -> np.ndarray:
    """(3,3) from fx fy cx cy, or from the field of view of the stored images."""
    if options.intrinsics is not None:
        fx, fy, cx, cy = options.intrinsics
    else:
        if options.fov is None or not 0 < options.fov < 180:
            raise DepthError(f"--fov must lie between 0 and 180 degrees, got {options.fov}.")
        frame = open_sequence(path, kind, start=options.start, end=options.start + 1).recording.frames[0]
        height, width = frame.K_size or frame.size
        fx = fy = width / 2 / math.tan(math.radians(options.fov) / 2)
        cx, cy = width / 2, height / 2
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def known_cameras(sequence: DepthSequence) -> tuple[Float[Tensor, "t 3 3"], Float[Tensor, "t 4 4"]]:
    """Intrinsics, and world-to-camera poses.

    Raises:
        DepthError: they are not known.
    """
    Ks = known_intrinsics(sequence)
    if sequence.w2cs is None:
        raise DepthError(f"{sequence.name}: camera poses are not known; give a data set with poses.")
    return Ks, sequence.w2cs


def known_intrinsics(sequence: DepthSequence) -> Float[Tensor, "t 3 3"]:
    """Intrinsics.

    Raises:
        DepthError: they are not known.
    """
    if sequence.Ks is None:
        raise DepthError(f"{sequence.name}: the camera's intrinsics are not known; give --intrinsics or --fov.")
    return sequence.Ks


def masks_of(sequence: DepthSequence) -> tuple[Tensor | None, Tensor | None]:
    """(T,H,W) bool: pixels that move, and pixels that may be used; None where there are no such masks."""
    moving, valid = ([of(t) for t in range(len(sequence))] for of in (sequence.moving, sequence.valid))
    return (
        _stacked(moving, torch.zeros(sequence.size, dtype=torch.bool)) if sequence.has_moving else None,
        _stacked(valid, torch.ones(sequence.size, dtype=torch.bool)) if sequence.has_valid else None,
    )


def _stacked(masks: Sequence[Tensor | None], missing: Tensor) -> Tensor:
    return torch.stack([missing if mask is None else mask for mask in masks])


def road_and_objects(options: MetricOptions, sequence: DepthSequence) -> tuple[Tensor, Instances] | None:
    """Road masks (T,H,W) and objects at the size of the images; None where not given.

    Raises:
        DepthError: one without the other, or a file that does not fit.
    """
    if options.road is None and options.objects is None:
        return None
    if options.road is None or options.objects is None:
        raise DepthError("--road and --objects belong together: the scale comes from objects that stand on the road.")
    names = [frame.where if Path(frame.where).suffix else f"{frame.name}.png" for frame in sequence.recording.frames]
    names = [Path(name).name for name in names]
    return read_road(options.road, names, sequence.size), read_instances(options.objects, names, sequence.size)


def height_priors(options: MetricOptions) -> HeightPriors:
    """Heights by class, from the file of the options or the built-in ones."""
    return DEFAULT_PRIORS if options.priors is None else read_priors(options.priors)


def read_depth_folder(
    folder: Path, names: Sequence[str]
) -> tuple[list[Float[np.ndarray, "h w"]], list[Float[np.ndarray, "h w"]] | None]:
    """Depth, and confidence where it is there, of the frames called ``names``, as som4d depth predict wrote them.

    Raises:
        DepthError: no depth.json, or a map is missing or broken.
    """
    file = folder / "depth.json"
    if not file.is_file():
        raise DepthError(f"{file}: does not exist; give a folder that som4d depth predict or sweep has written.")
    unit = float(json.loads(file.read_text(encoding="utf-8"))["depth_unit_scale_factor"])
    depths, confidences = [], []
    for name in names:
        path = folder / "depth" / f"{name}.npy"
        depths.append(read_map(path if path.is_file() else path.with_suffix(".png"), unit))
        path = folder / "depth_confidence" / f"{name}.png"
        if path.is_file():
            confidences.append(read_map(path, 1 / 255, None, "this confidence map"))
    return depths, confidences if len(confidences) == len(depths) else None


def write_depth_pictures(
    folder: Path,
    sequence: DepthSequence,
    depth: Float[Tensor, "t h w"],
    confidence: Float[Tensor, "t h w"] | None,
    count: int,
) -> None:
    """Side by side image, depth in colours and confidence of some frames, evenly spread; one range of colours."""
    chosen = spread(len(sequence), count)
    if not chosen:
        return
    near_far = disparity_range(depth[chosen].reshape(len(chosen) * depth.shape[1], -1))
    for t in chosen:
        row = [to_bytes(sequence.image(t)), color_depth(depth[t], near_far)]
        if confidence is not None:
            row.append(to_bytes(confidence[t].expand(3, -1, -1)))
        write_image(folder / f"{sequence.names[t]}.png", sheet([row], height=max(sequence.size[0], 144)))


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` of ``length`` indices, evenly spread."""
    count = min(count, length)
    return [round(k * (length - 1) / max(count - 1, 1)) for k in range(count)]
