"""Which frames of a recording are used, and at which size. Free of torch and OpenCV, so that ``--help`` is instant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a video or folder of images are used, and at which size."""

    fps: float | None = None
    """Frames a second to keep; by default all of the recording."""
    start: float = 0.0
    """Second of the recording at which the first frame is taken."""
    end: float | None = None
    """Second of the recording at which frames stop being taken; by default its end."""
    every: int = 1
    """Keep every n-th of the frames that the other options leave."""
    max_frames: int = 300
    """From longer clips every 2nd, 3rd, ... frame is kept, so that at most this many remain."""
    max_side: int | None = None
    """Reduce the images by area so that the longer side has at most this many pixels; by default none is reduced."""
    image_fps: float = 24.0
    """Rate in frames a second at which a folder of images was recorded; a video file says so itself."""
    keep_repeats: bool = False
    """Keep frames that repeat the one before, as screen recorders and converters to another rate insert them."""
