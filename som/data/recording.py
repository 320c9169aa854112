"""What every reader gives: one recording's frames, cameras and maps, described at once and read when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from som.cameras.camera import Camera, CameraModel
from som.errors import UserError
from som.files import read_map, read_mask

if TYPE_CHECKING:
    from flow.video_flow import VideoFlow
    from som.data.dataset import GroundTruthTracks, Tracks

Size = tuple[int, int]
"""(height, width) in pixels"""
DepthKind = Literal["metric", "scale", "relative"]
WorldScale = Literal["metric", "arbitrary"]
DEPTH_KINDS: tuple[DepthKind, ...] = get_args(DepthKind)
WORLD_SCALES: tuple[WorldScale, ...] = get_args(WorldScale)
SPLITS = ("train", "val")
MAX_ASPECT_RATIO_FACTOR = 1.02
"""By how much the aspect ratios of a depth map and its image may differ, as a factor; sizes are whole numbers."""


@dataclass
class FrameRecord:
    """Where the parts of one frame come from."""

    name: str
    """Unique within its split."""
    image: Callable[[], np.ndarray]
    """Gives (H,W,3) uint8 RGB as stored; ``read_image`` checks its size as well."""
    where: str
    """The image's file, for messages."""
    size: Size
    """Of the image as stored."""
    K: np.ndarray | None = None
    """(3,3) float64, pixel centres at +0.5, for an image of ``K_size``."""
    K_size: Size | None = None
    """Size that K belongs to; None is ``size``. Images that were resized afterwards scale it."""
    w2c: np.ndarray | None = None
    """(4,4) float64 world to camera, OpenCV axes."""
    model: CameraModel = "pinhole"
    """Of the lens, see ``Camera``."""
    distortion: tuple[float, ...] = ()
    """Coefficients of the model."""
    split: str = "train"
    time: int | None = None
    """Index in the video, by which other frames name it as the end of their flow too; None where it is not known."""
    timestamp: float | None = None
    """Seconds."""
    speed: float | None = None
    """Metres per second."""
    depth: Callable[[], np.ndarray] | None = None
    """Gives (h,w) float32 z-depth at its own size, same view as the image; 0 = unknown."""
    confidence: Callable[[], np.ndarray] | None = None
    """Gives (h,w) float32 confidence of the depth in [0, 1]."""
    moving: Callable[[], np.ndarray] | None = None
    """Gives (h,w) bool, true for pixels of objects that move."""
    valid: Callable[[], np.ndarray | None] | None = None
    """Gives (h,w) bool, true for pixels that may be used at all; None where that is all of them."""
    covisible: Callable[[], np.ndarray] | None = None
    """Gives (h,w) bool, true for pixels of held-out views that enough training views see."""
    flow: Callable[[int], tuple[np.ndarray, np.ndarray | None] | None] | None = None
    """Gives the optical flow from this frame to the one of that time, (h,w,2) float32 in pixels of its own size, and
    where it is right, (h,w) bool, or None if that is not known; None where there is no such flow."""
    size_from: str = "others of its sequence"
    """Who says ``size``, for messages."""

    def set_camera(self, camera: Camera) -> None:
        """Takes over a single camera, of this image or of another size of it."""
        self.K, self.w2c = camera.K.double().numpy(), camera.w2c.double().numpy()
        self.K_size, self.model = (camera.height, camera.width), camera.model
        self.distortion = () if camera.distortion is None else tuple(camera.distortion.tolist())

    @property
    def camera(self) -> Camera:
        """The camera of the image as stored; K and the pose must be known."""
        (height, width), coefficients = self.size, torch.tensor(self.distortion, dtype=torch.float64)
        K, w2c = torch.from_numpy(scaled_intrinsics(self, self.size)), torch.from_numpy(self.w2c)
        return Camera(K, w2c, width, height, self.model, None if self.model == "pinhole" else coefficients)

    @property
    def is_distorted(self) -> bool:
        """Whether the lens is anything but a pinhole; an ``opencv`` lens whose coefficients are all 0 is one."""
        return any(self.distortion) if self.model == "opencv" else self.model != "pinhole"

    def read_image(self) -> np.ndarray:
        """(H,W,3) uint8 RGB as stored.

        Raises:
            UserError: the file is missing or broken, or its image has not the size ``size``.
        """
        image = self.image()
        if image.shape[:2] != tuple(self.size):
            raise UserError(
                f"{self.where}: this image is {in_words(image.shape)}, {self.size_from} {in_words(self.size)}; "
                "correct, resize or drop one."
            )
        return image

    def set_mask(self, kind: str, path: Path, threshold: int = 127, inverted: bool = False) -> None:
        """Makes a mask file of the image's size the frame's ``kind``: moving, valid or covisible."""
        setattr(self, kind, partial(_read_mask, path, threshold, inverted, self.size, kind))

    def set_depth(self, path: Path, unit: float, convert: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        """Makes a map file of the image's shape, at any resolution, the frame's depth.

        Args:
            unit: of an integer step of a png.
            convert: turns what the file holds, in which negative values count as 0, into depth.
        """
        self.depth = partial(_read_map, path, unit, self.size, "depth map", convert)

    def set_confidence(self, path: Path) -> None:
        """Makes a map file of the image's shape, at any resolution, the confidence of the frame's depth."""
        self.confidence = partial(_read_map, path, 1 / 255, self.size, "confidence map")


@dataclass
class Recording:
    """What a reader found."""

    name: str
    layout: str
    """The layout's name, see ``som.data.layouts``."""
    frames: list[FrameRecord]
    """Of all splits."""
    depth_kind: DepthKind = "metric"
    """``metric``, ``scale`` (one unknown scale per sequence) or ``relative`` (unknown scale and shift per frame)."""
    world_scale: WorldScale = "arbitrary"
    """``metric`` if the poses are in metres."""
    fps: float | None = None
    notes: list[str] = field(default_factory=list)
    """What was left out, for people."""
    source: dict = field(default_factory=dict)
    """Provenance of images, cameras and every prior, for people."""
    root: Path = Path()
    """Its folder, for messages."""
    num_times: int | None = None
    """T; None is the last time + 1."""
    has_background: bool = True
    """False when everything moves."""
    farthest: float | None = None
    """Depth of the training views ends at this many times the median of their largest depths; None nowhere."""
    tracks: Callable[[], Tracks] | None = None
    """Gives long 2D tracks in pixels of the stored images."""
    ground_truth_tracks: Callable[[], GroundTruthTracks] | None = None
    """Gives exact 3D tracks, for scoring, with ``xy`` in pixels of the stored images."""
    flow: Callable[[], VideoFlow] | None = None
    """Opens the optical flow between the times of the video."""

    def of_split(self, split: str) -> Recording:
        """The recording of one split's frames alone."""
        return replace(self, frames=[frame for frame in self.frames if frame.split == split])

    def count_times(self) -> int:
        """T, stated or as the frames say."""
        times = [frame.time for frame in self.frames if frame.time is not None]
        return max(times, default=-1) + 1 if self.num_times is None else self.num_times


def in_words(size: tuple[int, ...]) -> str:
    """A size (height, width, ...) as people write it: WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """(3,3) camera matrix."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def scaled_intrinsics(frame: FrameRecord, size: Size) -> np.ndarray:
    """(3,3) K of a frame at ``size``; the frame must have one."""
    height, width = frame.K_size or frame.size
    return frame.K * np.array([[size[1] / width], [size[0] / height], [1.0]])


def _read_mask(path: Path, threshold: int, inverted: bool, size: Size, kind: str) -> np.ndarray:
    mask = read_mask(path, threshold)
    if mask.shape != tuple(size):
        name = "foreground" if kind == "moving" else kind
        raise UserError(
            f"{path}: this {name} map is {in_words(mask.shape)}, expected {in_words(size)} as its image; "
            "write it at that size."
        )
    return ~mask if inverted else mask


def _read_map(
    path: Path, unit: float, size: Size, what: str, convert: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    values = read_map(path, unit, what=f"this {what}", strict=convert is None)
    ratio = values.shape[1] / values.shape[0] * size[0] / size[1]
    if not 1 / MAX_ASPECT_RATIO_FACTOR < ratio < MAX_ASPECT_RATIO_FACTOR:
        raise UserError(
            f"{path}: this {what} is {in_words(values.shape)}, expected {in_words(size)} as its image, or the same "
            "shape at another resolution; write it so."
        )
    return values if convert is None else convert(values)
