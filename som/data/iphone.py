"""Reads sequences of DyCheck's iPhone data set with the priors of Shape-of-Motion (flow3d_preprocessed/)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from som.data.assembly import Frame, ViewBuilder, empty_views, intrinsics
from som.data.checks import Problems, check_dataset
from som.data.colmap import ColmapImage, read_model
from som.data.config import IphoneData
from som.data.dataset import VideoDataset
from som.data.files import read_image, read_json, read_map, read_mask
from som.data.native import add_notes
from som.data.pair_tracks import read_pair_tracks
from som.data.shape_of_motion import depth_from_disparity
from som.errors import UserError

PRIORS = "flow3d_preprocessed"


@dataclass
class _Split:
    names: list[str]
    times: list[int]


def is_iphone(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (root / "splits" / "train.json").is_file() and (root / "rgb").is_dir()


def read_iphone(root: Path, config: IphoneData) -> VideoDataset:
    """Reads a sequence: RGBA images (transparent = invalid), refined or original cameras, depth, masks, tracks.

    The held-out views are those of splits/val.json, with their co-visibility masks. Lens distortion of the original
    cameras is ignored, as is usual for this data set.

    Raises:
        DatasetError: lists every missing, broken or inconsistent part.
        UserError: an unknown kind of cameras.
    """
    if config.cameras not in ("refined", "original"):
        raise UserError(f"--data.cameras: must be refined or original, got {config.cameras}.")
    problems = Problems(root)
    splits = {name: _read_split(root / "splits" / f"{name}.json", problems) for name in ("train", "val")}
    extra = read_json(root / "extra.json", problems, "the file with the frame rate")
    refined = None
    if config.cameras == "refined":
        refined = read_model(root / PRIORS / "colmap" / "sparse", problems)
    builders = {name: ViewBuilder(problems, config.max_side) for name in splits}
    for name, split in splits.items():
        for frame_name, time in zip(split.names, split.times, strict=True):
            frame = _frame(root, frame_name, time, name, refined, config, problems)
            if frame is not None:
                builders[name].add(frame)
    train = builders["train"].build()
    dataset = VideoDataset(
        name=root.resolve().name,
        num_times=max(splits["train"].times + splits["val"].times, default=-1) + 1,
        train=empty_views() if train is None else train,
        val=builders["val"].build(),
        fps=float(extra.get("fps", 30.0)) if isinstance(extra, dict) else 30.0,
        depth_kind="metric" if config.depth_folder == "lidar" and config.cameras == "original" else "scale",
        world_scale="metric" if config.cameras == "original" else "arbitrary",
        source={"images": "rgb/1x", "cameras": config.cameras, "depth": config.depth_folder},
    )
    if dataset.train.depths is not None:
        limit = 2.5 * dataset.train.depths.flatten(1).amax(1).median()
        dataset.train.depths.clamp_(max=limit)
    if train is not None and len(train) == len(splits["train"].names):
        tracks = root / PRIORS / "2d_tracks" / "1x"
        split = splits["train"]
        dataset.tracks = read_pair_tracks(
            tracks, split.names, split.times, dataset.num_times, builders["train"].scale, problems
        )
    if train is not None or not problems.found:
        check_dataset(dataset, problems, root)
    problems.raise_if_any()
    add_notes(dataset)
    return dataset


def _read_split(path: Path, problems: Problems) -> _Split:
    content = read_json(path, problems, "this list of frames")
    if content is None:
        return _Split([], [])
    try:
        names, times = [str(n) for n in content["frame_names"]], [int(t) for t in content["time_ids"]]
    except (KeyError, TypeError, ValueError):
        problems.add(path, "must hold the lists frame_names and time_ids; restore the original file.")
        return _Split([], [])
    if len(names) != len(times):
        problems.add(path, f"lists {len(names)} names but {len(times)} times; restore the original file.")
        return _Split([], [])
    return _Split(names, times)


def _frame(
    root: Path,
    name: str,
    time: int,
    split: str,
    refined: dict[str, ColmapImage] | None,
    config: IphoneData,
    problems: Problems,
) -> Frame | None:
    path = root / "rgb" / "1x" / f"{name}.png"
    image = read_image(path, problems)
    camera = _original_camera(root, name, problems) if refined is None else refined.get(f"{name}.png")
    if refined is not None and camera is None:
        problems.add(path, f"is not registered in {PRIORS}/colmap/sparse; use --data.cameras original.")
    paths: dict[str, Path] = {}
    maps: dict[str, np.ndarray | None] = {}
    if split == "train":
        paths["foreground"] = root / PRIORS / "track_anything" / "1x" / f"{name}.png"
        maps["foreground"] = read_mask(paths["foreground"], problems, threshold=127)
        if config.depth_folder == "lidar":
            paths["depth"] = root / "depth" / "1x" / f"{name}.npy"
            maps["depth"] = read_map(paths["depth"], problems, 1.0, "this depth map")
        else:
            paths["depth"] = root / PRIORS / config.depth_folder / "1x" / f"{name}.npy"
            disparity = read_map(paths["depth"], problems, 1.0, "this disparity map")
            maps["depth"] = None if disparity is None else depth_from_disparity(disparity)
    else:
        paths["covisible"] = root / PRIORS / "covisible" / "1x" / "val" / f"{name}.png"
        maps["covisible"] = read_mask(paths["covisible"], problems, threshold=127)
    if image is None or camera is None:
        return None
    scale = np.array([image.shape[1] / camera.size[1], image.shape[0] / camera.size[0], 1.0])
    return Frame(name, time, path, image, camera.w2c, camera.K * scale[:, None], maps, paths)


def _original_camera(root: Path, name: str, problems: Problems) -> ColmapImage | None:
    """A camera of camera/*.json: orientation (world to camera), position of the centre, intrinsics."""
    path = root / "camera" / f"{name}.json"
    content = read_json(path, problems, "this camera")
    if content is None:
        return None
    try:
        R, center = np.array(content["orientation"], float), np.array(content["position"], float)
        focal, (cx, cy) = float(content["focal_length"]), content["principal_point"]
        width, height = content["image_size"]
        w2c = np.eye(4)
        w2c[:3, :3], w2c[:3, 3] = R, -R @ center
    except (KeyError, TypeError, ValueError) as error:
        problems.add(path, f"is not a DyCheck camera ({error}); restore the original file.")
        return None
    return ColmapImage(w2c, intrinsics(focal, focal, float(cx), float(cy)), (int(height), int(width)), False)
