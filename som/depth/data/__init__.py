"""Recordings for depth learning: readers of every supported layout and the training data set."""

from som.depth.data.opening import MARKERS, READERS, open_sequence, recognise
from som.depth.data.sequence import DepthSequence, FrameRecord, Recording, target_size

__all__ = [
    "MARKERS",
    "READERS",
    "DepthSequence",
    "FrameRecord",
    "Recording",
    "open_sequence",
    "recognise",
    "target_size",
]
