"""Small clips with exact flow and masks: textured layers, drawn and moved by formulas."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from flow.video_flow import VideoFlow

STRIDES = (1, 2, 4, 8)
H, W, T = 96, 144, 12


@dataclass
class Clip:
    flow: VideoFlow
    frames: np.ndarray
    moving: np.ndarray
    K: torch.Tensor
    w2c: torch.Tensor

    def iou(self, foreground, frames=slice(None)):
        found, truth = foreground.numpy()[frames], self.moving[frames]
        return (found & truth).sum() / max((found | truth).sum(), 1)

    def recall(self, foreground, frames=slice(None)):
        return foreground.numpy()[frames][self.moving[frames]].mean()


def texture(seed):
    """A lookup (x,y) in units -> RGB, smooth at the scale of some pixels."""
    noise = np.random.default_rng(seed).uniform(0, 255, (256, 256, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.5)
    noise = np.clip((noise - noise.mean()) * 4 + 128, 0, 255)

    def look_up(xy):
        x, y = (xy * 16).astype(np.float32).transpose(2, 0, 1)
        return cv2.remap(noise, x % 256, y % 256, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    return look_up


def make_layers(layers, positions, size=(H, W), focal=120.0):
    """Fronto-parallel rectangles seen by a camera that looks along z.

    Args:
        layers: (z, (x0, y0, x1, y1) at time 0, path (T,2), colour offset); the nearest comes first.
        positions: (T,3) of the camera.
    """
    height, width = size
    steps = len(positions)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(x - width / 2) / focal, (y - height / 2) / focal], -1)
    textures = [texture(i) for i in range(len(layers))]
    frames, owner, points = [], [], []
    for t in range(steps):
        image, which = np.zeros((height, width, 3)), np.full((height, width), -1)
        own = np.zeros((height, width, 2))
        for i, (z, (x0, y0, x1, y1), path, tint) in enumerate(layers):
            at = positions[t, :2] + rays * (z - positions[t, 2]) - path[t]
            hit = (which < 0) & (at >= (x0, y0)).all(-1) & (at < (x1, y1)).all(-1)
            which[hit], own[hit] = i, at[hit]
            image[hit] = (textures[i](at) * 0.6 + np.array(tint) * 0.4)[hit]
        assert (which >= 0).all()
        frames.append(image.clip(0, 255).astype(np.uint8))
        owner.append(which)
        points.append(own)
    flow = VideoFlow(steps, size)
    depths, paths = np.array([layer[0] for layer in layers]), np.stack([layer[2] for layer in layers])
    for a in range(steps):
        for b in range(steps):
            if abs(a - b) in STRIDES:
                z = (depths[owner[a]] - positions[b, 2])[..., None]
                there = points[a] + paths[owner[a], b] - positions[b, :2]
                target = there / z * focal + np.array([width / 2, height / 2])
                flow.put(a, b, torch.from_numpy(target - np.stack([x, y], -1)).float())
    moves = np.array([np.ptp(layer[2], axis=0).max() > 0 for layer in layers])
    w2c = np.tile(np.eye(4), (steps, 1, 1))
    w2c[:, :3, 3] = -positions
    return Clip(flow, np.stack(frames), moves[np.stack(owner)], torch.from_numpy(K), torch.from_numpy(w2c))


EVERYWHERE = (-50, -50, 50, 50)
BOX = (-0.7, -0.6, 0.3, 0.3)
RED, BLUE, GREY = (255, 0, 0), (0, 60, 255), (90, 90, 90)


@pytest.fixture(scope="session")
def make_clip():
    """A wall at depth 6 with, where wanted, a box that moves and a static post in front of it."""

    def make(path=None, post=False, camera=None, size=(H, W)):
        time = np.arange(T)[:, None]
        if camera is None:
            camera = time * np.array([[0.12, 0.02, 0.03]])
        stays = np.zeros((T, 2))
        layers = [(2.5, (-0.9, -50, -0.6, 50), stays, BLUE)] if post else []
        if path is not None:
            layers.append((4.0, BOX, np.asarray(path, float), RED))
        return make_layers([*layers, (6.0, EVERYWHERE, stays, GREY)], np.asarray(camera, float), size)

    return make


@pytest.fixture(scope="session")
def falling(make_clip):
    """A wall and a box that moves across the camera's direction; the camera travels."""
    return make_clip(path=np.arange(T)[:, None] * np.array([[0.1, 0.08]]))


@pytest.fixture(scope="session")
def with_post(make_clip):
    """The same with a static post near the camera, whose parallax no homography of the wall explains."""
    return make_clip(path=np.arange(T)[:, None] * np.array([[0.1, 0.08]]), post=True)
