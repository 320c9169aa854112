"""Lists of frames of KITTI raw, such as the Eigen split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from som.data.checks import Problems
from som.data.layouts import kitti_calibration as kitti
from som.data.layouts.kitti_calibration import Truth
from som.data.layouts.layout import Layout
from som.data.recording import FrameRecord, Recording
from som.errors import UserError
from som.files import IMAGE_SUFFIXES, image_size, read_image, read_map, read_text, require_file

IMPROVED_UNIT = 1 / 256
"""Metres per step of KITTI's accumulated ground truth."""


@dataclass(frozen=True)
class SplitLine:
    """One line of a split file."""

    drive: str
    """``<date>/<drive>``, relative to the root of KITTI raw."""
    frame: int
    camera: int
    """2 for l, 3 for r."""


def read_split(path: Path) -> list[SplitLine]:
    """Lines ``<date>/<drive> <frame> <l|r>`` of a split file (the side may be left out).

    Raises:
        UserError: the file is missing or a line is something else.
    """
    lines = []
    for number, line in enumerate(read_text(path, "the split file").splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\S+)\s+(\d+)(?:\s+([lr]))?\s*", line)
        if match is None:
            raise UserError(f'{path}: line {number} must be "<date>/<drive> <frame> <l|r>", found {line!r}.')
        lines.append(SplitLine(match[1].strip("/"), int(match[2]), 3 if match[3] == "r" else 2))
    if not lines:
        raise UserError(f"{path}: the split file names no frame.")
    return lines


def read(
    path: Path,
    problems: Problems,
    *, root: str | Path | None = None, truth: Truth = "eigen", improved: str | Path | None = None
) -> Recording:
    """The frames of a split file, for scoring: neighbours in the list are not neighbours in time.

    Args:
        path: the split file.
        root: folder of KITTI raw, holding ``<date>/<drive>``.
        truth: ``eigen`` gives the ground truth of the literature, ``camera`` the geometrically exact one; see
            ``kitti.project_scan``.
        improved: folder of KITTI's accumulated ground truth, used in place of the scans; frames that it lacks are left
            out, and counted in the notes. Found as ``[<date>/|train/|val/]<drive>/proj_depth/groundtruth/image_0N``.

    Raises:
        UserError: a drive, an image, a scan or the calibration is missing.
    """
    if root is None:
        raise UserError(f"{path}: pass root, the folder of KITTI raw that holds <date>/<drive>.")
    kitti.check_options(2, truth)
    root, lines = Path(root), read_split(path)
    frames: list[FrameRecord] = []
    cameras: dict[tuple[str, int], kitti.RigCamera] = {}
    sizes: dict[tuple[str, int], tuple[int, int]] = {}
    for line in lines:
        key = (line.drive, line.camera)
        if key not in cameras:
            cameras[key] = kitti.raw_camera((root / line.drive).parent, line.camera)
        camera, image = cameras[key], _raw_image(root, line)
        truth_file = None if improved is None else _improved_file(Path(improved), line)
        if improved is not None and truth_file is None:
            continue
        if key not in sizes:
            sizes[key] = image_size(image)
        name = f"{line.drive} {line.frame:010d} {'l' if line.camera == 2 else 'r'}"
        frame = FrameRecord(name, partial(read_image, image), str(image), sizes[key], camera.K, camera.size)
        frame.time = len(frames)
        if truth_file is not None:
            frame.depth = partial(read_map, truth_file, IMPROVED_UNIT)
        elif camera.T_rect_velo is not None:
            scan = root / line.drive / "velodyne_points" / "data" / f"{line.frame:010d}.bin"
            require_file(scan, "the laser scan", "restore it, or take the frame out of the split file")
            frame.depth = partial(kitti.scan_depth, scan, camera, camera.size or sizes[key], truth)
        frames.append(frame)
    recording = Recording(path.stem, "eigen", frames, root=path)
    if len(frames) < len(lines):
        recording.notes.append(f"{len(lines) - len(frames)} of {len(lines)} frames have no improved ground truth")
    return recording


def _raw_image(root: Path, line: SplitLine) -> Path:
    folder = root / line.drive / f"image_{line.camera:02d}" / "data"
    candidates = [folder / f"{line.frame:010d}{suffix}" for suffix in IMAGE_SUFFIXES]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(f"{candidates[0]}: this image is missing (or as .jpg); download the drive {line.drive}.")
    return found


def _improved_file(folder: Path, line: SplitLine) -> Path | None:
    drive = Path(line.drive)
    parts = Path("proj_depth", "groundtruth", f"image_{line.camera:02d}", f"{line.frame:010d}.png")
    places = (folder / drive, folder / drive.name, folder / "train" / drive.name, folder / "val" / drive.name)
    return next((place / parts for place in places if (place / parts).is_file()), None)


def drives_of_split(lines: list[SplitLine]) -> dict[tuple[str, int], list[int]]:
    """Frame numbers by (drive, camera), for training on a split file.

    Open each drive as ``kitti_raw`` and pass these as the data set's targets: their neighbours in time are then found
    in the drive, whether or not they are listed.
    """
    drives: dict[tuple[str, int], list[int]] = {}
    for line in lines:
        drives.setdefault((line.drive, line.camera), []).append(line.frame)
    return drives


LAYOUT = Layout(
    "eigen",
    "list of KITTI frames",
    "a split file .txt",
    lambda path: path.is_file() and path.suffix.lower() == ".txt",
    read,
    posed=False,
)
