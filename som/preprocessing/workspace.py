"""The data set folder while it is being made: where things lie, read once when they are first needed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from flow.compute import open_video_flow
from flow.track_files import read_tracks
from flow.tracks import PointTracks
from flow.video_flow import VideoFlow
from som.data.folder import frame_entry, write_header
from som.errors import UserError
from som.files import read_mask, read_npz, write_image, write_npz
from som.preprocessing.config import PreprocessRun
from som.preprocessing.frames.extract import FrameSet
from som.preprocessing.providers.base import Clip, Lazy
from som.preprocessing.record import Record
from som.preprocessing.scene_cameras import SceneCameras
from som.runs.device import choose_device

DEPTH_OF_CAMERAS = "cameras_depth.npz"
"""Depth that came with the cameras."""


class Workspace:
    """One run on one data set folder.

    Attributes:
        run: the options.
        root: the folder.
        record: what the stages that are done have found.
        frames: the images; set by the first stage.
    """

    def __init__(self, run: PreprocessRun, record: Record):
        self.run, self.root, self.record = run, run.output, record
        self.frames: FrameSet

    @property
    def num_frames(self) -> int:
        return len(self.frames.names)

    @cached_property
    def images(self) -> UInt8[np.ndarray, "t h w 3"]:
        """All frames."""
        return self.frames.read()

    @cached_property
    def flow(self) -> VideoFlow:
        """Flow between the frames."""
        return open_video_flow(self.root / "flow")

    @cached_property
    def motion(self) -> Bool[Tensor, "t h w"] | None:
        """First guess of what moves by itself; None where nobody looked."""
        return self.read_masks("motion")

    @cached_property
    def foreground(self) -> Bool[Tensor, "t h w"] | None:
        """What moves by itself; None where nobody looked."""
        return self.read_masks("foreground")

    @cached_property
    def cameras(self) -> SceneCameras:
        """The cameras of the frames."""
        return SceneCameras.load(self.root / "cameras.npz")

    @cached_property
    def device(self) -> torch.device:
        """Where networks run."""
        return choose_device(self.run.device)

    def clip(
        self,
        *,
        moving: Lazy[Bool[Tensor, "t h w"] | None] = None,
        cameras: Lazy[SceneCameras | None] = None,
        depth: Lazy[Float[np.ndarray, "t h w"] | None] = None,
        tracks: Lazy[PointTracks | None] = None,
    ) -> Clip:
        """What a provider is given: frames, flow, and what else its stage has."""
        return Clip(
            self.frames.naming,
            self.frames.size,
            self.frames.fps,
            lambda: self.images,
            lambda: self.flow,
            moving=moving,
            cameras=cameras,
            depth=depth,
            tracks=tracks,
        )

    def forget(self, files: Iterable[str]) -> None:
        """Reads what these files and folders hold anew when it is next needed."""
        for name in files:
            self.__dict__.pop(Path(name).stem, None)

    def write_masks(self, folder: str, masks: Bool[Tensor, "t h w"]) -> None:
        """One png a frame, 255 where True, each whole or not at all."""
        for name, mask in zip(self.frames.names, masks.numpy(), strict=True):
            write_image(self.root / folder / f"{name}.png", mask)

    def read_masks(self, folder: str) -> Bool[Tensor, "t h w"] | None:
        """What ``write_masks`` wrote; None if there is no such folder.

        Raises:
            UserError: a mask is missing or broken.
        """
        if not (self.root / folder).is_dir():
            return None
        masks = []
        for name in self.frames.names:
            path = self.root / folder / f"{name}.png"
            try:
                masks.append(read_mask(path))
            except UserError as error:
                raise UserError(f"{error} To compute the masks again, run again with `redo` {folder}.") from error
            if masks[-1].shape != (self.frames.size[0], self.frames.size[1]):
                raise UserError(f"{path}: has not the size of the images; run again with `redo` {folder}.")
        return torch.from_numpy(np.stack(masks))

    def provenance(self) -> dict:
        """Where the images and every prior so far come from, for transforms.json."""
        made_by = {name: stage.method for name, stage in self.record.stages.items() if stage.state in ("done", "given")}
        return {"video": str(self.run.source), **{k: v for k, v in made_by.items() if k not in ("depth", "report")}}

    def write_header(self, cameras: SceneCameras, source: dict) -> None:
        """transforms.json of the registered frames, as yet without depth.

        Args:
            source: provenance of every prior.
        """
        frames = []
        for i, name in enumerate(self.frames.names):
            if not cameras.registered[i]:
                continue
            entry = frame_entry(name, i, self.frames.size, cameras.K[i], cameras.w2c[i])
            if self.foreground is not None:
                entry["foreground_path"] = f"foreground/{name}.png"
            frames.append(entry)
        write_header(
            self.root,
            frames,
            name=self.run.name or self.root.resolve().name,
            num_times=self.num_frames,
            fps=self.frames.fps,
            world_scale=cameras.world_scale,
            source=source,
        )

    def read_tracks(self) -> PointTracks | None:
        """The tracks; None if there are none."""
        path = self.root / "tracks.npz"
        return read_tracks(path, self.num_frames) if path.is_file() else None

    def write_depth_of_cameras(self, depth: Float[np.ndarray, "t h w"] | None) -> None:
        """Keeps depth that came with the cameras, in their unit; None removes what was kept."""
        if depth is None:
            self.remove(DEPTH_OF_CAMERAS)
        else:
            write_npz(self.root / DEPTH_OF_CAMERAS, {"depth": depth})

    def read_depth_of_cameras(self) -> Float[np.ndarray, "t h w"] | None:
        """What ``write_depth_of_cameras`` wrote; None if there is none.

        Raises:
            UserError: the file is broken.
        """
        path = self.root / DEPTH_OF_CAMERAS
        if not path.is_file():
            return None
        try:
            return read_npz(path)["depth"]
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: cannot be read ({error}); run again with `redo` cameras.") from None

    def remove(self, *names: str) -> None:
        """Removes files of an earlier run, and folders of png files, that would be taken for this one's."""
        for path in (self.root / name for name in names):
            if path.is_dir():
                for file in path.glob("*.png"):
                    file.unlink()
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
