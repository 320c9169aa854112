"""Masks of moving objects from other programs: folders of images or arrays, and single arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from som.errors import UserError
from som.files import IMAGE_SUFFIXES, MASK_THRESHOLD, array_shapes, decode_image, read_array, read_arrays
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.frames import Match, listed, match_count, match_names, natural_order
from som.preprocessing.importing.trajectories import MONST3R_FILES
from som.preprocessing.importing.windows import Size, Window, dust3r_image, whole_image

ARRAY_NAMES = ("masks", "mask", "foreground", "dynamic_masks", "arr_0")
"""Under which an .npz file may hold its masks; an only array may have any name."""


@dataclass
class ImportedMasks:
    """Masks of T frames."""

    foreground: Bool[Tensor, "t H W"]
    """True is moving."""
    source: dict[str, Any]
    """Provenance, plain JSON: file or folder, how frames were matched."""
    warnings: list[str]
    """Sentences that the user should read."""


def import_masks(
    path: Path,
    *,
    frames: FrameNames,
    size: Size,
    object_ids: tuple[int, ...] | None = None,
    source_size: Size | None = None,
) -> ImportedMasks:
    """Reads masks of another program.

    Takes a folder with one image (.png, .jpg) or array (.npy) a frame; a folder of such folders, one per object, as
    SAM 2 writes with ``--per_obj_png_file``; a MonST3R folder; or one .npy or .npz of all frames, (T,H,W) or
    (T,objects,H,W). Pixels may be 0 and 255, or numbers of objects of which 0 is the background: indices of a
    palette (DAVIS, SAM 2) or values up to 127. Masks of another size are resized to the nearest pixel.

    Args:
        frames: names of the T frames in the order of time; ``importing.frames`` says how files are matched to them.
        size: (height, width) of the frames.
        object_ids: only objects of these numbers, in (T,objects,H,W) indices from 0; None takes all.
        source_size: (height, width) of the images that MonST3R was given, if they were not of ``size``.

    Raises:
        UserError: one sentence: the file, what was expected, what to do; lists frames without a mask.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: does not exist; give the folder or file of the masks.")
    masks, match = _read(path, frames, size, object_ids, source_size)
    return ImportedMasks(masks, {"path": str(path), "matched_by": match.by}, match.warnings)


def _read(
    path: Path, names: FrameNames, size: Size, object_ids: tuple[int, ...] | None, source_size: Size | None
) -> tuple[Bool[Tensor, "t H W"], Match]:
    if path.is_file():
        stack, match = _single_file(path, names, object_ids)
        height, width = stack.shape[1:]
        return torch.from_numpy(whole_image(path, (height, width), size).place(stack, size)), match
    objects = sorted(p for p in path.iterdir() if p.is_dir() and p.name.isdigit())
    if objects and not _frame_files(path):
        return _objects(path, objects, names, size, object_ids)
    if all((path / name).is_file() for name in MONST3R_FILES):
        files = [p for p in _frame_files(path) if p.stem.startswith("dynamic_mask_")]
        match = match_count(path, len(files), names, "masks")
        order = natural_order([p.name for p in files])
        masks = _folder(path, [files[order[place]] for place in match.chosen], object_ids)
        window = dust3r_image(path, masks[0].shape, size, source_size)
        return _placed(path, masks, size, window), match
    files = _frame_files(path)
    if not files:
        inside = [p.name for p in path.iterdir() if p.is_dir()]
        hint = f"; name one of its folders ({listed(sorted(inside))})" if inside else "; write one png a frame there"
        raise UserError(f"{path}: holds no mask (.png, .jpg or .npy){hint}.")
    match = match_names(path, [p.name for p in files], names, "masks")
    return _placed(path, _folder(path, [files[i] for i in match.chosen], object_ids), size, None), match


def _placed(path: Path, masks: list[np.ndarray], size: Size, window: Window | None) -> Bool[Tensor, "t H W"]:
    out = np.zeros((len(masks), *size), bool)
    for i, mask in enumerate(masks):
        fit = window or whole_image(path, mask.shape, size)
        out[i] = fit.place(mask, size)
    return torch.from_numpy(out)


def _frame_files(folder: Path) -> list[Path]:
    """Images of a folder, or, where there are none, its arrays."""
    files = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    return images or [p for p in files if p.suffix == ".npy"]


def _folder(path: Path, files: list[Path], object_ids: tuple[int, ...] | None) -> list[np.ndarray]:
    """One bool mask a file."""
    values = [(_read_image if file.suffix != ".npy" else _read_array)(file) for file in files]
    return _moving(path, values, object_ids)


def _objects(
    path: Path, folders: list[Path], names: FrameNames, size: Size, object_ids: tuple[int, ...] | None
) -> tuple[Bool[Tensor, "t H W"], Match]:
    """The union of one folder of masks per object."""
    chosen = [f for f in folders if object_ids is None or int(f.name) in object_ids]
    if not chosen:
        raise UserError(
            f"{path}: has no object {object_ids}, only {listed([f.name for f in folders])}; name one of these."
        )
    union = torch.zeros((len(names), *size), dtype=torch.bool)
    for f in chosen:
        files = _frame_files(f)
        match = match_names(f, [p.name for p in files], names, "masks")
        union |= _placed(f, _folder(f, [files[i] for i in match.chosen], None), size, None)
    return union, match


def _read_image(path: Path) -> np.ndarray:
    """(H,W) integers: palette indices or grey values; of colours 255 where any channel is not 0."""
    pixels = decode_image(path, "this mask", raw=True)
    if pixels.ndim == 2:
        return pixels.astype(np.int64)
    colors = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    gray = (colors == colors[..., :1]).all()
    return colors[..., 0] if gray else np.where(colors.any(-1), 255, 0)


def _read_array(path: Path) -> np.ndarray:
    values = read_array(path)
    values = values.reshape([n for n in values.shape if n != 1]) if values.ndim > 2 else values
    if values.ndim != 2:
        raise UserError(f"{path}: a mask must have shape (height, width), found {values.shape}; write it anew.")
    return values


def _moving(path: Path, values: list[np.ndarray], object_ids: tuple[int, ...] | None) -> list[np.ndarray]:
    """Distinguishes grey masks from numbers of objects by the largest value of all frames."""
    if object_ids is not None:
        masks = [np.isin(v, object_ids) for v in values]
        if not any(m.any() for m in masks):
            found = sorted({int(n) for v in values for n in np.unique(v)} - {0})
            numbers = listed([str(n) for n in found]) or "none"
            raise UserError(f"{path}: no mask has an object {object_ids}, only {numbers}; name one of these.")
        return masks
    largest = max(float(v.max()) for v in values)
    if all(v.dtype.kind == "f" for v in values):
        return [v > (0.5 if largest <= 1 else 0) for v in values]
    # grey values that go beyond the threshold are masks; smaller ones are numbers of objects
    return [v > (MASK_THRESHOLD if largest > MASK_THRESHOLD else 0) for v in values]


def _single_file(path: Path, names: FrameNames, object_ids: tuple[int, ...] | None) -> tuple[np.ndarray, Match]:
    """(T,h,w) bool from one .npy or .npz."""
    if path.suffix == ".npy":
        values = read_array(path)
    elif path.suffix == ".npz":
        shapes = array_shapes(path)
        known = [name for name in ARRAY_NAMES if name in shapes] or (list(shapes) if len(shapes) == 1 else [])
        if not known:
            raise UserError(f"{path}: must hold an array {' or '.join(ARRAY_NAMES)}, found {listed(sorted(shapes))}.")
        values = read_arrays(path, known[:1])[known[0]]
    else:
        raise UserError(f"{path}: masks are a folder of .png or .npy, or one .npy or .npz file; give one of these.")
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (3, 4):
        raise UserError(
            f"{path}: masks must have shape (frames, height, width), found {values.shape}; write them anew."
        )
    match = match_count(path, len(values), names, "masks")
    values = values[match.chosen]
    if values.ndim == 3:
        return np.stack(_moving(path, list(values), object_ids)), match
    count = values.shape[1]
    if object_ids is not None and not all(0 <= number < count for number in object_ids):
        raise UserError(f"{path}: holds objects 0 to {count - 1}, not {object_ids}; name some of these.")
    chosen = range(count) if object_ids is None else object_ids
    return np.any([np.stack(_moving(path, list(values[:, number]), None)) for number in chosen], axis=0), match
