"""Which file, row or camera of another program belongs to which frame of the video. All importers ask here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from som.errors import UserError
from som.preprocessing.frames.images import IMAGE_SUFFIXES
from som.preprocessing.frames.names import FrameNames

SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".npz", ".exr", ".pfm")
"""Endings that are no part of a frame's name."""
OUR_SUFFIX = ".png"
"""Ending of the images of a data set folder."""
MAX_LISTED = 5
"""How many names a message lists."""
REMEDY = (
    "run that program on the images/ folder of the data set, or start again with the images that it was run on as the "
    "recording"
)


MatchedBy = Literal["name", "original name", "source index", "order", "frame number"]


@dataclass(frozen=True)
class Match:
    """The entry (file, row, camera) of each of T frames."""

    entries: Sequence[int | None]
    """For each frame the index of its entry among those given; None where it has none."""
    by: MatchedBy
    """How they were matched."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that the user should read."""

    @property
    def frames(self) -> list[int]:
        """The frames that have an entry, rising."""
        return [i for i, entry in enumerate(self.entries) if entry is not None]

    @property
    def chosen(self) -> list[int]:
        """The entries of these frames."""
        return [entry for entry in self.entries if entry is not None]


def frame_name(path: str | Path) -> str:
    """The name of a frame: that of its file without folder and endings; COLMAP calls the mask of a.jpg a.jpg.png."""
    path = Path(path)
    while path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path.name


def natural_order(names: Sequence[str]) -> list[int]:
    """Indices that sort names so that frame_2 comes before frame_10."""

    def key(i: int) -> list[int | str]:
        return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", names[i])]

    return sorted(range(len(names)), key=key)


def listed(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:MAX_LISTED]) + (f", ... ({len(names)} in all)" if len(names) > MAX_LISTED else "")


def match_names(path: Path, found: Sequence[str], frames: FrameNames, what: str, *, partial: bool = False) -> Match:
    """Finds the entry of each frame by the entries' names.

    In this order: by our names or by those of the recording, among which entries of images that were left out may be;
    by place in the recording if there are as many entries as frames were recorded; by order if there are as many as
    frames. Of two readings of the names, one that leaves neither entries nor frames over goes first; then the ending of
    images decides. A reading that ignores entries goes after the place in the recording, which explains all of them. So
    a program that numbered the same frames from 1 is not taken to be one frame late.

    Args:
        path: for messages.
        found: names or paths of the entries.
        what: the entries are, for messages.
        partial: frames may be without an entry, but every entry must be known; otherwise every frame needs one, and
            further entries are ignored.

    Raises:
        UserError: nothing fits, both namings fit and mean different frames, or two entries have one name.
    """
    stems = [frame_name(name) for name in found]
    repeated = sorted(name for name, count in Counter(stems).items() if count > 1)
    if repeated:
        raise UserError(f"{path}: several {what} are called {listed(repeated)}; each frame of one video must have one.")
    ours: dict[str, int | None] = {frame_name(name): i for i, name in enumerate(frames.names)}
    readings = [_Reading.of("name", ours, stems, frames.names)]
    if frames.original_names is not None:
        recorded = _originals(frames.original_names, frames.recording_names or frames.original_names)
        readings.append(_Reading.of("original name", recorded, stems, frames.original_names))
    possible = [reading for reading in readings if reading.possible(partial)]
    whole = [reading for reading in possible if not reading.strays and not reading.missing]
    if whole:
        return whole[0].match
    if partial or len(stems) != frames.num_recorded:
        if len(possible) == 2 and possible[0].match.entries != possible[1].match.entries:
            return _by_ending(path, found, frames, possible)
        if possible:
            return possible[0].match
    # Names of the recording's images that leave frames over are no reason to go by their number.
    counted = None if any(not r.strays for r in readings) else _by_count(path, len(stems), frames, what)
    if counted is None:
        raise UserError(_no_names_fit(path, stems, frames, what, readings, partial))
    order = natural_order(stems)
    warnings = counted.warnings or [
        f"{path}: its names are not those of the frames; {what} are matched by their order."
    ]
    return Match([order[place] for place in counted.chosen], counted.by, warnings)


def match_count(path: Path, count: int, frames: FrameNames, what: str) -> Match:
    """Finds the entry of each frame among ``count`` entries without names, in the order of time: one for each frame, or
    one for each frame of the recording.

    Raises:
        UserError: they have another number.
    """
    counted = _by_count(path, count, frames, what)
    if counted is None:
        raise UserError(f"{path}: holds {count} {what} for {_frames(frames)}; {REMEDY}.")
    return counted


def match_stamps(path: Path, stamps: Sequence[float], frames: FrameNames, what: str) -> Match:
    """Finds the entry of each frame by rising timestamps: by their count, as ``match_count``, or where fewer are given,
    if they are frame numbers from 0, of the frames or of the recording.

    Raises:
        UserError: neither fits, or the numbers fit both and mean different frames.
    """
    counted = _by_count(path, len(stamps), frames, what)
    if counted is not None:
        return counted
    numbers, count, recorded = [int(stamp) for stamp in stamps], len(frames), frames.num_recorded
    if list(stamps) != numbers or len(set(numbers)) < len(numbers) or not 0 <= min(numbers) <= max(numbers) < recorded:
        raise UserError(
            f"{path}: holds {len(stamps)} {what} for {_frames(frames)}, and their timestamps are no frame numbers from "
            f"0 to {recorded - 1}; {REMEDY}."
        )
    entry = {number: i for i, number in enumerate(numbers)}
    said = f"{path}: its timestamps are taken for numbers of the {recorded} frames of the recording."
    matches = [Match([entry.get(i) for i in frames.indices], "source index", [said])]
    if max(numbers) < count:
        matches.insert(0, Match([entry.get(i) for i in range(count)], "frame number"))
    if len(matches) == 2 and matches[0].entries != matches[1].entries:
        raise UserError(
            f"{path}: its {len(stamps)} timestamps may be numbers of the {count} frames or of the {recorded} in the "
            f"recording; write one of the {what} for every frame."
        )
    return matches[0]


@dataclass(frozen=True)
class _Reading:
    """What the entries' names say if they are those of one naming."""

    match: Match
    strays: list[str]
    """Names that the naming does not know."""
    missing: list[int]
    """Frames without an entry."""
    names: Sequence[str]
    """What the naming calls the frames."""

    @staticmethod
    def of(by: MatchedBy, known: Mapping[str, int | None], stems: Sequence[str], names: Sequence[str]) -> _Reading:
        """``known``: frame of each name, None for names of what was left out."""
        entries: list[int | None] = [None] * len(names)
        for entry, stem in enumerate(stems):
            if (frame := known.get(stem)) is not None:
                entries[frame] = entry
        strays = [stem for stem in stems if stem not in known]
        return _Reading(Match(entries, by), strays, [i for i, entry in enumerate(entries) if entry is None], names)

    def possible(self, partial: bool) -> bool:
        return not self.strays and len(self.missing) < len(self.match.entries) if partial else not self.missing


def _originals(chosen: Sequence[str], recorded: Sequence[str]) -> dict[str, int | None]:
    """Frame of each image of the recording, None for those left out; a name that two images share is ambiguous."""
    stems = [frame_name(name) for name in recorded]
    kept = {frame_name(name): i for i, name in enumerate(chosen)}
    return {stem: kept.get(stem) for stem, count in Counter(stems).items() if count == 1}


def _by_ending(path: Path, found: Sequence[str], frames: FrameNames, readings: list[_Reading]) -> Match:
    """The reading whose images have the endings that are given; the other may be of the same names by chance."""
    ours, originals = {f"{name}{OUR_SUFFIX}" for name in frames.names}, set(frames.recording_names or ())
    files = {Path(name).name for name in found}
    if (files <= ours) != (files <= originals):
        return readings[0 if files <= ours else 1].match
    pairs = zip(readings[0].match.entries, readings[1].match.entries, strict=True)
    frame = next(i for i, (one, other) in enumerate(pairs) if one != other)
    name, original = readings[0].names[frame], readings[1].names[frame]
    raise UserError(
        f"{path}: its names may be those of the images/ folder or those of the recording, which mean different "
        f"pictures (images/{name}{OUR_SUFFIX} was {original}); start again with images of other names (IMG_0001, ...) "
        "as the recording, and run that program on these."
    )


def _by_count(path: Path, count: int, frames: FrameNames, what: str) -> Match | None:
    """One entry for every frame, or for every frame of the recording; None for any other number."""
    if count == len(frames):
        return Match(list(range(count)), "order")
    if count == frames.num_recorded:
        warning = (
            f"{path}: holds {count} {what}, as many as the recording has frames; those of the {len(frames)} frames "
            "that were kept are taken by their place in it."
        )
        return Match(frames.indices, "source index", [warning])
    return None


def _frames(frames: FrameNames) -> str:
    """How many there are, for a message."""
    rest = f" of {frames.num_recorded} in the recording" if frames.num_recorded != len(frames) else ""
    return f"{len(frames)} frames{rest}"


def _no_names_fit(
    path: Path, stems: list[str], frames: FrameNames, what: str, readings: list[_Reading], partial: bool
) -> str:
    """Why no entry is certain to be that of a frame."""
    known = listed(list(frames.names))
    if frames.original_names is not None:
        known += f"; in the recording {listed([frame_name(name) for name in frames.original_names])}"
    best = min(readings, key=lambda reading: len(reading.strays) if partial else len(reading.missing))
    if partial and best.strays:
        return (
            f"{path}: holds {len(stems)} {what} for {_frames(frames)}, and {listed(best.strays)} "
            f"is no name of a frame ({known}); {REMEDY}."
        )
    if len(best.missing) == len(frames):
        return (
            f"{path}: holds {len(stems)} {what} for {_frames(frames)}, none under the name of a frame ({known}); "
            f"{REMEDY}."
        )
    missing = listed([best.names[i] if best.match.by == "name" else frame_name(best.names[i]) for i in best.missing])
    return (
        f"{path}: {len(best.missing)} of {_frames(frames)} have no {what} ({missing}); "
        "write these too, or run that program on the images/ folder of the data set."
    )
