"""The two kinds of recordings, a video file and a folder of images, behind the same three calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flow.progress import Progress
from som.errors import UserError
from som.files import HDR_TRANSFERS, Scan, decode_frames, scan_video
from som.preprocessing.frames import inspection
from som.preprocessing.frames.images import (
    IMAGE_SUFFIXES,
    list_recording,
    missing_numbers,
    read_images,
    scan_images,
)
from som.preprocessing.frames.options import FrameOptions
from som.preprocessing.frames.selection import MIN_FRAMES


def open_recording(source: Path, options: FrameOptions) -> Video | Images:
    """The recording at a path.

    Raises:
        UserError: there is none.
    """
    if not source.exists():
        raise UserError(f"{source}: does not exist; give a video file or a folder of images.")
    if source.is_dir():
        return Images(source, options)
    if source.suffix.lower() in IMAGE_SUFFIXES and source.suffix.lower() != ".webp":
        raise UserError(f"{source}: is one image; give the folder of the frames, or a video file.")
    if source.stat().st_size == 0:
        raise UserError(f"{source}: is empty; copy or download it again.")
    return Video(source, options)


class Video:
    """A video file. Its frames have no names."""

    def __init__(self, path: Path, options: FrameOptions):
        self.path, self.options = path, options
        self.names = self.all_names = None

    def fingerprint(self) -> dict:
        return {"name": self.path.name, "content": _hash([self.path])}

    def scan(self, report: Progress) -> Scan:
        report("reading the video", 0.0)
        self.found = scan_video(
            self.path,
            self.options.start,
            self.options.end,
            inspection.THUMBNAIL_CELLS,
            lambda share: report("reading the video", share),
        )
        return self.found

    def decode(self, indices: list[int], size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
        return decode_frames(self.path, self.options.start, self.options.end, indices, size, self.found.transfer)

    def check(self, scan: Scan, findings: dict, warnings: list[str]) -> None:
        """Says how much of a damaged file there is; refuses what is too little."""
        findings |= {"kind": "video", "decoding_errors": len(scan.errors), "hdr": scan.transfer in HDR_TRANSFERS}
        count, first, last = len(scan.times), float(scan.times[0]), float(scan.times[-1])
        step = (last - first) / max(count - 1, 1)
        wanted = min(scan.duration or 0.0, self.options.end or np.inf)
        incomplete = last + step < wanted - max(3 * step, 0.2) and scan.errors
        if incomplete and count < MIN_FRAMES:
            raise UserError(
                f"{self.path}: is incomplete, only {count} frames ({last + step:.2f} of {scan.duration:.2f} s) can be "
                f"decoded and at least {MIN_FRAMES} are needed; copy or download it again."
            )
        if incomplete:
            warnings.append(
                f"{self.path.name} is incomplete: it should last {scan.duration:.2f} s but can be decoded up to "
                f"{last + step:.2f} s; that part is used. Copy or download it again for the rest."
            )
        elif scan.errors:
            warnings.append(
                f"{self.path.name} is damaged ({len(scan.errors)} decoding errors, the first: {scan.errors[0]}); "
                "look for torn frames, and copy or download it again."
            )


class Images:
    """A folder of images.

    Attributes:
        names: file names of the images of the chosen part.
        all_names: of all images.
    """

    def __init__(self, folder: Path, options: FrameOptions):
        self.path = folder
        paths = list_recording(folder)
        self.missing = missing_numbers(paths)
        seconds = np.arange(len(paths)) / options.image_fps
        end = np.inf if options.end is None else options.end
        inside = np.flatnonzero((seconds >= options.start - 1e-9) & (seconds < end - 1e-9))
        if len(inside) == 0:
            raise UserError(
                f"`frames.start` {options.start:g}: lies beyond the end of {folder}, whose {len(paths)} images last "
                f"{len(paths) / options.image_fps:.2f} s at `frames.image_fps` {options.image_fps:g}."
            )
        self.paths, self.seconds = [paths[i] for i in inside], seconds[inside]
        self.names, self.all_names = [path.name for path in self.paths], [path.name for path in paths]

    def fingerprint(self) -> dict:
        return {"name": self.path.name, "content": _hash(self.paths)}

    def scan(self, report: Progress) -> Scan:
        thumbnails, size = scan_images(
            self.paths, inspection.thumbnail, lambda share: report("reading the images", share)
        )
        return Scan(self.seconds, thumbnails, size, None, "unknown")

    def decode(self, indices: list[int], size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
        return read_images(self.paths, indices, size)

    def check(self, scan: Scan, findings: dict, warnings: list[str]) -> None:
        findings |= {"kind": "images", "missing_numbers": self.missing}
        if self.missing:
            some = ", ".join(map(str, self.missing[:5])) + (", ..." if len(self.missing) > 5 else "")
            warnings.append(
                f"{self.path.name} skips {len(self.missing)} numbers ({some}): things jump there; "
                "restore these images if you have them."
            )


def _hash(paths: list[Path]) -> str:
    """Of names and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
