"""Cameras from arrays: MegaSaM, Depth Anything 3 and VGGT, DROID-SLAM."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from som.data.layouts.shape_of_motion import load_dict
from som.data.recording import intrinsics
from som.errors import UserError
from som.files import UNREADABLE, array_shapes, read_array, read_arrays
from som.preprocessing.importing.camera_sources import (
    CameraRequest,
    ForeignCameras,
    four_rows,
    inverted,
    pose_matrices,
)
from som.preprocessing.importing.frames import match_count
from som.preprocessing.importing.windows import droid_image, whole_image

MEGASAM = ("depths", "intrinsic", "cam_c2w")
"""Arrays of MegaSaM's ``*_droid.npz`` and ``*_sgd_cvd_hr.npz``."""
POSED_DEPTH = (("extrinsics", "intrinsics", "depth", "conf"), ("extrinsic", "intrinsic", "depth", "depth_conf"))
"""Arrays of Depth Anything 3's ``results.npz`` and of VGGT's ``predictions.npz``; the last may be missing."""


def posed_depth_names(names: set[str]) -> tuple[str, str, str, str] | None:
    """Which of ``POSED_DEPTH`` a file with these arrays has; None if neither."""
    return next((kind for kind in POSED_DEPTH if set(kind[:3]) <= names), None)


def read_megasam_cameras(path: Path, request: CameraRequest) -> ForeignCameras:
    """MegaSaM: ``cam_c2w`` (T,4,4) in OpenCV axes, one ``intrinsic`` (3,3) of its reduced images, ``depths`` (T,h,w).

    Its images were resized to about 384·512 pixels and cropped at the right and below, so that K is scaled by the
    resizing and the depth covers all but a strip.

    Raises:
        UserError: arrays are missing, of other shapes, or of another number of frames.
    """
    arrays = read_arrays(path, MEGASAM)
    depth, c2w = arrays["depths"], arrays["cam_c2w"]
    match = match_count(path, len(c2w), request.names, "cameras")
    _check_shape(path, "cam_c2w", c2w, (len(c2w), 4, 4))
    _check_shape(path, "intrinsic", arrays["intrinsic"], (3, 3))
    _check_shape(path, "depths", depth, (len(c2w), *depth.shape[-2:]))
    window = droid_image(path, depth.shape[1:], request.size, request.source_size)
    w2c = inverted(c2w[match.chosen].astype(np.float64))
    K = np.tile(window.intrinsics(arrays["intrinsic"]), (len(w2c), 1, 1))
    placed = window.place(known_depth(depth[match.chosen]), request.size)
    return ForeignCameras("MegaSaM", w2c, K, match, depth=placed, facts={"file": str(path)})


def read_posed_depth_cameras(path: Path, request: CameraRequest) -> ForeignCameras:
    """Depth Anything 3 and VGGT: world to camera (T,3,4) or (T,4,4) in OpenCV axes, K (T,3,3), depth (T,h,w).

    K is that of the network's input, to which whole images were resized, each side to a multiple of 14.

    Raises:
        UserError: arrays are missing, of other shapes, or of another number of frames.
    """
    names = posed_depth_names(set(array_shapes(path)))
    if names is None:
        raise UserError(f"{path}: must hold extrinsics, intrinsics and depth, as Depth Anything 3 exports them.")
    arrays = read_arrays(path, names[:3])
    poses, K, depth = (without_batch(arrays[name], ndim) for name, ndim in zip(names[:3], (3, 3, 3), strict=True))
    match = match_count(path, len(poses), request.names, "cameras")
    _check_shape(path, names[0], poses, (len(poses), 4 if poses.shape[1:2] == (4,) else 3, 4))
    _check_shape(path, names[1], K, (len(poses), 3, 3))
    _check_shape(path, names[2], depth, (len(poses), *depth.shape[-2:]))
    window = whole_image(path, depth.shape[1:], request.size)
    placed = window.place(known_depth(depth[match.chosen]), request.size)
    program = "Depth Anything 3" if names is POSED_DEPTH[0] else "VGGT"
    w2c, K = four_rows(poses[match.chosen]), window.intrinsics(K[match.chosen])
    return ForeignCameras(program, w2c, K, match, depth=placed, facts={"file": str(path)})


def read_droid_cameras(path: Path, request: CameraRequest) -> ForeignCameras:
    """DROID-SLAM: what ``droid.terminate`` returns, or the dict that Shape-of-Motion saves.

    The first is an array (T,7) of camera-to-world x y z qx qy qz qw and needs a focal length. The second has
    ``traj_c2w`` (T,4,4), ``intrinsics`` fx fy cx cy and ``img_shape`` of the reduced images; it is a pickle, so that
    it is only opened if that is allowed, and even then only arrays in it are.

    Raises:
        UserError: the file is broken, a pickle that is not allowed, or of another number of frames.
    """
    try:
        shape: tuple[int, ...] | None = array_shapes(path)[""]
    except UserError:
        shape = None
    if shape is not None and len(shape) == 2 and shape[1] == 7:
        values = read_array(path).astype(np.float64)
        match = match_count(path, len(values), request.names, "cameras")
        values = values[match.chosen]
        K = np.tile(request.given_intrinsics(path), (len(values), 1, 1))
        w2c = inverted(pose_matrices(values[:, :3], values[:, 3:], path))
        return ForeignCameras("DROID-SLAM", w2c, K, match, facts={"file": str(path)})
    if shape != ():
        raise UserError(
            f"{path}: must hold (frames, 7) numbers or a dict with traj_c2w, as DROID-SLAM's scripts write."
        )
    if request.focal is not None or request.fov is not None:
        raise UserError(f"{path}: has intrinsics of its own; leave out `cameras.focal` and `cameras.fov`.")
    if not request.allow_pickle:
        raise UserError(f"{path}: is a pickled dict; if you trust its maker, open it with `cameras.allow_pickle`.")
    try:
        content = load_dict(path)
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as a dict of arrays ({error}); save it anew.") from error
    wanted = ("traj_c2w", "intrinsics", "img_shape")
    _require(path, content, wanted)
    c2w, numbers, image = (np.asarray(content[name], np.float64) for name in wanted)
    match = match_count(path, len(c2w), request.names, "cameras")
    _check_shape(path, "traj_c2w", c2w, (len(c2w), 4, 4))
    _check_shape(path, "intrinsics", numbers, (4,))
    height, width = (int(n) for n in image.reshape(-1)[:2])
    window = droid_image(path, (height, width), request.size, request.source_size)
    w2c = inverted(c2w[match.chosen])
    K = np.tile(window.intrinsics(intrinsics(*numbers)), (len(w2c), 1, 1))
    return ForeignCameras("DROID-SLAM", w2c, K, match, facts={"file": str(path)})


def known_depth(depth: np.ndarray) -> np.ndarray:
    """float32 depth, 0 where it is not finite or not positive."""
    depth = depth.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def without_batch(values: np.ndarray, ndim: int) -> np.ndarray:
    """An array of ``ndim`` dimensions without a leading batch of one or a trailing channel of one."""
    if values.ndim == ndim + 1 and values.shape[-1] == 1:
        return values[..., 0]
    if values.ndim == ndim + 1 and len(values) == 1:
        return values[0]
    return values


def _require(path: Path, arrays: dict, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)} (has {', '.join(arrays) or 'nothing'}); write it anew.")


def _check_shape(path: Path, name: str, values: np.ndarray, expected: tuple[int, ...]) -> None:
    if values.shape != expected:
        raise UserError(f"{path}: {name} must have shape {expected}, found {values.shape}; write the file anew.")
