"""The cameras of a data set folder while it is being made, whoever found them."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from som.errors import UserError
from som.files import read_npz, write_npz
from som.preprocessing.cameras.result import CameraEstimate
from som.preprocessing.importing.cameras import ImportedCameras

ARRAYS = ("w2c", "K", "registered", "points", "sparse_frame", "sparse_xy", "sparse_depth", "sparse_sure")
MIN_PARALLAX_DEG = 0.1
"""Degrees of parallax below which a point's depth means nothing at all."""


@dataclass
class SceneCameras:
    """Cameras of T frames, and the depth of the points that they were found from."""

    w2c: Float[np.ndarray, "t 4 4"]
    """World to camera, OpenCV axes, float64."""
    K: Float[np.ndarray, "t 3 3"]
    """Pixels of the images, centres at +0.5, float64."""
    registered: Bool[np.ndarray, "t"]
    """Frames whose camera was found; the others have a guess and are not used."""
    static: bool
    """The camera stands still."""
    world_scale: Literal["metric", "arbitrary"]
    method: str
    points: Float[np.ndarray, "p 3"]
    """Triangulated static points, in the world; may be none."""
    sparse_frame: Int[np.ndarray, "m"]
    sparse_xy: Float[np.ndarray, "m 2"]
    """Pixels of the images."""
    sparse_depth: Float[np.ndarray, "m"]
    """z of the points in the frames that see them."""
    sparse_sure: Bool[np.ndarray, "m"]
    """Whether the depth is measured by enough parallax to be relied on; the others still fit the poses."""

    @staticmethod
    def from_estimate(estimate: CameraEstimate) -> SceneCameras:
        """Cameras found by the program itself."""
        depth, sure = estimate.sparse_depth(MIN_PARALLAX_DEG), estimate.sparse_depth()
        frame, row, column = np.nonzero(depth)
        return SceneCameras(
            w2c=estimate.w2c,
            K=np.broadcast_to(estimate.K, (estimate.num_frames, 3, 3)).copy(),
            registered=estimate.registered,
            static=estimate.static,
            world_scale="arbitrary",
            method=estimate.method,
            points=estimate.points,
            sparse_frame=frame,
            sparse_xy=np.stack([column, row], 1) + 0.5,
            sparse_depth=depth[frame, row, column],
            sparse_sure=depth[frame, row, column] == sure[frame, row, column],
        )

    @staticmethod
    def from_import(given: ImportedCameras) -> SceneCameras:
        """Cameras of another program."""
        seen = given.observations
        return SceneCameras(
            w2c=given.w2c,
            K=given.K,
            registered=given.registered,
            static=_stands_still(given.w2c),
            world_scale=given.world_scale,
            method=f"given by {given.source.get('program', 'another program')}",
            points=np.zeros((0, 3)) if given.points is None else given.points,
            sparse_frame=np.zeros(0, np.int64) if seen is None else seen.frame,
            sparse_xy=np.zeros((0, 2)) if seen is None else seen.xy,
            sparse_depth=np.zeros(0, np.float32) if seen is None else seen.depth.astype(np.float32),
            sparse_sure=np.ones(0 if seen is None else len(seen.frame), bool),
        )

    @staticmethod
    def without_points(
        w2c: Float[np.ndarray, "t 4 4"],
        K: Float[np.ndarray, "t 3 3"],
        *,
        registered: Bool[np.ndarray, "t"] | None = None,
        world_scale: Literal["metric", "arbitrary"] = "arbitrary",
        method: str = "",
    ) -> SceneCameras:
        """Cameras that come without triangulated points. Of frames that are not registered the pose is not used."""
        return SceneCameras(
            w2c=w2c,
            K=K,
            registered=np.ones(len(w2c), bool) if registered is None else registered,
            static=_stands_still(w2c),
            world_scale=world_scale,
            method=method,
            points=np.zeros((0, 3)),
            sparse_frame=np.zeros(0, np.int64),
            sparse_xy=np.zeros((0, 2)),
            sparse_depth=np.zeros(0, np.float32),
            sparse_sure=np.zeros(0, bool),
        )

    def sparse_maps(
        self, image_size: tuple[int, int], size: tuple[int, int], all_points: bool = False
    ) -> Float[np.ndarray, "t h w"]:
        """float32 z of the points at the pixels of images resized from ``image_size`` to ``size``, 0 elsewhere; the
        nearest point where several fall into one pixel.

        Args:
            all_points: also those whose depth is not sure.
        """
        maps = np.zeros((len(self.w2c), *size), np.float32)
        used = np.flatnonzero(self.sparse_sure | all_points)
        order = used[np.argsort(-self.sparse_depth[used], kind="stable")]
        xy = self.sparse_xy[order] * [size[1] / image_size[1], size[0] / image_size[0]]
        column, row = np.minimum(np.floor(xy).astype(int), np.array(size[::-1]) - 1).T
        maps[self.sparse_frame[order], row, column] = self.sparse_depth[order]
        return maps

    def scaled(self, factor: float, world_scale: Literal["metric", "arbitrary"]) -> SceneCameras:
        """The same cameras in a world whose lengths are ``factor`` times as large."""
        w2c = self.w2c.copy()
        w2c[:, :3, 3] *= factor
        points, depth = self.points * factor, self.sparse_depth * factor
        return replace(self, w2c=w2c, world_scale=world_scale, points=points, sparse_depth=depth)

    def save(self, path: Path) -> None:
        """Writes one .npz in one rename."""
        text = {"static": self.static, "world_scale": self.world_scale, "method": self.method}
        write_npz(path, {name: getattr(self, name) for name in ARRAYS} | {"json": np.array(json.dumps(text))})

    @staticmethod
    def load(path: Path) -> SceneCameras:
        """What ``save`` wrote.

        Raises:
            UserError: there is no such file, or something else in it.
        """
        try:
            stored = read_npz(path)
            fields: dict[str, Any] = {name: stored[name] for name in ARRAYS} | json.loads(str(stored["json"]))
            return SceneCameras(**fields)
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: cannot be read ({error}); run again with `redo` cameras.") from None


def _stands_still(w2c: Float[np.ndarray, "t 4 4"]) -> bool:
    return bool(np.abs(w2c - w2c[:1]).max() < 1e-9)
