"""Reader of the project's data set folder: transforms.json with images, masks and depth (docs/data-formats.md)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from som.depth.data.files import (
    check_intrinsics,
    has_alpha,
    read_flow,
    read_image,
    read_json,
    read_map,
    read_mask,
    read_opaque,
    rigid,
)
from som.depth.data.sequence import FrameRecord, Recording
from som.depth.errors import DepthError

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
DEPTH_KINDS = ("metric", "scale", "relative")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
SUFFIXES = (".png", ".jpg", ".jpeg", ".JPG", ".JPEG", ".PNG")


def load_header(root: Path) -> dict:
    """The content of transforms.json.

    Raises:
        DepthError: it is missing, no JSON, or has no list of frames.
    """
    file = root / "transforms.json"
    header = read_json(file, "the list of frames")
    frames = header.get("frames") if isinstance(header, dict) else None
    if not isinstance(frames, list) or not all(
        isinstance(f, dict) and isinstance(f.get("file_path"), str) for f in frames
    ):
        raise DepthError(f'{file}: must hold an object with a list "frames" of objects that have a "file_path".')
    return header


def split_entries(root: Path, header: dict, split: str = "train") -> list[tuple[int, float, dict]]:
    """The frames of a split as (place in the file, time, entry), sorted by time, then name.

    Without any ``time`` the order in the file counts.

    Raises:
        DepthError: some frames have a time and others none, or a time is no number.
    """
    entries = [(i, entry) for i, entry in enumerate(header["frames"]) if entry.get("split", "train") == split]
    times = [entry.get("time") for _, entry in entries]
    if all(time is None for time in times):
        times = list(range(len(entries)))
    if any(isinstance(time, bool) or not isinstance(time, (int, float)) for time in times):
        raise DepthError(f'{root / "transforms.json"}: "time" must be a number in every frame or absent in all.')
    found = [(i, float(time), entry) for (i, entry), time in zip(entries, times, strict=True)]
    return sorted(found, key=lambda item: (item[1], entry_name(item[2])))


def entry_name(entry: dict) -> str:
    """A frame's name: given, or the stem of its image."""
    return str(entry.get("name", Path(entry["file_path"]).stem))


def read_native(path: Path, *, split: str = "train") -> Recording:
    """Frames of one split in the order of time; depth maps are taken as they are, with the folder's depth_kind.

    Args:
        split: ``train`` or ``val``.

    Raises:
        DepthError: transforms.json is missing or inconsistent, or the first image is.
    """
    if split not in ("train", "val"):
        raise DepthError(f'split must be "train" or "val", got {split!r}.')
    header = load_header(path)
    file = path / "transforms.json"
    fps, unit = _positive(header, "fps", 24.0, file), _positive(header, "depth_unit_scale_factor", 1e-3, file)
    entries = split_entries(path, header, split)
    if not entries:
        raise DepthError(f"{file}: has no frame of the split {split}.")
    whole = all(time.is_integer() for _, time, _ in entries)
    in_seconds = header.get("time_unit", "frame" if whole else "seconds") == "seconds"
    frames, size = [], None
    has_flow = any((path / "flow").glob("*_*.npz"))
    for rank, (_, time, entry) in enumerate(entries):
        image = image_path(path, entry)
        if size is None:
            size = read_image(image).shape[:2]
        frame = FrameRecord(entry_name(entry), partial(read_image, image), str(image), size)
        frame.timestamp = time if in_seconds else time / fps
        _set_camera(frame, {**header, **entry}, size, image)
        _set_maps(frame, path, entry, unit, image)
        if split == "train" and has_flow:
            frame.number = int(time) if whole and not in_seconds else rank
            frame.flow = partial(_read_flow, path / "flow", frame.number)
        frames.append(frame)
    masked = [frame.moving is not None for frame in frames]
    if any(masked) and not all(masked):
        name = frames[masked.index(False)].name
        raise DepthError(f"{file}: frame {name} has no foreground_path although others have; give it for all or none.")
    return Recording(
        name=str(header.get("name", path.resolve().name)),
        layout="native",
        frames=frames,
        depth_kind=_choice(header, "depth_kind", DEPTH_KINDS, "metric", file),
        world_scale=_choice(header, "world_scale", ("metric", "arbitrary"), "arbitrary", file),
        fps=fps,
    )


def image_path(root: Path, entry: dict) -> Path:
    """The image of a frame; without a suffix, .png and .jpg are tried."""
    path = root / entry["file_path"]
    if path.suffix:
        return path
    found = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return next((candidate for candidate in found if candidate.is_file()), path.with_name(path.name + SUFFIXES[0]))


def _set_camera(frame: FrameRecord, entry: dict, size: tuple[int, int], image: Path) -> None:
    if any(entry.get(key) for key in DISTORTION):
        raise DepthError(f"{image}: lens distortion is not supported; undistort the images and remove k1 ... p2.")
    height, width = size
    if (entry.get("w", width), entry.get("h", height)) != (width, height):
        stated = f"{entry.get('w')}x{entry.get('h')}"
        raise DepthError(
            f"{image}: the image is {width}x{height} but its w and h say {stated}; correct transforms.json."
        )
    try:
        fx = float(entry["fl_x"])
        fy, cx, cy = (float(entry.get(k, d)) for k, d in (("fl_y", fx), ("cx", width / 2), ("cy", height / 2)))
        c2w = np.array(entry["transform_matrix"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DepthError(f"{image}: its camera in transforms.json is missing or no number ({error}).") from None
    if c2w.shape != (4, 4):
        raise DepthError(f"{image}: transform_matrix must be 4x4, found shape {c2w.shape}; correct transforms.json.")
    frame.K = check_intrinsics(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), image)
    frame.w2c = np.linalg.inv(rigid(c2w @ OPENGL_FROM_OPENCV, str(image)))


def _set_maps(frame: FrameRecord, root: Path, entry: dict, unit: float, image: Path) -> None:
    if "depth_file_path" in entry:
        frame.depth = partial(read_map, root / entry["depth_file_path"], unit)
    if "depth_confidence_path" in entry:
        confidence = root / entry["depth_confidence_path"]
        frame.confidence = partial(read_map, confidence, 1 / 255, None, "this confidence map")
    if "foreground_path" in entry:
        frame.moving = partial(read_mask, root / entry["foreground_path"])
    mask = root / entry["mask_path"] if "mask_path" in entry else None
    if mask is not None or has_alpha(image):
        frame.valid = partial(_valid, image, mask)


def _read_flow(folder: Path, source: int, target: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    return read_flow(folder / f"{source:05d}_{target:05d}.npz")


def _valid(image: Path, mask: Path | None) -> np.ndarray | None:
    """Pixels inside the mask and, where the image has transparency, opaque; None if all may be used."""
    opaque = read_opaque(image) if has_alpha(image) else None
    inside = None if mask is None else read_mask(mask)
    if opaque is not None and inside is not None and opaque.shape != inside.shape:
        raise DepthError(f"{mask}: this mask has another size than its image; write it at that size.")
    known = [part for part in (opaque, inside) if part is not None]
    return np.logical_and.reduce(known) if known else None


def _positive(header: dict, key: str, default: float, file: Path) -> float:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (np.isfinite(value) and value > 0):
        raise DepthError(f"{file}: {key} must be a positive number, found {value!r}; correct it.")
    return float(value)


def _choice(header: dict, key: str, choices: tuple[str, ...], default: str, file: Path) -> str:
    value = header.get(key, default)
    if value not in choices:
        raise DepthError(f"{file}: {key} must be one of {', '.join(choices)}, found {value!r}; correct it.")
    return value
