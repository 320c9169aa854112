"""Opens a recording of any supported layout (docs/depth-data.md)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from som.depth.data.files import list_images, read_mask, require_file
from som.depth.data.kitti_recordings import is_kitti_raw, read_eigen, read_kitti_odometry, read_kitti_raw
from som.depth.data.native import read_native
from som.depth.data.rgbd import read_7scenes
from som.depth.data.sequence import DepthSequence, Recording, Size
from som.depth.data.simple import VIDEO_SUFFIXES, read_folder, read_plain, read_video
from som.depth.errors import DepthError

READERS: dict[str, Callable[..., Recording]] = {
    "native": read_native,
    "kitti_raw": read_kitti_raw,
    "kitti_odometry": read_kitti_odometry,
    "7scenes": read_7scenes,
    "plain": read_plain,
    "folder": read_folder,
    "video": read_video,
    "eigen": read_eigen,
}
"""Readers by layout; each one's docstring says what it needs and which options it has."""

MARKERS: tuple[tuple[str, str, Callable[[Path], bool]], ...] = (
    ("native", "transforms.json", lambda p: (p / "transforms.json").is_file()),
    ("kitti_raw", "image_0N/data/*.png", is_kitti_raw),
    (
        "kitti_odometry",
        "calib.txt beside image_N/",
        lambda p: (p / "calib.txt").is_file() and any((p / f"image_{n}").is_dir() for n in range(4)),
    ),
    ("7scenes", "frame-*.color.png", lambda p: next(p.glob("frame-*.color.png"), None) is not None),
    ("plain", "K.txt beside images/", lambda p: (p / "K.txt").is_file() and bool(list_images(p / "images"))),
    ("folder", "png or jpg images in it or in images/", lambda p: bool(list_images(p) or list_images(p / "images"))),
)
"""What marks the layouts of folders, in the order in which they are tried."""


def recognise(path: Path) -> str:
    """The layout of a folder, a video file, or a split file (.txt).

    Raises:
        DepthError: there is nothing at ``path``, or nothing known; the message lists what was looked for.
    """
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return "video"
        if path.suffix.lower() == ".txt":
            return "eigen"
        raise DepthError(f"{path}: is neither a folder, a video ({', '.join(VIDEO_SUFFIXES)}) nor a split file (.txt).")
    if not path.is_dir():
        raise DepthError(f"{path}: does not exist; check the path.")
    for layout, _, present in MARKERS:
        if present(path):
            return layout
    looked = "; ".join(f"{marker} ({layout})" for layout, marker, _ in MARKERS)
    raise DepthError(f"{path}: no known layout; looked for {looked}. See docs/depth-data.md.")


def open_sequence(
    path: str | Path,
    kind: str = "auto",
    *,
    size: Size | None = None,
    max_side: int | None = None,
    multiple: int = 1,
    start: int = 0,
    stop: int | None = None,
    every: int = 1,
    moving: str | Path | None = None,
    cache_images: bool = False,
    **options,
) -> DepthSequence:
    """Opens a recording; images, depth and masks are read when asked for.

    Args:
        path: a folder, a video file, or a split file.
        kind: one of ``READERS``, or ``auto``: recognised by marker files (``MARKERS``).
        size, max_side, multiple: at which size images are given out, see ``target_size``.
        start, stop, every: which frames, as in slices of lists, but not negative.
        moving: folder with a png per frame, named as the frame: 255 = moves by itself. In place of the layout's own.
        cache_images: keeps images in memory once they were read.
        options: of the layout's reader, see ``READERS``.

    Raises:
        DepthError: the layout is not recognised, an option is unknown, or a part is missing or inconsistent; the
            message names the file.
    """
    path = Path(path)
    if start < 0 or every < 1 or (stop is not None and stop <= start):
        raise DepthError(f"frames {start}:{stop}:{every} are none; choose 0 <= start < stop and every >= 1.")
    kind = recognise(path) if kind == "auto" else kind
    if kind not in READERS:
        raise DepthError(f"unknown layout {kind!r}; choose one of auto, {', '.join(READERS)}.")
    if kind != "video" and not path.exists():
        raise DepthError(f"{path}: does not exist; check the path.")
    sizing = dict(size=size, max_side=max_side, multiple=multiple)
    if kind == "video":  # decoded once, so the range and the size have to be known before
        _check_options(kind, options, hidden=("start", "stop", *sizing))
        recording, chosen = read_video(path, start=start, stop=stop, **sizing, **options), slice(None, None, every)
        sizing = {}
    else:
        _check_options(kind, options)
        recording, chosen = READERS[kind](path, **options), slice(start, stop, every)
    frames = recording.frames[chosen]
    if not frames:
        raise DepthError(f"{path}: has {len(recording.frames)} frames, none in {start}:{stop}; choose another range.")
    fps = None if recording.fps is None else recording.fps / every
    if moving is not None:
        for frame in frames:
            file = require_file(Path(moving) / f"{frame.name}.png", "this mask", "write one for every frame")
            frame.moving = partial(read_mask, file)
    return DepthSequence(replace(recording, frames=frames, fps=fps), cache_images=cache_images, **sizing)


def _check_options(kind: str, options: dict, hidden: tuple[str, ...] = ()) -> None:
    parameters = inspect.signature(READERS[kind]).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in hidden]
    for option in options:
        if option not in known:
            raise DepthError(f"layout {kind} has no option {option!r}; it has {', '.join(known) or 'none'}.")
