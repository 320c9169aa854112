"""Reads COLMAP models, text and binary."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from som.cameras import Camera
from som.cameras.rotations import rotation_of_quat_wxyz
from som.data.checks import Problems
from som.files import load_file

MODELS = {0: ("SIMPLE_PINHOLE", 3), 1: ("PINHOLE", 4), 2: ("SIMPLE_RADIAL", 4), 3: ("RADIAL", 5), 4: ("OPENCV", 8),
          5: ("OPENCV_FISHEYE", 8), 6: ("FULL_OPENCV", 12), 7: ("FOV", 5), 8: ("SIMPLE_RADIAL_FISHEYE", 4),
          9: ("RADIAL_FISHEYE", 5), 10: ("THIN_PRISM_FISHEYE", 12)}  # fmt: skip
"""COLMAP's camera models: number -> name and how many parameters."""


@dataclass
class ColmapImage:
    """One registered image."""

    camera: Camera
    """float64"""
    xy: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    """(M,2) pixels where it sees triangulated points."""
    point_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(M,) their numbers."""


def find_models(root: Path) -> list[Path]:
    """Folders that hold a model: the root itself, sparse, sparse/0, sparse/1, ..., the same in colmap/."""
    candidates = [root]
    for base in (root / "sparse", root / "colmap" / "sparse", root / "colmap"):
        if base.is_dir():
            candidates += [base, *sorted(p for p in base.iterdir() if p.is_dir())]
    found = (c for c in candidates if any((c / f"images.{kind}").is_file() for kind in ("txt", "bin")))
    return list(dict.fromkeys(found))


def find_model(root: Path) -> Path | None:
    """The largest model of ``find_models``, by the size of its list of images; None if there is none."""
    lists = {m: [m / f"images.{kind}" for kind in ("txt", "bin")] for m in find_models(root)}
    sizes = {m: max(p.stat().st_size for p in paths if p.is_file()) for m, paths in lists.items()}
    return max(sizes, key=sizes.__getitem__) if sizes else None


def read_model(folder: Path, problems: Problems) -> dict[str, ColmapImage]:
    """Registered images by file name; empty, with the reasons recorded, if the model cannot be read."""
    kind = "bin" if (folder / "images.bin").is_file() else "txt"
    readers = {"txt": (_cameras_text, _images_text), "bin": (_cameras_binary, _images_binary)}[kind]
    cameras = problems.attempt(load_file, folder / f"cameras.{kind}", readers[0], "COLMAP's list of cameras")
    images = problems.attempt(load_file, folder / f"images.{kind}", readers[1], "COLMAP's list of images")
    found: dict[str, ColmapImage] = {}
    for name, quat_wxyz, translation, camera_id, xy, point_ids in images or []:
        if cameras is None or camera_id not in cameras:
            problems.add(folder / f"images.{kind}", f"{name} refers to camera {camera_id}, which is not listed.")
            continue
        model, width, height, parameters = cameras[camera_id]
        w2c = np.eye(4)
        w2c[:3, :3], w2c[:3, 3] = rotation_of_quat_wxyz(quat_wxyz), translation
        camera = problems.attempt(Camera.from_colmap, model, parameters, torch.from_numpy(w2c), width, height)
        if camera is not None:
            seen = point_ids >= 0
            found[name] = ColmapImage(camera, xy[seen], point_ids[seen])
    return found


def read_points(folder: Path, problems: Problems) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers (P,) and positions (P,3) of a model's triangulated points; None if it has no readable list of them."""
    for kind, reader in (("bin", _points_binary), ("txt", _points_text)):
        if (folder / f"points3D.{kind}").is_file():
            return problems.attempt(load_file, folder / f"points3D.{kind}", reader, "COLMAP's list of points")
    return None


def _cameras_text(path: Path) -> dict[int, tuple]:
    cameras = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            number, model, width, height, *params = line.split()
            cameras[int(number)] = (model, int(width), int(height), [float(v) for v in params])
    return cameras


def _images_text(path: Path) -> list[tuple]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    while lines and not lines[0].strip():
        lines.pop(0)
    images = []
    for line, seen in zip_longest(lines[::2], lines[1::2], fillvalue=""):  # seen: x, y, number of a point; or empty
        if line.strip():
            points = np.array(seen.split(), np.float64).reshape(-1, 3)
            _, *numbers, camera, name = line.split(maxsplit=9)
            pose = [float(v) for v in numbers]
            images.append((name.strip(), pose[:4], pose[4:], int(camera), points[:, :2], points[:, 2].astype(np.int64)))
    return images


def _cameras_binary(path: Path) -> dict[int, tuple]:
    data, at, cameras = path.read_bytes(), 8, {}
    for _ in range(_unpack("<Q", data, 0)[0]):
        number, model, width, height = _unpack("<iiQQ", data, at)
        at += 24
        name, count = MODELS[model]
        cameras[number] = (name, width, height, list(_unpack(f"<{count}d", data, at)))
        at += 8 * count
    return cameras


def _images_binary(path: Path) -> list[tuple]:
    data, at, images = path.read_bytes(), 8, []
    for _ in range(_unpack("<Q", data, 0)[0]):
        _, *pose, camera = _unpack("<i7di", data, at)
        at += 64
        end = data.index(b"\0", at)
        name = data[at:end].decode("utf-8")
        (count,) = _unpack("<Q", data, end + 1)
        points = np.frombuffer(data, [("xy", "<f8", 2), ("id", "<i8")], count, end + 9)
        at = end + 9 + 24 * count
        images.append((name, pose[:4], pose[4:], camera, points["xy"], points["id"]))
    return images


def _points_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split()[:4] for line in lines if line.strip() and not line.startswith("#")]
    numbers = np.array(rows, np.float64).reshape(-1, 4)
    return numbers[:, 0].astype(np.int64), numbers[:, 1:]


def _points_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data, at, ids, points = path.read_bytes(), 8, [], []
    for _ in range(_unpack("<Q", data, 0)[0]):
        number, *xyz = _unpack("<q3d", data, at)  # then colour, error and track
        ids.append(number)
        points.append(xyz)
        at += 51 + 8 * _unpack("<Q", data, at + 43)[0]
    return np.array(ids, np.int64), np.array(points, np.float64).reshape(-1, 3)


def _unpack(layout: str, data: bytes, at: int) -> tuple:
    try:
        return struct.unpack_from(layout, data, at)
    except struct.error:
        raise ValueError(f"it ends at byte {len(data)}") from None
