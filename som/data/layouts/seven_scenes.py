"""7-Scenes (Shotton et al., CVPR 2013): RGB-D video with poses."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from som.cameras.checks import rigid
from som.data.checks import Problems
from som.data.layouts.images import Offset, shifted_intrinsics
from som.data.layouts.layout import Layout
from som.data.recording import FrameRecord, Recording
from som.errors import UserError
from som.files import image_size, read_image, read_map, read_matrix

K_7SCENES = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])
"""Nominal intrinsics of the depth camera for 640x480, integer pixel centres, as the data set's page gives them."""
SIZE_7SCENES = (480, 640)
INVALID_DEPTH = 65535
MILLIMETRES = 1e-3


def read(
    path: Path, problems: Problems, *, K: np.ndarray | None = None, center_offset: Offset = 0.5
) -> Recording:
    """One ``seq-NN``: frame-NNNNNN.color.png, .depth.png (mm, 65535 and 0 unknown), .pose.txt (camera to world).

    Colour comes from a second camera that is not registered to the depth camera: expect a few pixels of offset.

    Args:
        K: (3,3) for 640x480; None takes the nominal (585, 585, 320, 240).
        center_offset: added to cx and cy; 0 if ``K`` has pixel centres at +0.5 already.

    Raises:
        UserError: a part of a frame is missing or broken.
    """
    images = sorted(path.glob("frame-*.color.png"))
    if not images:
        raise UserError(f"{path}: holds no frame-NNNNNN.color.png; give the folder of one sequence, such as seq-01.")
    intrinsics = shifted_intrinsics(K_7SCENES if K is None else K, center_offset, path)
    size = image_size(images[0])
    frames = []
    for time, image in enumerate(images):
        stem = image.name.removesuffix(".color.png")
        frame = FrameRecord(stem, partial(read_image, image), str(image), size, intrinsics, SIZE_7SCENES, time=time)
        frame.depth = partial(read_map, path / f"{stem}.depth.png", MILLIMETRES, INVALID_DEPTH)
        pose = path / f"{stem}.pose.txt"
        frame.w2c = np.linalg.inv(rigid(read_matrix(pose, (4, 4), "the pose"), str(pose)))
        frames.append(frame)
    name = f"{path.resolve().parent.name} {path.resolve().name}"
    return Recording(name, "7scenes", frames, world_scale="metric", root=path)


LAYOUT = Layout(
    "7scenes",
    "7-Scenes",
    "frame-*.color.png",
    lambda path: next(path.glob("frame-*.color.png"), None) is not None,
    read,
)
