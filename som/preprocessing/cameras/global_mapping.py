"""Cameras by GLOMAP (Pan et al. 2024, "Global Structure-from-Motion Revisited"), as pycolmap has it, from flow tracks.

pycolmap is an optional dependency (the extra ``cameras``), imported here and nowhere else.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from som.preprocessing.cameras.observations import Observations
from som.preprocessing.cameras.options import CameraOptions

MIN_COMMON_POINTS = 15
"""Pairs of images with fewer common points are not matched."""
MIN_REGISTERED_FRAMES = 3
"""A reconstruction of fewer frames is none."""


class GlobalMappingError(RuntimeError):
    """pycolmap found no cameras; the message is its reason."""


@dataclass(frozen=True)
class MappedCameras:
    """The largest reconstruction."""

    w2c: Float[np.ndarray, "t 4 4"]
    """Identity where not registered."""
    registered: Bool[np.ndarray, "t"]
    focal: float
    """Pixels."""


def is_available() -> bool:
    """Whether pycolmap is installed and has the global mapper (4.0 or later)."""
    if importlib.util.find_spec("pycolmap") is None:
        return False
    import pycolmap

    return hasattr(pycolmap, "global_mapping")


def map_cameras(
    seen: Observations,
    num_frames: int,
    size: tuple[int, int],
    focal: float,
    options: CameraOptions,
    num_threads: int,
    *,
    known_focal: bool,
) -> MappedCameras:
    """Runs verification and global mapping of the matches that the tracks make.

    Args:
        seen: observations in pixels of images of ``size`` (H,W).
        focal: pixels; where the search starts, or what is held.
        known_focal: whether to hold it.

    Raises:
        GlobalMappingError: no reconstruction comes out.
    """
    import pycolmap

    with tempfile.TemporaryDirectory(prefix="som4d-cameras-") as folder, _quiet(pycolmap):
        root = Path(folder)
        names = [f"{t:05d}.png" for t in range(num_frames)]
        pairs = _write_database(pycolmap, root / "database.db", seen, names, size, focal, options.match_strides)
        if not pairs:
            raise GlobalMappingError("no two frames share enough points")
        (root / "pairs.txt").write_text("".join(f"{names[a]} {names[b]}\n" for a, b in pairs))
        verification = pycolmap.TwoViewGeometryOptions()
        verification.ransac.max_error = options.max_match_error
        verification.ransac.random_seed = options.seed
        pipeline = pycolmap.GlobalPipelineOptions()
        pipeline.min_num_matches = MIN_COMMON_POINTS
        pipeline.num_threads, pipeline.random_seed = num_threads, options.seed
        pipeline.mapper.bundle_adjustment.refine_focal_length = not known_focal
        for name in ("images", "sparse"):
            (root / name).mkdir()
        try:
            pycolmap.verify_matches(root / "database.db", root / "pairs.txt", options=verification)
            models = pycolmap.global_mapping(root / "database.db", root / "images", root / "sparse", options=pipeline)
        except (RuntimeError, ValueError) as error:
            raise GlobalMappingError(str(error).splitlines()[0] if str(error) else "pycolmap failed") from error
        return _largest(models, num_frames)


def _write_database(
    pycolmap,
    path: Path,
    seen: Observations,
    names: list[str],
    size: tuple[int, int],
    focal: float,
    strides: tuple[int, ...],
) -> list[tuple[int, int]]:
    """Key points of all frames and matches of the pairs that share tracks; returns those pairs."""
    height, width = size
    camera = pycolmap.Camera(
        model="SIMPLE_PINHOLE", width=width, height=height, params=[focal, width / 2, height / 2], camera_id=1
    )
    # With a prior the pairs are solved as calibrated ones (essential matrices), whose poses are stable at low parallax.
    camera.has_prior_focal_length = True
    index = np.full((len(names), seen.num_points), -1)
    database = pycolmap.Database.open(path)
    try:
        database.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)
        for t, name in enumerate(names):
            image = pycolmap.Image(name=name, camera_id=1, image_id=t + 1)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=t + 1, rig_id=1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            here = np.flatnonzero(seen.frame == t)
            database.write_keypoints(t + 1, seen.xy[here].astype(np.float32))
            index[t, seen.point[here]] = np.arange(len(here))
        pairs = []
        for a, b in ((t, t + s) for t in range(len(names)) for s in strides if t + s < len(names)):
            common = (index[a] >= 0) & (index[b] >= 0)
            if common.sum() >= MIN_COMMON_POINTS:
                matches = np.stack([index[a, common], index[b, common]], 1).astype(np.uint32)
                database.write_matches(a + 1, b + 1, matches)
                pairs.append((a, b))
    finally:
        database.close()
    return pairs


def _largest(models: dict, num_frames: int) -> MappedCameras:
    model = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
    if model is None or model.num_reg_images() < MIN_REGISTERED_FRAMES:
        raise GlobalMappingError("fewer than three frames could be registered")
    w2c = np.broadcast_to(np.eye(4), (num_frames, 4, 4)).copy()
    registered = np.zeros(num_frames, bool)
    for image in model.images.values():
        if image.has_pose:
            w2c[image.image_id - 1, :3] = image.cam_from_world().matrix()
            registered[image.image_id - 1] = True
    if not np.isfinite(w2c).all():
        raise GlobalMappingError("the poses are not finite")
    return MappedCameras(w2c, registered, float(next(iter(model.cameras.values())).params[0]))


@contextmanager
def _quiet(pycolmap) -> Iterator[None]:
    """Without pycolmap's log on stderr, short of errors."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR.value)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
