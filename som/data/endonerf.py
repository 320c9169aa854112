"""Reads EndoNeRF's endoscopic sequences (``poses_bounds.npy``, images/, depth/, masks/)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from som.data.assembly import Frame, ViewBuilder, empty_views, intrinsics
from som.data.checks import Problems, check_dataset
from som.data.dataset import Tracks, VideoDataset
from som.data.files import attempt, list_images, read_image, read_map, read_mask
from som.data.native import add_notes, read_tracks
from som.data.selection import hide_times

HELD_OUT_EVERY = 8
"""Frames i with (i - 1) % 8 == 0 are held out, as is usual for these sequences."""


def is_endonerf(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (root / "poses_bounds.npy").is_file()


def read_endonerf(root: Path, max_side: int | None = None) -> VideoDataset:
    """Reads a sequence. Tissue (all that is not a tool) is foreground, tools are invalid, and there is no background.

    poses_bounds.npy has 17 numbers a frame: 3x5 [R | t | (height, width, focal)], camera to world in OpenCV axes
    (the poses are the identity; the axis swap of LLFF files does not apply), then near and far. The principal point is
    the image centre. Depth is an integer png, 0 = unknown, of unstated unit. Files are matched in name order.
    Tracks come from tracks.npz (native format) where it exists; otherwise there are none.

    Raises:
        DatasetError: lists every missing, broken or inconsistent part.
    """
    problems = Problems(root)
    poses = attempt(root / "poses_bounds.npy", problems, lambda p: np.load(p, allow_pickle=False), "the camera file")
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
    builders = {held: ViewBuilder(problems, max_side) for held in (False, True)}
    for time in range(count if poses is not None else 0):
        frame = _frame(time, poses[time], files, problems)
        if frame is not None:
            builders[(time - 1) % HELD_OUT_EVERY == 0].add(frame)
    return _dataset(root, count, builders, problems)


def _frame(time: int, pose: np.ndarray, files: dict[str, list[Path]], problems: Problems) -> Frame | None:
    path = files["image"][time]
    image = read_image(path, problems)
    if image is None:
        return None
    matrix = pose[:15].reshape(3, 5).astype(np.float64)
    c2w = np.vstack([matrix[:, :4], [0, 0, 0, 1]])
    usable = np.isfinite(c2w).all() and abs(np.linalg.det(c2w)) > 1e-9
    w2c = np.linalg.inv(c2w) if usable else np.full((4, 4), np.nan)
    height, width = image.shape[:2]
    if (int(matrix[0, 4]), int(matrix[1, 4])) != (height, width):
        wanted = f"{int(matrix[1, 4])}x{int(matrix[0, 4])}"
        problems.add(path, f"the image is {width}x{height} but poses_bounds.npy says {wanted}; resize one of them.")
        return None
    K = intrinsics(matrix[2, 4], matrix[2, 4], width / 2, height / 2)
    maps: dict[str, np.ndarray | None] = {"foreground": np.ones((height, width), bool)}
    paths = {}
    if files["tool"]:
        paths["valid"] = paths["foreground"] = files["tool"][time]
        tool = read_mask(paths["valid"], problems, threshold=127)
        maps["valid"] = maps["foreground"] = None if tool is None else ~tool
    if files["depth"]:
        paths["depth"] = files["depth"][time]
        maps["depth"] = read_map(paths["depth"], problems, 1.0, "this depth map")
    return Frame(path.stem, time, path, image, w2c, K, maps, paths)


def _dataset(root: Path, count: int, builders: dict[bool, ViewBuilder], problems: Problems) -> VideoDataset:
    train = builders[False].build()
    dataset = VideoDataset(
        name=root.resolve().name,
        num_times=count,
        train=empty_views() if train is None else train,
        val=builders[True].build(),
        depth_kind="scale",
        world_scale="arbitrary",
        has_background=False,
        source={"images": "EndoNeRF", "depth": "depth/*.png as given (unit unknown)", "foreground": "all but tools"},
    )
    tracks = read_tracks(root / "tracks.npz", problems, np.array(builders[False].scale, np.float32))
    if tracks is not None and tuple(tracks.visible.shape[1:]) == (count,):
        tracks = _without_held_out(tracks, count)
    dataset.tracks = tracks
    if train is not None or not problems.found:
        check_dataset(dataset, problems, root)
    problems.raise_if_any()
    add_notes(dataset)
    return dataset


def _without_held_out(tracks: Tracks, count: int) -> Tracks:
    times = torch.arange(count)
    return hide_times(tracks, times[(times - 1) % HELD_OUT_EVERY == 0].tolist())
