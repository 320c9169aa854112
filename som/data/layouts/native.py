"""The project's data set folder: transforms.json with images, maps, tracks and flow (docs/data-formats.md)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flow.video_flow import flow_path
from som.data.checks import Problems
from som.data.folder.flow import has_flow, open_flow, read_flow
from som.data.folder.header import FrameEntry, Header, read_header
from som.data.folder.tracks import read_ground_truth_tracks, read_tracks
from som.data.layouts.layout import Layout
from som.data.recording import FrameRecord, Recording, Size
from som.errors import UserError
from som.files import has_alpha, image_size, read_image


def read(root: Path, problems: Problems) -> Recording:
    """All frames that transforms.json describes."""
    header = read_header(root, problems)
    if header is None:
        problems.give_up()
    size = _stored_size(header)
    fields = any((root / "flow").glob("*_*.npz"))
    records = [_record(entry, header, entry.size or size, fields) for entry in header.frames]
    recording = Recording(
        name=header.name,
        layout="native",
        frames=sorted(records, key=lambda record: (record.time, record.name)),
        depth_kind=header.depth_kind,
        world_scale=header.world_scale,
        fps=header.fps,
        source=header.source,
        root=root,
        num_times=header.num_times,
        has_background=header.has_background,
    )
    for kind, reader in (("tracks", read_tracks), ("ground_truth_tracks", read_ground_truth_tracks)):
        if (root / f"{kind}.npz").exists():
            setattr(recording, kind, partial(reader, root / f"{kind}.npz"))
    if has_flow(root):
        recording.flow = partial(open_flow, root, recording.count_times())
    return recording


def _stored_size(header: Header) -> Size:
    """(height, width) of the images where transforms.json does not say: that of the first that can be read."""
    for entry in header.frames:
        try:
            return entry.size or image_size(entry.image)
        except UserError:
            continue  # reported when it is read
    return (1, 1)


def _record(entry: FrameEntry, header: Header, size: Size, fields: bool) -> FrameRecord:
    record = FrameRecord(entry.name, partial(read_image, entry.image), str(entry.image), size)
    record.split, record.time, record.timestamp = entry.split, entry.time, entry.seconds
    record.model, record.distortion = entry.model, entry.distortion
    if entry.size is not None:
        record.size_from = "its w and h say"
    if entry.w2c is not None:
        record.K, record.w2c = entry.K(size), entry.w2c
    if entry.depth is not None:
        record.set_depth(entry.depth, header.depth_unit)
    if entry.confidence is not None:
        record.set_confidence(entry.confidence)
    if entry.foreground is not None:
        record.set_mask("moving", entry.foreground)
    if entry.covisible is not None:
        record.set_mask("covisible", entry.covisible)
    set_valid(record, entry.image, entry.valid)
    if entry.split == "train" and fields:
        record.flow = partial(_flow, header.root, entry.time)
    return record


def set_valid(record: FrameRecord, image: Path, mask: Path | None = None) -> None:
    """Makes the pixels that are opaque and inside the mask the usable ones."""
    if mask is not None:
        record.set_mask("valid", mask)
    if has_alpha(image):
        record.valid = partial(_opaque, image, record.valid)


def _opaque(image: Path, inside) -> np.ndarray | None:
    opaque, mask = read_image(image, alpha=True)[..., 3] > 127, None if inside is None else inside()
    if mask is None:
        return opaque
    if opaque.shape != mask.shape:
        raise UserError(f"{image}: this image has another size than its mask; write both at one size.")
    return opaque & mask


def _flow(root: Path, source: int, target: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    return read_flow(root, source, target) if flow_path(root / "flow", source, target).is_file() else None


LAYOUT = Layout("native", "native", "transforms.json", lambda root: (root / "transforms.json").is_file(), read)
