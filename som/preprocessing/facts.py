"""What a data set holds, in plain numbers, and those numbers in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flow.video_flow import VideoFlow, flow_path, list_pairs, read_flow_file
from som.data.dataset import Tracks, VideoDataset, Views
from som.errors import UserError


def collect_facts(dataset: VideoDataset) -> dict:
    """Plain JSON: name, frames, cameras, and foreground, depth and tracks where there are any."""
    train = dataset.train
    facts = {
        "name": dataset.name,
        "frames": {
            "train": len(train),
            "held_out": 0 if dataset.val is None else len(dataset.val),
            "times": dataset.num_times,
            "fps": float(dataset.fps),
            "width": train.width,
            "height": train.height,
        },
        "cameras": _camera_facts(dataset),
        "notes": list(dataset.source.get("notes", [])),
    }
    if train.foreground is not None:
        share = train.foreground.flatten(1).float().mean(1)
        facts["foreground"] = {"mean": float(share.mean()), "min": float(share.min()), "max": float(share.max())}
    if train.depths is not None:
        facts["depth"] = _depth_facts(dataset)
    if dataset.tracks is not None:
        facts["tracks"] = _track_facts(dataset.tracks, dataset)
    return facts


def describe_facts(facts: dict) -> list[tuple[str, str]]:
    """(label, text) rows of what ``collect_facts`` and ``flow_facts`` found."""
    frames, cameras = facts["frames"], facts["cameras"]
    seconds = frames["times"] / frames["fps"] if frames["fps"] > 0 else 0.0
    held_out = f", {frames['held_out']} held out" if frames["held_out"] else ""
    rows = [
        ("frames", f"{frames['train']} for training{held_out}; {frames['times']} times at {frames['fps']:.3g} fps "
                   f"({seconds:.1f} s)"),
        ("size", f"{frames['width']}x{frames['height']}"),
        ("cameras", _camera_text(cameras)),
    ]  # fmt: skip
    share = facts.get("foreground")
    moving = "no masks"
    if share is not None:
        moving = f"{share['mean']:.1%} of the pixels ({share['min']:.1%} to {share['max']:.1%} of a frame)"
    rows.append(("moving", moving))
    rows += [("depth", _depth_text(facts.get("depth"))), ("tracks", _track_text(facts.get("tracks")))]
    if "flow" in facts:
        flow = facts["flow"]
        strides = ", ".join(map(str, flow["strides"]))
        rows.append(("flow", f"{flow['fields']} fields at {flow['width']}x{flow['height']}, over {strides} frames"))
    if "agreement" in facts:
        agreement = facts["agreement"]
        text = f"cameras meet {agreement['points']} standing points within {agreement['error']:.2g} px (median), "
        rows.append(("agreement", text + f"which shift by {agreement['parallax']:.2g} px against infinity"))
    return rows + [("note", note) for note in facts["notes"]]


def facts_at_size(facts: dict, size: tuple[int, int]) -> dict:
    """The facts of a reduced data set as they are at the images' full size (height, width)."""
    height, width = size
    scale = width / facts["frames"]["width"]
    changed = {
        "frames": {**facts["frames"], "width": width, "height": height},
        "cameras": {**facts["cameras"], "focal": facts["cameras"]["focal"] * scale},
    }
    if "agreement" in facts:
        agreement = facts["agreement"]
        changed["agreement"] = {**agreement, **{key: agreement[key] * scale for key in ("error", "parallax")}}
    return {**facts, **changed}


def open_flow(folder: Path, dataset: VideoDataset) -> tuple[VideoFlow | None, list[str]]:
    """The flow of a data set's times, None where there is none of use; and what is doubtful about it.

    Fields that lie in ``folder`` without a record of what they were made from are taken as they are.
    """
    flow = dataset.flow
    if flow is None:
        pairs = list_pairs(folder)
        if not pairs:
            return None, []
        if max(map(max, pairs)) >= dataset.num_times:
            return None, [f"{folder}: has flow beyond the {dataset.num_times} times of the data set; compute it anew."]
        try:
            first, _ = read_flow_file(flow_path(folder, *pairs[0]))
        except UserError as error:
            return None, [str(error)]
        size = (dataset.train.height, dataset.train.width)
        flow = VideoFlow(dataset.num_times, (first.shape[0], first.shape[1]), size, folder)
    ratio = flow.width / flow.height * dataset.train.height / dataset.train.width
    if abs(np.log(ratio)) > 0.05:
        return None, [
            f"{folder}: its fields are {flow.width}x{flow.height}, another shape than the images "
            f"({dataset.train.width}x{dataset.train.height}); compute the flow of these images."
        ]
    return flow, []


def flow_facts(flow: VideoFlow) -> dict:
    """Plain JSON: number of fields, their size and their distances in time."""
    return {"fields": len(flow.pairs()), "strides": list(flow.strides()), "width": flow.width, "height": flow.height}


def camera_centers(views: Views) -> np.ndarray:
    """(N,3) positions of the cameras in world units."""
    c2w = torch.linalg.inv(views.cameras.w2c.double())
    return c2w[:, :3, 3].numpy()


def rotation_steps(views: Views) -> np.ndarray:
    """(N-1,) degrees by which the camera turns from one view to the next."""
    R = views.cameras.w2c[:, :3, :3].double()
    trace = torch.einsum("nij,nij->n", R[1:], R[:-1])
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1))).numpy()


def background_depth(dataset: VideoDataset) -> float | None:
    """Median depth of what does not move, in the unit of the depth maps; None without depth."""
    train = dataset.train
    if train.depths is None:
        return None
    known = train.depths > 0
    if train.foreground is not None and bool((known & ~train.foreground).any()):
        known &= ~train.foreground
    return float(train.depths[known].median()) if bool(known.any()) else None


def _camera_facts(dataset: VideoDataset) -> dict:
    train = dataset.train
    centers = camera_centers(train)
    K = train.cameras.K.double().mean(0)
    return {
        "path": float(np.linalg.norm(np.diff(centers, axis=0), axis=1).sum()),
        "extent": float(np.linalg.norm(np.ptp(centers, axis=0))),
        "turn": float(rotation_steps(train).sum()),
        "unit": "m" if dataset.world_scale == "metric" else "world units",
        "focal": float(K[0, 0]),
        "fov": float(np.degrees(2 * np.arctan(train.width / 2 / float(K[0, 0])))),
        "varying_focal": bool(train.cameras.K[:, 0, 0].max() > 1.001 * train.cameras.K[:, 0, 0].min()),
    }


def _depth_facts(dataset: VideoDataset) -> dict:
    depths = dataset.train.require_depths()
    known = depths > 0
    values = depths[known].numpy()
    near, middle, far = np.percentile(values, (5, 50, 95)).tolist() if values.size else (0.0, 0.0, 0.0)
    confidence = dataset.train.depth_confidence
    return {
        "kind": dataset.depth_kind,
        "coverage": float(known.float().mean()),
        "near": near,
        "median": middle,
        "far": far,
        "confidence": None if confidence is None or not values.size else float(confidence[known].mean()),
    }


def on_foreground(tracks: Tracks, dataset: VideoDataset) -> torch.Tensor | None:
    """(Q,) bool: the track starts on something that moves; None without masks. Tracks without a view are False."""
    train = dataset.train
    if train.foreground is None or len(tracks.query_times) == 0:
        return None if train.foreground is None else torch.zeros(0, dtype=torch.bool)
    view = dataset.train_index_of_time[tracks.query_times]
    xy = tracks.xy[torch.arange(len(view)), tracks.query_times].nan_to_num().floor().long()
    inside = (view >= 0) & (xy >= 0).all(-1) & (xy[:, 0] < train.width) & (xy[:, 1] < train.height)
    x, y = xy[:, 0].clamp(0, train.width - 1), xy[:, 1].clamp(0, train.height - 1)
    return inside & train.foreground[view.clamp(min=0), y, x]


def _track_facts(tracks: Tracks, dataset: VideoDataset) -> dict:
    moving = on_foreground(tracks, dataset)
    length = tracks.visible.sum(1).float()
    return {
        "count": len(length),
        "moving": None if moving is None else int(moving.sum()),
        "visible_frames": float(length.mean()) if len(length) else 0.0,
        "moving_visible_frames": float(length[moving].mean()) if moving is not None and bool(moving.any()) else None,
    }


def _camera_text(cameras: dict) -> str:
    lens = f"focal length {cameras['focal']:.0f} px ({cameras['fov']:.0f} degrees wide)"
    lens += ", changing (zoom)" if cameras["varying_focal"] else ""
    if cameras["path"] == 0 and cameras["turn"] < 1e-3:
        return f"standing still; {lens}"
    return f"path of {cameras['path']:.3g} {cameras['unit']}, turning {cameras['turn']:.0f} degrees in all; {lens}"


def _depth_text(depth: dict | None) -> str:
    if depth is None:
        return "none"
    confidence = "" if depth["confidence"] is None else f", mean confidence {depth['confidence']:.2f}"
    spread = f"{depth['near']:.3g} to {depth['far']:.3g}"
    return f"kind {depth['kind']}, known at {depth['coverage']:.0%} of the pixels, mostly {spread}{confidence}"


def _track_text(tracks: dict | None) -> str:
    if tracks is None:
        return "none"
    moving = "" if tracks["moving"] is None else f", {tracks['moving']} of them on moving objects"
    return f"{tracks['count']}{moving}, each visible in {tracks['visible_frames']:.1f} frames on average"
