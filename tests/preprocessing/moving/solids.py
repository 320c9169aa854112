"""Moving solids before a wall on level ground, seen by a camera that stands still: maps, masks and tracks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

T, H, W, F = 16, 90, 120, 110.0
WALL, CAMERA_HEIGHT = 10.0, 1.0
K = np.array([[F, 0, W / 2], [0, F, H / 2], [0, 0, 1.0]])


@dataclass
class Film:
    """What a camera would give, and the truth."""

    depth: torch.Tensor
    """(T,H,W), true everywhere."""
    moving: torch.Tensor
    xy: np.ndarray
    """(Q,T,2)"""
    visible: np.ndarray
    z: np.ndarray
    """(Q,T) true depth of the tracked points."""

    def background(self) -> torch.Tensor:
        return static_depth().expand(T, H, W).clone()


def static_depth() -> torch.Tensor:
    """(H,W): level ground below the camera, and a wall."""
    rows = np.arange(H) + 0.5 - H / 2
    ground = np.where(rows > 0, F * CAMERA_HEIGHT / np.maximum(rows, 1e-9), np.inf)
    return torch.from_numpy(np.minimum(ground, WALL)).float()[:, None].expand(H, W).clone()


def box_points(side: float, per_edge: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Points on the faces of a cube about the origin, and their normals."""
    line = np.linspace(-0.5, 0.5, per_edge)
    square = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    points, normals = [], []
    for axis in range(3):
        for sign in (-0.5, 0.5):
            points.append(np.insert(square, axis, sign, axis=1))
            normals.append(np.repeat(np.eye(3)[axis][None] * 2 * sign, len(square), 0))
    return np.concatenate(points) * side, np.concatenate(normals)


def turned(angle: float) -> np.ndarray:
    """Rotation about the vertical by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def film_box(centers: np.ndarray, angles: np.ndarray, side: float = 0.8, noise: float = 0.0, seed: int = 0) -> Film:
    """A cube (T centres in camera axes, T angles about the vertical); its hidden points are not visible."""
    points, normals = box_points(side)
    xy, visible = np.zeros((len(points), T, 2)), np.zeros((len(points), T), bool)
    z, depth = np.zeros((len(points), T)), static_depth().expand(T, H, W).clone()
    moving = torch.zeros(T, H, W, dtype=torch.bool)
    for t in range(T):
        R = turned(angles[t])
        X = points @ R.T + centers[t]
        xy[:, t], z[:, t] = X[:, :2] / X[:, 2:] * F + [W / 2, H / 2], X[:, 2]
        visible[:, t] = ((normals @ R.T) * X).sum(1) < -0.02 * X[:, 2]
        depth[t], moving[t] = _drawn(depth[t], xy[:, t], z[:, t])
    xy += np.random.default_rng(seed).normal(0, noise, xy.shape)
    return Film(depth, moving, xy, visible, z)


def _drawn(depth: torch.Tensor, xy: np.ndarray, z: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """One frame with the outline of points filled at their nearest depth around."""
    mask = np.zeros((H, W), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.floor(xy).astype(np.int32)), 1)
    filled = depth.clone()
    filled[torch.from_numpy(mask).bool()] = float(z.min())
    return filled, torch.from_numpy(mask).bool()
