"""All problems of a data set at once, each in one sentence: file, what was expected, what was found, the remedy."""

from __future__ import annotations

from pathlib import Path

import torch

from som.data.dataset import GroundTruthTracks, Tracks, VideoDataset, Views
from som.errors import UserError

MAX_LISTED = 30


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
        self.found.append(f"{where}: {what}")

    def raise_if_any(self) -> None:
        """Raises:
        DatasetError: if any problem was recorded.
        """
        if self.found:
            raise DatasetError(self.name, self.found)


def check_dataset(dataset: VideoDataset, problems: Problems, root: str | Path = "") -> None:
    """Adds everything that makes ``dataset`` unusable to ``problems``; says nothing about matters of quality.

    An all-False foreground is allowed: such a scene is purely static (``source["notes"]`` says so).
    """
    where = Path(root) if root else Path(dataset.name)
    _check_views(dataset.train, dataset, problems, where, "training")
    if dataset.val is not None:
        _check_views(dataset.val, dataset, problems, where, "held-out")
    _check_times(dataset, problems, where)
    moving = dataset.train.foreground is not None and bool(dataset.train.foreground.any())
    if not dataset.has_background and not moving:
        problems.add(where, "has_background is false but no pixel is foreground; give foreground masks.")
    if dataset.tracks is not None:
        _check_tracks(dataset.tracks, dataset.num_times, moving, problems, where / "tracks.npz")
    if dataset.ground_truth_tracks is not None:
        _check_truth(dataset.ground_truth_tracks, dataset.num_times, problems, where / "ground_truth_tracks.npz")


def check_camera(w2c: torch.Tensor, K: torch.Tensor, problems: Problems, where: str | Path) -> bool:
    """Whether one camera (4x4 pose, 3x3 intrinsics) is usable; otherwise adds why not."""
    count = len(problems.found)
    if not bool(torch.isfinite(w2c).all()):
        problems.add(where, "the pose holds NaN or infinite numbers; drop the frame or estimate its pose again.")
    else:
        R = w2c[:3, :3].double()
        bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
        rigid = (R @ R.T - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-3 and torch.linalg.det(R) > 0
        if not rigid or (w2c[3].double() - bottom).abs().max() > 1e-6:
            problems.add(
                where,
                "the pose is not rigid (rotation R with R R^T = 1 and det 1, last row 0 0 0 1 expected); "
                "remove scale or mirroring from it.",
            )
    focal_ok = bool(torch.isfinite(K).all()) and K[0, 0] > 0 and K[1, 1] > 0
    if not focal_ok:
        problems.add(where, "the intrinsics must be finite with positive focal lengths; correct fl_x, fl_y, cx, cy.")
    return len(problems.found) == count


def _check_views(views: Views, dataset: VideoDataset, problems: Problems, where: Path, split: str) -> None:
    for i, name in enumerate(views.names):
        check_camera(views.w2cs[i], views.Ks[i], problems, f"{where}, {split} view {name}")
        time = int(views.times[i])
        if not 0 <= time < dataset.num_times:
            problems.add(
                f"{where}, {split} view {name}",
                f"time {time} lies outside [0, {dataset.num_times}); correct its time or num_times.",
            )
    duplicates = sorted({name for name in views.names if views.names.count(name) > 1})
    if duplicates:
        problems.add(where, f"{split} views share the names {', '.join(duplicates)}; names must be unique.")
    size = views.images.shape[1:3]
    for kind in ("valid", "foreground", "depths", "depth_confidence", "covisible"):
        value = getattr(views, kind)
        if value is not None and value.shape[1:] != size:
            found, wanted = (f"{s[1]}x{s[0]}" for s in (value.shape[1:], size))
            problems.add(where, f"{split} {kind} are {found} but the images are {wanted}; write them at that size.")
    if views.depths is not None and not bool(torch.isfinite(views.depths).all() and (views.depths >= 0).all()):
        problems.add(where, f"{split} depth holds NaN, infinite or negative values; write 0 where it is unknown.")


def _check_times(dataset: VideoDataset, problems: Problems, where: Path) -> None:
    times = dataset.train.times.tolist()
    repeated = sorted({t for t in times if times.count(t) > 1})
    if repeated:
        problems.add(
            where,
            f"several training views at time {', '.join(map(str, repeated))}; a video has one view per time, "
            'so correct the times or mark the others "split": "val".',
        )
    if len(times) == 0:
        problems.add(where, "no training view; add images, or set split to train for some frames.")
    elif len(set(times)) == 1 and not repeated:
        problems.add(where, "only one training view; a moving scene needs at least two times.")


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
