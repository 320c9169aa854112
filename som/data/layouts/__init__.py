"""All layouts in which recordings lie on disk, one file each, and which of them a folder has."""

from __future__ import annotations

from pathlib import Path

from som.data.layouts import (
    colmap,
    davis,
    eigen,
    endonerf,
    images,
    iphone,
    kitti_odometry,
    kitti_raw,
    native,
    plain,
    seven_scenes,
    shape_of_motion,
    video,
)
from som.data.layouts.layout import Layout
from som.errors import UserError

__all__ = ["LAYOUTS", "Layout", "find_layout", "layout_named", "recognise"]

LAYOUTS: dict[str, Layout] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (
        native,
        endonerf,
        iphone,
        davis,
        colmap,
        kitti_raw,
        kitti_odometry,
        seven_scenes,
        plain,
        shape_of_motion,
        images,
        video,
        eigen,
    )
}
"""By name, in the order in which they are tried."""


def find_layout(path: Path) -> Layout | None:
    """The first layout that a folder or file has; None if there is none."""
    return next((layout for layout in LAYOUTS.values() if layout.matches(path)), None)


def recognise(path: Path) -> Layout:
    """The layout of a folder, a video file, or a split file.

    Raises:
        UserError: there is nothing at ``path``, or nothing known; the message lists what was looked for.
    """
    if not path.exists():
        raise UserError(f"{path}: does not exist; check the path.")
    layout = find_layout(path)
    if layout is None and path.is_file():
        raise UserError(
            f"{path}: is neither a folder, a video ({', '.join(video.VIDEO_SUFFIXES)}) nor a split file (.txt)."
        )
    if layout is None:
        raise UserError(f"{path}: the layout is not recognised; looked for {markers()}. See docs/data-formats.md.")
    return layout


def markers() -> str:
    """What the layouts of folders are recognised by, in words."""
    return "; ".join(f"{layout.marker} ({layout.title})" for layout in LAYOUTS.values() if layout not in _FILES)


def layout_named(name: str) -> Layout:
    """Raises:
    UserError: there is no layout of that name.
    """
    if name not in LAYOUTS:
        raise UserError(f"unknown layout {name!r}; choose one of auto, {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


_FILES = (video.LAYOUT, eigen.LAYOUT)
