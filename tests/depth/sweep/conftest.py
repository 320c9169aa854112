"""A textured slanted wall with a box in front of it, rendered exactly, seen by a camera that moves sideways."""

from dataclasses import dataclass

import pytest
import torch

from som.cameras.geometry import pixel_centers

HEIGHT, WIDTH, FOCAL, FRAMES = 60, 90, 90.0, 9
STEP = 0.08
"""Metres between frames: 2.9 px at 2.5 m, 1.6 px at 4.5 m."""


@dataclass
class Scene:
    images: torch.Tensor
    Ks: torch.Tensor
    w2cs: torch.Tensor
    depth: torch.Tensor
    box: torch.Tensor


def texture(x, y, seed):
    g = torch.Generator().manual_seed(seed)
    waves = torch.randn(24, 2, generator=g) * 11
    phase = torch.rand(24, 3, generator=g) * 6.28
    angle = x[..., None] * waves[:, 0] + y[..., None] * waves[:, 1]
    return torch.stack([(angle + phase[:, c]).sin().mean(-1) for c in range(3)]) * 1.4 + 0.5


def render(centers, box_shift=None, samples=2):
    """Images (T,3,H,W), depth and box mask (T,H,W). ``box_shift`` (T,) moves the box along x."""
    box_shift = torch.zeros(len(centers)) if box_shift is None else box_shift
    offsets = (torch.arange(samples) + 0.5) / samples - 0.5
    center = torch.tensor([WIDTH / 2, HEIGHT / 2])
    images, depths, boxes = [], [], []

    def shoot(c, shift, xy):
        rays = (xy - center) / FOCAL
        wall = (4.5 + 0.25 * c[0] - c[2]) / (1 - 0.25 * rays[..., 0])  # z = 4.5 + 0.25 x
        box = torch.full_like(wall, 2.5) - c[2]
        x, y = c[0] + rays[..., 0] * box - shift, c[1] + rays[..., 1] * box
        on_box = (x.abs() < 0.35) & (y.abs() < 0.25)
        depth = torch.where(on_box, box, wall)
        X, Y = c[0] + rays[..., 0] * depth, c[1] + rays[..., 1] * depth
        color = torch.where(on_box, texture(X - shift, Y, 1), texture(0.6 * X, 0.6 * Y, 2))
        return color.clamp(0, 1), depth, on_box

    for c, shift in zip(centers, box_shift, strict=True):
        xy = pixel_centers(HEIGHT, WIDTH)
        _, depth, on_box = shoot(c, shift, xy)
        colors = [shoot(c, shift, xy + torch.stack([dx, dy]))[0] for dx in offsets for dy in offsets]
        images.append(torch.stack(colors).mean(0))
        depths.append(depth)
        boxes.append(on_box)
    return torch.stack(images), torch.stack(depths), torch.stack(boxes)


def cameras(centers):
    Ks = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]).repeat(len(centers), 1, 1)
    w2cs = torch.eye(4).repeat(len(centers), 1, 1)
    w2cs[:, :3, 3] = -centers
    return Ks, w2cs


def sideways(step=STEP):
    centers = torch.zeros(FRAMES, 3)
    centers[:, 0] = (torch.arange(FRAMES) - FRAMES // 2) * step
    return centers


def make_scene(centers, box_shift=None):
    images, depth, box = render(centers, box_shift)
    return Scene(images, *cameras(centers), depth, box)


@pytest.fixture(scope="session")
def scene():
    return make_scene(sideways())


@pytest.fixture(scope="session")
def moving_scene():
    """The box rides along the camera's way at half its speed: it looks static, but at the depth 5 of a slower thing."""
    centers = sideways()
    return make_scene(centers, 0.5 * centers[:, 0])


@pytest.fixture(scope="session")
def jumping_scene():
    """The box moves to and fro, which no static depth explains."""
    shift = torch.tensor([0.0, 0.3, -0.2, 0.25, 0.0, -0.3, 0.2, -0.25, 0.1])
    return make_scene(sideways(), shift)
