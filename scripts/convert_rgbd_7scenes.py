"""Converts RGB-D frames with poses (as in 7-Scenes) of a static scene into a native data set folder.

    python scripts/convert_rgbd_7scenes.py <source> <destination>

The source holds images/NNNNN.jpg, depth/NNNNN.png (16 bit, 0 = unknown), poses_cam_to_world.txt (one row-major 4x4
camera-to-world matrix, OpenCV axes, per line, in the order of the images) and K.txt (3x3). Nothing moves, so the
foreground is empty and the scene that is fitted is purely static. Every n-th frame is held out.

K and the poses are the depth camera's. In 7-Scenes colour comes from a second camera that is not registered to it; with
``--color-focal 525 --color-offset -0.025`` (a Kinect's) the depth is carried into the colour camera, which lowers the
mean difference between frames warped onto each other from 11 to 7 grey levels on the kitchen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from som.cameras import Camera
from som.cameras.geometry import resize_intrinsics
from som.data.dataset import VideoDataset, Views
from som.data.folder import write_native
from som.files import decode_image, image_size, list_images, read_image, reduced_size, resize_image, resize_map

INVALID_DEPTH = 65535
"""Written by some recordings of this data set instead of 0."""


def read_poses(path: Path) -> np.ndarray:
    """(N,4,4) camera-to-world matrices, made exactly rigid (the text file rounds them).

    Raises:
        ValueError: the file does not hold 16 numbers per frame.
    """
    poses = np.loadtxt(path).reshape(-1, 4, 4)
    for pose in poses:
        U, _, Vt = np.linalg.svd(pose[:3, :3])
        pose[:3, :3] = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
        pose[3] = 0, 0, 0, 1
    return poses


def register_depth(depth: np.ndarray, K: np.ndarray, K_color: np.ndarray, T_color_depth: np.ndarray) -> np.ndarray:
    """(H,W) depth of the depth camera as seen by the colour camera; the nearest surface wins, 0 where nothing falls."""
    height, width = depth.shape
    row, column = np.nonzero(depth > 0)
    z = depth[row, column].astype(np.float64)
    pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(z))])
    points = T_color_depth[:3, :3] @ (np.linalg.inv(K) @ pixels * z) + T_color_depth[:3, 3:]
    x, y = np.floor((K_color @ points)[:2] / points[2]).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    registered = np.full(depth.shape, np.inf)
    np.minimum.at(registered, (y[inside], x[inside]), points[2, inside])
    return np.where(np.isfinite(registered), registered, 0).astype(np.float32)


def convert(
    source: Path,
    destination: Path,
    hold_out_every: int = 8,
    max_side: int | None = 320,
    depth_unit: float = 1e-3,
    stride: int = 1,
    fps: float = 10.0,
    color_focal: float | None = None,
    color_offset: float = 0.0,
) -> VideoDataset:
    """Reads the source and writes the native folder; returns what was written.

    Args:
        depth_unit: metres per step of the depth png.
        color_focal: focal length in pixels of a separate colour camera with the same image size and a centred principal
            point, into which depth and poses are carried; None if colour and depth are registered.
        color_offset: x of the depth camera's centre in the colour camera's frame, metres.
    """
    paths = list_images(source / "images")
    poses = read_poses(source / "poses_cam_to_world.txt")
    K = np.loadtxt(source / "K.txt")
    if len(poses) != len(paths):
        raise ValueError(f"{source}: {len(paths)} images but {len(poses)} poses; they must pair up.")
    paths, poses = paths[::stride], poses[::stride]
    register = None
    if color_focal is not None:
        height, width = image_size(paths[0])
        K_color = np.array([[color_focal, 0, width / 2], [0, color_focal, height / 2], [0, 0, 1]])
        T_color_depth = np.eye(4)
        T_color_depth[0, 3] = color_offset
        register = partial(register_depth, K=K, K_color=K_color, T_color_depth=T_color_depth)
        K, poses = K_color, poses @ np.linalg.inv(T_color_depth)
    frames = [_read_frame(source, path, max_side, depth_unit, register) for path in paths]
    images, depths, scale = (list(part) for part in zip(*frames, strict=True))
    count = len(paths)
    size = images[0].shape[:2]
    K = resize_intrinsics(torch.from_numpy(K), *scale[0])
    views = Views(
        names=[p.stem for p in paths],
        times=torch.arange(count),
        images=torch.from_numpy(np.stack(images)),
        cameras=Camera.from_arrays(K, np.linalg.inv(poses), *size[::-1]),
        valid=torch.ones((count, *size), dtype=torch.bool),
        foreground=torch.zeros((count, *size), dtype=torch.bool),
        depths=torch.from_numpy(np.stack(depths)),
    )
    held = [i for i in range(count) if hold_out_every and i % hold_out_every == hold_out_every // 2]
    dataset = VideoDataset(
        name=destination.name,
        num_times=count,
        train=views.select([i for i in range(count) if i not in held]),
        val=views.select(held) if held else None,
        fps=fps / stride,
        depth_kind="metric",
        world_scale="metric",
        source={"images": "RGB-D recording", "depth": "sensor", "cameras": "given poses"},
    )
    write_native(dataset, destination)
    return dataset


def _read_frame(
    source: Path, path: Path, max_side: int | None, depth_unit: float, register: Callable | None
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Image, depth in metres, and the (x, y) factor by which both were reduced."""
    image = read_image(path)
    raw = decode_image(source / "depth" / f"{path.stem}.png", "this depth map")
    if raw.shape != image.shape[:2]:
        raise ValueError(f"{source}/depth/{path.stem}.png: missing or not of the image's size.")
    depth = np.where(raw == INVALID_DEPTH, 0, raw).astype(np.float32) * depth_unit
    if register is not None:
        depth = register(depth)
    size = reduced_size(image.shape[:2], max_side)
    scale = size[1] / image.shape[1], size[0] / image.shape[0]
    return resize_image(np.ascontiguousarray(image), size), resize_map(depth, size).astype(np.float32), scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--hold-out-every", type=int, default=8, help="every n-th frame is only scored; 0: none")
    parser.add_argument("--max-side", type=int, default=320, help="reduce the longer side to this many pixels")
    parser.add_argument("--depth-unit", type=float, default=1e-3, help="metres per step of the depth png")
    parser.add_argument("--stride", type=int, default=1, help="use every n-th frame")
    parser.add_argument("--color-focal", type=float, help="focal length of a separate colour camera, pixels")
    parser.add_argument("--color-offset", type=float, default=0.0, help="x of the depth camera in it, metres")
    parser.add_argument("--fps", type=float, default=10.0, help="frames per second of the source")
    options = parser.parse_args()
    if not (options.source / "poses_cam_to_world.txt").is_file():
        parser.error(f"{options.source}/poses_cam_to_world.txt: no such file; give the folder of the recording")
    try:
        dataset = convert(**vars(options))
    except ValueError as error:
        parser.error(str(error))
    held = 0 if dataset.val is None else len(dataset.val)
    print(f"{options.destination}: {len(dataset.train)} training and {held} held-out views")


if __name__ == "__main__":
    main()
