"""The project's data set folder (docs/data-formats.md): its description, its tracks and its flow, read and written."""

from som.data.folder.flow import open_flow, read_flow, write_flow
from som.data.folder.header import HEADER, FrameEntry, Header, read_header
from som.data.folder.tracks import read_ground_truth_tracks, read_tracks
from som.data.folder.write import encode_header, frame_entry, write_header, write_native

__all__ = [
    "HEADER",
    "FrameEntry",
    "Header",
    "encode_header",
    "frame_entry",
    "open_flow",
    "read_flow",
    "read_ground_truth_tracks",
    "read_header",
    "read_tracks",
    "write_flow",
    "write_header",
    "write_native",
]
