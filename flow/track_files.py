"""Point tracks on disk: our own file, and those of other trackers.

=========================  ==============================================  ==========================================
made by                    holds                                           coordinates
=========================  ==============================================  ==========================================
this package               ``query_frame`` (Q), ``xy`` (Q,T,2),            pixel centres at +0.5
                           ``visible``, ``confidence``, ``variance`` (Q,T)
CoTracker                  ``pred_tracks`` (1,T,N,2),                      pixel centres at integers: its images are
                           ``pred_visibility`` (1,T,N)                     resized and sampled with corners aligned
MoSca ``*_cotracker_tap``  ``tracks`` (T,N,2|3), ``visibility`` (T,N)      pixel centres at integers, as CoTracker's,
and ``*_spatracker_tap``                                                   on whose code SpatialTracker builds
MoSca ``*_bootstapir_tap`` ``tracks`` (T,N,2), ``visibility`` (T,N)        pixel centres at +0.5: TAPIR's "raster"
                                                                           coordinates span [0, W]
Shape-of-Motion            a folder of ``{query}_{target}.npy`` (P,4)      see ``read_pair_tracks``
=========================  ==============================================  ==========================================

All refer to the full-size images that the tracker was given. Arrays of CoTracker are saved by its users, who also call
them ``tracks`` and ``visibility``.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from flow.errors import FlowError
from flow.io.arrays import read_arrays, write_npz
from flow.tracks import PointTracks, variance_from_confidence

NAMES_OF_TRACKS = (("pred_tracks", "pred_visibility"), ("tracks", "visibility"))


def write_tracks(path: Path, tracks: PointTracks) -> None:
    """Writes ``tracks.npz`` in one rename."""
    path = Path(path)
    arrays = {
        "query_frame": tracks.query_frames.numpy(),
        "xy": tracks.xy.numpy(),
        "visible": tracks.visible.numpy(),
        "confidence": tracks.confidence.numpy(),
        "variance": tracks.variance.numpy(),
    }
    write_npz(path, arrays)


def read_tracks(
    path: Path,
    num_frames: int | None = None,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    center: float | None = None,
    max_tracks: int | None = None,
    seed: int = 0,
) -> PointTracks:
    """Reads tracks of any of the formats above, recognised by content.

    Where a file has visibilities but no confidence, the visibility (bool or probability) is the confidence of visible
    points. Where it has no query frames, a track's first visible frame is taken for it.

    Args:
        path: an .npz file, or a folder of pairwise .npy files.
        num_frames: T that is expected; None takes what is there.
        scale: (x, y) factors from the images that the tracker saw to those wanted.
        center: where the file's coordinates have the centre of the first pixel: 0 or 0.5; None goes by the format.
        max_tracks: more tracks than these are thinned out at random; None keeps all.
        seed: of that choice.

    Raises:
        FlowError: something is missing, broken, of the wrong shape, or of another number of frames.
    """
    path = Path(path)
    if path.is_dir():
        names = pair_names(path)
        if num_frames not in (None, len(names)):
            raise FlowError(f"{path} tracks {len(names)} frames, expected {num_frames}; track this video anew.")
        offset = 0.5 if center is None else 0.5 - center
        return read_pair_tracks(path, names, scale=scale, offset=offset, max_tracks=max_tracks, seed=seed)
    arrays = _load(path)
    if {"query_frame", "xy", "visible"} <= arrays.keys():
        tracks, own_center = _own(path, arrays), 0.5
    else:
        tracks, own_center = _foreign(path, arrays), 0.5 if "tapir" in path.stem else 0.0
    if num_frames not in (None, tracks.num_frames):
        raise FlowError(f"{path} tracks {tracks.num_frames} frames, expected {num_frames}; track this video anew.")
    shift = 0.5 - (own_center if center is None else center)
    tracks = PointTracks(**{**vars(tracks), "xy": tracks.xy + shift}).scaled(*scale)
    if max_tracks is not None and len(tracks) > max_tracks:
        tracks = tracks.select(_choose(len(tracks), max_tracks, seed))
    return tracks


def read_pair_tracks(
    folder: Path,
    names: list[str],
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    offset: float = 0.5,
    image_size: tuple[int, int] | None = None,
    inference_size: tuple[int, int] = (256, 256),
    max_tracks: int | None = None,
    seed: int = 0,
) -> PointTracks:
    """Joins the TAPIR or BootsTAPIR files of Shape-of-Motion, ``{query}_{target}.npy``, into tracks.

    Each file has (P,4) numbers: x, y in pixels of the full-size image, occlusion logit, logit of the expected distance.
    The P points of one query frame are the same in all its files; ``{q}_{q}`` has the pixels they were asked for.

    Shape-of-Motion takes x, y for pixels with their centres at integers, and so does the default. Its script however
    asks TAPIR, whose coordinates span [0, 256], at x 255 / (W - 1), so that what was really followed lies at
    x (255 / 256) W / (W - 1), up to W / 256 px further left; ``image_size`` puts the tracks there.

    Args:
        names: file stems of the frames in time order; track times are indices into it.
        scale: (x, y) factors from the full-size image to the one wanted.
        offset: added to x and y before scaling.
        image_size: (H,W) of the full-size image; replaces ``offset`` by the true place.
        inference_size: (H,W) that TAPIR saw, with ``image_size``.
        max_tracks: more points than these are thinned out at random. Query frames of which none are left are not read,
            of the others only the rows that are.
        seed: of that choice.

    Raises:
        FlowError: files are missing, broken or do not fit together.
    """
    folder = Path(folder)
    missing = [f"{q}_{t}.npy" for q in names for t in names if not (folder / f"{q}_{t}.npy").is_file()]
    if missing:
        raise FlowError(
            f"{len(missing)} of {len(names) ** 2} pairwise track files are missing in {folder}, the first is "
            f"{missing[0]}; track every frame against every frame, or remove the folder."
        )
    counts = [len(_load_pair(folder / f"{name}_{name}.npy")) for name in names]
    chosen = torch.arange(sum(counts)) if max_tracks is None else _choose(sum(counts), max_tracks, seed)
    parts = [np.zeros((0, len(names), 4), np.float32)]
    for query, count, rows in zip(names, counts, _rows_per_query(chosen, counts), strict=True):
        if len(rows):
            paths = [folder / f"{query}_{target}.npy" for target in names]
            parts.append(np.stack([_rows_of_pair(path, count, rows) for path in paths], axis=1))
    values = np.concatenate(parts)
    seen, certain = visibility_from_logits(values[..., 2], values[..., 3])
    visible, confidence = torch.from_numpy(seen), torch.from_numpy(certain.astype(np.float32))
    variance = variance_from_confidence(confidence).where(visible, torch.inf)
    xy = torch.from_numpy(values[..., :2].astype(np.float32))
    if image_size is None:
        xy = xy + offset
    else:
        (H, W), (h, w) = image_size, inference_size
        xy = xy * xy.new_tensor([(w - 1) / w * W / (W - 1), (h - 1) / h * H / (H - 1)])
    query_frames = torch.repeat_interleave(torch.arange(len(names)), torch.tensor(counts, dtype=torch.long))[chosen]
    return PointTracks(query_frames, xy, visible, confidence, variance).scaled(*scale)


def pair_names(folder: Path) -> list[str]:
    """Sorted frame names of a folder of ``{query}_{target}.npy`` files, from those of equal halves; may hold "_"."""
    stems = [path.stem for path in Path(folder).glob("*.npy")]
    names = [s[: len(s) // 2] for s in stems if len(s) % 2 and s == f"{s[: len(s) // 2]}_{s[: len(s) // 2]}"]
    if not names:
        raise FlowError(f"{folder} holds no pairwise track files {{query}}_{{target}}.npy; name a folder that does.")
    return sorted(names)


def visibility_from_logits(occlusion: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TAPIR's decision: visible where P(visible) P(accurate) > 0.5; confidence P(accurate) where it is decided at all.

    With v = 1 - sigmoid(occlusion), c = 1 - sigmoid(distance): visible = v c > 0.5, hidden = (1 - v) c > 0.5. Any equal
    shapes; returns bool and float64 in [0, 1].
    """
    v, c = _sigmoid(-occlusion.astype(np.float64)), _sigmoid(-distance.astype(np.float64))
    visible, hidden = v * c > 0.5, (1 - v) * c > 0.5
    return visible, np.where(visible | hidden, c, 0.0)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _choose(total: int, number: int, seed: int) -> torch.Tensor:
    """``number`` of ``total`` indices (all if there are fewer), rising."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[: max(0, number)].sort().values


def _rows_per_query(chosen: torch.Tensor, counts: list[int]) -> list[np.ndarray]:
    """Splits indices into all queries into row numbers, one array per query frame."""
    ends = torch.tensor([0, *counts]).cumsum(0)
    return [(chosen[(chosen >= a) & (chosen < b)] - a).numpy() for a, b in pairwise(ends)]


def _load_pair(path: Path) -> np.ndarray:
    """(P,4), mapped from the file."""
    try:
        values = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise FlowError(f"{path} is not a readable track file ({error}); track this pair anew.") from error
    if values.ndim != 2 or values.shape[1] != 4:
        raise FlowError(f"{path} must have shape (points, 4), found {values.shape}; track this pair anew.")
    return values


def _rows_of_pair(path: Path, expected: int, rows: np.ndarray) -> np.ndarray:
    values = _load_pair(path)
    if len(values) != expected:
        raise FlowError(
            f"{path} holds {len(values)} points, the query frame's own file {expected}; track this query frame anew."
        )
    values = np.array(values[rows], np.float32)
    if not np.isfinite(values).all():
        raise FlowError(f"{path} holds nan or inf; track this pair anew.")
    return values


def _load(path: Path) -> dict[str, np.ndarray]:
    wanted = ("query_frame", "xy", "visible", "confidence", "variance", "queries", *sum(NAMES_OF_TRACKS, ()))
    return read_arrays(path, optional=wanted, what="this file of tracks")


def _own(path: Path, arrays: dict[str, np.ndarray]) -> PointTracks:
    if arrays["visible"].ndim != 2:
        raise FlowError(f'"visible" in {path} must have shape (Q,T), found {arrays["visible"].shape}.')
    visible = torch.from_numpy(arrays["visible"].astype(bool))
    confidence = visible.float() if "confidence" not in arrays else torch.from_numpy(arrays["confidence"]).float()
    if "variance" in arrays:
        variance = torch.from_numpy(arrays["variance"]).float()
    else:
        variance = variance_from_confidence(confidence)
        variance = variance.where(visible, torch.inf) if variance.shape == visible.shape else variance
    frames, xy = torch.from_numpy(arrays["query_frame"]).long(), torch.from_numpy(arrays["xy"]).float()
    try:
        tracks = PointTracks(frames, xy, visible, confidence, variance)
    except FlowError as error:
        raise FlowError(f"{path}: {error}") from error
    return _checked(path, tracks)


def _foreign(path: Path, arrays: dict[str, np.ndarray]) -> PointTracks:
    """From tracks (T,N,2|3) and visibility (T,N), with or without a leading batch of one and a trailing one."""
    names = next((pair for pair in NAMES_OF_TRACKS if set(pair) <= arrays.keys()), None)
    if names is None:
        options = ["query_frame, xy and visible", *(" and ".join(pair) for pair in NAMES_OF_TRACKS)]
        found = ", ".join(sorted(arrays)) or "none of them"
        raise FlowError(f"{path} must hold {'; or '.join(options)}; found {found}.")
    xy, seen = arrays[names[0]], arrays[names[1]]
    if xy.ndim == 4 and len(xy) == 1:
        xy, seen = xy[0], seen[0] if len(seen) == 1 else seen
    if seen.ndim == 3 and seen.shape[-1] == 1:
        seen = seen[..., 0]
    if xy.ndim != 3 or xy.shape[-1] not in (2, 3) or seen.shape != xy.shape[:2]:
        got = f"{arrays[names[0]].shape} and {arrays[names[1]].shape}"
        raise FlowError(f"{path} must hold {names[0]} (T,N,2) and {names[1]} (T,N) of one video, found {got}.")
    certainty = torch.from_numpy(seen.astype(np.float32)).T.contiguous()
    if not ((certainty >= 0) & (certainty <= 1)).all():
        raise FlowError(f'"{names[1]}" in {path} must be bool or a probability in [0, 1].')
    visible = certainty > 0.5
    confidence = certainty.where(visible, 0.0)
    variance = variance_from_confidence(confidence)
    positions = torch.from_numpy(xy[..., :2].astype(np.float32)).transpose(0, 1).contiguous()
    frames = _query_frames(arrays.get("queries"), visible)
    return _checked(path, PointTracks(frames, positions, visible, confidence, variance))


def _query_frames(queries: np.ndarray | None, visible: torch.Tensor) -> torch.Tensor:
    """Frame of each query from rows (t, ., .), where there is one for each track; else the first visible frame.

    MoSca keeps only the queries of its last chunk of points.
    """
    if queries is not None:
        queries = queries.reshape(-1, queries.shape[-1]) if queries.ndim else queries
        if queries.shape == (len(visible), 3) and ((queries[:, 0] >= 0) & (queries[:, 0] < visible.shape[1])).all():
            return torch.from_numpy(queries[:, 0].astype(np.int64))
    return visible.int().argmax(1)


def _checked(path: Path, tracks: PointTracks) -> PointTracks:
    """With finite positions, and query frames inside the video."""
    finite = tracks.xy.isfinite().all(-1)
    if (~finite & tracks.visible).any():
        raise FlowError(f"{path} holds visible points at nan or inf; track this video anew.")
    if ((tracks.query_frames < 0) | (tracks.query_frames >= tracks.num_frames)).any():
        raise FlowError(f'"query_frame" in {path} must lie in [0, {tracks.num_frames}), the frames of the video.')
    return PointTracks(**{**vars(tracks), "xy": tracks.xy.where(finite[..., None], 0.0)})
