"""Images with K.txt, poses and depth beside them, as converters write them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from som.cameras.checks import rigid
from som.data.checks import Problems
from som.data.layouts.images import Offset, image_frames, set_cameras, shifted_intrinsics
from som.data.layouts.layout import Layout
from som.data.recording import FrameRecord, Recording, WorldScale
from som.errors import UserError
from som.files import list_images, read_map, read_matrix, read_numbers


def read(
    path: Path,
    problems: Problems,
    *,
    depth_unit: float | None = None,
    center_offset: Offset = 0.5,
    fps: float | None = None,
    world_scale: WorldScale = "metric",
) -> Recording:
    """``images/``, ``K.txt``, and where they exist ``poses_cam_to_world.txt`` and ``depth/``.

    K.txt holds 3x3 numbers for the images as stored. Each row of the pose file is a camera-to-world matrix, 3x4 or 4x4
    row by row, OpenCV axes, in the order of the images. ``depth/`` holds png or npy files with the images' stems, at
    any size; a frame without one has no depth.

    Args:
        depth_unit: unit of an integer step of depth/*.png: 0.001 for millimetres, 1/256 for KITTI's files.
        center_offset: added to cx and cy of K.txt; 0.5 if it has integer pixel centres (KITTI, 7-Scenes, OpenCV), 0 if
            it has this package's. For a K with integer centres that was scaled by (sx, sy): (0.5 sx, 0.5 sy).
        fps: frames per second, for the timestamps.
        world_scale: ``metric`` if the poses are in metres, else ``arbitrary``.

    Raises:
        UserError: a part is missing or inconsistent, or there are png depth maps and no ``depth_unit``.
    """
    if world_scale not in ("metric", "arbitrary"):
        raise UserError(f'world_scale must be "metric" or "arbitrary", got {world_scale!r}.')
    frames = image_frames(path / "images")
    file = path / "K.txt"
    K = shifted_intrinsics(read_matrix(file, (3, 3), "the intrinsics"), center_offset, file)
    recording = Recording(path.resolve().name, "plain", frames, world_scale=world_scale, fps=fps, root=path)
    set_cameras(recording, K, file)
    if (path / "poses_cam_to_world.txt").is_file():
        poses = read_pose_rows(path / "poses_cam_to_world.txt")
        if len(poses) != len(frames):
            file = path / "poses_cam_to_world.txt"
            raise UserError(f"{file}: holds {len(poses)} poses for {len(frames)} images; they must pair up.")
        for frame, c2w in zip(frames, poses, strict=True):
            frame.w2c = np.linalg.inv(c2w)
    if (path / "depth").is_dir():
        for frame in frames:
            _set_plain_depth(frame, path / "depth", depth_unit)
        missing = sum(frame.depth is None for frame in frames)
        if missing:
            recording.notes.append(f"{missing} of {len(frames)} images have no depth map")
    return recording


def _set_plain_depth(frame: FrameRecord, folder: Path, unit: float | None) -> None:
    for file in (folder / f"{frame.name}.npy", folder / f"{frame.name}.png"):
        if not file.is_file():
            continue
        if file.suffix == ".png" and unit is None:
            raise UserError(
                f"{file}: its unit is not known; pass depth_unit, 0.001 for millimetres, 1/256 for KITTI's."
            )
        frame.depth = partial(read_map, file, 1.0 if unit is None else unit)
        return


def read_pose_rows(path: Path) -> list[np.ndarray]:
    """Camera-to-world matrices (4,4) of a text file with 12 or 16 numbers per row.

    Raises:
        UserError: the file is missing, a row has another length, or a pose is not rigid.
    """
    poses = []
    for number, row in enumerate(read_numbers(path, "the poses"), 1):
        if len(row) not in (12, 16):
            raise UserError(f"{path}: row {number} has {len(row)} numbers; a pose is 3x4 or 4x4, row by row.")
        poses.append(rigid(np.array(row).reshape(-1, 4), f"{path}: row {number}"))
    return poses


def _is_plain(path: Path) -> bool:
    return (path / "K.txt").is_file() and bool(list_images(path / "images"))


LAYOUT = Layout("plain", "plain", "K.txt beside images/", _is_plain, read)
