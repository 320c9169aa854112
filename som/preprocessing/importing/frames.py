"""Which file, row or camera of another program belongs to which frame of the video."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from som.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy", ".npz", ".exr", ".pfm")
"""Endings that are no part of a frame's name."""
LISTED = 5
"""How many names a message lists."""
REMEDY = "run that program on the images/ folder of the data set, whose names and number are these"


def frame_name(path: str | Path) -> str:
    """The name of a frame: that of its file without folder and ending."""
    path = Path(path)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def natural_order(names: Sequence[str]) -> list[int]:
    """Indices that sort names so that frame_2 comes before frame_10."""

    def key(i: int) -> list[int | str]:
        return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", names[i])]

    return sorted(range(len(names)), key=key)


def listed(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:LISTED]) + (f", ... ({len(names)} in all)" if len(names) > LISTED else "")


def match_some(path: Path, found: Sequence[str], names: Sequence[str], what: str) -> tuple[list[int], str]:
    """Finds the frame of each of ``found``, of which some frames may have none.

    By name where every name of ``found`` is that of a frame; otherwise, if there are as many as frames, by natural
    order. So a program that numbered the same frames from 1 is not taken to be one frame late.

    Returns:
        an index into ``names`` for each of ``found``, and "name" or "order".

    Raises:
        UserError: neither is possible, or two of ``found`` have one name.
    """
    found, names = [frame_name(name) for name in found], [frame_name(name) for name in names]
    repeated = sorted({name for name in found if found.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: several {what} are called {listed(repeated)}; each frame of one video must have one.")
    index = {name: i for i, name in enumerate(names)}
    if found and all(name in index for name in found):
        return [index[name] for name in found], "name"
    if len(found) == len(names):
        return _ranks(found), "order"
    unknown = [name for name in found if name not in index]
    raise UserError(
        f"{path}: holds {len(found)} {what} for {len(names)} frames, and {listed(unknown) or 'nothing'} "
        f"is no name of a frame ({listed(names)}); {REMEDY}."
    )


def match_all(path: Path, found: Sequence[str], names: Sequence[str], what: str) -> tuple[list[int], str]:
    """Finds the one of ``found`` for every frame: by name where all frames have one, else by natural order.

    Returns:
        an index into ``found`` for each of ``names``, and "name" or "order".

    Raises:
        UserError: neither is possible; lists frames that have none.
    """
    found, names = [frame_name(name) for name in found], [frame_name(name) for name in names]
    index = {name: i for i, name in enumerate(found)}
    missing = [name for name in names if name not in index]
    if not missing and len(index) == len(found):
        return [index[name] for name in names], "name"
    if len(found) == len(names):
        return natural_order(found), "order"
    if len(missing) == len(names):
        raise UserError(
            f"{path}: holds {len(found)} {what} for {len(names)} frames, none under the name of a frame "
            f"({listed(names)}); {REMEDY}."
        )
    raise UserError(f"{path}: {len(missing)} of {len(names)} frames have no {what} ({listed(missing)}); {REMEDY}.")


def match_count(path: Path, count: int, names: Sequence[str], what: str) -> None:
    """Checks that arrays without names have one entry a frame.

    Raises:
        UserError: they have another number.
    """
    if count != len(names):
        raise UserError(f"{path}: holds {count} {what} for {len(names)} frames; {REMEDY}.")


def _ranks(found: Sequence[str]) -> list[int]:
    ranks = [0] * len(found)
    for rank, i in enumerate(natural_order(found)):
        ranks[i] = rank
    return ranks
