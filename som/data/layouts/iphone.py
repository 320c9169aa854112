"""Sequences of DyCheck's iPhone data set with the priors of Shape-of-Motion (flow3d_preprocessed/)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from som.cameras import Camera
from som.data.checks import Problems
from som.data.colmap_model import read_model
from som.data.layouts.layout import Layout
from som.data.layouts.native import set_valid
from som.data.layouts.shape_of_motion import depth_from_disparity
from som.data.pair_tracks import read_pair_tracks
from som.data.recording import SPLITS, FrameRecord, Recording, Size, intrinsics
from som.errors import UserError
from som.files import image_size, read_image, read_json

PRIORS = "flow3d_preprocessed"
DEFAULT_FPS = 30.0
MAX_DEPTH_RATIO = 2.5
"""Depth ends at this many times the median of the frames' largest depths."""


def read(
    root: Path, problems: Problems, *, cameras: str = "refined", depth_folder: str = "aligned_depth_anything_colmap"
) -> Recording:
    """Reads a sequence: RGBA images (transparent = invalid), refined or original cameras, depth, masks, tracks.

    The held-out views are those of splits/val.json, with their co-visibility masks. Lens distortion of the original
    cameras is ignored, as is usual for this data set.

    Args:
        cameras: ``refined``: the COLMAP model in flow3d_preprocessed; ``original``: the camera/*.json files.
        depth_folder: folder of the disparity maps in flow3d_preprocessed; ``lidar`` uses depth/ instead.

    Raises:
        UserError: an unknown kind of cameras.
    """
    if cameras not in ("refined", "original"):
        raise UserError(f"`data.cameras`: must be refined or original, got {cameras}.")
    frames = {split: _read_split(root / "splits" / f"{split}.json", problems) for split in SPLITS}
    extra = problems.attempt(read_json, root / "extra.json", "the file with the frame rate")
    refined = read_model(root / PRIORS / "colmap" / "sparse", problems) if cameras == "refined" else None
    size = _stored_size(root, frames["train"] + frames["val"])
    records = []
    for split, named in frames.items():
        for name, time in named:
            path = root / "rgb" / "1x" / f"{name}.png"
            if refined is None:
                camera = _original_camera(root, name, problems)
            else:
                camera = refined[path.name].camera if path.name in refined else None
            if camera is None and refined is not None:
                problems.add(path, f"is not registered in {PRIORS}/colmap/sparse; use `data.cameras` original.")
            records.append(_frame(root, path, split, time, size, camera, depth_folder))
    recording = Recording(
        name=root.resolve().name,
        layout="iphone",
        frames=records,
        fps=float(extra.get("fps", DEFAULT_FPS)) if isinstance(extra, dict) else DEFAULT_FPS,
        depth_kind="metric" if depth_folder == "lidar" and cameras == "original" else "scale",
        world_scale="metric" if cameras == "original" else "arbitrary",
        source={"images": "rgb/1x", "cameras": cameras, "depth": depth_folder},
        root=root,
        farthest=MAX_DEPTH_RATIO,
    )
    tracks = root / PRIORS / "2d_tracks" / "1x"
    if tracks.is_dir() and frames["train"]:
        names, times = zip(*frames["train"], strict=True)
        recording.tracks = partial(read_pair_tracks, tracks, list(names), list(times), recording.count_times())
    return recording


def _read_split(path: Path, problems: Problems) -> list[tuple[str, int]]:
    """(name, time) of the frames of a split."""
    content = problems.attempt(read_json, path, "this list of frames")
    if content is None:
        return []
    try:
        names, times = [str(n) for n in content["frame_names"]], [int(t) for t in content["time_ids"]]
    except (KeyError, TypeError, ValueError):
        problems.add(path, "must hold the lists frame_names and time_ids; restore the original file.")
        return []
    if len(names) != len(times):
        problems.add(path, f"lists {len(names)} names but {len(times)} times; restore the original file.")
        return []
    return list(zip(names, times, strict=True))


def _stored_size(root: Path, frames: list[tuple[str, int]]) -> Size:
    for name, _ in frames:
        try:
            return image_size(root / "rgb" / "1x" / f"{name}.png")
        except UserError:
            continue  # reported when it is read
    return (1, 1)


def _frame(
    root: Path, path: Path, split: str, time: int, size: Size, camera: Camera | None, depth_folder: str
) -> FrameRecord:
    frame = FrameRecord(path.stem, partial(read_image, path), str(path), size)
    frame.split, frame.time = split, time
    if camera is not None:
        frame.set_camera(camera)
    set_valid(frame, path)
    if split == "val":
        frame.set_mask("covisible", root / PRIORS / "covisible" / "1x" / "val" / path.name)
        return frame
    frame.set_mask("moving", root / PRIORS / "track_anything" / "1x" / path.name)
    if depth_folder == "lidar":
        frame.set_depth(root / "depth" / "1x" / f"{path.stem}.npy", 1.0)
    else:
        frame.set_depth(root / PRIORS / depth_folder / "1x" / f"{path.stem}.npy", 1.0, depth_from_disparity)
    return frame


def _original_camera(root: Path, name: str, problems: Problems) -> Camera | None:
    """A camera of camera/*.json: orientation (world to camera), position of the centre, intrinsics."""
    path = root / "camera" / f"{name}.json"
    content = problems.attempt(read_json, path, "this camera")
    if content is None:
        return None
    try:
        R, center = np.array(content["orientation"], float), np.array(content["position"], float)
        focal, (cx, cy) = float(content["focal_length"]), content["principal_point"]
        width, height = content["image_size"]
        w2c = np.eye(4)
        w2c[:3, :3], w2c[:3, 3] = R, -R @ center
        K = intrinsics(focal, focal, float(cx), float(cy))
    except (KeyError, TypeError, ValueError) as error:
        problems.add(path, f"is not a DyCheck camera ({error}); restore the original file.")
        return None
    return Camera.from_arrays(K, w2c, int(width), int(height), torch.float64)


def _is_iphone(root: Path) -> bool:
    return (root / "splits" / "train.json").is_file() and (root / "rgb").is_dir()


LAYOUT = Layout("iphone", "iPhone", "splits/train.json beside rgb/", _is_iphone, read)
