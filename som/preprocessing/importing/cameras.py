"""Cameras of other programs, fitted to the frames of the video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from som.cameras.checks import check_intrinsics, rigid
from som.cameras.geometry import interpolate_poses
from som.errors import UserError
from som.files import array_shapes
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.camera_arrays import (
    MEGASAM,
    posed_depth_names,
    read_droid_cameras,
    read_megasam_cameras,
    read_posed_depth_cameras,
)
from som.preprocessing.importing.camera_models import colmap_models, read_colmap_cameras, read_nerfstudio_cameras
from som.preprocessing.importing.camera_sources import (
    CameraRequest,
    ForeignCameras,
    Observations,
    Size,
    grid_observations,
)
from som.preprocessing.importing.frames import listed
from som.preprocessing.importing.trajectories import MONST3R_FILES, read_monst3r_cameras, read_tum_cameras

READERS: dict[str, Callable[[Path, CameraRequest], ForeignCameras]] = {
    "colmap": read_colmap_cameras,
    "nerfstudio": read_nerfstudio_cameras,
    "megasam": read_megasam_cameras,
    "posed_depth": read_posed_depth_cameras,
    "droid": read_droid_cameras,
    "tum": read_tum_cameras,
    "monst3r": read_monst3r_cameras,
}
CameraKind = Literal["auto", "colmap", "nerfstudio", "megasam", "posed_depth", "droid", "tum", "monst3r"]
WITHOUT_INTRINSICS = ("tum", "droid")
"""Formats that may need a focal length."""


@dataclass
class ImportedCameras:
    """Cameras of T frames."""

    w2c: Float[np.ndarray, "t 4 4"]
    """World to camera, OpenCV axes, float64; between registered neighbours where a frame is not registered."""
    K: Float[np.ndarray, "t 3 3"]
    """In pixels of the frames, pixel centres at +0.5, float64."""
    registered: Bool[np.ndarray, "t"]
    """The frame has a camera of its own."""
    points: Float[np.ndarray, "p 3"] | None
    """Triangulated points of the static scene, where the format has them."""
    observations: Observations | None
    """Pixels of known depth in the unit of the poses: ``points`` where they are seen, or a grid of ``depth``. By these,
    depth of another source can be brought to the cameras' scale."""
    depth: Float[np.ndarray, "t H W"] | None
    """float32 z in the unit of the poses, 0 = unknown, where the format has it."""
    world_scale: Literal["metric", "arbitrary"]
    """Whether the poses are in metres."""
    source: dict[str, Any]
    """Provenance, plain JSON: program, file, how frames were matched, how many are registered."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that the user should read."""


def import_cameras(
    path: Path,
    *,
    frames: FrameNames,
    size: Size,
    kind: CameraKind = "auto",
    focal: float | None = None,
    fov: float | None = None,
    source_size: Size | None = None,
    allow_pickle: bool = False,
) -> ImportedCameras:
    """Reads cameras of another program; ``importing.frames`` says how they are matched to frames.

    Args:
        path: a file or folder; docs/bring-your-own-priors.md lists them.
        frames: names of the T frames in the order of time.
        size: (height, width) of the frames.
        kind: the format; ``auto`` recognises it by its files. ``posed_depth`` is that of Depth Anything 3 and VGGT.
        focal: focal length in pixels of the frames, for formats that have none.
        fov: or the horizontal field of view in degrees.
        source_size: (height, width) of the images that the program was given, if they were not of ``size``.
        allow_pickle: whether a pickled dict of DROID-SLAM's cameras may be opened.

    Raises:
        UserError: one sentence: the file, what was expected, what to do.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: does not exist; give the file or folder that holds the cameras.")
    path, found = _find(path) if kind == "auto" else (path, kind)
    if found not in READERS:
        raise UserError(f"the kind of cameras must be auto, {', '.join(READERS)}, found {found!r}.")
    request = CameraRequest(frames, (size[0], size[1]), focal, fov, source_size, allow_pickle)
    if found not in WITHOUT_INTRINSICS and (focal is not None or fov is not None):
        raise UserError(f"{path}: has intrinsics of its own; leave out `cameras.focal` and `cameras.fov`.")
    return _fitted(path, READERS[found](path, request), request)


def _find(path: Path) -> tuple[Path, str]:
    """The file or folder to read and its format, by marker files."""
    if path.is_dir():
        return _find_in_folder(path)
    if path.name in MONST3R_FILES:
        return path, "monst3r"
    if path.name in ("images.bin", "images.txt", "cameras.bin", "cameras.txt"):
        return path, "colmap"
    if path.suffix == ".json":
        return path, "nerfstudio"
    if path.suffix in (".txt", ".tum"):
        return path, "tum"
    if path.suffix == ".npy":
        return path, "droid"
    if path.suffix == ".npz":
        arrays = set(array_shapes(path))
        if set(MEGASAM) <= arrays:
            return path, "megasam"
        if posed_depth_names(arrays) is not None:
            return path, "posed_depth"
        raise UserError(
            f"{path}: must hold {', '.join(MEGASAM)} (MegaSaM) or extrinsics, intrinsics, depth (Depth Anything 3), "
            f"found {listed(sorted(arrays)) or 'nothing'}; export the cameras again."
        )
    raise UserError(f"{path}: no known format of cameras; give a file of docs/bring-your-own-priors.md.")


def _find_in_folder(folder: Path) -> tuple[Path, str]:
    if (folder / "transforms.json").is_file():
        return folder, "nerfstudio"
    if all((folder / name).is_file() for name in MONST3R_FILES):
        return folder, "monst3r"
    if colmap_models(folder):
        return folder, "colmap"
    exports = [p for kind in ("npz", "mini_npz") if (p := folder / "exports" / kind / "results.npz").is_file()]
    candidates = exports[:1] or sorted(folder.glob("*.npz"))
    if len(candidates) == 1:
        return _find(candidates[0])
    what = f"several .npz files ({listed([p.name for p in candidates])})" if candidates else "none of these"
    raise UserError(
        f"{folder}: must hold a COLMAP model, transforms.json, pred_traj.txt with pred_intrinsics.txt, or one .npz of "
        f"MegaSaM or Depth Anything 3, found {what}; name the file or folder that holds the cameras."
    )


def _fitted(path: Path, found: ForeignCameras, request: CameraRequest) -> ImportedCameras:
    """Checks the cameras and puts them in the order of the frames."""
    names = list(request.names.names)
    count, warnings = len(names), [*found.match.warnings, *found.warnings]
    w2c, K, registered = np.tile(np.eye(4), (count, 1, 1)), np.zeros((count, 3, 3)), np.zeros(count, bool)
    for frame, pose, intrinsics in zip(found.match.frames, found.w2c, found.K, strict=True):
        where = f"{path}, frame {names[frame]}"
        if not np.isfinite(pose).all():
            continue
        w2c[frame], K[frame] = rigid(pose, where), check_intrinsics(intrinsics, where)
        registered[frame] = True
    if not registered.any():
        raise UserError(f"{path}: no frame has a usable camera; estimate the cameras anew.")
    missing = [name for name, known in zip(names, registered, strict=True) if not known]
    if missing:
        warnings.append(f"{path}: has no camera for {len(missing)} of {count} frames ({listed(missing)}).")
    source = {
        "program": found.program,
        **found.facts,
        "matched_by": found.match.by,
        "registered": int(registered.sum()),
        "frames": count,
    }
    K[~registered] = np.median(K[registered], axis=0)
    w2c = interpolate_poses(w2c, registered)
    observations = found.observations
    if observations is None and found.depth is not None:
        observations = grid_observations(found.depth)
    return ImportedCameras(
        w2c, K, registered, found.points, observations, found.depth, found.world_scale, source, warnings
    )
