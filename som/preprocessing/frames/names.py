"""What the frames of a clip are called, here and in the recording that they were taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FrameNames:
    """The names of T frames in the order of time, and what is known of their origin.

    ``FrameNames(names)`` is enough for frames that are the whole recording and never had other names.
    """

    names: Sequence[str]
    """Of the frames as the data set has them, without ending."""
    original_names: Sequence[str] | None = None
    """File names, with ending, that the frames had in the folder of images they were taken from; None for a video."""
    recording_names: Sequence[str] | None = None
    """File names of all images of that folder, also of those that were left out."""
    source_indices: Sequence[int] | None = None
    """Rising indices of the frames among those of the chosen part of the recording; None: they are all of these."""
    num_source_frames: int | None = None
    """How many frames that part has; None: T."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def indices(self) -> list[int]:
        """``source_indices``, known or not."""
        return list(range(len(self)) if self.source_indices is None else self.source_indices)

    @property
    def num_recorded(self) -> int:
        """``num_source_frames``, known or not."""
        return len(self) if self.num_source_frames is None else self.num_source_frames
