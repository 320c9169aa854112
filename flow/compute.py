"""The flow fields of a whole video, over several distances in time, computed once and kept."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError
from flow.estimator import FlowEstimator
from flow.frames import reduce_image
from flow.io.atomic import write_text
from flow.progress import Progress
from flow.sampling import compose
from flow.video_flow import Pair, VideoFlow, flow_path, list_pairs

RECORD = "flow.json"
"""Written beside the fields: what they were computed from, and how."""
RECORD_FORMAT = 1
"""Version of the record and of what it implies about the fields."""


class ComputedFlow(VideoFlow):
    """The fields that ``compute_video_flow`` returns.

    Attributes:
        reused: how many of the wanted fields lay in the folder already.
    """

    reused: int = 0


def compute_video_flow(
    frames: Iterable[np.ndarray | Tensor],
    estimator: FlowEstimator,
    *,
    strides: Sequence[int] = (1, 2, 4, 8, 16),
    max_side: int | None = None,
    guided: bool = True,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ComputedFlow:
    """Flow from every frame to those at the given distances before and after it.

    Motion over long distances in time is beyond a direct search. With ``guided``, the search over stride s starts
    from the composition of fields of smaller strides that add up to s, the fewest that do, of the most even length:
    from twice s/2 where that is computed. A stride that smaller ones cannot make up is searched from nothing.

    With a folder, each field is on disk as soon as it is computed, and calling again continues where an interrupted
    call ended; the outcome is the same. Fields made from other frames, by another estimator or with other settings
    are removed first and never mixed in. Further strides may be added to a folder later.

    Args:
        frames: T >= 2 frames (H,W,3) uint8 RGB of equal size; an array (T,H,W,3), or anything that yields frames, which
            are read once, in order, and kept at the reduced size.
        estimator: estimates each field.
        strides: distances in frames, >= 1; those of T or more have no pairs.
        max_side: the fields' longer side is at most this many pixels (the frames are reduced by averaging areas);
            None keeps the frames' size.
        guided: whether long strides start from the shorter ones.
        folder: where the fields are kept; None keeps them in memory, at 4 bytes a pixel.
        workers: threads that estimate and write fields. None takes torch's number of threads for an estimator that
            says it is ``parallel`` (DIS), and 1 for others (RAFT, which uses all cores or a GPU by itself).
        progress: called with the share of the fields that is done, first with those found in the folder.

    Returns:
        Fields of both directions. ``image_height`` and ``image_width`` are the size of the given frames.

    Raises:
        FlowError: unfit frames or arguments, or a folder whose fields are not this function's.
    """
    strides = sorted(set(strides))
    if not strides or strides[0] < 1:
        raise FlowError(f"strides must be one or more distances >= 1, got {strides}.")
    if workers is not None and workers < 1:
        raise FlowError(f"workers must be at least 1, got {workers}.")
    images, image_size = _read_reduced(frames, max_side)
    size = (images.shape[1], images.shape[2])
    guides = {stride: _summands(stride, strides) if guided else () for stride in strides}
    if workers is None:
        workers = torch.get_num_threads() if estimator.parallel else 1

    flow = ComputedFlow(len(images), size, image_size, None if folder is None else Path(folder))
    missing = {stride: list(_pairs(len(images), stride)) for stride in strides}
    total = sum(map(len, missing.values()))
    with ThreadPoolExecutor(workers) as executor:
        if flow.folder is not None:
            _claim_folder(flow.folder, _make_record(flow, images, estimator, guides))
            for stride, pairs in missing.items():
                found = executor.map(lambda pair: _is_readable(flow, pair), pairs)
                missing[stride] = [pair for pair, there in zip(pairs, found, strict=True) if not there]
        done = flow.reused = total - sum(map(len, missing.values()))
        if progress is not None:
            progress("flow", done / max(total, 1))
        for stride, pairs in missing.items():
            jobs = [executor.submit(_compute, flow, images, estimator, pair, guides[stride]) for pair in pairs]
            try:
                for job in as_completed(jobs):
                    job.result()
                    done += 1
                    if progress is not None:
                        progress("flow", done / max(total, 1))
            except BaseException:
                executor.shutdown(cancel_futures=True)
                raise
    return flow


def open_video_flow(folder: str | Path) -> VideoFlow:
    """The fields that ``compute_video_flow`` left in a folder.

    Raises:
        FlowError: there are none, or they are incomplete.
    """
    folder = Path(folder)
    record = _read_record(folder / RECORD)
    if record is None:
        raise FlowError(f"{folder / RECORD} does not exist; compute the video's flow into this folder first.")
    flow = VideoFlow(record["num_frames"], tuple(record["size"]), tuple(record["image_size"]), folder)
    wanted = [pair for stride in record["guides"] for pair in _pairs(flow.num_frames, int(stride))]
    missing = sum(pair not in flow for pair in wanted)
    if missing:
        strides = ", ".join(record["guides"])
        raise FlowError(f"{folder} lacks {missing} of {len(wanted)} flow fields; compute strides {strides} again.")
    return flow


def _compute(flow: VideoFlow, images: Tensor, estimator: FlowEstimator, pair: Pair, guide: tuple[int, ...]) -> None:
    source, target = pair
    initial = _chain(flow, pair, guide) if guide else None
    flow.put(source, target, estimator(images[source], images[target], initial))


def _chain(flow: VideoFlow, pair: Pair, guide: tuple[int, ...]) -> Tensor:
    """The composition of known fields along the steps of ``guide``."""
    source, target = pair
    direction = 1 if target > source else -1
    stops = list(itertools.accumulate(guide, lambda at, step: at + direction * step, initial=source))
    return functools.reduce(compose, (flow.get(a, b) for a, b in itertools.pairwise(stops)))


def _pairs(num_frames: int, stride: int) -> Iterator[Pair]:
    for t in range(num_frames - stride):
        yield t, t + stride
        yield t + stride, t


def _summands(total: int, strides: Sequence[int]) -> tuple[int, ...]:
    """The fewest smaller strides that add up to ``total``, of those the most even; () if none do."""
    best: dict[int, tuple[int, ...]] = {0: ()}
    for amount in range(1, total + 1):
        options = [(step, *best[amount - step]) for step in strides if step < total and amount - step in best]
        if options:
            best[amount] = min(options, key=lambda steps: (len(steps), max(steps), steps))
    return best.get(total, ())


def _read_reduced(frames: Iterable[np.ndarray | Tensor], max_side: int | None) -> tuple[Tensor, tuple[int, int]]:
    """Frames (T,h,w,3) uint8 at the size of the fields, and their size (H, W) before."""
    shape: tuple[int, ...] = ()
    reduced = []
    for t, frame in enumerate(frames):
        image = frame.cpu().numpy() if isinstance(frame, Tensor) else np.asarray(frame)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise FlowError(f"frame {t} must be RGB, (H,W,3) uint8, got {image.dtype} of shape {image.shape}.")
        shape = shape or image.shape
        if image.shape != shape:
            given, first = (f"{width}x{height}" for height, width, _ in (image.shape, shape))
            raise FlowError(f"frame {t} is {given} but frame 0 is {first}; resize or remove one.")
        reduced.append(reduce_image(image, max_side))
    if len(reduced) < 2:
        raise FlowError(f"flow needs at least 2 frames, got {len(reduced)}.")
    return torch.from_numpy(np.stack(reduced)), (shape[0], shape[1])


def _make_record(flow: VideoFlow, images: Tensor, estimator: FlowEstimator, guides: dict[int, tuple[int, ...]]) -> dict:
    return {
        "format": RECORD_FORMAT,
        "estimator": estimator.provenance(),
        "num_frames": flow.num_frames,
        "size": [flow.height, flow.width],
        "image_size": [flow.image_height, flow.image_width],
        "frames": hashlib.blake2b(images.numpy().tobytes(), digest_size=16).hexdigest(),
        "guides": {str(stride): list(steps) for stride, steps in guides.items()},
    }


def _claim_folder(folder: Path, record: dict) -> None:
    """Makes the folder one of this record, by removing fields that were made in any other way."""
    path = folder / RECORD
    old = _read_record(path)
    fields = [flow_path(folder, *pair) for pair in list_pairs(folder)]
    if old is None and fields:
        raise FlowError(f"{folder} holds flow fields of another origin (no {RECORD}); choose another folder.")
    if old is not None:
        # Further strides change nothing about the fields of the others, unless their guides differ.
        common = old["guides"].keys() & record["guides"].keys()
        same = all(old["guides"][stride] == record["guides"][stride] for stride in common)
        if same and {**old, "guides": None} == {**record, "guides": None}:
            record = {**record, "guides": {**old["guides"], **record["guides"]}}
        else:
            # The old record goes last, so that an interruption here leaves no field under a wrong one.
            for field in fields:
                field.unlink()
    if record != old:
        write_text(path, json.dumps(record, indent=1) + "\n")


def _read_record(path: Path) -> dict | None:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FlowError(f"{path} is not readable ({error}); remove its folder and compute the flow again.") from error
    keys = {"format", "estimator", "num_frames", "size", "image_size", "frames", "guides"}
    if not isinstance(record, dict) or record.keys() != keys or record["format"] != RECORD_FORMAT:
        raise FlowError(f"{path} is no record of this version; remove its folder and compute the flow again.")
    return record


def _is_readable(flow: VideoFlow, pair: Pair) -> bool:
    """Whether a field is there and whole: a damaged one is computed again."""
    if pair not in flow:
        return False
    try:
        flow.get(*pair)
    except FlowError:
        return False
    return True
