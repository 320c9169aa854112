"""EndoNeRF's endoscopic sequences (``poses_bounds.npy``, images/, depth/, masks/)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from som.data.checks import Problems
from som.data.dataset import Tracks
from som.data.folder.header import inverse_or_nan
from som.data.folder.tracks import read_tracks
from som.data.layouts.layout import Layout
from som.data.recording import FrameRecord, Recording, Size, intrinsics
from som.data.selection import hide_times
from som.files import list_images, read_array, read_image

HELD_OUT_EVERY = 8
"""Frames i with (i - 1) % 8 == 0 are held out, as is usual for these sequences."""


def read(root: Path, problems: Problems) -> Recording:
    """Reads a sequence. Tissue (all that is not a tool) is foreground, tools are invalid, and there is no background.

    poses_bounds.npy has 17 numbers a frame: 3x5 [R | t | (height, width, focal)], camera to world in OpenCV axes
    (the poses are the identity; the axis swap of LLFF files does not apply), then near and far. The principal point is
    the image centre. Depth is an integer png, 0 = unknown, of unstated unit. Files are matched in name order.
    Tracks come from tracks.npz (native format) where it exists; otherwise there are none.
    """
    poses = problems.attempt(read_array, root / "poses_bounds.npy", "the camera file")
    if poses is not None and (poses.ndim != 2 or poses.shape[1] != 17):
        problems.add(root / "poses_bounds.npy", f"must have shape (frames, 17), found {poses.shape}; write it anew.")
        poses = None
    tools = next((f for f in ("masks", "gt_masks") if (root / f).is_dir()), "masks")
    files = {kind: list_images(root / folder) for kind, folder in (("image", "images"), ("depth", "depth"),
                                                                   ("tool", tools))}  # fmt: skip
    count = len(files["image"])
    for kind, folder in (("depth", "depth"), ("tool", tools)):
        if len(files[kind]) not in (0, count):
            problems.add(root / folder, f"holds {len(files[kind])} files but images/ holds {count}; they must pair up.")
            files[kind] = []
    if poses is not None and len(poses) != count:
        problems.add(root / "poses_bounds.npy", f"has {len(poses)} cameras for {count} images; they must pair up.")
        poses = None
    if not count:
        problems.add(root / "images", "holds no image; restore images/*.png.")
    recording = Recording(
        name=root.resolve().name,
        layout="endonerf",
        frames=[_frame(time, pose, files) for time, pose in enumerate([] if poses is None else poses)],
        depth_kind="scale",
        source={"images": "EndoNeRF", "depth": "depth/*.png as given (unit unknown)", "foreground": "all but tools"},
        root=root,
        num_times=count,
        has_background=False,
    )
    if (root / "tracks.npz").exists():
        recording.tracks = partial(_tracks, root / "tracks.npz", count)
    return recording


def _frame(time: int, pose: np.ndarray, files: dict[str, list[Path]]) -> FrameRecord:
    path, matrix = files["image"][time], pose[:15].reshape(3, 5).astype(np.float64)
    size = (int(matrix[0, 4]), int(matrix[1, 4]))
    frame = FrameRecord(path.stem, partial(read_image, path), str(path), size, size_from="poses_bounds.npy says")
    frame.time, frame.split = time, "val" if (time - 1) % HELD_OUT_EVERY == 0 else "train"
    frame.K = intrinsics(matrix[2, 4], matrix[2, 4], size[1] / 2, size[0] / 2)
    frame.w2c = inverse_or_nan(np.vstack([matrix[:, :4], [0, 0, 0, 1]]))
    if files["tool"]:
        frame.set_mask("moving", files["tool"][time], inverted=True)
        frame.set_mask("valid", files["tool"][time], inverted=True)
    else:
        frame.moving = partial(_everything, size)
    if files["depth"]:
        frame.set_depth(files["depth"][time], 1.0)
    return frame


def _everything(size: Size) -> np.ndarray:
    return np.ones(size, bool)


def _tracks(path: Path, count: int) -> Tracks:
    """Tracks that know nothing of the held-out frames."""
    tracks, times = read_tracks(path), torch.arange(count)
    if tuple(tracks.visible.shape[1:]) != (count,):
        return tracks  # the checks say so
    return hide_times(tracks, times[(times - 1) % HELD_OUT_EVERY == 0].tolist())


LAYOUT = Layout(
    "endonerf", "EndoNeRF", "poses_bounds.npy", lambda root: (root / "poses_bounds.npy").is_file(), read
)
