"""Chooses frames of a recording from their times: constant rate, no repeats, no more than asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from som.errors import UserError
from som.preprocessing.frames.options import FrameOptions

MIN_FRAMES = 8
"""Fewer frames cannot show how anything moves."""
MAX_STEP_RATIO = 1.5
"""Ratio of long to short time steps above which the rate of a recording is called variable."""


@dataclass
class Selection:
    """The frames that are kept."""

    indices: list[int]
    """Rising indices into the recording's decoded frames."""
    fps: float
    """Rate of the kept frames."""
    findings: dict = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def select_frames(times: np.ndarray, repeats: np.ndarray, options: FrameOptions, name: str) -> Selection:
    """The frames to keep.

    Args:
        times: (N,) seconds, rising.
        repeats: (N,) bool: the frame repeats the one before.
        name: of the recording, for messages.

    Raises:
        UserError: fewer than 8 frames remain.
    """
    chosen = Selection(list(range(len(times))), 1.0)
    if repeats.any() and not options.keep_repeats:
        chosen.indices = np.flatnonzero(~repeats).tolist()
        chosen.warnings.append(
            f"{int(repeats.sum())} of {len(times)} frames repeat the one before and were left out; "
            "`frames.keep_repeats` keeps them."
        )
    chosen.findings["repeats"] = int(repeats.sum())
    _set_rate(chosen, times, options)
    _thin(chosen, options)
    if len(chosen.indices) < MIN_FRAMES:
        raise UserError(_too_few(chosen, times, repeats, options, name))
    return chosen


def _set_rate(chosen: Selection, times: np.ndarray, options: FrameOptions) -> None:
    """A constant rate: that of the recording, or a lower one that was asked for."""
    kept = times[chosen.indices]
    if len(kept) < 2 or kept[-1] <= kept[0]:
        return
    steps = np.diff(kept)
    short, long = np.percentile(steps, (5, 95)).clip(1e-3)
    variable = bool(long > MAX_STEP_RATIO * short) and not chosen.findings["repeats"]
    chosen.findings["variable_rate"] = variable
    native = 1 / float(np.median(steps)) if variable else (len(kept) - 1) / float(kept[-1] - kept[0])
    chosen.fps = native
    if options.fps is not None and options.fps < 0.99 * native:
        chosen.fps = options.fps
    elif options.fps is not None and options.fps > 1.01 * native:
        chosen.warnings.append(
            f"`frames.fps` {options.fps:g} was asked for, but the recording has {native:.3g} frames a second; "
            "all of them are used."
        )
    if variable or chosen.fps < native:
        wanted = np.arange(kept[0], kept[-1] + 0.1 / chosen.fps, 1 / chosen.fps)
        chosen.indices = [chosen.indices[i] for i in np.unique(_nearest(kept, wanted))]
    if variable:
        chosen.warnings.append(
            f"the recording's rate varies between {1 / long:.3g} and {1 / short:.3g} frames a second; "
            f"frames were taken nearest to a constant {chosen.fps:.3g}, so motion may look uneven."
        )


def _nearest(kept: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index into the rising ``kept`` of the number nearest to each of ``wanted``."""
    right = np.searchsorted(kept, wanted).clip(1, len(kept) - 1)
    return np.where(wanted - kept[right - 1] <= kept[right] - wanted, right - 1, right)


def _thin(chosen: Selection, options: FrameOptions) -> None:
    """Every n-th frame: as asked, then as many as ``max_frames`` needs. Steps stay equal."""
    count = len(chosen.indices[:: options.every])
    step = options.every * -(-count // options.max_frames)
    if step > options.every:
        chosen.warnings.append(
            f"the clip has {count} frames, more than `frames.max_frames` {options.max_frames}: every "
            f"{_ordinal(step // options.every)} is kept; `frames.start` and `frames.end` choose a shorter part instead."
        )
    chosen.indices = chosen.indices[::step]
    chosen.fps /= step


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _too_few(chosen: Selection, times: np.ndarray, repeats: np.ndarray, options: FrameOptions, name: str) -> str:
    """Says how many frames there are, how many are needed, and how to get them."""
    count, available = len(chosen.indices), int((~repeats).sum())
    frames = "1 frame remains" if count == 1 else f"{count} frames remain"
    span = float(times[-1] - times[0])
    if available >= MIN_FRAMES and options.every == 1 and options.fps is not None and span > 0:
        return (
            f"{name}: {frames} at `frames.fps` {options.fps:g}, at least {MIN_FRAMES} are needed; "
            f"use `frames.fps` {np.ceil(10 * MIN_FRAMES / span) / 10:g} or more."
        )
    if available >= MIN_FRAMES:
        return (
            f"{name}: {frames} of {available}, at least {MIN_FRAMES} are needed; "
            "lower `frames.every` or raise `frames.max_frames`."
        )
    part = "" if options.start == 0 and options.end is None else " between `frames.start` and `frames.end`"
    frames = "1 frame" if available == 1 else f"{available} different frames"
    return (
        f"{name}: has {frames}{part} ({span:.2g} s), at least {MIN_FRAMES} are needed to see how things move; "
        "give a longer recording."
    )
