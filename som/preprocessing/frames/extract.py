"""From a video file or a folder of images to ``images/00000.png``, ``00001.png``, ... of a data set folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from som.errors import UserError
from som.files import Scan, read_image, reduced_size, write_image, write_text
from som.preprocessing.frames import inspection
from som.preprocessing.frames.images import IMAGE_SUFFIXES
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.frames.options import FrameOptions
from som.preprocessing.frames.recordings import Images, Progress, Video, open_recording
from som.preprocessing.frames.selection import Selection, select_frames

RECORD = "frames.json"
"""Written beside the images: what they were taken from, and how."""
RECORD_FORMAT = 2
READABLE_FORMATS = (1, 2)
"""1 knew nothing of the frames' place in the recording: such a record is made anew, its images are kept."""
MIN_SIDE_PX = 16


@dataclass
class FrameSet:
    """The images of a data set folder, in the order of time."""

    folder: Path
    names: list[str]
    """File names without ending, one for each frame."""
    size: tuple[int, int]
    """(height, width) of every image."""
    fps: float
    """Frames a second of the recording's time, of what was kept."""
    seconds: list[float]
    """Time of each frame in the recording."""
    num_source_frames: int
    """Frames that the chosen part of the recording has."""
    source_indices: list[int]
    """Index of each frame among these."""
    original_names: list[str] | None
    """File name of each frame in the folder that is the recording; None for a video."""
    recording_names: list[str] | None
    """File names of all images of that folder; None for a video."""
    findings: dict
    """Plain numbers, texts and lists, for the report."""
    warnings: list[str]
    """One sentence each, with what to do."""
    reused: bool = False
    """Whether all images lay in the folder already."""

    @property
    def naming(self) -> FrameNames:
        """By which files of other programs are matched to the frames."""
        return FrameNames(
            self.names, self.original_names, self.recording_names, self.source_indices, self.num_source_frames
        )

    @property
    def paths(self) -> list[Path]:
        return [self.folder / f"{name}.png" for name in self.names]

    def read(self) -> np.ndarray:
        """(T,H,W,3) uint8 RGB."""
        return np.stack([read_image(path) for path in self.paths])


def extract_frames(source: Path, folder: Path, options: FrameOptions, progress: Progress | None = None) -> FrameSet:
    """Writes the frames of a recording as png files.

    Videos are turned upright, brought to square pixels, a constant rate and 8-bit RGB; frames that repeat the one
    before are left out. Each file is written whole or not at all, and a call after an interruption writes what is
    missing; the outcome is the same.

    Args:
        source: a video that ffmpeg reads, or a folder of images.
        folder: where the images go; created. Images of another recording or other options that an earlier call
            wrote there are replaced.
        options: which frames, at which size.
        progress: called with what is being done and the share of it that is done.

    Raises:
        UserError: the source cannot be used, in one sentence that says why; or the folder cannot be written or holds
            images of another origin.
    """
    source, folder = Path(source), Path(folder)
    report = progress or (lambda text, share: None)
    check_options(options)
    if source.is_dir() and folder.is_dir() and source.resolve() == folder.resolve():
        raise UserError(f"{source}: is the folder that the frames are written to; choose another output folder.")
    recording = open_recording(source, options)
    made_from = {"format": RECORD_FORMAT, "source": recording.fingerprint(), "options": asdict(options)}
    try:
        if (found := _finished(folder, made_from)) is not None:
            return found
        frames = _write_frames(recording, folder, options, made_from, report)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot be written ({reason}); free it or choose another output folder.") from error
    return frames


def _write_frames(
    recording: Video | Images, folder: Path, options: FrameOptions, made_from: dict, report: Progress
) -> FrameSet:
    scan = recording.scan(report)
    chosen = _choose(recording, scan, options)
    size = reduced_size(scan.size, options.max_side)
    _claim_folder(folder, made_from)
    frames = FrameSet(
        folder=folder,
        names=[f"{i:05d}" for i in range(len(chosen.indices))],
        size=size,
        fps=chosen.fps,
        seconds=[round(float(scan.times[i]), 6) for i in chosen.indices],
        num_source_frames=len(scan.times),
        source_indices=[int(i) for i in chosen.indices],
        original_names=None if recording.names is None else [recording.names[i] for i in chosen.indices],
        recording_names=recording.all_names,
        findings=chosen.findings,
        warnings=chosen.warnings,
    )
    path_of = dict(zip(chosen.indices, frames.paths, strict=True))
    missing = [index for index, path in path_of.items() if not path.is_file()]
    sharpness = {i: inspection.sharpness(read_image(p)) for i, p in path_of.items() if p.is_file()}
    decoded = recording.decode(missing, size) if missing else iter(())
    for count, (index, image) in enumerate(decoded):
        report("writing images", count / len(missing))
        write_image(path_of[index], image)
        sharpness[index] = inspection.sharpness(image)
    _note_quality(frames, scan, chosen, [sharpness[i] for i in chosen.indices])
    kept = {name: value for name, value in vars(frames).items() if name not in ("folder", "reused")}
    write_text(folder / RECORD, json.dumps({**made_from, "frames": kept}, indent=1) + "\n")
    report("writing images", 1.0)
    return frames


def _choose(recording: Video | Images, scan: Scan, options: FrameOptions) -> Selection:
    """The frames to write; refuses recordings that cannot become a scene."""
    findings: dict[str, Any] = {}
    warnings: list[str] = []
    recording.check(scan, findings, warnings)
    if len(scan.times) > 1 and inspection.is_still(scan.thumbnails):
        raise UserError(
            f"{recording.path}: nothing moves, all {len(scan.times)} frames show the same picture; "
            "give a recording in which the camera or something else moves."
        )
    repeats = inspection.find_repeats(scan.thumbnails)
    pauses = inspection.find_pauses(repeats)
    if pauses.any():
        moments = scan.times[pauses]
        warnings.append(
            f"the picture stands still for {int(pauses.sum())} frames (the first at {moments[0]:.2f} s); "
            "choose a part in which it moves with `frames.start` and `frames.end`, or `frames.fps` to use fewer."
        )
    chosen = select_frames(scan.times, repeats & ~pauses, options, str(recording.path))
    if min(reduced_size(scan.size, options.max_side)) < MIN_SIDE_PX:
        raise UserError(
            f"{recording.path}: frames of {scan.size[1]}x{scan.size[0]} with `frames.max_side` {options.max_side} "
            f"would be less than {MIN_SIDE_PX} pixels wide or high; give a larger recording or a larger side."
        )
    last = float(scan.times[chosen.indices[-1]])
    if options.end is not None and options.end > last + 2 / chosen.fps + 0.1:
        warnings.append(f"`frames.end` {options.end:g}: lies beyond the end of the recording, at {last:.2f} s.")
    chosen.findings |= findings
    chosen.warnings = warnings + chosen.warnings
    return chosen


def _note_quality(frames: FrameSet, scan: Scan, chosen: Selection, sharpness: list[float]) -> None:
    """Adds what the frames look like to the findings: size, time, cuts, blur."""
    blurred = [
        name for name, bad in zip(frames.names, inspection.find_blurred(np.array(sharpness)), strict=True) if bad
    ]
    cuts = [frames.names[i] for i in inspection.find_cuts(scan.thumbnails[chosen.indices])]
    frames.findings |= {
        "source_size": list(scan.size),
        "frames": len(frames.names),
        "first_second": frames.seconds[0],
        "last_second": frames.seconds[-1],
        "fps": frames.fps,
        "cuts": cuts,
        "blurred": blurred,
        "sharpness": [round(value, 2) for value in sharpness],
    }
    if cuts:
        moments = ", ".join(f"{frames.seconds[int(name)]:.2f}" for name in cuts[:5])
        frames.warnings.append(
            f"the picture changes at once at {moments} s, probably a cut; choose one shot with `frames.start` and "
            "`frames.end`."
        )
    if len(blurred) > 0.1 * len(frames.names):
        frames.warnings.append(
            f"{len(blurred)} of {len(frames.names)} frames are much more blurred than their neighbours (the first: "
            f"{blurred[0]}); they are kept, expect soft pictures there."
        )


def check_options(options: FrameOptions) -> None:
    """Refuses values that no recording goes with.

    Raises:
        UserError: names the option, what it must be and what it is.
    """
    positive = {"fps": options.fps, "image_fps": options.image_fps, "every": options.every}
    positive |= {"max_frames": options.max_frames, "max_side": options.max_side}
    for name, value in positive.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise UserError(f"`frames.{name}` {value}: must be positive.")
    if not (np.isfinite(options.start) and options.start >= 0):
        raise UserError(f"`frames.start` {options.start}: must be a second of the recording, 0 or more.")
    if options.end is not None and not options.end > options.start:
        raise UserError(f"`frames.end` {options.end:g}: must lie after `frames.start` {options.start:g}.")


def _finished(folder: Path, made_from: dict) -> FrameSet | None:
    """The frames that an earlier call with the same source and options has written, if all are there."""
    record = _read_record(folder)
    if record is None or record["format"] != RECORD_FORMAT or not record.get("frames"):
        return None
    if not _same_origin(record, made_from):
        return None
    kept = record["frames"]
    frames = FrameSet(folder, **{**kept, "size": tuple(kept["size"])}, reused=True)
    return frames if all(path.is_file() for path in frames.paths) else None


def _claim_folder(folder: Path, made_from: dict) -> None:
    """Makes the folder one of this recording, by removing images that were made in any other way."""
    folder.mkdir(parents=True, exist_ok=True)
    record = _read_record(folder)
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if record is None and images:
        raise UserError(
            f"{folder}: holds images of another origin (no {RECORD}), for example {min(images).name}; "
            "choose another output folder or move them away."
        )
    if record is not None and not _same_origin(record, made_from):
        # The old record goes last, so that an interruption here leaves no image under a wrong one.
        for path in images:
            path.unlink()
    for path in folder.glob(".*.png.*.tmp"):
        path.unlink()
    write_text(folder / RECORD, json.dumps(made_from, indent=1) + "\n")


def _same_origin(record: dict, made_from: dict) -> bool:
    """Whether images of this record are those that the same source and options give now."""
    return all(record.get(key) == made_from[key] for key in ("source", "options"))


def _read_record(folder: Path) -> dict | None:
    """What an earlier call wrote, None where there is nothing or nothing of use."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / RECORD}: cannot be read ({error}); remove {folder} and try again.") from error
    if not isinstance(record, dict) or record.get("format") not in READABLE_FORMATS:
        raise UserError(f"{folder / RECORD}: is no record of this version; remove {folder} and try again.")
    return record
