"""What is usable about a data set but will probably give a bad scene, each with what to do."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from som.data.dataset import VideoDataset
from som.preprocessing.facts import background_depth, camera_centers, on_foreground, rotation_steps
from som.preprocessing.links import MIN_LINKED_POINTS, Links

MAX_MOVING_SHARE, MIN_MOVING_SHARE = 0.5, 0.002
"""Of the pixels."""
MIN_MOVING_TRACKS = 100
"""Motion bases are found from tracks on what moves; fewer hardly cover an object."""
MIN_MEAN_TRACK_FRAMES = 5.0
"""Mean over the moving tracks of the frames that see them."""
MAX_STEP_RATIO = 8.0
"""A camera jumps where a step is this many times the usual step."""
MIN_PARALLAX_PX = 2.0
"""Pixels by which a point must shift against infinity for its triangulated depth to mean something."""
MAX_REPROJECTION_SHARE = 0.004
"""Share of the image width by which cameras may miss where static objects are seen."""


def find_doubts(dataset: VideoDataset, links: Links | None) -> list[str]:
    """Sentences, the weightiest first; empty where nothing looks wrong.

    Args:
        links: of ``link_background``; cameras and depth are held against them.
    """
    doubts = [
        *_doubts_of_agreement(dataset, links),
        *_doubts_of_masks(dataset),
        *_doubts_of_tracks(dataset),
        *_doubts_of_depth(dataset),
        *_doubts_of_cameras(dataset),
    ]
    lost = sorted(set(range(dataset.num_times)) - set(dataset.train.times.tolist()) - _held_out_times(dataset))
    if lost:
        doubts.append(
            f"times {_listed(lost)} have no view (no image, or no camera for it): motion is guessed there; give these "
            "images and cameras, or correct the times."
        )
    if len(dataset.train) < 8:
        doubts.append(f"only {len(dataset.train)} training views; motion needs more, give a longer part of the video.")
    valid = float(dataset.train.valid.float().mean())
    if valid < 0.5:
        doubts.append(
            f"only {valid:.0%} of the pixels are valid; make sure that 255 means valid in the masks of mask_path."
        )
    return doubts


def _doubts_of_agreement(dataset: VideoDataset, links: Links | None) -> list[str]:
    """Cameras against tracks, and depth against both."""
    if links is None:
        return []
    doubts = []
    width = dataset.train.width
    error = links.median_error
    if error > max(MAX_REPROJECTION_SHARE * width, 1.0):
        doubts.append(
            f"the cameras miss standing points by {error:.1f} px (median): cameras, focal length or masks are wrong; "
            "estimate the cameras again with `cameras.fov` or bring them from another program."
        )
        return doubts
    usable = (links.parallax > max(MIN_PARALLAX_PX, 0.004 * width)) & (links.prior > 0) & (links.depth > 0)
    if dataset.depth_kind == "relative" or usable.sum() < MIN_LINKED_POINTS:
        return doubts
    prior, depth = links.prior[usable], links.depth[usable]
    agreement = float(spearmanr(prior, depth).statistic) if np.ptp(prior) > 0 and np.ptp(depth) > 0 else 0.0
    if agreement < -0.3:
        doubts.append(
            "depth is large where the cameras' motion shows near things: the maps look like disparity; "
            "import them with `depth.given_values` disparity."
        )
    elif agreement < 0.3 and np.percentile(depth, 90) > 1.25 * np.percentile(depth, 10):
        doubts.append(
            f"depth does not agree with what the cameras' motion shows (rank correlation {agreement:.2f}); "
            "look at the depth maps and bring better ones, or train with a low weight of depth."
        )
    elif dataset.depth_kind == "metric" and dataset.world_scale == "metric":
        ratio = float(np.median(prior / depth))
        if not 1 / 1.3 < ratio < 1.3:
            doubts.append(
                f"metric depth is {ratio:.2g} times what the metric cameras say; correct the unit of one of them "
                '(depth_unit_scale_factor), or set depth_kind to "scale".'
            )
    return doubts


def _doubts_of_masks(dataset: VideoDataset) -> list[str]:
    train = dataset.train
    if train.foreground is None or not dataset.has_background:
        return []
    share = train.foreground.flatten(1).double().mean(1).numpy()
    if share.mean() > MAX_MOVING_SHARE:
        return [
            f"{share.mean():.0%} of the pixels are marked as moving: the masks have probably taken the background; "
            "look at them, and bring masks (for example of SAM 2) with `masks.given`."
        ]
    if 0 < share.mean() < MIN_MOVING_SHARE:
        return [
            f"only {share.mean():.2%} of the pixels are marked as moving; if something larger moves, "
            "bring masks with `masks.given`."
        ]
    doubts = []
    empty = train.times[share == 0].tolist()
    if share.any() and 0 < len(empty) < len(share):
        doubts.append(
            f"nothing is marked as moving at times {_listed(empty)}, elsewhere something is; if it is still in the "
            "picture there it will be baked into the background: mask it there too."
        )
    before, after = share[:-1], share[1:]
    ratio = np.maximum(before, after) / np.maximum(np.minimum(before, after), 1e-9)
    flicker = np.flatnonzero((ratio > 2) & (np.minimum(before, after) > 0) & (np.abs(after - before) > 0.02))
    if len(flicker):
        doubts.append(
            f"the masks' size jumps at times {_listed(train.times[flicker + 1].tolist())}; "
            "look at them, and mend those that lost a part or took too much."
        )
    return doubts


def _doubts_of_tracks(dataset: VideoDataset) -> list[str]:
    tracks, train = dataset.tracks, dataset.train
    moving = None if tracks is None else on_foreground(tracks, dataset)
    foreground = train.foreground
    if tracks is None or moving is None or foreground is None or not bool(foreground.any()):
        return []
    if int(moving.sum()) < MIN_MOVING_TRACKS:
        return [
            f"only {int(moving.sum())} tracks start on moving objects, at least {MIN_MOVING_TRACKS} are wanted; "
            "track more densely there, or bring tracks (for example of CoTracker) with `tracks.given`."
        ]
    doubts = []
    length = float(tracks.visible[moving].sum(1).double().mean())
    if length < min(MIN_MEAN_TRACK_FRAMES, dataset.num_times / 2):
        doubts.append(
            f"tracks on moving objects are seen in {length:.1f} frames only on average: motion is hard to follow; "
            "use a higher frame rate, or bring tracks with `tracks.given`."
        )
    seen = tracks.visible[moving].sum(0)[train.times]
    bare = (seen < 10) & (foreground.flatten(1).double().mean(1) > MIN_MOVING_SHARE)
    if bool(bare.any()):
        doubts.append(
            f"hardly any track on moving objects is seen at times {_listed(train.times[bare].tolist())}; "
            "motion is guessed there, add queries at these times."
        )
    return doubts


def _doubts_of_depth(dataset: VideoDataset) -> list[str]:
    depths = dataset.train.depths
    if depths is None:
        return []
    known = depths > 0
    coverage = float(known.double().mean())
    if coverage == 0:
        return ["no pixel has a known depth (all are 0); give depth maps or take their paths out of transforms.json."]
    doubts = []
    if coverage < 0.3:
        doubts.append(f"depth is known at {coverage:.0%} of the pixels only; denser depth gives a better start.")
    flat = []
    for i, depth in enumerate(depths):
        values = depth[known[i]].numpy()
        if values.size:
            near, far = np.percentile(values, (5, 95))
            flat.append(bool(far < 1.05 * near))
    if np.mean(flat) > 0.5:
        doubts.append(
            "depth is nearly the same all over the picture in most frames: it carries no shape; bring other depth "
            "with `depth.given`, or check that the maps are depth and not a constant."
        )
    return doubts


def _doubts_of_cameras(dataset: VideoDataset) -> list[str]:
    train, doubts = dataset.train, []
    fov = np.degrees(2 * np.arctan(train.width / 2 / train.cameras.K[:, 0, 0].double().mean().item()))
    if not 15 < fov < 120:
        doubts.append(
            f"the cameras see {fov:.0f} degrees wide, which few cameras do: the focal length is probably wrong; "
            "give `cameras.fov` or `cameras.focal`."
        )
    if len(train) < 4:
        return doubts
    gaps = np.diff(train.times.numpy())
    steps = np.linalg.norm(np.diff(camera_centers(train), axis=0), axis=1) / gaps
    turns = rotation_steps(train) / gaps
    least = 1e-3 * (background_depth(dataset) or float(steps.sum()))
    jumps = np.flatnonzero(_stands_out(steps, least) | _stands_out(turns, 1.0))
    if len(jumps):
        doubts.append(
            f"the camera jumps at times {_listed(train.times[jumps + 1].tolist())}: a cut, or badly estimated cameras; "
            "choose one shot with `frames.start` and `frames.end`, or estimate the cameras again."
        )
    return doubts


def _stands_out(steps: np.ndarray, least: float) -> np.ndarray:
    """(N,) bool: much larger than the steps around, and than ``least``."""
    usual = np.array([np.median(steps[max(0, i - 5) : i + 6]) for i in range(len(steps))])
    return steps > MAX_STEP_RATIO * np.maximum(usual, least)


def _held_out_times(dataset: VideoDataset) -> set[int]:
    return set() if dataset.val is None else set(dataset.val.times.tolist())


def _listed(times: list[int]) -> str:
    """The first few of some times, in words."""
    return ", ".join(map(str, times[:6])) + (f" and {len(times) - 6} more" if len(times) > 6 else "")
