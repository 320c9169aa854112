"""The data set folder while it is being made: where things lie, read once when they are first needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from flow.compute import open_video_flow
from flow.video_flow import VideoFlow
from som.data.native import OPENGL_FROM_OPENCV
from som.errors import UserError
from som.files import write_bytes
from som.preprocessing.config import PreprocessRun
from som.preprocessing.frames.extract import FrameSet
from som.preprocessing.record import Record
from som.preprocessing.scene_cameras import SceneCameras


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
        self.frames: FrameSet | None = None

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

    def forget(self, *names: str) -> None:
        """Reads these anew when they are next needed."""
        for name in names:
            self.__dict__.pop(name, None)

    def write_masks(self, folder: str, masks: Bool[Tensor, "t h w"]) -> None:
        """One png a frame, 255 where True, each whole or not at all."""
        for name, mask in zip(self.frames.names, masks.numpy(), strict=True):
            _, encoded = cv2.imencode(".png", mask.astype(np.uint8) * 255)
            write_bytes(self.root / folder / f"{name}.png", encoded.tobytes())

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
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if mask is None or mask.shape != tuple(self.frames.size):
                raise UserError(f"{path}: is missing or broken; run again with --redo motion masks.")
            masks.append(mask > 127)
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
        (H, W), frames = self.frames.size, []
        masked = self.foreground is not None
        for i, name in enumerate(self.frames.names):
            if not cameras.registered[i]:
                continue
            K, c2w = cameras.K[i], np.linalg.inv(cameras.w2c[i])
            entry = {"file_path": f"images/{name}.png", "name": name, "split": "train", "time": i, "w": W, "h": H}
            entry |= {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
            entry["transform_matrix"] = (c2w @ OPENGL_FROM_OPENCV).tolist()
            if masked:
                entry["foreground_path"] = f"foreground/{name}.png"
            frames.append(entry)
        header = {
            "name": self.run.name or self.root.resolve().name,
            "camera_model": "PINHOLE",
            "time_unit": "frame",
            "num_times": self.num_frames,
            "fps": self.frames.fps,
            "world_scale": cameras.world_scale,
            "source": source,
            "frames": frames,
        }
        write_bytes(self.root / "transforms.json", (json.dumps(header, indent=1) + "\n").encode())

    def remove(self, names: Sequence[str]) -> None:
        """Removes files of an earlier run that would be taken for this one's."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)
