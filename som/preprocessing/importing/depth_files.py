"""Finds and opens the depth files of other programs: one a frame, or one of all frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from som.data.dataset import DepthKind
from som.errors import UserError
from som.files import array_shapes, decode_image, read_array, read_arrays
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.camera_arrays import MEGASAM, posed_depth_names, without_batch
from som.preprocessing.importing.frames import Match, frame_name, listed, match_count, match_names, natural_order
from som.preprocessing.importing.trajectories import MONST3R_FILES
from som.preprocessing.importing.windows import Size, Window, droid_image, dust3r_image, whole_image

SUFFIXES = (".npy", ".npz", ".exr", ".pfm", ".tiff", ".tif", ".png")
"""Of files of one frame; the first that a folder has is read."""
METRIC_ENDING = "_raw_depth_meter"
"""Depth Anything V2's metric models end the names of their arrays so."""
DISPARITY_NAMES = ("disparity", "disparities", "disp", "disps", "inv_depth", "inverse_depth")
DEPTH_NAMES = ("depth", "depths", "depth_map", "depth_maps")


@dataclass
class ForeignDepth:
    """Values of T frames as a program wrote them, at its size."""

    program: str | None
    """Whose files they are, where that is certain."""
    values: list[np.ndarray] | np.ndarray
    """T arrays (h,w), not yet of one size."""
    match: Match
    """How they were matched to the frames."""
    window: Window | None
    """Where they lie in the frames; None: each covers its whole frame."""
    kind: DepthKind | None
    """``metric`` or ``scale`` where the format says so."""
    meaning: str | None
    """``depth`` or ``disparity`` where the format says so."""
    confidence: np.ndarray | None = None
    """(T,h,w) as the program has it: 1 or more, higher is surer."""
    facts: dict[str, Any] = field(default_factory=dict)


def read_depth_file(path: Path, names: FrameNames, size: Size, source_size: Size | None) -> ForeignDepth:
    """One .npz or .npy of all frames.

    Raises:
        UserError: the file is broken, of no known kind, or of another number of frames.
    """
    facts = {"file": str(path)}
    if path.suffix == ".npy":
        values, match = _sequence(path, read_array(path), names)
        return ForeignDepth(None, values, match, None, None, None, facts=facts)
    if path.suffix != ".npz":
        raise UserError(
            f"{path}: depth is one .npz or .npy file of all frames, or a folder of one file a frame; give one of these."
        )
    found = set(array_shapes(path))
    if set(MEGASAM) <= found:
        values, match = _sequence(path, read_arrays(path, ("depths",))["depths"], names)
        window = droid_image(path, values.shape[1:], size, source_size)
        return ForeignDepth("MegaSaM", values, match, window, "scale", "depth", facts=facts)
    posed = posed_depth_names(found)
    if posed is not None:
        arrays = read_arrays(path, posed[2:3], posed[3:])
        values, match = _sequence(path, arrays[posed[2]], names)
        confidence = _sequence(path, arrays[posed[3]], names)[0] if posed[3] in arrays else None
        program = "VGGT" if posed[2:] == ("depth", "depth_conf") else "Depth Anything 3"
        return ForeignDepth(program, values, match, None, "scale", "depth", confidence, facts)
    name, meaning = _main_array(path, found)
    values, match = _sequence(path, read_arrays(path, (name,))[name], names)
    return ForeignDepth(None, values, match, None, None, meaning, facts=facts)


def read_depth_folder(path: Path, names: FrameNames, size: Size, source_size: Size | None) -> ForeignDepth:
    """A folder of one file a frame, of MoGe's folders, or of MonST3R.

    Raises:
        UserError: files are missing, broken, or 8-bit pictures.
    """
    facts = {"folder": str(path)}
    if all((path / name).is_file() for name in MONST3R_FILES):
        files = [p for p in _files(path, ".npy") if p.stem.startswith("frame_")]
        match = match_count(path, len(files), names, "depth maps")
        order = natural_order([p.name for p in files])
        values = [_read(files[order[place]]) for place in match.chosen]
        window = dust3r_image(path, values[0].shape, size, source_size)
        return ForeignDepth("MonST3R", values, match, window, "scale", "depth", facts=facts)
    moge = list(path.glob("*/depth.exr"))
    if moge:
        match = match_names(path, [p.parent.name for p in moge], names, "depth maps")
        return ForeignDepth("MoGe", [_read(moge[i]) for i in match.chosen], match, None, None, "depth", facts=facts)
    exports = [p for kind in ("npz", "mini_npz") if (p := path / "exports" / kind / "results.npz").is_file()]
    if exports:
        return read_depth_file(exports[0], names, size, source_size)
    suffix = next((s for s in SUFFIXES if _files(path, s)), None)
    if suffix is None:
        inside = sorted(p.name for p in path.iterdir() if p.is_dir())
        hint = f"; name one of its folders ({listed(inside)})" if inside else "; write one .npy a frame there"
        raise UserError(f"{path}: holds no depth map ({', '.join(SUFFIXES)}){hint}.")
    files = _files(path, suffix)
    if suffix == ".npz" and len(files) == 1 and len(names) > 1:
        return read_depth_file(files[0], names, size, source_size)
    if suffix == ".npz":
        return _npz_files(path, files, names, facts)
    match = match_names(path, [frame_name(p).removesuffix(METRIC_ENDING) for p in files], names, "depth maps")
    values = [_read(files[i]) for i in match.chosen]
    if all(p.stem.endswith(METRIC_ENDING) for p in files):
        return ForeignDepth("Depth Anything V2, metric", values, match, None, "metric", "depth", facts=facts)
    return ForeignDepth(None, values, match, None, None, None, facts=facts)


def _npz_files(path: Path, files: list[Path], names: FrameNames, facts: dict) -> ForeignDepth:
    found = set(array_shapes(files[0]))
    name, meaning = _main_array(files[0], found)
    match = match_names(path, [p.name for p in files], names, "depth maps")
    values = []
    for i in match.chosen:
        values.append(_one_channel(files[i], read_arrays(files[i], (name,))[name]))
    if found == {"depth", "fov"}:  # only MegaSaM's script for UniDepth writes these two
        return ForeignDepth("UniDepth", values, match, None, "metric", "depth", facts=facts)
    return ForeignDepth(None, values, match, None, None, meaning, facts=facts)


def _main_array(path: Path, found: set[str]) -> tuple[str, str | None]:
    """The array to read, and ``disparity`` if its name says so: what is called depth may be either."""
    for wanted, meaning in ((DISPARITY_NAMES, "disparity"), (DEPTH_NAMES, None)):
        named = [name for name in wanted if name in found]
        if len(named) == 1:
            return named[0], meaning
    if len(found) == 1:
        return next(iter(found)), None
    raise UserError(
        f"{path}: must hold one array called {', '.join(DEPTH_NAMES[:2])}, {', '.join(DISPARITY_NAMES[:3])}, or a "
        f"single array, found {listed(sorted(found)) or 'none'}; write it anew."
    )


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == suffix and not p.name.startswith("."))


def _read(path: Path) -> np.ndarray:
    """(h,w) numbers of one file."""
    if path.suffix == ".npy":
        return _one_channel(path, read_array(path))
    if path.suffix.lower() == ".exr":
        return _one_channel(path, _read_exr(path))
    values = decode_image(path, "this depth map")
    if values.dtype == np.uint8:
        raise UserError(
            f"{path}: is an 8-bit picture, in which depth has 256 steps at most and often a colour map; save the "
            "network's numbers as .npy or 16-bit png instead."
        )
    return _one_channel(path, values)


def _read_exr(path: Path) -> np.ndarray:
    """The only channel of an OpenEXR file, or the one that is called Z or Y."""
    try:
        import OpenEXR  # optional: no other format needs it
    except ImportError:
        raise UserError(
            f"{path}: reading .exr needs the package OpenEXR; run `pip install OpenEXR`, or save .npy files instead."
        ) from None
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{path}: this depth map cannot be read ({error}); write it anew.") from error
    name = next((n for n in ("Z", "Y", *channels) if n in channels and (n in ("Z", "Y") or len(channels) == 1)), None)
    if name is None:
        raise UserError(f"{path}: must have one channel of depth, found {', '.join(channels)}; write it anew.")
    return channels[name]


def _one_channel(path: Path, values: np.ndarray) -> np.ndarray:
    shape = values.shape
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.size == 0:
        raise UserError(f"{path}: a depth map must have shape (height, width), found {shape}; write one channel.")
    return values


def _sequence(path: Path, values: np.ndarray, names: FrameNames) -> tuple[np.ndarray, Match]:
    """(T,h,w) of the frames."""
    shape = values.shape
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    values = without_batch(values, 3)
    if values.ndim != 3 or values.size == 0:
        raise UserError(f"{path}: depth must have shape (frames, height, width), found {shape}; write it anew.")
    match = match_count(path, len(values), names, "depth maps")
    return values if len(values) == len(names) else values[match.chosen], match


def window_of(path: Path, found: ForeignDepth, shape: Size, size: Size) -> Window:
    """The window of one map of ``shape`` (height, width)."""
    return found.window or whole_image(path, shape, size)
