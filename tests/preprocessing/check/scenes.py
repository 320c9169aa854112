"""A data set whose cameras, depth, tracks and flow agree exactly: a slanted wall before a camera that moves."""

from __future__ import annotations

import numpy as np
import torch

from flow.compute import compute_video_flow
from flow.estimator import FlowEstimator
from som.cameras import Camera
from som.data.dataset import Tracks, VideoDataset, Views

T, H, W = 12, 48, 64
K = np.array([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]])
NORMAL, OFFSET = np.array([0.45, 0.2, 1.0]), 5.0
"""The wall: the points X with NORMAL · X = OFFSET."""


def poses() -> np.ndarray:
    """(T,4,4) world to camera: moves to the right and up, turns a little."""
    w2c = np.repeat(np.eye(4)[None], T, 0)
    for t in range(T):
        angle = 0.01 * t
        w2c[t, :3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        w2c[t, :3, 3] = -0.12 * t, 0.05 * t, 0.03 * t
    return w2c


def lift(w2c: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points (...,3) on the wall that a camera sees at xy (...,2), and their depth."""
    c2w = np.linalg.inv(w2c)
    ray = np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], -1) @ np.linalg.inv(K).T @ c2w[:3, :3].T
    depth = (OFFSET - NORMAL @ c2w[:3, 3]) / (ray @ NORMAL)
    return c2w[:3, 3] + ray * depth[..., None], depth


def project(w2c: np.ndarray, points: np.ndarray) -> np.ndarray:
    camera = points @ w2c[:3, :3].T + w2c[:3, 3]
    image = camera @ K.T
    return image[..., :2] / image[..., 2:]


def pixel_grid() -> np.ndarray:
    y, x = np.mgrid[:H, :W] + 0.5
    return np.stack([x, y], -1)


def wall_dataset() -> VideoDataset:
    """Nothing about it is doubtful."""
    rng = np.random.default_rng(0)
    w2cs, grid = poses(), pixel_grid()
    depths = np.stack([lift(w2c, grid)[1] for w2c in w2cs]).astype(np.float32)
    foreground = torch.zeros((T, H, W), dtype=torch.bool)
    foreground[:, 16:32, 24:40] = True
    query = np.concatenate([rng.integers(0, T, 200), np.zeros(150, int)])
    start = np.concatenate([rng.uniform((2, 2), (20, H - 2), (200, 2)), rng.uniform((25, 17), (39, 31), (150, 2))])
    start[:100, 0] += 42  # half of the points that stand still lie to the right of the moving square
    xy = np.empty((350, T, 2))
    for i in range(350):
        xy[i] = [project(w2c, lift(w2cs[query[i]], start[i])[0]) for w2c in w2cs] if i < 200 else start[i]
    inside = ((xy >= 0) & (xy < [W, H])).all(-1)
    return VideoDataset(
        name="wall",
        num_times=T,
        train=Views(
            names=[f"{t:03d}" for t in range(T)],
            times=torch.arange(T),
            images=torch.from_numpy(rng.integers(0, 255, (T, H, W, 3)).astype(np.uint8)),
            cameras=Camera.from_arrays(K, w2cs, W, H),
            valid=torch.ones((T, H, W), dtype=torch.bool),
            foreground=foreground,
            depths=torch.from_numpy(depths),
        ),
        tracks=Tracks(
            torch.from_numpy(query),
            torch.from_numpy(xy).float(),
            torch.from_numpy(inside),
            torch.from_numpy(inside).float(),
        ),
        fps=12.0,
        depth_kind="metric",
        world_scale="metric",
    )


class ExactFlow(FlowEstimator):
    """The flow of the wall; frames say their number by their first pixel."""

    name = "exact"
    parallel = True

    def provenance(self) -> dict:
        return {"method": "exact"}

    def estimate(self, images0, images1, initial):
        w2cs, grid = poses(), pixel_grid()
        source, target = (int(images[0, 0, 0, 0]) for images in (images0, images1))
        flow = project(w2cs[target], lift(w2cs[source], grid)[0]) - grid
        return torch.from_numpy(flow).float()[None]


def write_exact_flow(folder) -> None:
    frames = np.zeros((T, H, W, 3), np.uint8)
    frames[:, 0, 0] = np.arange(T)[:, None]
    compute_video_flow(frames, ExactFlow(), strides=(1, 4), folder=folder)
