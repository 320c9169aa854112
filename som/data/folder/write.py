"""Writes data set folders: transforms.json, here alone, and whole data sets (docs/data-formats.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from som.cameras.geometry import OPENGL_FROM_OPENCV
from som.data.dataset import VideoDataset, Views
from som.data.folder.header import HEADER
from som.data.folder.tracks import write_ground_truth_tracks, write_tracks
from som.data.recording import Size
from som.errors import UserError
from som.files import write_array, write_bytes, write_image


def frame_entry(
    name: str, time: int, size: Size, K: np.ndarray, w2c: np.ndarray, split: str = "train", prefix: str = ""
) -> dict:
    """A frame of transforms.json, as yet without maps.

    Args:
        size: (height, width) of its image, images/<prefix><name>.png.
        K, w2c: (3,3) and (4,4) float64.
    """
    return {
        "file_path": f"images/{prefix}{name}.png",
        "name": name,
        "split": split,
        "time": time,
        "w": size[1],
        "h": size[0],
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2],
        "cy": K[1, 2],
        "transform_matrix": (np.linalg.inv(w2c) @ OPENGL_FROM_OPENCV).tolist(),
    }


def write_header(root: Path, frames: Sequence[dict], *, name: str, num_times: int, fps: float, **more) -> None:
    """Writes transforms.json, whole or not at all.

    Args:
        frames: see ``frame_entry``; ``time`` counts frames.
        more: further keys of the file, such as depth_kind and source.
    """
    content = {"name": name, "camera_model": "PINHOLE", "time_unit": "frame", "num_times": num_times, "fps": fps}
    write_bytes(root / HEADER, encode_header({**content, **more, "frames": list(frames)}, root))


def encode_header(content: dict, root: Path) -> bytes:
    """The bytes of transforms.json.

    Raises:
        UserError: something in it cannot be written as JSON.
    """
    try:
        return (json.dumps(content, indent=1) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{root / HEADER}: cannot be written as JSON ({error}); source must hold plain numbers and texts."
        ) from None


def write_native(dataset: VideoDataset, root: Path) -> None:
    """Writes a data set; ``som.data.load.read_native`` gives back the same (images and masks exactly, floats to
    float32).

    ``root`` is created; files of an earlier data set in it are overwritten, not removed.
    """
    root.mkdir(parents=True, exist_ok=True)
    frames = _write_views(dataset.train, root, "train")
    if dataset.val is not None:
        frames += _write_views(dataset.val, root, "val")
    if dataset.tracks is not None:
        write_tracks(root / "tracks.npz", dataset.tracks)
    if dataset.ground_truth_tracks is not None:
        write_ground_truth_tracks(root / "ground_truth_tracks.npz", dataset.ground_truth_tracks)
    write_header(
        root,
        frames,
        name=dataset.name,
        num_times=dataset.num_times,
        fps=dataset.fps,
        depth_kind=dataset.depth_kind,
        world_scale=dataset.world_scale,
        has_background=dataset.has_background,
        source=dataset.source,
    )


def _write_views(views: Views, root: Path, split: str) -> list[dict]:
    """Writes the files of one split; returns the entries for transforms.json."""
    entries = []
    prefix = "" if split == "train" else "val_"
    for i, name in enumerate(views.names):
        K, w2c = views.cameras.K[i].double().numpy(), views.cameras.w2c[i].double().numpy()
        entry = frame_entry(name, int(views.times[i]), (views.height, views.width), K, w2c, split, prefix)
        write_image(root / entry["file_path"], views.images[i].numpy())
        masks = (("mask_path", "valid", views.valid), ("foreground_path", "foreground", views.foreground))
        for key, folder, mask in (*masks, ("covisible_path", "covisible", views.covisible)):
            if mask is None or (key == "mask_path" and bool(mask[i].all())):
                continue
            entry[key] = f"{folder}/{prefix}{name}.png"
            write_image(root / entry[key], mask[i].numpy())
        maps = (("depth_file_path", "depth", views.depths),)
        for key, folder, values in (*maps, ("depth_confidence_path", "depth_confidence", views.depth_confidence)):
            if values is None:
                continue
            entry[key] = f"{folder}/{prefix}{name}.npy"
            write_array(root / entry[key], values[i].numpy().astype(np.float32))
        entries.append(entry)
    return entries
