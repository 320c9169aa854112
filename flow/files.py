"""Flow in the two files that benchmarks use: Middlebury's .flo and KITTI's 16-bit .png."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError
from flow.io.atomic import write_bytes
from flow.io.images import decode_image, encode_image

FLO_MAGIC = b"PIEH"
"""First bytes of a .flo file: the float 202021.25, little endian."""
FLO_UNKNOWN = 1e10
"""Written to .flo files where flow is unknown."""
FLO_MAX = 1e9
"""Beyond this, flow in a .flo file is unknown."""
KITTI_RANGE = (-512.0, 32767 / 64)
"""Flow in pixels that a KITTI file can hold, in steps of 1/64."""


def read_flow(path: str | Path) -> tuple[Tensor, Tensor]:
    """Flow from a .flo (Middlebury, FlyingChairs, Sintel) or a .png file (KITTI), by the name's ending.

    Returns:
        (H,W,2) float32 in pixels, channel 0 right and 1 down, 0 where unknown; and (H,W) bool, where it is known.

    Raises:
        FlowError: the file is missing, broken or of another kind.
    """
    path = Path(path)
    reader = {".flo": _read_flo, ".png": _read_kitti}.get(path.suffix.lower())
    if reader is None:
        raise FlowError(f"{path} is no flow file; .flo (Middlebury) and .png (KITTI) can be read.")
    flow, valid = reader(path)
    flow[~valid] = 0
    return torch.from_numpy(flow), torch.from_numpy(valid)


def write_flow(path: str | Path, flow: Tensor, valid: Tensor | None = None) -> None:
    """Writes a .flo file (exact) or a KITTI .png file (rounded to 1/64 px), by the name's ending.

    Args:
        flow: (H,W,2) in pixels.
        valid: (H,W) bool, where the flow is known; None where it is everywhere.

    Raises:
        FlowError: another ending, shapes that do not fit, or known flow that is not finite or that the file cannot
            hold.
    """
    path = Path(path)
    encode = {".flo": _encode_flo, ".png": _encode_kitti}.get(path.suffix.lower())
    if encode is None:
        raise FlowError(f"{path} must end in .flo (Middlebury) or .png (KITTI) to be written.")
    if flow.ndim != 3 or flow.shape[-1] != 2 or flow.numel() == 0:
        raise FlowError(f"flow must have shape (H,W,2), got {tuple(flow.shape)}.")
    if valid is None:
        valid = torch.ones(flow.shape[:2], dtype=torch.bool)
    if valid.shape != flow.shape[:2] or valid.dtype != torch.bool:
        given = f"{valid.dtype} of shape {tuple(valid.shape)}"
        raise FlowError(f"valid must be bool of shape {tuple(flow.shape[:2])}, got {given}.")
    values, known = flow.detach().cpu().numpy().astype(np.float32), valid.cpu().numpy()
    if not np.isfinite(values[known]).all():
        raise FlowError("flow must be finite where it is valid; it holds nan or inf.")
    data = encode(values, known)
    write_bytes(path, data)


def _read_flo(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FlowError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if len(data) < 12 or data[:4] != FLO_MAGIC:
        raise FlowError(f'{path} must begin with the bytes "PIEH" of a Middlebury .flo file; get it again.')
    width, height = struct.unpack("<ii", data[4:12])
    expected = 12 + 8 * width * height
    if width < 1 or height < 1 or len(data) != expected:
        raise FlowError(f"{path} claims {width}x{height} px but has {len(data)} bytes, not {expected}; get it again.")
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    # nan compares false, so it is unknown too.
    return flow, np.abs(flow).max(-1) <= FLO_MAX


def _encode_flo(flow: np.ndarray, valid: np.ndarray) -> bytes:
    if (np.abs(flow[valid]) > FLO_MAX).any():
        raise FlowError(f"a .flo file holds flow up to {FLO_MAX:g} px; larger values mean unknown.")
    height, width = valid.shape
    values = np.where(valid[..., None], flow, np.float32(FLO_UNKNOWN))
    return FLO_MAGIC + struct.pack("<ii", width, height) + values.astype("<f4").tobytes()


def _read_kitti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = decode_image(path, "this KITTI flow")
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise FlowError(f"{path} must be a 16-bit RGB image to be KITTI flow; an 8-bit picture of flow cannot be read.")
    # red is u, green v, and blue says whether they are known
    return (image[..., :2].astype(np.float32) - 32768) / 64, image[..., 2] > 0


def _encode_kitti(flow: np.ndarray, valid: np.ndarray) -> bytes:
    low, high = KITTI_RANGE
    known = flow[valid]
    if known.size and (known.min() < low or known.max() > high):
        raise FlowError(f"KITTI files hold flow from {low:g} to {high:g} px; write a .flo file instead.")
    steps = np.where(valid[..., None], np.round(flow * 64) + 32768, 0)
    return encode_image(np.concatenate([steps, valid[..., None]], -1).astype(np.uint16), ".png")
