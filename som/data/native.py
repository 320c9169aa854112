"""The native data set folder: nerfstudio's transforms.json with additions (docs/data-formats.md), read and written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from flow.compute import RECORD, open_video_flow
from flow.errors import FlowError
from flow.video_flow import VideoFlow, flow_path, read_flow_file, write_flow_file
from som.data.assembly import Frame, ViewBuilder, empty_views, intrinsics
from som.data.checks import Problems, check_dataset
from som.data.dataset import GroundTruthTracks, Tracks, VideoDataset, Views
from som.data.files import (
    IMAGE_SUFFIXES,
    find_file,
    read_arrays,
    read_image,
    read_json,
    read_map,
    read_mask,
    write_array,
    write_image,
)
from som.files import write_text
from som.files.arrays import write_npz

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
DEPTH_KINDS = ("metric", "scale", "relative")
MAX_TIMES = 100_000
"""More frames than any video that fits in memory; larger numbers are not frame indices."""
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def write_native(dataset: VideoDataset, root: Path) -> None:
    """Writes a data set; ``read_native`` gives back the same (images and masks exactly, floats to float32).

    ``root`` is created; files of an earlier data set in it are overwritten, not removed.
    """
    root.mkdir(parents=True, exist_ok=True)
    frames = _write_views(dataset.train, root, "train")
    if dataset.val is not None:
        frames += _write_views(dataset.val, root, "val")
    if dataset.tracks is not None:
        t = dataset.tracks
        write_npz(
            root / "tracks.npz",
            {
                "query_frame": t.query_times.numpy(),
                "xy": t.xy.numpy().astype(np.float32),
                "visible": t.visible.numpy(),
                "confidence": t.confidence.numpy().astype(np.float32),
            },
        )
    if dataset.ground_truth_tracks is not None:
        g = dataset.ground_truth_tracks
        write_npz(
            root / "ground_truth_tracks.npz",
            {
                "query_frame": g.query_times.numpy(),
                "xyz": g.xyz.numpy().astype(np.float32),
                "xy": g.xy.numpy().astype(np.float32),
                "visible": g.visible.numpy(),
                "moving": g.moving.numpy(),
            },
        )
    header = {
        "name": dataset.name,
        "camera_model": "PINHOLE",
        "time_unit": "frame",
        "num_times": dataset.num_times,
        "fps": dataset.fps,
        "depth_kind": dataset.depth_kind,
        "world_scale": dataset.world_scale,
        "has_background": dataset.has_background,
        "source": dataset.source,
        "frames": frames,
    }
    write_text(root / "transforms.json", json.dumps(header, indent=1))


def _write_views(views: Views, root: Path, split: str) -> list[dict]:
    """Writes the files of one split; returns the entries for transforms.json."""
    entries = []
    prefix = "" if split == "train" else "val_"
    for i, name in enumerate(views.names):
        K, w2c = views.Ks[i].double().numpy(), views.w2cs[i].double().numpy()
        entry = {
            "file_path": f"images/{prefix}{name}.png",
            "name": name,
            "split": split,
            "time": int(views.times[i]),
            "w": views.width,
            "h": views.height,
            "fl_x": K[0, 0],
            "fl_y": K[1, 1],
            "cx": K[0, 2],
            "cy": K[1, 2],
            "transform_matrix": (np.linalg.inv(w2c) @ OPENGL_FROM_OPENCV).tolist(),
        }
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


def read_native(root: Path, max_side: int | None = None) -> VideoDataset:
    """Reads a data set folder.

    Args:
        root: the folder that holds transforms.json.
        max_side: reduces the images so that the longer side has at most this many pixels.

    Raises:
        DatasetError: lists every missing, broken or inconsistent part.
    """
    problems = Problems(root)
    header = read_json(root / "transforms.json", problems, "the list of frames")
    if header is not None and not (isinstance(header, dict) and isinstance(header.get("frames"), list)):
        problems.add(root / "transforms.json", 'must hold an object with a list "frames"; see docs/data-formats.md.')
    problems.raise_if_any()
    return _NativeReader(root, header, problems, max_side).read()


class _NativeReader:
    def __init__(self, root: Path, header: dict, problems: Problems, max_side: int | None):
        self.root, self.header, self.problems, self.max_side = root, header, problems, max_side
        self.json = root / "transforms.json"
        self.fps = self._number(header, "fps", 24.0, self.json)
        self.unit = self._number(header, "depth_unit_scale_factor", 1e-3, self.json)

    def read(self) -> VideoDataset:
        header, problems = self.header, self.problems
        entries = [e for e in header["frames"] if isinstance(e, dict)]
        if len(entries) != len(header["frames"]):
            problems.add(self.json, '"frames" must hold objects only; see docs/data-formats.md.')
        times = self._times(entries)
        builders = {split: ViewBuilder(problems, self.max_side) for split in ("train", "val")}
        for entry, time in zip(entries, times, strict=True):
            split = entry.get("split", "train")
            if not isinstance(split, str) or split not in builders:
                name = entry.get("file_path")
                problems.add(self.json, f'frame {name}: split must be "train" or "val", found {split!r}; correct it.')
            elif (frame := self._frame(entry, time)) is not None:
                builders[split].add(frame)
        train = builders["train"].build()
        dataset = VideoDataset(
            name=str(header.get("name", self.root.resolve().name)),
            num_times=min(int(self._number(header, "num_times", max(times, default=-1) + 1, self.json)), MAX_TIMES),
            train=empty_views() if train is None else train,
            val=builders["val"].build(),
            fps=self.fps,
            depth_kind=self._choice("depth_kind", DEPTH_KINDS, "metric"),
            world_scale=self._choice("world_scale", ("metric", "arbitrary"), "arbitrary"),
            has_background=bool(header.get("has_background", True)),
            source=dict(source) if isinstance(source := header.get("source"), dict) else {"given": source},
        )
        scale = np.array(builders["train"].scale, np.float32)
        dataset.tracks = read_tracks(self.root / "tracks.npz", problems, scale)
        dataset.ground_truth_tracks = _read_truth(self.root / "ground_truth_tracks.npz", problems, scale)
        dataset.flow = _open_flow(self.root / "flow", dataset.num_times, problems)
        if not problems.found or train is not None:
            check_dataset(dataset, problems, self.root)
        problems.raise_if_any()
        add_notes(dataset)
        return dataset

    def _frame(self, entry: dict, time: int) -> Frame | None:
        """Reads the files of one frame; None (with the reason recorded) if its image or camera is unusable."""
        name = entry.get("file_path")
        if not isinstance(name, str):
            self.problems.add(self.json, 'a frame has no "file_path"; name its image.')
            return None
        path = self.root / name
        if not path.suffix:
            path = find_file(path.parent, path.name, IMAGE_SUFFIXES)
        camera = self._camera(entry, path)
        image = read_image(path, self.problems)
        if image is None or camera is None:
            return None
        K, w2c, size = camera
        if size is not None and size != image.shape[:2]:
            found, wanted = f"{image.shape[1]}x{image.shape[0]}", f"{size[1]}x{size[0]}"
            self.problems.add(path, f"the image is {found} but its w and h say {wanted}; correct transforms.json.")
            return None
        masks = {"valid": "mask_path", "foreground": "foreground_path", "covisible": "covisible_path"}
        depths = {"depth": "depth_file_path", "depth_confidence": "depth_confidence_path"}
        paths = {k: self.root / entry[key] for k, key in (masks | depths).items() if isinstance(entry.get(key), str)}
        maps = {}
        for kind, map_path in paths.items():
            if kind in masks:
                maps[kind] = read_mask(map_path, self.problems, threshold=127)
            else:
                unit = self.unit if kind == "depth" else 1 / 255
                maps[kind] = read_map(map_path, self.problems, unit, f"this {kind} map")
        return Frame(str(entry.get("name", path.stem)), time, path, image, w2c, K, maps, paths)

    def _camera(self, entry: dict, path: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, int] | None] | None:
        """K, w2c and (height, width) if given."""
        merged = {**self.header, **entry}
        if any(merged.get(k) for k in DISTORTION):
            self.problems.add(path, "lens distortion is not supported; undistort the images and remove k1 ... p2.")
        try:
            fx = float(merged["fl_x"])
            fy = float(merged.get("fl_y", fx))
            size = (int(merged["h"]), int(merged["w"])) if "h" in merged and "w" in merged else None
            cx = float(merged["cx"]) if "cx" in merged or size is None else size[1] / 2
            cy = float(merged["cy"]) if "cy" in merged or size is None else size[0] / 2
            c2w = np.array(merged["transform_matrix"], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            self.problems.add(path, f"its camera in transforms.json is missing or not a number ({error}); correct it.")
            return None
        if c2w.shape != (4, 4):
            self.problems.add(path, f"transform_matrix must be 4x4, found shape {c2w.shape}; correct transforms.json.")
            return None
        c2w_cv = c2w @ OPENGL_FROM_OPENCV
        usable = np.isfinite(c2w_cv).all() and abs(np.linalg.det(c2w_cv)) > 1e-9
        w2c = np.linalg.inv(c2w_cv) if usable else np.full((4, 4), np.nan)
        return intrinsics(fx, fy, cx, cy), w2c, size

    def _times(self, entries: list[dict]) -> list[int]:
        """Integer time of each frame; without any ``time``, the order of the frames of each split."""
        given = [e.get("time") for e in entries]
        if all(t is None for t in given):
            counters: dict[str, int] = {}
            times = []
            for entry in entries:
                split = str(entry.get("split", "train"))
                times.append(counters.get(split, 0))
                counters[split] = times[-1] + 1
            return times
        numbers = [isinstance(t, (int, float)) and not isinstance(t, bool) and abs(t) < MAX_TIMES for t in given]
        if not all(numbers):
            self.problems.add(
                self.json, f'"time" must be a number below {MAX_TIMES} in every frame or absent in all; correct it.'
            )
            return [int(t) if ok else 0 for t, ok in zip(given, numbers, strict=True)]
        default = "frame" if all(float(t).is_integer() for t in given) else "seconds"
        seconds = self._choice("time_unit", ("frame", "seconds"), default) == "seconds"
        return [round(t * self.fps) if seconds else round(t) for t in given]

    def _number(self, source: dict, key: str, default: float, where: Path) -> float:
        value = source.get(key, default)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value) and value >= 0:
            return float(value)
        self.problems.add(where, f"{key} must be a positive number, found {value!r}; correct it.")
        return default

    def _choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.header.get(key, default)
        if value not in choices:
            self.problems.add(self.json, f"{key} must be one of {', '.join(choices)}, found {value!r}; correct it.")
            return default
        return value


def read_tracks(path: Path, problems: Problems, scale: np.ndarray) -> Tracks | None:
    """tracks.npz with coordinates multiplied by ``scale`` (x, y); None if there is no such file or it is broken."""
    if not path.exists():
        return None
    arrays = read_arrays(path, problems, ("query_frame", "xy", "visible"), "the tracks")
    if arrays is None:
        return None
    visible = torch.from_numpy(arrays["visible"]).bool()
    confidence = torch.from_numpy(arrays["confidence"]).float() if "confidence" in arrays else visible.float()
    return Tracks(
        query_times=torch.from_numpy(arrays["query_frame"]).long(),
        xy=torch.from_numpy(_scaled(arrays["xy"], scale)),
        visible=visible,
        confidence=confidence,
    )


def _read_truth(path: Path, problems: Problems, scale: np.ndarray) -> GroundTruthTracks | None:
    if not path.exists():
        return None
    names = ("query_frame", "xyz", "xy", "visible", "moving")
    arrays = read_arrays(path, problems, names, "the ground-truth tracks")
    if arrays is None:
        return None
    return GroundTruthTracks(
        query_times=torch.from_numpy(arrays["query_frame"]).long(),
        xyz=torch.from_numpy(arrays["xyz"]).float(),
        xy=torch.from_numpy(_scaled(arrays["xy"], scale)),
        visible=torch.from_numpy(arrays["visible"]).bool(),
        moving=torch.from_numpy(arrays["moving"]).bool(),
    )


def _open_flow(folder: Path, num_times: int, problems: Problems) -> VideoFlow | None:
    """The flow between all times of the video, None where there is no record of any."""
    if not (folder / RECORD).is_file():
        return None
    try:
        flow = open_video_flow(folder)
    except FlowError as error:
        problems.add(folder, str(error).removeprefix(f"{folder} "))
        return None
    if flow.num_frames != num_times:
        problems.add(
            folder, f"holds flow between {flow.num_frames} frames but the video has {num_times} times; compute it anew."
        )
        return None
    return flow


def _scaled(xy: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Coordinates times (x, y) scale; other shapes are passed on for the checks to report."""
    xy = xy.astype(np.float32)
    return xy * scale if xy.ndim and xy.shape[-1] == 2 else xy


def add_notes(dataset: VideoDataset) -> None:
    """Says in ``source["notes"]`` what a data set lacks and what follows from it."""
    train, notes = dataset.train, []
    if train.foreground is None or not bool(train.foreground.any()):
        notes.append("no foreground pixel: the scene is taken as purely static")
    elif dataset.tracks is None:
        notes.append("no tracks: motion can only be learned from the images")
    if train.depths is None:
        notes.append("no depth: give depth maps for supervision and initialisation")
    if notes:
        dataset.source = {**dataset.source, "notes": [*dataset.source.get("notes", []), *notes]}


def write_flow(root: Path, source_time: int, target_time: int, flow: np.ndarray, consistent: np.ndarray) -> None:
    """Writes flow (H,W,2) in pixels and the mask (H,W) of pixels where it links the same visible surface point."""
    path = flow_path(root / "flow", source_time, target_time)
    write_flow_file(path, torch.from_numpy(flow), torch.from_numpy(consistent))


def read_flow(root: Path, source_time: int, target_time: int) -> tuple[np.ndarray, np.ndarray]:
    """(H,W,2) float32 flow and (H,W) bool consistency mask; in a file without a mask, flow counts everywhere.

    Raises:
        DatasetError: the file is missing or broken.
    """
    path = flow_path(root / "flow", source_time, target_time)
    problems = Problems(root)
    try:
        flow, consistent = read_flow_file(path)
    except FlowError as error:
        problems.add(path, str(error).removeprefix(f"{path} "))
        problems.raise_if_any()
    return flow.numpy(), np.ones(flow.shape[:2], bool) if consistent is None else consistent.numpy()
