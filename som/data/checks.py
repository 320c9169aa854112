"""All problems of a data set at once, each in one sentence: file, what was expected, what was found, the remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import torch

from som.data.dataset import GroundTruthTracks, Tracks, VideoDataset
from som.data.recording import FrameRecord, Recording
from som.errors import UserError

T = TypeVar("T")
MAX_LISTED = 30
NOUNS = {"train": "training", "val": "held-out"}
"""How messages call the views of a split."""
REMEDIES = {
    "moving": "mask the moving objects in every frame",
    "covisible": "give it for every held-out view or for none",
}
"""Maps that all frames of a split have or none, and what to do otherwise."""


class DatasetError(UserError):
    """A data set cannot be used. ``problems`` lists every reason; ``str()`` is the readable report."""

    def __init__(self, name: str, problems: list[str]):
        self.problems = list(problems)
        noun = "problem" if len(problems) == 1 else "problems"
        lines = [f"data set {name}: {len(problems)} {noun}"]
        lines += [f"  - {problem}" for problem in problems[:MAX_LISTED]]
        if len(problems) > MAX_LISTED:
            lines.append(f"  ... and {len(problems) - MAX_LISTED} more")
        super().__init__("\n".join(lines))


class Problems:
    """Collects problems while a data set is read; a reader goes on as long as it can and raises once."""

    def __init__(self, name: str | Path):
        self.name = str(name)
        self.found: list[str] = []

    def add(self, where: str | Path, what: str) -> None:
        """Records one problem: ``where`` is the file or part of the data set, ``what`` a sentence with the remedy."""
        self._record(f"{where}: {what}")

    def attempt(self, read: Callable[..., T], *args) -> T | None:
        """``read(*args)``, or None after recording what it says is wrong."""
        try:
            return read(*args)
        except UserError as error:
            for problem in error.problems if isinstance(error, DatasetError) else [str(error)]:
                self._record(problem)
        return None

    def _record(self, problem: str) -> None:
        if problem not in self.found:
            self.found.append(problem)

    def raise_if_any(self) -> None:
        """Raises:
        DatasetError: if any problem was recorded.
        """
        if self.found:
            self.give_up()

    def give_up(self) -> NoReturn:
        """For readers that cannot go on.

        Raises:
            DatasetError: with what was recorded.
        """
        raise DatasetError(self.name, self.found)


def check_recording(recording: Recording, problems: Problems) -> None:
    """Adds what is wrong with a recording's description: names, times, cameras, masks that some frames lack.

    Files are not opened, and nothing is said about what a recording lacks altogether.
    """
    distorted = [frame for frame in recording.frames if frame.is_distorted]
    if distorted:
        problems.add(
            distorted[0].where,
            f"the camera of this and {len(distorted) - 1} other frames has lens distortion ({distorted[0].model}), "
            "which is not supported; undistort the images first.",
        )
    for split, noun in NOUNS.items():
        frames = recording.of_split(split).frames
        for frame in frames:
            _check_frame(frame, recording, problems, f"{recording.root}, {noun} view {frame.name}")
        repeated = _repeated([frame.name for frame in frames])
        if repeated:
            problems.add(recording.root, f"{noun} views share the names {repeated}; names must be unique.")
        for kind, remedy in REMEDIES.items():
            lacking = [frame for frame in frames if getattr(frame, kind) is None]
            if 0 < len(lacking) < len(frames):
                name = "foreground" if kind == "moving" else kind
                for frame in lacking:
                    problems.add(frame.where, f"has no {name} map although other frames of its split do; {remedy}.")
    repeated = _repeated([frame.time for frame in recording.of_split("train").frames if frame.time is not None])
    if repeated:
        problems.add(
            recording.root,
            f"several training views at time {repeated}; a video has one view per time, "
            'so correct the times or mark the others "split": "val".',
        )


def _check_frame(frame: FrameRecord, recording: Recording, problems: Problems, where: str) -> None:
    if frame.w2c is not None:
        _check_pose(frame.w2c, problems, where)
    if frame.K is not None and not (np.isfinite(frame.K).all() and frame.K[0, 0] > 0 and frame.K[1, 1] > 0):
        problems.add(where, "the intrinsics must be finite with positive focal lengths; correct fl_x, fl_y, cx, cy.")
    if frame.time is not None and not 0 <= frame.time < recording.count_times():
        problems.add(
            where,
            f"time {frame.time} lies outside [0, {recording.count_times()}); correct its time or num_times.",
        )


def _check_pose(w2c: np.ndarray, problems: Problems, where: str) -> None:
    if not np.isfinite(w2c).all():
        problems.add(where, "the pose holds NaN or infinite numbers; drop the frame or estimate its pose again.")
        return
    R = w2c[:3, :3]
    rigid = np.abs(R @ R.T - np.eye(3)).max() < 1e-3 and np.linalg.det(R) > 0
    if not rigid or np.abs(w2c[3] - [0, 0, 0, 1]).max() > 1e-6:
        problems.add(
            where,
            "the pose is not rigid (rotation R with R R^T = 1 and det 1, last row 0 0 0 1 expected); "
            "remove scale or mirroring from it.",
        )


def _repeated(values: list) -> str:
    """What occurs more than once, separated by commas; empty if nothing does."""
    return ", ".join(str(value) for value, count in sorted(Counter(values).items()) if count > 1)


def check_dataset(dataset: VideoDataset, problems: Problems, root: str | Path = "") -> None:
    """Adds what makes a data set unusable beyond its recording's description: numbers of views, depth, tracks.

    An all-False foreground is allowed: such a scene is purely static (``source["notes"]`` says so).
    """
    where, train = Path(root) if root else Path(dataset.name), dataset.train
    if len(train) == 0:
        problems.add(where, "no training view; add images, or set split to train for some frames.")
    elif len(train) == 1:
        problems.add(where, "only one training view; a moving scene needs at least two times.")
    moving = train.foreground is not None and bool(train.foreground.any())
    if not dataset.has_background and not moving:
        problems.add(where, "has_background is false but no pixel is foreground; give foreground masks.")
    if dataset.tracks is not None:
        _check_tracks(dataset.tracks, dataset.num_times, moving, problems, where / "tracks.npz")
    if dataset.ground_truth_tracks is not None:
        _check_truth(dataset.ground_truth_tracks, dataset.num_times, problems, where / "ground_truth_tracks.npz")


def _check_tracks(tracks: Tracks, num_times: int, moving: bool, problems: Problems, where: Path) -> None:
    count = len(tracks.query_times)
    shapes = {"xy": (count, num_times, 2), "visible": (count, num_times), "confidence": (count, num_times)}
    remedy = "track the frames of this data set anew"
    if not _check_shapes(tracks, shapes, problems, where, remedy):
        return
    if count == 0:
        if moving:
            problems.add(where, f"holds no track although there is foreground; {remedy}.")
        return
    _check_query_times(tracks.query_times, num_times, problems, where)
    if not bool(tracks.visible.any()):
        problems.add(where, f"no track is visible at any time; {remedy}.")
    if not bool(torch.isfinite(tracks.xy[tracks.confidence > 0]).all()):
        problems.add(where, "xy holds NaN or infinite coordinates with confidence > 0; set their confidence to 0.")
    low, high = tracks.confidence.min(), tracks.confidence.max()
    if not (low >= 0 and high <= 1):
        problems.add(where, f"confidence must lie in [0, 1], found [{low:g}, {high:g}]; rescale it.")


def _check_truth(truth: GroundTruthTracks, num_times: int, problems: Problems, where: Path) -> None:
    count = len(truth.query_times)
    shapes = {
        "xyz": (count, num_times, 3),
        "xy": (count, num_times, 2),
        "visible": (count, num_times),
        "moving": (count,),
    }
    if _check_shapes(truth, shapes, problems, where, "write it for this data set") and count:
        _check_query_times(truth.query_times, num_times, problems, where)
        if not bool(torch.isfinite(truth.xyz).all()):
            problems.add(where, "xyz holds NaN or infinite coordinates; leave such tracks out.")


def _check_shapes(value: object, shapes: dict, problems: Problems, where: Path, remedy: str) -> bool:
    count = len(problems.found)
    for name, expected in shapes.items():
        found = tuple(getattr(value, name).shape)
        if found != expected:
            problems.add(where, f"{name} must have shape {expected} (Q tracks, T times), found {found}; {remedy}.")
    return len(problems.found) == count


def _check_query_times(times: torch.Tensor, num_times: int, problems: Problems, where: Path) -> None:
    if not bool(((times >= 0) & (times < num_times)).all()):
        problems.add(where, f"query_frame must lie in [0, {num_times}); they are time indices, not file numbers.")
