"""The one decoder of videos: the ffmpeg program that imageio-ffmpeg brings.

Every decoded frame comes out once, upright, with square pixels, as 8-bit RGB; high dynamic range is mapped to that of
usual screens.
"""

from __future__ import annotations

import math
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flow.errors import UserError
from flow.io.text import require_file

FRAME = re.compile(
    r"\] n: *(?P<n>\d+) pts: *\S+ pts_time: *(?P<time>\S+) .*? sar:(?P<sar_x>\d+)/(?P<sar_y>\d+) "
    r"s:(?P<width>\d+)x(?P<height>\d+) "
)
"""A line of the filter ``showinfo``."""
DURATION = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")
CONTAINER = re.compile(r"Input #0, (\S+), from")
TRANSFER = re.compile(r"color_trc:(\S+)")
RATE = re.compile(r"Stream #0:.*: Video: .*?([\d.]+) fps")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
"""Usual endings; ffmpeg reads many more."""
HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
"""PQ and HLG, the transfer functions of high dynamic range."""
TONE_MAP = (
    "zscale=transferin={transfer}:matrixin=2020_ncl:primariesin=2020:transfer=linear:npl=100,format=gbrpf32le,"
    "zscale=primaries=bt709,tonemap=hable:desat=0,zscale=transfer=bt709:matrix=bt709:range=tv,format=yuv444p,"
)
"""Filters that bring high dynamic range to that of usual screens (Hable's curve)."""


@dataclass
class Scan:
    """What decoding a video once has shown."""

    times: np.ndarray
    """(N,) seconds of each decoded frame, counted from the beginning of the recording."""
    thumbnails: np.ndarray
    """(N,h,w) uint8 grey, reduced by area."""
    size: tuple[int, int]
    """(height, width) as shown: after rotation, with square pixels."""
    duration: float | None
    """Seconds that the file claims to last."""
    transfer: str
    """ffmpeg's name of the transfer function, ``unknown`` where the file does not say."""
    errors: list[str] = field(default_factory=list)
    """What the decoder complained about."""


@dataclass
class VideoInfo:
    """What the first frame of a video and its header say."""

    size: tuple[int, int]
    """(height, width) as shown: after rotation, with square pixels."""
    fps: float | None
    """Frames per second, the mean where the rate varies; None where the file does not say."""
    transfer: str
    """ffmpeg's name of the transfer function, ``unknown`` where the file does not say."""


def probe_video(path: str | Path) -> VideoInfo:
    """Decodes the first frame of a video.

    Raises:
        UserError: the file is missing, no video, or cannot be decoded at all.
    """
    path = require_file(path, "this video", "give a video file or a folder of images")
    command = _command(path, 0.0, None, "showinfo=checksum=0,scale=1:1,format=gray", ["-frames:v", "1"])
    with _Decoder(command, 1) as found:
        pixels = list(found.frames())
    if not pixels or found.container == "tty":
        _explain_failure(path, found, 0.0)
    return VideoInfo(_shown_size(found.matches[0]), found.fps, found.transfer)


def read_video(
    path: str | Path, info: VideoInfo, *, start: int = 0, end: int | None = None, every: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """Frames ``start:end:every`` of a video, counted as they are decoded.

    Args:
        info: what ``probe_video`` gave for this video.

    Yields:
        The index and the frame (H,W,3) uint8 RGB.
    """
    last = "" if end is None else f"*lt(n,{end})"
    chosen = f"select='gte(n,{start}){last}*not(mod(n-{start},{every}))',"
    count = None if end is None else len(range(start, end, every))
    command = _command(Path(path), 0.0, None, chosen + _to_rgb(info.size, info.transfer))
    with _Decoder(command, math.prod(info.size) * 3) as decoder:
        for number, data in enumerate(decoder.frames()):
            yield start + number * every, np.frombuffer(data, np.uint8).reshape(*info.size, 3).copy()
            if number + 1 == count:
                return


def scan_video(
    path: Path, start: float, end: float | None, side: int, progress: Callable[[float], None] | None = None
) -> Scan:
    """Decodes the part of a video between two seconds as square thumbnails of ``side`` pixels.

    Args:
        progress: called with the share that is done, where the file says how long it is.

    Raises:
        UserError: the file is no video, cannot be decoded at all, or changes its shape while it plays.
    """
    command = _command(path, start, end, f"showinfo=checksum=0,scale={side}:{side}:flags=area,format=gray")
    with _Decoder(command, side * side) as decoder:
        thumbnails = []
        for data in decoder.frames():
            thumbnails.append(np.frombuffer(data, np.uint8).reshape(side, side))
            if progress is not None and decoder.duration and len(thumbnails) % 25 == 0:
                progress(decoder.share_done(decoder.duration, start, end))
    if not thumbnails or decoder.container == "tty":  # ffmpeg draws the letters of a text file
        _explain_failure(path, decoder, start)
    times = start + _known_times([match["time"] for match in decoder.matches])
    if len(times) != len(thumbnails):
        raise UserError(f"{path}: gives {len(thumbnails)} pictures for {len(times)} times; convert it to mp4 first.")
    sizes = [_shown_size(match) for match in decoder.matches]
    _check_shape(path, sizes, times)
    return Scan(
        times=times,
        thumbnails=np.stack(thumbnails),
        size=sizes[0],
        duration=decoder.duration,
        transfer=decoder.transfer,
        errors=decoder.errors,
    )


def decode_frames(
    path: Path, start: float, end: float | None, indices: list[int], size: tuple[int, int], transfer: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of the same part of a video, by their rising indices in its scan.

    Args:
        size: (height, width) that the frames are resized to, by area.
        transfer: of the scan; high dynamic range is mapped to that of usual screens.

    Yields:
        The index and the frame (H,W,3) uint8 RGB.
    """
    first, last = indices[0], indices[-1]
    step = math.gcd(*(index - first for index in indices)) or 1
    chosen = f"select='between(n,{first},{last})*not(mod(n-{first},{step}))',"
    wanted = set(indices)
    with _Decoder(_command(path, start, end, chosen + _to_rgb(size, transfer)), math.prod(size) * 3) as decoder:
        for number, data in enumerate(decoder.frames()):
            if (index := first + number * step) in wanted:
                wanted.remove(index)
                yield index, np.frombuffer(data, np.uint8).reshape(*size, 3)
    if wanted:
        reason = decoder.errors[-1] if decoder.errors else "the decoder stopped"
        raise UserError(f"{path}: frame {min(wanted)} cannot be decoded a second time ({reason}); convert the video.")


def _to_rgb(size: tuple[int, int], transfer: str) -> str:
    """Filters that bring frames to ``size`` (height, width) and 8-bit RGB."""
    tone_map = TONE_MAP.format(transfer=transfer) if transfer in HDR_TRANSFERS else ""
    return f"{tone_map}scale={size[1]}:{size[0]}:flags=area+accurate_rnd+full_chroma_int,format=rgb24"


def _command(path: Path, start: float, end: float | None, filters: str, more: Sequence[str] = ()) -> list[str]:
    """Reads the first video stream that is no cover picture; every decoded frame comes out once."""
    import imageio_ffmpeg  # when it is needed, so that importing this module is cheap

    part = [*(["-ss", f"{start:.6f}"] if start > 0 else []), *(["-to", f"{end:.6f}"] if end is not None else [])]
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"]
    source = [*part, "-i", f"file:{path}", "-map", "0:V:0", "-fps_mode", "passthrough"]
    return [*program, *source, *more, "-vf", filters, "-f", "rawvideo", "pipe:1"]


class _Decoder:
    """Runs ffmpeg; its messages are read beside its frames, so that neither fills up and stops it."""

    def __init__(self, command: list[str], num_bytes: int):
        self.command, self.num_bytes = command, num_bytes
        self.matches: list[re.Match] = []
        self.errors: list[str] = []
        self.duration: float | None = None
        self.fps: float | None = None
        self.transfer = "unknown"
        self.container = ""

    def __enter__(self) -> _Decoder:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stderr is not None  # both are pipes
        self.stdout, self.stderr = self.process.stdout, self.process.stderr
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        return self

    def __exit__(self, *exception) -> None:
        if self.process.poll() is None:
            self.stdout.close()
            self.process.terminate()
        self.process.wait()
        self.listener.join()
        self.stderr.close()

    def frames(self) -> Iterator[bytes]:
        """The bytes of one frame after the other."""
        while len(data := self.stdout.read(self.num_bytes)) == self.num_bytes:
            yield data
        self.stdout.close()
        self.process.wait()
        self.listener.join()

    def share_done(self, duration: float, start: float, end: float | None) -> float:
        """Of the time from ``start`` to ``end``, in a file of this duration."""
        seconds = [float(match["time"]) for match in self.matches[-1:] if match["time"] != "NOPTS"]
        whole = min(duration, end or duration) - start
        return min(sum(seconds) / whole, 1.0) if whole > 0 else 1.0

    def _listen(self) -> None:
        for line in self.stderr:
            text = line.decode("utf-8", "replace").rstrip()
            if match := FRAME.search(text):
                self.matches.append(match)
            elif (match := TRANSFER.search(text)) and self.transfer == "unknown":
                self.transfer = match[1]
            elif self.fps is None and "attached pic" not in text and (match := RATE.search(text)):
                self.fps = _exact_rate(float(match[1]))
            elif match := CONTAINER.search(text):
                self.container = match[1]
            elif (match := DURATION.search(text)) and self.duration is None:
                self.duration = 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
            elif ("[error]" in text or "[fatal]" in text) and "muxer" not in text:
                self.errors.append(text.split("] ")[-1])


def _explain_failure(path: Path, decoder: _Decoder, start: float) -> None:
    """Raises the reason why a video gave no frame."""
    if decoder.container == "tty" or any("matches no streams" in line for line in decoder.errors):
        raise UserError(f"{path}: holds no video (only sound, text or the like); give a file with moving pictures.")
    if decoder.duration is not None and start >= decoder.duration > 0:
        raise UserError(
            f"{path}: the second {start:g} lies beyond the end of this video, which lasts {decoder.duration:.2f} s; "
            "choose an earlier start."
        )
    reason = f" ({decoder.errors[0]})" if decoder.errors else ""
    raise UserError(
        f"{path}: no frame can be decoded{reason}; the file is damaged, incomplete or no video: "
        "copy or download it again."
    )


def _check_shape(path: Path, sizes: list[tuple[int, int]], times: np.ndarray) -> None:
    """Raises:
    UserError: the ratio of width to height changes.
    """
    ratios = np.array([width / height for height, width in sizes])
    other = np.flatnonzero(np.abs(ratios / ratios[0] - 1) > 0.02)
    if len(other):
        (h0, w0), (h, w) = sizes[0], sizes[other[0]]
        raise UserError(
            f"{path}: changes from {w0}x{h0} to {w}x{h} at {times[other[0]]:.2f} s; choose a part of one shape by its "
            "start and end."
        )


def _known_times(texts: list[str]) -> np.ndarray:
    """Seconds from their texts; a frame without one follows the frame before at the usual distance."""
    times = np.array([float("nan") if text == "NOPTS" else float(text) for text in texts])
    steps = np.diff(times[np.isfinite(times)])
    step = float(np.median(steps)) if len(steps) else 0.04
    for i in np.flatnonzero(~np.isfinite(times)):
        times[i] = times[i - 1] + step if i else 0.0
    return times


def _exact_rate(fps: float) -> float | None:
    """Frames per second from ffmpeg's two decimals: 29.97 is 30000/1001."""
    broadcast = round(fps) * 1000 / 1001
    return broadcast if abs(fps - broadcast) < 0.006 else fps or None


def _shown_size(match: re.Match) -> tuple[int, int]:
    """(height, width) of a line of ``showinfo``, with square pixels."""
    return _square_pixels(*(int(match[k]) for k in ("height", "width", "sar_x", "sar_y")))


def _square_pixels(height: int, width: int, sar_x: int, sar_y: int) -> tuple[int, int]:
    """The size with square pixels: the short side of a pixel is stretched, so that nothing is lost."""
    if sar_x <= 0 or sar_y <= 0 or sar_x == sar_y:
        return height, width
    if sar_x > sar_y:
        return height, round(width * sar_x / sar_y)
    return round(height * sar_y / sar_x), width
