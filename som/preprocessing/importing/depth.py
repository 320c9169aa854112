"""Depth of other programs as a prior of the data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from som.data.dataset import DepthKind
from som.data.layouts.shape_of_motion import depth_from_disparity
from som.errors import UserError
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.camera_arrays import known_depth
from som.preprocessing.importing.depth_files import ForeignDepth, read_depth_file, read_depth_folder, window_of
from som.preprocessing.importing.frames import listed
from som.preprocessing.importing.windows import Size

MIN_DISPARITY_RATIO = 1e-3
"""Relative disparity below this share of a frame's largest counts as this share: the sky gets a finite depth."""


@dataclass
class ImportedDepth:
    """Depth of T frames at their size."""

    depth: Float[Tensor, "t H W"]
    """float32 z, 0 = unknown; metres, one unknown scale, or any reciprocal of relative disparity, see ``kind``."""
    confidence: Float[Tensor, "t H W"] | None
    """In [0, 1], where the program gives one."""
    kind: DepthKind
    """As ``depth_kind`` of a data set: metres, one unknown scale, unknown scale and shift of each frame's disparity."""
    source: dict[str, Any]
    """Provenance, plain JSON."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that the user should read."""


def import_depth(
    path: Path,
    *,
    frames: FrameNames,
    size: Size,
    kind: Literal["auto", "metric", "scale", "relative"] = "auto",
    values: Literal["auto", "depth", "disparity"] = "auto",
    unit: float | None = None,
    source_size: Size | None = None,
) -> ImportedDepth:
    """Reads depth or disparity of another program.

    Takes a folder with one file a frame (.npy, .npz, .exr, .pfm, .tiff, 16-bit .png), MoGe's folders, a MonST3R folder,
    or one .npz or .npy of all frames. Maps of another size are resized to the nearest pixel. Values that are not finite
    are unknown. Disparity d becomes depth 1/d. Of kind metric or scale, d <= 0 is unknown. Of kind relative, only the
    order and the differences of d mean something: where the clip has negative d, all are raised by one number until the
    smallest is 0, and depth is 1/max(d, 0.001 m) with the largest value m of the frame, since networks write 0 for the
    sky.

    Args:
        frames: names of the T frames in the order of time; ``importing.frames`` says how files are matched to them.
        size: (height, width) of the frames.
        kind: what the numbers mean; ``auto`` goes by the format, and takes what no format vouches for as ``relative``,
            which assumes least.
        values: depth or disparity; ``auto`` goes by the format.
        unit: metres (or units) per step of integer files, as 0.001 for millimetres; needed for depth in .png.
        source_size: (height, width) of the images that MegaSaM or MonST3R was given, if they were not of ``size``.

    Raises:
        UserError: one sentence: the file, what was expected, what to do; also where depth cannot be distinguished from
            disparity.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: does not exist; give the folder or file of the depth.")
    if unit is not None and not (np.isfinite(unit) and unit > 0):
        raise UserError(f"`depth.given_unit` must be a positive number, found {unit:g}.")
    found = (read_depth_folder if path.is_dir() else read_depth_file)(path, frames, (size[0], size[1]), source_size)
    meaning = _meaning(path, found, values)
    chosen, unsure = _kind(path, found, kind)
    warnings = [*found.match.warnings, *unsure]
    raised = _raise(found.values) if meaning == "disparity" and chosen == "relative" else 0.0
    depth = np.zeros((len(frames), *size), np.float32)
    for i, frame in enumerate(found.values):
        scaled = _scaled(path, frame, meaning, unit) + raised
        map_depth = known_depth(scaled) if meaning == "depth" else _from_disparity(scaled, chosen)
        depth[i] = window_of(path, found, frame.shape, size).place(map_depth, size)
    empty = [name for name, frame in zip(frames.names, depth, strict=True) if not frame.any()]
    if len(empty) == len(frames):
        raise UserError(f"{path}: no frame has any known depth (all values are 0 or not finite); write it anew.")
    if empty:
        warnings.append(f"{path}: has no known depth in {len(empty)} of {len(frames)} frames ({listed(empty)}).")
    source = {"program": found.program or "given", **found.facts, "values": meaning, "kind": chosen}
    source["matched_by"] = found.match.by
    confidence = None if found.confidence is None else _confidence(path, found, found.confidence, size)
    return ImportedDepth(torch.from_numpy(depth), confidence, chosen, source, warnings)


def _meaning(path: Path, found: ForeignDepth, asked: str) -> str:
    if asked not in ("auto", "depth", "disparity"):
        raise UserError(f"`depth.given_values` must be auto, depth or disparity, found {asked!r}.")
    if found.meaning is not None and asked not in ("auto", found.meaning):
        raise UserError(
            f"{path}: holds {found.meaning} ({found.program or 'by its name'}); leave out `depth.given_values` {asked}."
        )
    if found.meaning is None and asked == "auto":
        raise UserError(
            f"{path}: its numbers may be depth (larger is farther) or disparity (larger is nearer); say which with "
            "`depth.given_values` depth or `depth.given_values` disparity."
        )
    return found.meaning or asked


def _kind(path: Path, found: ForeignDepth, asked: DepthKind | Literal["auto"]) -> tuple[DepthKind, list[str]]:
    if asked not in ("auto", "metric", "scale", "relative"):
        raise UserError(f"`depth.given_kind` must be auto, metric, scale or relative, found {asked!r}.")
    if asked != "auto":
        return asked, []
    if found.kind is not None:
        return found.kind, []
    return "relative", [
        f"{path}: nothing in it says what scale its depth has, so it is taken as relative (unknown scale and shift in "
        "every frame); if it is in metres, or has one scale for the whole video, say so with `depth.given_kind`."
    ]


def _scaled(path: Path, frame: np.ndarray, meaning: str, unit: float | None) -> np.ndarray:
    """float64 numbers in units."""
    if frame.dtype.kind == "f":
        if unit is not None:
            raise UserError(
                f"{path}: holds {frame.dtype} numbers, which have no unit of a step; leave out `depth.given_unit`."
            )
        return frame.astype(np.float64)
    if unit is None and meaning == "depth":
        raise UserError(f"{path}: holds integers; say what a step is with `depth.given_unit` (0.001 for millimetres).")
    return frame.astype(np.float64) * (1 if unit is None else unit)


def _raise(values: list[np.ndarray] | np.ndarray) -> float:
    """What to add to relative disparities of a clip so that none is negative."""
    lowest = (float(np.min(frame, where=np.isfinite(frame), initial=0.0)) for frame in values)
    return -min(lowest, default=0.0)


def _from_disparity(disparity: np.ndarray, kind: str) -> np.ndarray:
    finite = np.isfinite(disparity)
    known = np.where(finite, disparity, 0)
    if kind != "relative":
        return depth_from_disparity(known)
    largest = float(known.max())
    if not largest > 0:
        return np.zeros(disparity.shape, np.float32)
    return np.where(finite, 1 / np.maximum(known, MIN_DISPARITY_RATIO * largest), 0).astype(np.float32)


def _confidence(path: Path, found: ForeignDepth, given: np.ndarray, size: Size) -> Float[Tensor, "t H W"]:
    """1 - 1/c of confidences c = 1 + exp(.), as DUSt3R and its descendants have them, in [0, 1)."""
    confidence = 1 - 1 / np.maximum(np.nan_to_num(given.astype(np.float32), nan=1.0), 1)
    window = window_of(path, found, confidence.shape[1:], size)
    return torch.from_numpy(window.place(confidence, size))
