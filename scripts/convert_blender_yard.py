"""Converts the Blender yard (synthetic video with exact ground truth) into a native data set folder.

    python scripts/convert_blender_yard.py <source> <destination>

The source holds cameras.json, train/ (images/, mask/, depth.npz, flow_fwd.npz), heldout/ (images/, depth.npz,
covisible/) and tracks.npz. Training sees what a perfect preprocessing could give: cameras, depth, masks, and tracks
that are chained from frame to frame through the optical flow. The source's own tracks.npz becomes
ground_truth_tracks.npz, for scoring only. Adapt ``main`` to convert other renderings with flow.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from som.cameras import Camera
from som.data.dataset import GroundTruthTracks, Tracks, VideoDataset, Views
from som.data.folder import write_flow, write_native
from som.files import decode_image, read_image

MAX_GAP = 0.75
"""Pixels between a point and the nearest forward-mapped pixel beyond which a point is lost on the way back."""
SAME_SURFACE = 1.0
"""Pixels by which neighbouring flow vectors may differ and still be averaged."""


def step_forward(xy: np.ndarray, flow: np.ndarray, occluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carries image points (N,2) along the flow (H,W,2); also returns whether (N,) they are still seen there.

    The flow is interpolated bilinearly where the four neighbours agree, otherwise the nearest pixel's is taken, so that
    no point is pulled across the border of a moving thing.
    """
    height, width = occluded.shape
    column, row = (np.clip(np.floor(xy[:, k]).astype(int), 0, n - 1) for k, n in ((0, width), (1, height)))
    nearest = flow[row, column]
    x, y = np.clip(xy[:, 0] - 0.5, 0, width - 1.001), np.clip(xy[:, 1] - 0.5, 0, height - 1.001)
    x0, y0 = x.astype(int), y.astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    corners = [flow[y0, x0], flow[y0, x0 + 1], flow[y0 + 1, x0], flow[y0 + 1, x0 + 1]]
    weights = [(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy]
    smooth = sum(w * c for w, c in zip(weights, corners, strict=True))
    agree = np.max([np.abs(c - nearest).max(1) for c in corners], axis=0) < SAME_SURFACE
    moved = xy + np.where(agree[:, None], smooth, nearest)
    return moved, ~occluded[row, column] & _inside(moved, height, width)


def step_back(xy: np.ndarray, flow: np.ndarray, occluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carries image points (N,2) of the later frame back to the earlier one by inverting the forward flow.

    Looks up the pixels of the earlier frame that the flow maps nearest to each point and stay visible; a point that
    none reaches was hidden in the earlier frame.
    """
    height, width = occluded.shape
    row, column = np.nonzero(~occluded)
    vectors = flow[row, column]
    landed = np.stack([column, row], 1) + 0.5 + vectors
    distance, index = cKDTree(landed).query(xy, k=4)
    candidates = vectors[index]
    agree = np.abs(candidates - candidates[:, :1]).max(-1) < SAME_SURFACE
    weights = agree / (distance + 1e-3)
    mean = (weights[..., None] * candidates).sum(1) / weights.sum(1, keepdims=True)
    moved = xy - mean
    return moved, (distance[:, 0] < MAX_GAP) & _inside(moved, height, width)


def _inside(xy: np.ndarray, height: int, width: int) -> np.ndarray:
    return (xy >= 0).all(1) & (xy[:, 0] < width) & (xy[:, 1] < height)


def chain_tracks(flow: np.ndarray, occluded: np.ndarray, foreground: np.ndarray, queries: int, step: int) -> Tracks:
    """Tracks of a grid of foreground pixels, followed forward and back until they are hidden or leave the foreground.

    Args:
        flow, occluded: (T-1,H,W,2) forward flow and (T-1,H,W) where its end is hidden.
        foreground: (T,H,W) pixels of moving things.
        queries: number of frames, evenly spread, in which tracks start.
        step: pixels between the points of the grid.
    """
    times, height, width = foreground.shape
    parts = []
    for query in np.unique(np.linspace(0, times - 1, queries).round().astype(int)):
        rows, columns = np.nonzero(foreground[query][step // 2 :: step, step // 2 :: step])
        start = np.stack([columns, rows], 1) * step + step // 2 + 0.5
        xy = np.repeat(start[:, None], times, axis=1)
        visible = np.zeros((len(start), times), bool)
        visible[:, query] = True
        for order, follow in ((range(query + 1, times), step_forward), (range(query - 1, -1, -1), step_back)):
            before = query
            for t in order:
                link = min(t, before)
                xy[:, t], seen = follow(xy[:, before], flow[link], occluded[link])
                column, row = (np.clip(xy[:, t, k].astype(int), 0, n - 1) for k, n in ((0, width), (1, height)))
                visible[:, t] = visible[:, before] & seen & foreground[t, row, column]
                lost = ~visible[:, t]
                xy[lost, t] = xy[lost, before]
                before = t
        parts.append((np.full(len(start), query), xy, visible))
    query_times, xy, visible = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Tracks(
        query_times=torch.from_numpy(query_times),
        xy=torch.from_numpy(xy).float(),
        visible=torch.from_numpy(visible),
        confidence=torch.from_numpy(visible).float(),
    )


def read_views(source: Path, entries: list[dict], names: list[str], K: np.ndarray, depths: np.ndarray) -> Views:
    """Posed images with depth; masks are added by the caller."""
    images = np.stack([read_image(source / e["image"]) for e in entries])
    return Views(
        names=names,
        times=torch.tensor([e["frame"] for e in entries]),
        images=torch.from_numpy(images),
        cameras=Camera.from_arrays(K, [e["w2c"] for e in entries], *images.shape[2:0:-1]),
        valid=torch.ones(images.shape[:3], dtype=torch.bool),
        depths=torch.from_numpy(depths),
    )


def read_gray(folder: Path, names: list[str]) -> np.ndarray:
    """(N,H,W) uint8."""
    return np.stack([decode_image(folder / f"{name}.png") for name in names])


def convert(source: Path, destination: Path, queries: int = 6, step: int = 4, covisible_from: int = 5) -> VideoDataset:
    """Reads the source and writes the native folder; returns what was written."""
    cameras = json.loads((source / "cameras.json").read_text(encoding="utf-8"))
    K = np.array(cameras["K"])
    names = [Path(e["image"]).stem for e in cameras["train"]]
    train = read_views(source, cameras["train"], names, K, np.load(source / "train" / "depth.npz")["depth"])
    train.foreground = torch.from_numpy(read_gray(source / "train" / "mask", names) > 0)
    held_names = [e["name"] for e in cameras["heldout"]]
    held_depths = np.load(source / "heldout" / "depth.npz")
    val = read_views(source, cameras["heldout"], held_names, K, np.stack([held_depths[n] for n in held_names]))
    val.foreground = torch.from_numpy(read_gray(source / "heldout" / "mask", held_names) > 0)
    val.covisible = torch.from_numpy(read_gray(source / "heldout" / "covisible", held_names) >= covisible_from)
    with np.load(source / "train" / "flow_fwd.npz") as archive:
        flow, occluded = archive["flow"], archive["occluded"]
    with np.load(source / "tracks.npz") as points:
        truth = GroundTruthTracks(
            query_times=torch.from_numpy(points["query_frame"]).long(),
            xyz=torch.from_numpy(points["xyz"]).float(),
            xy=torch.from_numpy(points["uv"] + 0.5).float(),
            visible=torch.from_numpy(points["visible"]),
            moving=torch.from_numpy(np.isin(points["instance"], cameras["moving_instances"])),
        )
    dataset = VideoDataset(
        name=destination.name,
        num_times=len(names),
        train=train,
        val=val,
        tracks=chain_tracks(flow, occluded, train.foreground.numpy(), queries, step),
        ground_truth_tracks=truth,
        fps=float(cameras["fps"]),
        depth_kind="metric",
        world_scale="metric",
        source={"images": "Blender yard", "cameras, depth, masks": "exact", "tracks": "chained from exact flow"},
    )
    write_native(dataset, destination)
    for t in range(len(flow)):
        write_flow(destination, t, t + 1, flow[t], ~occluded[t])
    return dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--queries", type=int, default=6, help="frames in which tracks start")
    parser.add_argument("--step", type=int, default=4, help="pixels between the tracks that start in one frame")
    parser.add_argument("--covisible-from", type=int, default=5, help="training frames that must see a scored pixel")
    options = parser.parse_args()
    if not (options.source / "cameras.json").is_file():
        parser.error(f"{options.source}/cameras.json: no such file; give the folder of the Blender yard")
    dataset = convert(options.source, options.destination, options.queries, options.step, options.covisible_from)
    tracks = dataset.tracks
    print(
        f"{options.destination}: {len(dataset.train)} training and {len(dataset.val)} held-out views, "
        f"{len(tracks.query_times)} tracks, visible {tracks.visible.float().mean():.0%} of the time"
    )


if __name__ == "__main__":
    main()
