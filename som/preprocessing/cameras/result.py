"""What camera estimation finds: cameras, points, where they were seen, and how far to trust it."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from som.cameras.geometry import max_parallax
from som.errors import UserError
from som.files import read_npz, write_npz

MAX_ERROR_PX_480 = 1.0
"""Sparse depth is taken from observations with a reprojection error below this many pixels at a longer side of 480."""
MIN_PARALLAX_DEG = 1.0
"""Degrees between the two outermost rays to a point, below which its depth is not used."""


@dataclass
class CameraEstimate:
    """Cameras of T frames. The world is the first registered camera's frame; the median depth of the observations is 1.

    With a static camera there are no points, and depth is unknown.
    """

    w2c: Float[np.ndarray, "t 4 4"]
    """float64, OpenCV axes; of frames that are not registered, interpolated between the registered neighbours."""
    K: Float[np.ndarray, "3 3"]
    """Pixels of the images, centres at +0.5."""
    size: tuple[int, int]
    """(H,W) of the images."""
    registered: Bool[np.ndarray, "t"]
    static: bool
    points: Float[np.ndarray, "p 3"]
    """In the world."""
    obs_frame: Int[np.ndarray, "m"]
    obs_point: Int[np.ndarray, "m"]
    obs_xy: Float[np.ndarray, "m 2"]
    """Pixels of the images."""
    method: str
    """global_mapping, bundle_adjustment or static."""
    findings: dict = field(default_factory=dict)
    """Plain JSON."""
    warnings: list[str] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return len(self.w2c)

    def save(self, path: str | Path) -> None:
        """Writes everything to one .npz, in one rename."""
        text = {"size": list(self.size), "static": bool(self.static), "method": self.method}
        text |= {"findings": self.findings, "warnings": self.warnings}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        write_npz(Path(path), arrays | {"json": np.array(json.dumps(text))})

    @staticmethod
    def load(path: str | Path) -> CameraEstimate:
        """What ``save`` wrote.

        Raises:
            UserError: the file is missing or not one of ``save``'s.
        """
        try:
            arrays = read_npz(Path(path))
            values: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
            values |= json.loads(str(arrays["json"]))
            height, width = values.pop("size")
            return CameraEstimate(size=(height, width), **values)
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; preprocess the video first.") from None
        except (OSError, ValueError, EOFError, LookupError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} is not a readable camera estimate ({error}); delete it and run again.") from error

    def observation_depths(self) -> Float[np.ndarray, "m"]:
        """z of every observation in its frame, in units of the world."""
        w2c = self.w2c[self.obs_frame]
        return np.einsum("mj,mj->m", w2c[:, 2, :3], self.points[self.obs_point]) + w2c[:, 2, 3]

    def reprojection_errors(self) -> Float[np.ndarray, "m"]:
        """Distance in pixels of every observation from its point's projection."""
        w2c = self.w2c[self.obs_frame]
        y = np.einsum("mij,mj->mi", w2c[:, :3, :3], self.points[self.obs_point]) + w2c[:, :3, 3]
        uv = y @ self.K.T
        return np.linalg.norm(self.obs_xy - uv[:, :2] / np.maximum(uv[:, 2:], 1e-9), axis=1)

    def parallax_degrees(self) -> Float[np.ndarray, "p"]:
        """The widest angle between two rays to each point."""
        centers = -np.einsum("tji,tj->ti", self.w2c[:, :3, :3], self.w2c[:, :3, 3])
        return max_parallax(self.points, centers, self.obs_frame, self.obs_point)

    def sparse_depth(self, min_parallax: float = MIN_PARALLAX_DEG) -> Float[np.ndarray, "t h w"]:
        """(T,H,W) float32 z of the triangulated points at the pixels that see them, 0 elsewhere.

        Only registered frames, errors below ``MAX_ERROR_PX_480`` and points with ``min_parallax`` degrees. Where
        several fall into one pixel the nearest is kept.
        """
        H, W = self.size
        depth = np.zeros((self.num_frames, H, W), np.float32)
        z = self.observation_depths()
        column, row = (np.floor(self.obs_xy[:, i]).astype(int) for i in (0, 1))
        good = self.registered[self.obs_frame] & (z > 0)
        good &= self.reprojection_errors() < MAX_ERROR_PX_480 * max(H, W) / 480
        good &= self.parallax_degrees()[self.obs_point] >= min_parallax
        good &= (column >= 0) & (column < W) & (row >= 0) & (row < H)
        order = np.flatnonzero(good)[np.argsort(-z[good], kind="stable")]
        depth[self.obs_frame[order], row[order], column[order]] = z[order]
        return depth


_ARRAYS = ("w2c", "K", "registered", "points", "obs_frame", "obs_point", "obs_xy")
