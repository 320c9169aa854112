"""Writes depth priors into a data set folder, depth folders, pictures and scores; each file whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from som.data.checks import Problems
from som.data.folder import HEADER, FrameEntry, Header, encode_header, read_header
from som.data.recording import DEPTH_KINDS
from som.depth.errors import DepthError
from som.depth.evaluation import DepthReport, markdown_table
from som.depth.metrics import resize_by_disparity
from som.files import encode_image, image_size, write_bytes, write_together

MAX_UINT16 = 65535


def write_depth_prior(
    folder: str | Path,
    depth: Float[Tensor | np.ndarray, "t h w"],
    confidence: Float[Tensor | np.ndarray, "t h w"] | None,
    kind: str,
    source: str | Mapping,
    *,
    names: Sequence[str] | None = None,
    split: str = "train",
    png_unit: float | None = None,
    overwrite: bool = False,
    drop_other_depth: bool = False,
) -> list[Path]:
    """Writes depth and confidence into a data set folder and records them in its transforms.json.

    Maps of another size than the frames' ``w`` and ``h`` are resized: depth by ``resize_by_disparity``, confidence
    bilinearly. All maps are written under other names first, then renamed, then transforms.json is replaced: it never
    names a file that is not there.

    Args:
        folder: holds transforms.json.
        depth: z-depth in the unit of the folder's poses (``relative``: any), 0 = unknown, in the order of ``names``.
        confidence: in [0, 1]; None writes none and removes the reference to an earlier one.
        kind: ``metric``, ``scale`` or ``relative``, for the whole folder.
        source: what made the depth, recorded under ``source["depth"]``.
        names: the frames; None is all frames of the split in the order of time, as ``open_sequence`` gives them.
        split: ``train`` or ``val``.
        png_unit: writes 16-bit png with this unit; None writes float32 npy.
        overwrite: replaces depth that the frames have already; otherwise that is an error.
        drop_other_depth: takes the depth of all other frames out of transforms.json (files stay), which is needed if
            it is of another kind or png unit.

    Returns:
        the depth files.

    Raises:
        DepthError: no transforms.json, unknown names or kind, a number of maps that does not fit, values out of range,
            depth that would be lost or misread.
    """
    folder = Path(folder)
    header = _read_header(folder)
    entries = _entries(header, split, names)
    depth, confidence = _checked_maps(depth, confidence, len(entries), kind, png_unit)
    if not overwrite and any(entry.depth is not None for entry in entries):
        raise DepthError(f"{folder / HEADER}: frames have depth already; pass overwrite=True to replace it.")
    others = [f for f in header.frames if f.depth is not None and not any(f is entry for entry in entries)]
    if drop_other_depth:
        for entry in others:
            entry.content.pop("depth_file_path"), entry.content.pop("depth_confidence_path", None)
        others = []
    _check_others(header, others, kind, png_unit)
    kept = {entry.depth for entry in others}
    files = _add_maps(folder, entries, split, depth, confidence, png_unit)
    for path in files:
        if path in kept or (path.exists() and not overwrite):
            raise DepthError(f"{path}: exists; move it away, or pass overwrite=True if no other frame uses it.")
    header.content["depth_kind"] = kind
    if png_unit is not None:
        header.content["depth_unit_scale_factor"] = png_unit
    header.content["source"] = {**header.source, "depth": dict(source) if isinstance(source, Mapping) else source}
    text = encode_header(header.content, folder)
    write_together(files)
    write_bytes(folder / HEADER, text)
    return [folder / entry.content["depth_file_path"] for entry in entries]


def _read_header(folder: Path) -> Header:
    problems = Problems(folder)
    header = read_header(folder, problems)
    if header is None:
        problems.give_up()
    problems.raise_if_any()
    return header


def _add_maps(
    folder: Path,
    entries: list[FrameEntry],
    split: str,
    depth: Tensor,
    confidence: Tensor | None,
    unit: float | None,
) -> dict[Path, bytes]:
    """Names the maps in the entries of transforms.json; returns what to write."""
    files: dict[Path, bytes] = {}
    suffix = ".npy" if unit is None else ".png"
    prefix = "" if split == "train" else f"{split}_"
    for i, entry in enumerate(entries):
        size, content = entry.size or image_size(entry.image), entry.content
        content["depth_file_path"] = f"depth/{prefix}{entry.name}{suffix}"
        files[folder / content["depth_file_path"]] = _depth_bytes(resize_by_disparity(depth[i], *size), unit)
        content.pop("depth_confidence_path", None)
        if confidence is not None:
            content["depth_confidence_path"] = f"depth_confidence/{prefix}{entry.name}.png"
            files[folder / content["depth_confidence_path"]] = _confidence_bytes(confidence[i], size)
    return files


def write_depth_folder(
    folder: str | Path,
    names: Sequence[str],
    depth: Float[Tensor | np.ndarray, "t h w"],
    confidence: Float[Tensor | np.ndarray, "t h w"] | None,
    kind: str,
    source: str | Mapping,
    *,
    png_unit: float | None = None,
) -> None:
    """Writes ``depth/<name>``, ``depth_confidence/<name>`` and ``depth.json`` where there is no transforms.json.

    depth.json holds ``depth_kind``, ``depth_unit_scale_factor`` (1 for npy), ``source`` and the names. The maps keep
    their size. Arguments and errors as ``write_depth_prior``; files of these names are replaced.
    """
    folder = Path(folder)
    if len(set(names)) < len(names) or any(Path(name).name != name for name in names):
        raise DepthError(f"{folder}: frame names must be unique and without slashes, got {list(names)[:5]}.")
    depth, confidence = _checked_maps(depth, confidence, len(names), kind, png_unit)
    files = {}
    for i, name in enumerate(names):
        suffix = ".npy" if png_unit is None else ".png"
        files[folder / "depth" / f"{name}{suffix}"] = _depth_bytes(depth[i], png_unit)
        if confidence is not None:
            files[folder / "depth_confidence" / f"{name}.png"] = _confidence_bytes(confidence[i], depth.shape[1:])
    description = {
        "depth_kind": kind,
        "depth_unit_scale_factor": 1.0 if png_unit is None else png_unit,
        "source": dict(source) if isinstance(source, Mapping) else source,
        "names": list(names),
    }
    text = _json_bytes(description, folder / "depth.json")
    write_together(files)
    write_bytes(folder / "depth.json", text)


def write_scores(path: str | Path, reports: Mapping[str, DepthReport]) -> None:
    """Writes reports by name: everything as JSON if the name ends in .json, the table if it ends in .md.

    Raises:
        DepthError: another ending.
    """
    path = Path(path)
    if path.suffix == ".json":
        write_bytes(path, _json_bytes({name: report.to_dict() for name, report in reports.items()}, path))
    elif path.suffix == ".md":
        write_bytes(path, markdown_table(reports).encode())
    else:
        raise DepthError(f"{path}: scores are written as .json or .md; choose one of these endings.")


def _entries(header: Header, split: str, names: Sequence[str] | None) -> list[FrameEntry]:
    """The frames of transforms.json to write to, in the order of ``names``."""
    file, entries = header.root / HEADER, header.of_split(split)
    found = {entry.name: entry for entry in entries}
    if len(found) < len(entries):
        raise DepthError(f"{file}: frames of the split {split} share names; give each its own.")
    unknown = [] if names is None else [name for name in names if name not in found]
    if unknown or not found:
        what = f"frame {unknown[0]}" if unknown else "frame"
        raise DepthError(f"{file}: has no {what} in the split {split}; check the names.")
    if names is not None and len(set(names)) < len(names):
        raise DepthError(f"{header.root}: the names of the depth maps repeat; give each frame once.")
    return entries if names is None else [found[name] for name in names]


def _checked_maps(depth, confidence, count: int, kind: str, unit: float | None) -> tuple[Tensor, Tensor | None]:
    if kind not in DEPTH_KINDS:
        raise DepthError(f"depth kind must be one of {', '.join(DEPTH_KINDS)}, got {kind!r}.")
    if unit is not None and not (np.isfinite(unit) and unit > 0):
        raise DepthError(f"png_unit must be a positive number of world units, got {unit}.")
    depth = torch.as_tensor(depth).detach().cpu().float()
    if depth.ndim != 3 or len(depth) != count:
        raise DepthError(f"depth must be ({count},H,W), one map per frame, got {tuple(depth.shape)}.")
    if not bool(depth.isfinite().all() and (depth >= 0).all()):
        raise DepthError("depth must be finite and not negative, 0 where unknown; it holds other values.")
    if unit is not None and float(depth.max()) > MAX_UINT16 * unit:
        raise DepthError(
            f"depth up to {float(depth.max()):g} does not fit 16 bits of {unit:g}; choose a larger unit or npy."
        )
    if confidence is None:
        return depth, None
    confidence = torch.as_tensor(confidence).detach().cpu().float()
    if confidence.shape != depth.shape:
        raise DepthError(f"confidence must be as large as depth {tuple(depth.shape)}, got {tuple(confidence.shape)}.")
    if not bool((confidence >= 0).all() and (confidence <= 1).all()):
        raise DepthError("confidence must lie in [0, 1]; it holds other values.")
    return depth, confidence


def _check_others(header: Header, others: list[FrameEntry], kind: str, unit: float | None) -> None:
    """Raises if depth that stays in the folder would be read with the new kind or unit."""
    if not others:
        return
    file, remedy = header.root / HEADER, "write all frames alike, or pass drop_other_depth=True"
    if header.depth_kind != kind:
        raise DepthError(
            f"{file}: frame {others[0].name} keeps depth of kind {header.depth_kind}, the new depth is {kind}; "
            f"{remedy}."
        )
    pngs = [entry for entry in others if entry.depth is not None and entry.depth.suffix != ".npy"]
    if unit is not None and pngs and header.depth_unit != unit:
        raise DepthError(
            f"{file}: frame {pngs[0].name} keeps png depth in steps of {header.depth_unit}, not {unit}; {remedy}."
        )


def _depth_bytes(depth: Float[Tensor, "h w"], unit: float | None) -> bytes:
    values = depth.numpy().astype(np.float32)
    if unit is None:
        return _npy(values)
    # what is known stays known: depth below half a step would round to 0
    steps = np.where(values > 0, np.maximum(np.rint(values.astype(np.float64) / unit), 1), 0)
    return encode_image(steps.astype(np.uint16), ".png")


def _confidence_bytes(confidence: Float[Tensor, "h w"], size: Sequence[int]) -> bytes:
    if tuple(confidence.shape) != tuple(size):
        resized = F.interpolate(confidence[None, None], tuple(size), mode="bilinear", align_corners=False)
        confidence = resized[0, 0]
    return encode_image((confidence * 255).round().to(torch.uint8).numpy(), ".png")


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _json_bytes(content: dict, path: Path) -> bytes:
    try:
        return json.dumps(content, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise DepthError(
            f"{path}: cannot be written as JSON ({error}); source must hold plain numbers and texts."
        ) from None
