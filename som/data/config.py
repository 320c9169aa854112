"""Options that say which data set to read and how. Free of torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataOptions:
    """What every data set accepts."""

    is_train: bool = True
    """Which split the command is about: True for training, False for scoring. Both splits are always loaded."""
    max_side: int | None = None
    """Reduce images (by area), masks and depth (nearest) so that the longer side has at most this many pixels."""


@dataclass(frozen=True)
class DemoData(DataOptions):
    """The built-in scene: generated once, with exact cameras, depth, flow, masks, tracks and held-out views."""

    cache_dir: Path | None = None
    """Where the generated data set is kept; by default ~/.cache/som4d."""
    seed: int = 0
    """Varies textures, the placing of the props and the phase of the motion."""
    width: int = 256
    """Pixels per row."""
    height: int = 144
    """Rows."""
    num_times: int = 24
    """Training frames."""
    held_out_times: int = 4
    """Times at which each of the two held-out cameras takes a picture."""
    samples: int = 3
    """Colour is the mean of samples x samples rays per pixel; depth and masks use the pixel's centre."""


@dataclass(frozen=True)
class SequenceData(DataOptions):
    """What every data set on disk accepts."""

    seq_name: str = ""
    """Name of the sequence; may be left out where ``root_dir`` already names its folder."""
    root_dir: Path | None = None
    """Folder of the data set; by default data/<seq-name>."""
    start: int = 0
    """First time index that is used."""
    end: int | None = None
    """Time index after the last one that is used; by default all."""
    every: int = 1
    """Use every n-th time; the times are then counted 0, 1, 2, ..."""
    hold_out_every: int | None = None
    """Turn the training views at times 0, n, 2n, ... into held-out views."""
    mask_erosion: int | None = None
    """Side of the square by which foreground and background are eroded; the band between becomes invalid. 0 or 1
    leaves the masks alone; by default 7 for the Shape-of-Motion layout, 3 for DAVIS and 0 elsewhere."""


@dataclass(frozen=True)
class CustomData(SequenceData):
    """A folder in the native, Shape-of-Motion, EndoNeRF or COLMAP layout, recognised by marker files."""


@dataclass(frozen=True)
class DavisData(SequenceData):
    """A DAVIS sequence with the priors of Shape-of-Motion; root_dir is the DAVIS folder (by default data/DAVIS)."""

    resolution: str = "480p"
    """Name of the resolution folder."""
    depth_folder: str = "aligned_depth_anything"
    """Folder of the disparity maps."""
    track_folder: str = "bootstapir"
    """Folder of the pairwise TAPIR tracks."""


@dataclass(frozen=True)
class IphoneData(SequenceData):
    """A sequence of DyCheck's iPhone data set with the priors of Shape-of-Motion."""

    cameras: str = "refined"
    """``refined``: the COLMAP model in flow3d_preprocessed; ``original``: the camera/*.json files."""
    depth_folder: str = "aligned_depth_anything_colmap"
    """Folder of the disparity maps in flow3d_preprocessed; ``lidar`` uses depth/ instead."""
