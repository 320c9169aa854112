"""Shape-of-Motion's layout for casual videos: {root}/{kind}/{resolution}/{sequence}/{frame}."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from som.data.checks import Problems
from som.data.folder.header import inverse_or_nan
from som.data.layouts.layout import Layout
from som.data.layouts.native import set_valid
from som.data.pair_tracks import read_pair_tracks
from som.data.recording import FrameRecord, Recording, Size, intrinsics
from som.errors import UserError
from som.files import image_size, list_images, load_file, read_image

DROID_PIXELS = 384 * 512
"""DROID-SLAM's images are resized to about this many pixels, then cropped to multiples of 8."""


@dataclass(frozen=True)
class Folders:
    """Names of the folders of one flavour of the layout."""

    images: str = "images"
    masks: str = "masks"
    resolution: str = ""
    depth: str = "aligned_depth_anything"
    tracks: tuple[str, ...] = ("bootstapir", "tapir")

    def of(self, root: Path, kind: str, seq: str) -> Path:
        """Where the files of one kind of a sequence lie."""
        return root / kind / self.resolution / seq


def read(root: Path, problems: Problems, *, seq_name: str = "") -> Recording:
    """Reads a sequence with its DROID-SLAM cameras, disparity maps, masks and pairwise tracks.

    Disparity 0 means unknown and stays unknown. The intrinsics undo DROID's resizing and cropping. Pixel centres of
    the tracks are shifted by 0.5; the principal point is taken as a continuous image coordinate, as it is written.

    Args:
        seq_name: the sequence; may be left out where there is only one.
    """
    return read_sequence(root, problems, seq_name or only_sequence(root / "images", root), Folders())


def read_sequence(root: Path, problems: Problems, seq: str, folders: Folders, layout: str = "shape_of_motion"):
    """As ``read``, in any flavour of the layout."""
    images = folders.of(root, folders.images, seq)
    paths = list_images(images)
    if not paths:
        problems.add(images, "holds no image; extract the video's frames there.")
    droid = root / "droid_recon" / f"{seq}.npy"
    cameras = problems.attempt(load_file, droid, load_dict, "the camera file of DROID-SLAM")
    if cameras is not None:
        cameras = _check_cameras(droid, cameras, len(paths), problems)
    size = image_size(paths[0]) if paths else (1, 1)
    recording = Recording(
        name=seq,
        layout=layout,
        frames=[_frame(root, seq, folders, time, path, size, cameras) for time, path in enumerate(paths)],
        depth_kind="scale" if "aligned" in folders.depth else "relative",
        source={"images": folders.images, "cameras": "DROID-SLAM", "depth": folders.depth, "foreground": folders.masks},
        root=root,
    )
    tracks = next((f for kind in folders.tracks if (f := folders.of(root, kind, seq)).is_dir()), None)
    if tracks is not None and paths:
        names, times = [p.stem for p in paths], list(range(len(paths)))
        recording.tracks = partial(read_pair_tracks, tracks, names, times, len(paths))
    return recording


def only_sequence(folder: Path, root: Path) -> str:
    """The name of the sequence in ``folder``.

    Raises:
        UserError: there is not exactly one.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if len(names) == 1:
        return names[0]
    found = f"holds several sequences ({', '.join(names[:8])})" if names else f"holds no sequence in {folder.name}/"
    raise UserError(f"{root}: {found}; name the one to read with `data.seq_name`.")


def _frame(
    root: Path, seq: str, folders: Folders, time: int, path: Path, size: Size, cameras: dict | None
) -> FrameRecord:
    frame = FrameRecord(path.stem, partial(read_image, path), str(path), size)
    frame.time = time
    set_valid(frame, path)
    frame.set_mask("moving", folders.of(root, folders.masks, seq) / f"{path.stem}.png", threshold=0)
    frame.set_depth(folders.of(root, folders.depth, seq) / f"{path.stem}.npy", 1.0, depth_from_disparity)
    if cameras is not None:
        scale_x, scale_y = droid_scale(cameras["img_shape"], *size)
        fx, fy, cx, cy = cameras["intrinsics"]
        frame.K = intrinsics(fx * scale_x, fy * scale_y, cx * scale_x, cy * scale_y)
        frame.w2c = inverse_or_nan(cameras["traj_c2w"][time])
    return frame


def has_sequences(root: Path) -> bool:
    """Whether ``images/`` holds folders and no images."""
    images = root / "images"
    return images.is_dir() and not list_images(images) and any(p.is_dir() for p in images.iterdir())


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


LAYOUT = Layout(
    "shape_of_motion", "Shape-of-Motion", "images/<sequence>/ with droid_recon/", has_sequences, read, mask_erosion=7
)
