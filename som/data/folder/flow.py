"""The optical flow of a data set folder: flow/<source>_<target>.npz by time (docs/data-formats.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flow.compute import RECORD, open_video_flow
from flow.video_flow import VideoFlow, flow_path, read_flow_file, write_flow_file
from som.errors import UserError


def has_flow(root: Path) -> bool:
    """Whether the folder holds the flow of a whole video, with a record of how it was made."""
    return (root / "flow" / RECORD).is_file()


def open_flow(root: Path, num_times: int) -> VideoFlow:
    """The flow between all times of the video.

    Raises:
        UserError: fields are missing, or it is the flow of another number of frames.
    """
    flow = open_video_flow(root / "flow")
    if flow.num_frames != num_times:
        raise UserError(
            f"{root / 'flow'}: holds flow between {flow.num_frames} frames but the video has {num_times} times; "
            "compute it anew."
        )
    return flow


def write_flow(root: Path, source_time: int, target_time: int, flow: np.ndarray, consistent: np.ndarray) -> None:
    """Writes flow (H,W,2) in pixels and the mask (H,W) of pixels where it links the same visible surface point."""
    path = flow_path(root / "flow", source_time, target_time)
    write_flow_file(path, torch.from_numpy(flow), torch.from_numpy(consistent))


def read_flow(root: Path, source_time: int, target_time: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(H,W,2) float32 flow in pixels, and (H,W) bool where it is right; None if the file does not say.

    Raises:
        UserError: the file is missing or broken.
    """
    flow, consistent = read_flow_file(flow_path(root / "flow", source_time, target_time))
    return flow.numpy(), None if consistent is None else consistent.numpy()
