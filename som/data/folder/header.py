"""transforms.json, the description of a data set folder (docs/data-formats.md), parsed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from som.cameras.camera import CameraModel
from som.cameras.geometry import OPENGL_FROM_OPENCV
from som.data.checks import Problems
from som.data.recording import DEPTH_KINDS, SPLITS, WORLD_SCALES, DepthKind, Size, WorldScale
from som.files import IMAGE_SUFFIXES, read_json

Choice = TypeVar("Choice", bound=str)
HEADER = "transforms.json"
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
LENSES: dict[CameraModel, tuple[str, ...]] = {
    "pinhole": (),
    "opencv": ("k1", "k2", "p1", "p2", "k3"),
    "opencv_fisheye": ("k1", "k2", "k3", "k4"),
}
"""Camera models and the keys of their coefficients, in the order of ``Camera``."""
CAMERA_MODELS: dict[str, CameraModel] = {
    "PINHOLE": "opencv",
    "SIMPLE_PINHOLE": "opencv",
    "PERSPECTIVE": "opencv",
    "SIMPLE_RADIAL": "opencv",
    "RADIAL": "opencv",
    "OPENCV": "opencv",
    "SIMPLE_RADIAL_FISHEYE": "opencv_fisheye",
    "RADIAL_FISHEYE": "opencv_fisheye",
    "OPENCV_FISHEYE": "opencv_fisheye",
}
"""Values of ``camera_model``: what they are here. Many files call a lens with coefficients a pinhole."""
MAX_TIMES = 100_000
"""More frames than any video that fits in memory; larger numbers are not frame indices."""
DEFAULT_DEPTH_UNIT = 1e-3
DEFAULT_FPS = 24.0


@dataclass
class FrameEntry:
    """One frame as transforms.json describes it; paths are absolute or relative like the folder itself."""

    name: str
    split: str
    time: int
    """Index in the video."""
    seconds: float
    image: Path
    size: Size | None = None
    """(height, width) of the image, where it is stated."""
    focal: tuple[float, float] | None = None
    """(x, y) in pixels; None where the camera cannot be read."""
    center: tuple[float | None, float | None] = (None, None)
    """Principal point (x, y) in pixels, None for the middle of the image."""
    w2c: np.ndarray | None = None
    """(4,4) world to camera, OpenCV axes; None where the camera cannot be read, NaN where its matrix has no inverse."""
    model: CameraModel = "pinhole"
    distortion: tuple[float, ...] = ()
    """The lens, see ``Camera``."""
    valid: Path | None = None
    foreground: Path | None = None
    depth: Path | None = None
    confidence: Path | None = None
    covisible: Path | None = None
    content: dict = field(default_factory=dict)
    """The frame's object in the file, to which a writer may add."""

    def K(self, size: Size) -> np.ndarray:
        """(3,3) intrinsics of an image of ``size``; the focal length must be known."""
        assert self.focal is not None  # see above
        (fx, fy), (cx, cy) = self.focal, self.center
        center = (size[1] / 2 if cx is None else cx, size[0] / 2 if cy is None else cy)
        return np.array([[fx, 0.0, center[0]], [0.0, fy, center[1]], [0.0, 0.0, 1.0]])


MAPS = {"mask_path": "valid", "foreground_path": "foreground", "depth_file_path": "depth",
        "depth_confidence_path": "confidence", "covisible_path": "covisible"}  # fmt: skip
"""Keys of a frame that name a file, and where they are found in ``FrameEntry``."""


@dataclass
class Header:
    """transforms.json."""

    root: Path
    frames: list[FrameEntry]
    """In the order of the file; what is no frame is left out and recorded as a problem."""
    content: dict
    """The file's content, to which a writer may add."""
    name: str
    fps: float = DEFAULT_FPS
    num_times: int | None = None
    """T, where it is stated."""
    depth_kind: DepthKind = "metric"
    depth_unit: float = DEFAULT_DEPTH_UNIT
    """World units per step of a depth png."""
    world_scale: WorldScale = "arbitrary"
    has_background: bool = True

    @property
    def source(self) -> dict:
        """Provenance of every prior."""
        given = self.content.get("source")
        return dict(given) if isinstance(given, dict) else ({} if given is None else {"given": given})

    def of_split(self, split: str) -> list[FrameEntry]:
        """The frames of a split in the order of time, then name."""
        return sorted((f for f in self.frames if f.split == split), key=lambda f: (f.time, f.name))


def read_header(root: Path, problems: Problems) -> Header | None:
    """Parses transforms.json; looks at no image or map.

    Whatever cannot be used is recorded; None if nothing can.
    """
    file = root / HEADER
    content = problems.attempt(read_json, file, "the list of frames")
    if content is None:
        return None
    if not (isinstance(content, dict) and isinstance(content.get("frames"), list)):
        problems.add(file, 'must hold an object with a list "frames"; see docs/data-formats.md.')
        return None
    return _Parser(root, content, problems).parse()


class _Parser:
    def __init__(self, root: Path, content: dict, problems: Problems):
        self.root, self.file, self.content, self.problems = root, root / HEADER, content, problems

    def parse(self) -> Header:
        content, fps = self.content, self._positive("fps", DEFAULT_FPS)
        entries = [e for e in content["frames"] if isinstance(e, dict) and isinstance(e.get("file_path"), str)]
        if len(entries) < len(content["frames"]):
            self.problems.add(self.file, '"frames" must hold objects with a "file_path" only; name their images.')
        times = self._times(entries, fps)
        frames = [self._frame(entry, *time) for entry, time in zip(entries, times, strict=True)]
        num_times = self._number("num_times") if content.get("num_times") is not None else None
        return Header(
            root=self.root,
            frames=[frame for frame in frames if frame is not None],
            content=content,
            name=str(content.get("name", self.root.resolve().name)),
            fps=fps,
            num_times=None if num_times is None else min(int(num_times), MAX_TIMES),
            depth_kind=self._choice("depth_kind", DEPTH_KINDS, "metric"),
            depth_unit=self._positive("depth_unit_scale_factor", DEFAULT_DEPTH_UNIT),
            world_scale=self._choice("world_scale", WORLD_SCALES, "arbitrary"),
            has_background=bool(content.get("has_background", True)),
        )

    def _frame(self, entry: dict, time: int, seconds: float) -> FrameEntry | None:
        image = _with_suffix(self.root / entry["file_path"])
        split = entry.get("split", "train")
        if split not in SPLITS:
            self.problems.add(
                self.file, f'frame {entry["file_path"]}: split must be "train" or "val", found {split!r}; correct it.'
            )
            return None
        frame = FrameEntry(str(entry.get("name", image.stem)), split, time, seconds, image, content=entry)
        self._set_camera(frame, {**self.content, **entry})
        for key, kind in MAPS.items():
            if isinstance(entry.get(key), str):
                setattr(frame, kind, self.root / entry[key])
            elif entry.get(key) is not None:
                self.problems.add(image, f"{key} must be the path of a file, found {entry[key]!r}; correct it.")
        return frame

    def _set_camera(self, frame: FrameEntry, merged: dict) -> None:
        try:
            fx = float(merged["fl_x"])
            cx, cy = (float(merged[key]) if key in merged else None for key in ("cx", "cy"))
            c2w = np.array(merged["transform_matrix"], np.float64)
            frame.size = (int(merged["h"]), int(merged["w"])) if "h" in merged and "w" in merged else None
            coefficients = {key: float(merged.get(key) or 0) for key in DISTORTION}
            focal = (fx, float(merged.get("fl_y", fx)))
        except (KeyError, TypeError, ValueError) as error:
            self.problems.add(
                frame.image, f"its camera in {HEADER} is missing or not a number ({error}); correct it."
            )
            return
        if c2w.shape != (4, 4):
            self.problems.add(
                frame.image, f"transform_matrix must be 4x4, found shape {c2w.shape}; correct {HEADER}."
            )
            return
        stated = str(merged.get("camera_model", "PINHOLE"))
        if stated not in CAMERA_MODELS:
            self.problems.add(
                frame.image, f"camera_model {stated} is not supported, only {', '.join(CAMERA_MODELS)}; convert it."
            )
            return
        model = CAMERA_MODELS[stated]
        unused = [key for key, value in coefficients.items() if value and key not in LENSES[model]]
        if unused:
            self.problems.add(frame.image, f"camera_model {stated} has no {unused[0]}; correct one of them.")
        frame.model = "pinhole" if model == "opencv" and not any(coefficients.values()) else model
        frame.distortion = tuple(coefficients[key] for key in LENSES[frame.model])
        frame.focal, frame.center = focal, (cx, cy)
        frame.w2c = inverse_or_nan(c2w @ OPENGL_FROM_OPENCV)

    def _times(self, entries: list[dict], fps: float) -> list[tuple[int, float]]:
        """(index, seconds) of each frame; without any ``time``, the order of the frames of each split."""
        given: list[Any] = [e.get("time") for e in entries]
        if all(t is None for t in given):
            counters: Counter[str] = Counter()
            times = []
            for entry in entries:
                split = str(entry.get("split", "train"))
                times.append((counters[split], counters[split] / fps))
                counters[split] += 1
            return times
        numbers = [isinstance(t, (int, float)) and not isinstance(t, bool) and abs(t) < MAX_TIMES for t in given]
        if not all(numbers):
            self.problems.add(
                self.file, f'"time" must be a number below {MAX_TIMES} in every frame or absent in all; correct it.'
            )
            return [(int(t) if ok else 0, 0.0) for t, ok in zip(given, numbers, strict=True)]
        whole = all(float(t).is_integer() for t in given)
        if self._choice("time_unit", ("frame", "seconds"), "frame" if whole else "seconds") == "seconds":
            return [(round(t * fps), float(t)) for t in given]
        if not whole:
            self.problems.add(
                self.file, 'time_unit is "frame" but a "time" is no whole number; correct it, or write "seconds".'
            )
        return [(round(t), t / fps) for t in given]

    def _positive(self, key: str, default: float) -> float:
        value = self._number(key) if key in self.content else default
        return default if value is None else value

    def _number(self, key: str) -> float | None:
        """What the file holds; None, which is recorded, where that is no positive number."""
        value = self.content[key]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value) and value > 0:
            return float(value)
        self.problems.add(self.file, f"{key} must be a positive number, found {value!r}; correct it.")
        return None

    def _choice(self, key: str, choices: tuple[Choice, ...], default: Choice) -> Choice:
        value = self.content.get(key, default)
        if value in choices:
            return value
        self.problems.add(self.file, f"{key} must be one of {', '.join(choices)}, found {value!r}; correct it.")
        return default


def inverse_or_nan(pose: np.ndarray) -> np.ndarray:
    """The inverse of a (4,4) pose; NaN, which the checks report, where there is none."""
    usable = np.isfinite(pose).all() and abs(np.linalg.det(pose)) > 1e-9
    return np.linalg.inv(pose) if usable else np.full((4, 4), np.nan)


def _with_suffix(path: Path) -> Path:
    """An image's path; where it has no suffix, .png and .jpg are tried."""
    if path.suffix:
        return path
    found = (path.with_name(path.name + suffix) for suffix in (*IMAGE_SUFFIXES, ".JPG", ".JPEG", ".PNG"))
    return next((p for p in found if p.is_file()), path.with_name(path.name + IMAGE_SUFFIXES[0]))
