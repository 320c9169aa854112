"""One entry point for every kind of data set; tells the layouts of ``data:custom`` apart by their marker files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from som.data import davis, shape_of_motion
from som.data.checks import DatasetError
from som.data.colmap import is_colmap, read_colmap
from som.data.config import CustomData, DavisData, DemoData, IphoneData, SequenceData
from som.data.dataset import VideoDataset
from som.data.endonerf import is_endonerf, read_endonerf
from som.data.iphone import is_iphone, read_iphone
from som.data.native import read_native
from som.data.selection import apply_options
from som.errors import UserError

MARKERS = (
    "transforms.json (native), poses_bounds.npy (EndoNeRF), sparse/ beside images/ (COLMAP) "
    "or images/<seq-name>/ (Shape-of-Motion)"
)


def load_dataset(config: DemoData | CustomData | DavisData | IphoneData) -> VideoDataset:
    """Loads and checks the data set that the options describe, with both its splits.

    Raises:
        DatasetError: lists everything that is wrong with the data set.
        UserError: the options do not name a data set, or are out of range.
    """
    return replace(_read(config), options=config)


def _read(config: DemoData | CustomData | DavisData | IphoneData) -> VideoDataset:
    if config.max_side is not None and config.max_side < 1:
        raise UserError(f"--data.max-side: must be at least 1, got {config.max_side}.")
    if isinstance(config, DemoData):
        from som.data.demo import load_demo  # compiles its renderer, which nothing else needs

        return load_demo(config)
    if isinstance(config, DavisData):
        if not config.seq_name:
            raise UserError("--data.seq-name: name the DAVIS sequence, for example car-shadow.")
        root = _existing(config.root_dir or Path("data/DAVIS"))
        return apply_options(davis.read_davis(root, config), config, davis.EROSION)
    if isinstance(config, IphoneData):
        return apply_options(read_iphone(_sequence_folder(config, is_iphone), config), config)
    if isinstance(config, CustomData):
        return _load_custom(config)
    raise TypeError(f"unknown kind of data set: {type(config).__name__}")


def _load_custom(config: CustomData) -> VideoDataset:
    readers: tuple[tuple[Callable[[Path], bool], Callable], ...] = (
        (lambda root: (root / "transforms.json").is_file(), read_native),
        (is_endonerf, read_endonerf),
        (is_colmap, read_colmap),
    )
    for root in _candidates(config):
        for matches, read in readers:
            if matches(root):
                return apply_options(read(root, config.max_side), config)
        if shape_of_motion.is_shape_of_motion(root, config.seq_name):
            dataset = shape_of_motion.read_shape_of_motion(root, config.seq_name, config.max_side)
            return apply_options(dataset, config, shape_of_motion.EROSION)
    root = _existing(_candidates(config)[0])
    raise DatasetError(
        str(root), [f"{root}: the layout is not recognised, expected {MARKERS}; see docs/data-formats.md."]
    )


def _candidates(config: SequenceData) -> list[Path]:
    """Folders in which the sequence may lie, most likely first."""
    if config.root_dir is not None:
        return [config.root_dir, *([config.root_dir / config.seq_name] if config.seq_name else [])]
    if not config.seq_name:
        raise UserError("--data.seq-name or --data.root-dir: name the sequence or the folder of the data set.")
    return [Path("data") / config.seq_name, Path("data")]


def _sequence_folder(config: SequenceData, matches: Callable[[Path], bool]) -> Path:
    candidates = _candidates(config)
    return next((root for root in candidates if matches(root)), _existing(candidates[0]))


def _existing(root: Path) -> Path:
    """``root``.

    Raises:
        DatasetError: there is no such folder.
    """
    if not root.is_dir():
        problem = f"{root}: no such folder; give the data set's folder with --data.root-dir."
        raise DatasetError(str(root), [problem])
    return root
