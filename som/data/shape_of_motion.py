"""Reads Shape-of-Motion's layout for casual videos: {root}/{kind}/{resolution}/{sequence}/{frame}."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from som.data.assembly import Frame, ViewBuilder, empty_views, intrinsics
from som.data.checks import Problems, check_dataset
from som.data.dataset import VideoDataset
from som.data.files import attempt, list_images, read_image, read_map, read_mask
from som.data.native import add_notes
from som.data.pair_tracks import read_pair_tracks

DROID_PIXELS = 384 * 512
"""DROID-SLAM's images are resized to about this many pixels, then cropped to multiples of 8."""
EROSION = 7
"""Side of the square by which the masks of custom videos are eroded."""


@dataclass(frozen=True)
class Layout:
    """Names of the folders of one flavour of the layout."""

    images: str = "images"
    masks: str = "masks"
    resolution: str = ""
    depth: str = "aligned_depth_anything"
    tracks: tuple[str, ...] = ("bootstapir", "tapir")

    def folder(self, root: Path, kind: str, seq: str) -> Path:
        """Where the files of one kind of a sequence lie."""
        return root / kind / self.resolution / seq


def is_shape_of_motion(root: Path, seq: str) -> bool:
    """Whether ``root`` holds the sequence in the layout for custom videos."""
    return bool(seq) and (root / "images" / seq).is_dir()


def read_shape_of_motion(
    root: Path, seq: str, max_side: int | None = None, layout: Layout | None = None
) -> VideoDataset:
    """Reads a sequence with its DROID-SLAM cameras, disparity maps, masks and pairwise tracks.

    Disparity 0 means unknown and stays unknown. The intrinsics undo DROID's resizing and cropping. Pixel centres of
    the tracks are shifted by 0.5; the principal point is taken as a continuous image coordinate, as it is written.

    Raises:
        DatasetError: lists every missing, broken or inconsistent part.
    """
    layout = layout or Layout()
    problems = Problems(root / layout.images / layout.resolution / seq)
    paths = list_images(layout.folder(root, layout.images, seq))
    if not paths:
        problems.add(layout.folder(root, layout.images, seq), "holds no image; extract the video's frames there.")
    droid = root / "droid_recon" / f"{seq}.npy"
    cameras = attempt(droid, problems, load_dict, "the camera file of DROID-SLAM")
    if cameras is not None:
        cameras = _check_cameras(droid, cameras, len(paths), problems)
    builder = ViewBuilder(problems, max_side)
    for time, path in enumerate(paths):
        frame = _frame(root, seq, layout, time, path, cameras, problems)
        if frame is not None:
            builder.add(frame)
    train = builder.build()
    dataset = VideoDataset(
        name=seq,
        num_times=len(paths),
        train=empty_views() if train is None else train,
        depth_kind="scale" if "aligned" in layout.depth else "relative",
        source={"images": layout.images, "cameras": "DROID-SLAM", "depth": layout.depth, "foreground": layout.masks},
    )
    folders = [f for kind in layout.tracks if (f := layout.folder(root, kind, seq)).is_dir()]
    if folders and train is not None and len(train) == len(paths):
        names, times = [p.stem for p in paths], list(range(len(paths)))
        dataset.tracks = read_pair_tracks(folders[0], names, times, len(paths), builder.scale, problems)
    if train is not None or not problems.found:
        check_dataset(dataset, problems, root)
    problems.raise_if_any()
    add_notes(dataset)
    return dataset


def _frame(
    root: Path, seq: str, layout: Layout, time: int, path: Path, cameras: dict | None, problems: Problems
) -> Frame | None:
    image = read_image(path, problems)
    mask_path = layout.folder(root, layout.masks, seq) / f"{path.stem}.png"
    depth_path = layout.folder(root, layout.depth, seq) / f"{path.stem}.npy"
    mask = read_mask(mask_path, problems)
    disparity = read_map(depth_path, problems, 1.0, "this disparity map")
    if image is None or cameras is None:
        return None
    height, width = image.shape[:2]
    scale_x, scale_y = droid_scale(cameras["img_shape"], height, width)
    fx, fy, cx, cy = cameras["intrinsics"]
    K = intrinsics(fx * scale_x, fy * scale_y, cx * scale_x, cy * scale_y)
    c2w = cameras["traj_c2w"][time]
    usable = np.isfinite(c2w).all() and abs(np.linalg.det(c2w)) > 1e-9
    w2c = np.linalg.inv(c2w) if usable else np.full((4, 4), np.nan)
    maps = {"foreground": mask, "depth": None if disparity is None else depth_from_disparity(disparity)}
    return Frame(path.stem, time, path, image, w2c, K, maps, {"foreground": mask_path, "depth": depth_path})


def depth_from_disparity(disparity: np.ndarray) -> np.ndarray:
    """1 / disparity, and 0 (unknown) where the disparity is 0 or negative."""
    known = disparity > 1e-6
    return np.where(known, 1 / np.where(known, disparity, 1), 0).astype(np.float32)


def droid_scale(img_shape: np.ndarray, height: int, width: int) -> tuple[float, float]:
    """(x, y) factor from DROID's reduced image, of which ``img_shape`` (h, w) was cropped, to the full image.

    Cropping at the right and bottom changes no intrinsics, so the factor is that of the resizing before it.
    """
    factor = np.sqrt(DROID_PIXELS / (height * width))
    reduced = int(height * factor), int(width * factor)
    cropped = tuple(n - n % 8 for n in reduced)
    h, w = reduced if cropped == tuple(int(n) for n in img_shape) else img_shape
    return width / float(w), height / float(h)


def _check_cameras(path: Path, cameras: dict, count: int, problems: Problems) -> dict | None:
    shapes = {"traj_c2w": (count, 4, 4), "intrinsics": (4,), "img_shape": (2,)}
    arrays, before = {}, len(problems.found)
    for name, shape in shapes.items():
        if name not in cameras:
            problems.add(path, f"lacks {name}; reconstruct the cameras anew.")
            continue
        arrays[name] = np.asarray(cameras[name], np.float64)
        if name == "img_shape":
            arrays[name] = arrays[name].reshape(-1)[:2]
        found = arrays[name].shape
        if found != shape:
            problems.add(path, f"{name} must have shape {shape} for {count} images, found {found}; reconstruct anew.")
    return arrays if len(problems.found) == before else None


class _ArraysOnly(pickle.Unpickler):
    """Refuses to build anything but numpy arrays and plain values, so that a file cannot run code."""

    ALLOWED = ("_reconstruct", "scalar", "ndarray", "dtype", "encode", "_frombuffer")

    def find_class(self, module: str, name: str):
        if name in self.ALLOWED and (module.split(".")[0] == "numpy" or module == "_codecs"):
            return super().find_class(module, name)
        raise ValueError(f"it holds a {module}.{name}, which is not an array")


def load_dict(path: Path) -> dict:
    """A dict of arrays that was written with ``np.save``.

    Raises:
        ValueError: the file holds something else.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        read_header(file)
        try:
            value = _ArraysOnly(file).load()
        except pickle.UnpicklingError as error:
            raise ValueError(str(error)) from None
    value = value.item() if isinstance(value, np.ndarray) and value.shape == () else value
    if not isinstance(value, dict):
        raise ValueError("it holds no dict")
    return value
