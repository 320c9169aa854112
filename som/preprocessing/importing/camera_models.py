"""Cameras from COLMAP models and nerfstudio's transforms.json, which know the images by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from som.cameras.geometry import OPENGL_FROM_OPENCV
from som.data.checks import Problems
from som.data.colmap_model import ColmapImage, find_models, read_model, read_points
from som.data.folder.header import DISTORTION
from som.data.recording import intrinsics
from som.errors import UserError
from som.files import read_json
from som.preprocessing.importing.camera_sources import (
    CameraRequest,
    ForeignCameras,
    Observations,
    Size,
    four_rows,
    inverted,
)
from som.preprocessing.importing.frames import match_names
from som.preprocessing.importing.windows import whole_image

UNDISTORT = "colmap image_undistorter --image_path <images> --input_path {model} --output_path <folder>"
PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "PERSPECTIVE")
"""nerfstudio's camera models that are pinholes where all distortion is 0."""


def read_colmap_cameras(path: Path, request: CameraRequest) -> ForeignCameras:
    """The registered images of a COLMAP model, .bin or .txt; of several, of the one with the most.

    COLMAP's axes and pixel centres are ours. Images of another size than the frames scale K.

    Raises:
        UserError: the model is broken, has distortion, or its images are not the frames.
    """
    root = path.parent if path.is_file() else path
    models = colmap_models(root)
    if not models:
        raise UserError(
            f"{root}: holds no COLMAP model (images.bin or images.txt, also in sparse/0); run COLMAP first."
        )
    registered = {model: _read(model) for model in models}
    best = max(models, key=lambda model: len(registered[model]))
    images = registered[best]
    if not images:
        raise UserError(f"{best}: no image is registered in this COLMAP model; run COLMAP's mapper again.")
    if any(image.camera.is_distorted for image in images.values()):
        raise UserError(
            f"{best}: its cameras have lens distortion; run `{UNDISTORT.format(model=best)}` and start again from the "
            "undistorted images and their model."
        )
    names = list(images)
    match = match_names(best, names, request.names, "registered images", partial=True)
    chosen = [images[names[i]] for i in match.chosen]
    cameras = [image.camera for image in chosen]
    K = [whole_image(best, (c.height, c.width), request.size).intrinsics(c.K.numpy()) for c in cameras]
    warnings = []
    if len(models) > 1:
        counts = ", ".join(f"{model.name}: {len(registered[model])}" for model in models)
        warnings.append(
            f"{root}: COLMAP split the video into {len(models)} models (images {counts}); {best.name} is used, the "
            "frames of the others have no camera."
        )
    points, observations = _points(best, chosen, match.frames, request.size)
    w2c, facts = np.stack([camera.w2c.numpy() for camera in cameras]), {"model": str(best)}
    return ForeignCameras("COLMAP", w2c, np.stack(K), match, points, observations, facts=facts, warnings=warnings)


def colmap_models(folder: Path) -> list[Path]:
    """Those that ``find_models`` sees, or the numbered models of a folder that is itself COLMAP's sparse/."""
    return find_models(folder) or [p for p in sorted(folder.iterdir()) if p.is_dir() and p in find_models(p)]


def _points(
    model: Path, images: list[ColmapImage], frames: list[int], size: Size
) -> tuple[np.ndarray | None, Observations | None]:
    """The triangulated points (P,3) and where the images see them; COLMAP has dropped those of large error already."""
    problems = Problems(model)
    found = read_points(model, problems)
    if problems.found:
        raise UserError(problems.found[0])
    if found is None:
        return None, None
    order = np.argsort(found[0])
    ids, points = found[0][order], found[1][order]
    frame, xy, depth = [], [], []
    for image, at in zip(images, frames, strict=True):
        index = np.searchsorted(ids, image.point_ids).clip(max=max(len(ids) - 1, 0))
        known = ids[index] == image.point_ids if len(ids) else np.zeros(len(index), bool)
        w2c = image.camera.w2c.numpy()
        z = points[index[known]] @ w2c[2, :3] + w2c[2, 3]
        scale = (size[1] / image.camera.width, size[0] / image.camera.height)
        frame.append(np.full(int((z > 0).sum()), at))
        xy.append(image.xy[known][z > 0] * scale)
        depth.append(z[z > 0])
    return points, Observations(np.concatenate(frame), np.concatenate(xy), np.concatenate(depth))


def _read(model: Path) -> dict[str, ColmapImage]:
    problems = Problems(model)
    images = read_model(model, problems)
    if problems.found:
        raise UserError(problems.found[0])
    return images


def read_nerfstudio_cameras(path: Path, request: CameraRequest) -> ForeignCameras:
    """The training frames of a transforms.json (nerfstudio's, instant-ngp's or our own), without opening images.

    ``transform_matrix`` is camera to world in OpenGL axes; ``applied_transform``, which turned the world, is undone.

    Raises:
        UserError: the file is broken, has distortion or another camera than a pinhole, or its images are not the
            frames.
    """
    path = path / "transforms.json" if path.is_dir() else path
    header = read_json(path, "this list of frames")
    entries = header.get("frames") if isinstance(header, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "file_path" in e for e in entries):
        raise UserError(f'{path}: must hold a list "frames" of objects with "file_path", as nerfstudio writes it.')
    entries = [entry for entry in entries if entry.get("split", "train") != "val"]
    names = [str(entry["file_path"]) for entry in entries]
    match = match_names(path, names, request.names, "frames", partial=True)
    K, c2w = [], []
    for name, entry in ((names[i], entries[i]) for i in match.chosen):
        merged = {**header, **entry}
        _check_pinhole(path, name, merged)
        try:
            K.append(_intrinsics(path, merged, request))
            c2w.append(np.array(merged["transform_matrix"], np.float64).reshape(4, 4))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: the camera of {name} is missing or not a number ({error}); correct it.") from None
    poses = np.stack(c2w) @ OPENGL_FROM_OPENCV
    if "applied_transform" in header:
        poses = _applied_transform(path, header["applied_transform"]) @ poses
    return ForeignCameras(
        "nerfstudio",
        inverted(poses),
        np.stack(K),
        match,
        world_scale="metric" if header.get("world_scale") == "metric" else "arbitrary",
        facts={"file": str(path)},
    )


def _check_pinhole(path: Path, name: str, camera: dict) -> None:
    model = camera.get("camera_model", "PINHOLE")
    if model not in PINHOLE_MODELS or any(camera.get(k) for k in DISTORTION):
        raise UserError(
            f"{path}: the camera of {name} has lens distortion or is no pinhole ({model}); undistort the images, for "
            f"example with `{UNDISTORT.format(model='colmap/sparse/0')}`, and start again from them."
        )


def _intrinsics(path: Path, camera: dict, request: CameraRequest) -> np.ndarray:
    given = (int(camera["h"]), int(camera["w"])) if "h" in camera and "w" in camera else None
    size = given or request.source_size or request.size
    fx = float(camera["fl_x"]) if "fl_x" in camera else size[1] / 2 / np.tan(float(camera["camera_angle_x"]) / 2)
    K = intrinsics(fx, float(camera.get("fl_y", fx)), camera.get("cx", size[1] / 2), camera.get("cy", size[0] / 2))
    return whole_image(path, size, request.size).intrinsics(K)


def _applied_transform(path: Path, value: object) -> np.ndarray:
    """(4,4) that undoes ``applied_transform``, which is (3,4) or (4,4) and rigid."""
    try:
        rows = np.array(value, np.float64)
        applied = four_rows(rows[None])[0]
        undo = np.linalg.inv(applied)
    except (ValueError, TypeError, IndexError, np.linalg.LinAlgError):
        raise UserError(f"{path}: applied_transform must be a 3x4 matrix of numbers; correct or remove it.") from None
    return undo
