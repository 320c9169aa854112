"""Files of instances and road masks: one .npz per clip, or folders of png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.metric_scale.cityscapes import instances_from_instance_ids, road_from_label_ids
from som.depth.metric_scale.coco import read_coco
from som.depth.metric_scale.instances import Instances, resize_nearest
from som.files import load_file, read_map, read_npz, write_npz


def write_instances(path: str | Path, instances: Instances) -> None:
    """Writes ``ids`` (T,H,W) uint16, ``labels`` (T,N) int16, ``classes`` (C,) str, and ``heights`` (T,N) float32 if any
    into an .npz file."""
    arrays = {
        "ids": instances.ids.cpu().numpy().astype(np.uint16),
        "labels": instances.labels.cpu().numpy().astype(np.int16),
        "classes": np.array(instances.classes, dtype=np.str_),
    }
    if instances.heights is not None:
        arrays["heights"] = instances.heights.cpu().numpy().astype(np.float32)
    write_npz(_npz(path), arrays)


def read_instances(path: str | Path, frame_names: Sequence[str], size: tuple[int, int]) -> Instances:
    """Instances of a clip from an .npz of ``write_instances``, a COCO .json, or a folder of Cityscapes instance png.

    Args:
        path: the file or folder.
        frame_names: file names of the clip's frames, in order.
        size: height and width that the masks are brought to.

    Raises:
        DepthError: the file is missing or malformed, or does not have these frames.
    """
    path = Path(path)
    if path.is_dir():
        instances = instances_from_instance_ids(read_id_images(path, frame_names))
    elif path.suffix == ".json":
        instances = read_coco(path, frame_names)
    else:
        arrays = _load(path, ("ids", "labels", "classes"))
        heights = torch.from_numpy(arrays["heights"].astype(np.float32)) if "heights" in arrays else None
        ids, labels = (torch.from_numpy(arrays[name].astype(kind)) for name, kind in _KINDS)
        try:
            instances = Instances(ids, labels, tuple(str(name) for name in arrays["classes"]), heights)
        except DepthError as error:
            raise DepthError(f"{path}: {error}") from error
    _check_count(path, instances.ids.shape[0], frame_names)
    return instances if instances.ids.shape[1:] == size else instances.resized(*size)


_KINDS = (("ids", np.int32), ("labels", np.int64))


def write_road(path: str | Path, road: Bool[Tensor, "t h w"]) -> None:
    """Writes road masks as ``road`` (T,H,W) bool into an .npz file."""
    write_npz(_npz(path), {"road": road.cpu().numpy()})


def read_road(
    path: str | Path, frame_names: Sequence[str], size: tuple[int, int], label_id: int | None = None
) -> Bool[Tensor, "t h w"]:
    """Road masks of a clip from an .npz of ``write_road`` or a folder of png.

    Args:
        path: the file or folder.
        frame_names: file names of the clip's frames, in order.
        size: height and width that the masks are brought to.
        label_id: for a folder, the value of road in the images (7 in Cityscapes' label ids, 0 in its train ids); None
            takes masks, where above 127 is road.

    Raises:
        DepthError: the file is missing or malformed, or does not have these frames.
    """
    path = Path(path)
    if path.is_dir():
        images = read_id_images(path, frame_names)
        try:
            road = images > 127 if label_id is None else road_from_label_ids(images, label_id)
        except DepthError as error:
            raise DepthError(f"{path}: {error}") from error
    else:
        road = torch.from_numpy(_load(path, ("road",))["road"].astype(bool))
        if road.ndim != 3:
            raise DepthError(f"{path}: road must be (T,H,W), got {tuple(road.shape)}.")
    _check_count(path, road.shape[0], frame_names)
    return road if road.shape[1:] == size else resize_nearest(road, *size)


def read_id_images(folder: str | Path, frame_names: Sequence[str]) -> Int[Tensor, "t h w"]:
    """One-channel png of a folder, 8 or 16 bit, as int32, one for each frame.

    The image of ``a/berlin_000_leftImg8bit.png`` is ``berlin_000.png``, ``berlin_000_leftImg8bit.png`` or the only
    ``berlin_000_*.png``: the frame's stem, also without Cityscapes' ending.

    Raises:
        DepthError: an image is missing, ambiguous, broken, not of one channel, or of another size.
    """
    images: list[np.ndarray] = []
    for name in frame_names:
        path = _png_of(Path(folder), PurePath(name).stem)
        image = read_map(path, unit=1.0, what="this label image").astype(np.int32)
        if images and image.shape != images[0].shape:
            raise DepthError(f"{path} is {image.shape}, the images before it {images[0].shape} (rows, columns).")
        images.append(image)
    if not images:
        raise DepthError(f"no frames to read from {folder}.")
    return torch.from_numpy(np.stack(images))


def _png_of(folder: Path, stem: str) -> Path:
    short = stem.removesuffix("_leftImg8bit")
    for name in (stem, short):
        if (path := folder / f"{name}.png").is_file():
            return path
    matches = sorted(path for path in folder.iterdir() if path.suffix == ".png" and path.stem.startswith(f"{short}_"))
    if len(matches) != 1:
        found = "none" if not matches else ", ".join(path.name for path in matches[:4])
        raise DepthError(f"{folder} must hold one png for frame {stem!r}, {short}.png or {short}_*.png; found {found}.")
    return matches[0]


def _npz(path: str | Path) -> Path:
    if Path(path).suffix != ".npz":
        raise DepthError(f"{path} must end in .npz.")
    return Path(path)


def _load(path: Path, required: tuple[str, ...]) -> dict[str, np.ndarray]:
    content = load_file(path, read_npz, "this file of arrays")
    missing = [name for name in required if name not in content]
    if missing:
        raise DepthError(f"{path} must hold {', '.join(required)}; {', '.join(missing)} is missing.")
    return content


def _check_count(path: Path, count: int, frame_names: Sequence[str]) -> None:
    if count != len(frame_names):
        raise DepthError(f"{path} has {count} frames, the clip {len(frame_names)}.")
