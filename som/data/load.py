"""From a path or from options to a recording, by whichever reader its layout has; whole, or frame by frame."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from som.cameras.checks import rigid
from som.data.checks import DatasetError, Problems, check_recording
from som.data.config import CustomData, DataOptions, DavisData, DemoData, IphoneData, SequenceData
from som.data.dataset import VideoDataset
from som.data.layouts import LAYOUTS, Layout, find_layout, layout_named, markers, recognise
from som.data.recording import SPLITS, Recording, Size
from som.data.selection import apply_options
from som.data.sequence import DepthSequence
from som.data.views import load_recording
from som.errors import UserError
from som.files import read_mask, require_file


def load_dataset(
    source: str | Path | DemoData | CustomData | DavisData | IphoneData, **options: Any
) -> VideoDataset:
    """Loads and checks a data set, with both its splits.

    Args:
        source: the folder of a data set, whose layout is recognised; or the options of one, such as ``DemoData()``.
        options: fields of ``CustomData`` (of a folder) or of ``source``, such as ``max_side=480`` or
            ``hold_out_every=8``.

    Raises:
        DatasetError: lists everything that is wrong with the data set.
        UserError: the options do not name a data set, are unknown, or are out of range.
    """
    config = CustomData(root_dir=Path(source)) if isinstance(source, str | Path) else source
    if not isinstance(config, DataOptions):
        found = type(source).__name__
        raise UserError(f"a data set is named by its folder or by options such as DemoData(); got {found}.")
    known = [f.name for f in fields(config)]
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"there is no option {', '.join(unknown)} of data sets; there are {', '.join(known)}.")
    config = replace(config, **options)
    return replace(_read(config), options=config)


def _read(config: DemoData | CustomData | DavisData | IphoneData) -> VideoDataset:
    if config.max_side is not None and config.max_side < 1:
        raise UserError(f"`data.max_side`: must be at least 1, got {config.max_side}.")
    if isinstance(config, DemoData):
        from som.data.demo import load_demo  # compiles its renderer, which nothing else needs

        return load_demo(config)
    root, layout = find_place(config)
    options = {name: value for name, value in asdict(config).items() if name in layout.options}
    return apply_options(_load(layout, root, config.max_side, options), config, layout.mask_erosion)


def read_native(root: Path, max_side: int | None = None) -> VideoDataset:
    """Reads a data set folder, the one that holds transforms.json.

    Args:
        max_side: reduces the images so that the longer side has at most this many pixels.

    Raises:
        DatasetError: lists every missing, broken or inconsistent part.
    """
    return _load(LAYOUTS["native"], Path(root), max_side, {})


def open_sequence(
    path: str | Path,
    kind: str = "auto",
    *,
    split: str = "train",
    size: Size | None = None,
    max_side: int | None = None,
    multiple: int = 1,
    start: int = 0,
    end: int | None = None,
    every: int = 1,
    moving: str | Path | None = None,
    cache_images: bool = False,
    **options,
) -> DepthSequence:
    """Opens a recording; images, depth and masks are read when asked for.

    Args:
        path: a folder, a video file, or a split file.
        kind: one of ``LAYOUTS``, or ``auto``: recognised by marker files.
        split: ``train`` or ``val``.
        size, max_side, multiple: at which size images are given out, see ``target_size``.
        start, end, every: which frames, as in slices of lists, but not negative.
        moving: folder with a png per frame, named as the frame: 255 = moves by itself. In place of the layout's own.
        cache_images: keeps images in memory once they were read.
        options: of the layout's reader.

    Raises:
        DatasetError: lists what is wrong with the description of the recording.
        UserError: the layout is not recognised, or an option is unknown or out of range.
    """
    path = Path(path)
    if start < 0 or every < 1 or (end is not None and end <= start):
        raise UserError(f"frames {start}:{end}:{every} are none; choose 0 <= start < end and every >= 1.")
    if split not in SPLITS:
        raise UserError(f'split must be "train" or "val", got {split!r}.')
    layout = recognise(path) if kind == "auto" else layout_named(kind)
    chosen = slice(start, end, every)
    if layout.name == "video":  # decoded once, so the range and the size have to be known before
        known = dict(start=start, end=end, size=size, max_side=max_side, multiple=multiple)
        layout.check_options(options, hidden=tuple(known))
        options, chosen = {**options, **known}, slice(None, None, every)
        size, max_side, multiple = None, None, 1
    else:
        layout.check_options(options)
    recording = open_recording(path, layout, **options)
    frames = recording.of_split(split).frames
    if not frames:
        raise UserError(f"{path}: has no frame of the split {split}.")
    if not frames[chosen]:
        raise UserError(f"{path}: has {len(frames)} frames, none in {start}:{end}; choose another range.")
    frames = frames[chosen]
    frames[0].read_image()
    for frame in frames:
        if frame.w2c is not None and not np.allclose(frame.w2c[:3, :3] @ frame.w2c[:3, :3].T, np.eye(3), 0, 1e-12):
            frame.w2c = np.linalg.inv(rigid(np.linalg.inv(frame.w2c), frame.where))  # files round rotations
        if moving is not None:
            file = require_file(Path(moving) / f"{frame.name}.png", "this mask", "write one for every frame")
            frame.moving = partial(read_mask, file)
    fps = None if recording.fps is None else recording.fps / every
    recording = replace(recording, frames=frames, fps=fps)
    return DepthSequence(recording, size=size, max_side=max_side, multiple=multiple, cache_images=cache_images)


def open_recording(path: Path, layout: Layout, **options) -> Recording:
    """The checked description of a recording; no image is read but for its size.

    Raises:
        DatasetError: lists what is wrong with it.
    """
    problems = Problems(path)
    recording = _describe(path, layout, problems, options)
    if recording is None:
        problems.give_up()
    check_recording(recording, problems)
    problems.raise_if_any()
    return recording


def _load(layout: Layout, root: Path, max_side: int | None, options: dict) -> VideoDataset:
    problems = Problems(root)
    recording = _describe(root, layout, problems, options)
    if recording is None:
        problems.give_up()
    return load_recording(recording, problems, max_side)


def _describe(path: Path, layout: Layout, problems: Problems, options: dict) -> Recording | None:
    """What the layout's reader finds; None, with the reasons recorded, where it has to give up."""
    if layout.name != "video" and not path.exists():
        problems.add(path, "does not exist; check the path.")
        return None
    return problems.attempt(partial(layout.read, path, problems, **options))


def find_place(config: SequenceData) -> tuple[Path, Layout]:
    """The folder that the options name, and its layout.

    Raises:
        DatasetError: there is no such folder, or its layout is not recognised or brings no cameras.
        UserError: the options name none.
    """
    if isinstance(config, DavisData):
        if not config.seq_name:
            raise UserError("`data.seq_name`: name the DAVIS sequence, for example car-shadow.")
        return _existing(config.root_dir or Path("data/DAVIS")), LAYOUTS["davis"]
    candidates = _candidates(config)
    found = [(root, layout) for root in candidates if (layout := find_layout(root)) is not None]
    if isinstance(config, IphoneData):
        root = next((root for root, layout in found if layout.name == "iphone"), candidates[0])
        return _existing(root), LAYOUTS["iphone"]
    for root, layout in found:
        if layout.posed:
            return root, layout
    root = found[0][0] if found else _existing(candidates[0])
    raise DatasetError(str(root), [why_not_usable(root)])


def why_not_usable(root: Path) -> str:
    """One sentence on a folder that has no layout, or one without cameras."""
    if (root / "preprocessing.json").is_file():
        return (
            f"{root}: its preprocessing has not ended (there is no transforms.json); run `som4d preprocess` with the "
            "same arguments again, it goes on where it stopped."
        )
    if find_layout(root) is not None:
        return f"{root}: has images but no cameras; `som4d preprocess` makes a data set of them, in another folder."
    return f"{root}: the layout is not recognised; looked for {markers()}. See docs/data-formats.md."


def _candidates(config: SequenceData) -> list[Path]:
    """Folders in which the sequence may lie, most likely first."""
    if config.root_dir is not None:
        return [config.root_dir, *([config.root_dir / config.seq_name] if config.seq_name else [])]
    if not config.seq_name:
        raise UserError("`data.seq_name` or `data.root_dir`: name the sequence or the folder of the data set.")
    return [Path("data") / config.seq_name, Path("data")]


def _existing(root: Path) -> Path:
    """``root``.

    Raises:
        DatasetError: there is no such folder.
    """
    if not root.is_dir():
        problem = f"{root}: no such folder; name the folder of the data set."
        raise DatasetError(str(root), [problem])
    return root
