"""Camera paths for novel-view videos: pure functions from cameras to cameras.

All cameras are OpenCV world-to-camera matrices (x right, y down, z forward). ``depth`` is the distance from the camera
to what it looks at, in the cameras' unit: it sizes every path, so a video from one static camera still gets parallax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from som.cameras import Camera
from som.cameras.geometry import camera_centers
from som.cameras.rotations import mean_rotations

MIN_AXES_ANGLE = math.radians(3.0)
"""Spread of the optical axes below which their closest point says nothing about the scene."""


def camera_from(rotation_w2c: Float[Tensor, "*n 3 3"], centers: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 4 4"]:
    """World-to-camera matrices from rotations and positions."""
    w2cs = torch.eye(4).to(centers).repeat(*centers.shape[:-1], 1, 1)
    w2cs[..., :3, :3] = rotation_w2c
    w2cs[..., :3, 3] = -(rotation_w2c @ centers[..., None])[..., 0]
    return w2cs


def look_at(
    centers: Float[Tensor, "*n 3"], target: Float[Tensor, "3"], up: Float[Tensor, "3"]
) -> Float[Tensor, "*n 4 4"]:
    """Cameras at ``centers`` that look at ``target`` with ``up`` pointing up in the image.

    Where the view direction is along ``up`` the world axis least aligned with it takes its place.
    """
    forward = target - centers
    norm = forward.norm(dim=-1, keepdim=True)
    fallback = torch.tensor([0.0, 0.0, 1.0]).to(centers).expand_as(forward)
    forward = torch.where(norm > 1e-9, forward / norm.clamp(min=1e-9), fallback)
    right = torch.linalg.cross(forward, up.to(centers).expand_as(forward), dim=-1)
    axis = torch.eye(3).to(centers)[forward.abs().argmin(-1)]
    degenerate = right.norm(dim=-1, keepdim=True) < 1e-4 * up.norm().clamp(min=1e-9)
    right = torch.where(degenerate, torch.linalg.cross(forward, axis, dim=-1), right)
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right, dim=-1)
    return camera_from(torch.stack([right, down, forward], dim=-2), centers)


def blend_cameras(w2cs: Float[Tensor, "n 4 4"], weights: Float[Tensor, "m n"]) -> Float[Tensor, "m 4 4"]:
    """M weighted means of N cameras: means of the positions, chordal means of the rotations.

    Rotations that cancel have no mean; the camera of the largest weight then lends its rotation.
    """
    weights = (weights / weights.sum(-1, keepdim=True)).to(w2cs)
    centers = weights @ camera_centers(w2cs)
    rotations = w2cs[:, :3, :3]
    mean, unique = mean_rotations(rotations, weights)
    blended = torch.where(unique[:, None, None], mean.to(w2cs), rotations[weights.argmax(-1)])
    return camera_from(blended, centers)


def average_camera(w2cs: Float[Tensor, "n 4 4"]) -> Float[Tensor, "4 4"]:
    """Mean position and mean rotation."""
    return blend_cameras(w2cs, w2cs.new_ones(1, len(w2cs)))[0]


def look_at_point(w2cs: Float[Tensor, "n 4 4"], depth: float) -> Float[Tensor, "3"]:
    """The point closest to all optical axes in the least-squares sense, if they pin one down.

    Parallel axes (one camera, a static or a translating one) and axes that meet behind the cameras or out of
    proportion (beyond 5 x or nearer than 1/5 x ``depth``) do not: then the point at ``depth`` in front of the average
    camera.
    """
    centers, axes = camera_centers(w2cs).double(), w2cs[:, 2, :3].double()
    average = average_camera(w2cs)
    ahead = camera_centers(average) + depth * average[2, :3]
    projectors = torch.eye(3).to(axes) - axes[:, :, None] * axes[:, None, :]  # onto the plane across each axis
    A = projectors.mean(0)
    if float(torch.linalg.eigvalsh(A)[0]) < math.sin(MIN_AXES_ANGLE) ** 2:
        return ahead
    point = torch.linalg.solve(A, (projectors @ centers[:, :, None]).mean(0)[:, 0])
    distance = float(((point - centers) * axes).sum(-1).median())
    return point.to(w2cs) if depth / 5 <= distance <= depth * 5 else ahead


def up_direction(w2cs: Float[Tensor, "n 4 4"]) -> Float[Tensor, "3"]:
    """Mean of the cameras' up axes; that of the first camera where they cancel."""
    ups = -w2cs[:, 1, :3]
    mean = ups.mean(0)
    return torch.nn.functional.normalize(mean if float(mean.norm()) > 1e-3 else ups[0], dim=0)


def _phase(num_frames: int, turns: float, like: Tensor) -> Tensor:
    """Angles that start at 0 and, over the video, make ``turns`` whole turns without repeating the first frame."""
    if num_frames < 1:
        raise ValueError(f"A camera path needs at least one frame, got {num_frames}.")
    return torch.arange(num_frames, dtype=like.dtype, device=like.device) * (2 * math.pi * turns / num_frames)


def _offset_path(w2cs: Tensor, depth: float, offsets: Tensor, aim: bool) -> Tensor:
    """Average camera shifted by ``offsets`` (in its own axes); ``aim`` keeps looking at the look-at point."""
    average = average_camera(w2cs)
    centers = camera_centers(average) + offsets @ average[:3, :3]
    if aim:
        return look_at(centers, look_at_point(w2cs, depth), -average[1, :3])
    return camera_from(average[:3, :3].expand(len(offsets), 3, 3), centers)


def _reach(w2cs: Tensor, depth: float, degrees: float) -> float:
    """Offset that turns the view of the look-at point by half of ``degrees``."""
    distance = float((camera_centers(average_camera(w2cs)) - look_at_point(w2cs, depth)).norm())
    return max(distance, 1e-6) * math.tan(math.radians(min(degrees, 170.0)) / 2)


def fixed(w2cs: Float[Tensor, "n 4 4"], num_frames: int, depth: float = 1.0, **_) -> Float[Tensor, "m 4 4"]:
    """The average camera, in every frame."""
    return _offset_path(w2cs, depth, w2cs.new_zeros(len(_phase(num_frames, 1.0, w2cs)), 3), aim=False)


def arc(
    w2cs: Float[Tensor, "n 4 4"], num_frames: int, depth: float = 1.0, degrees: float = 12.0, turns: float = 1.0
) -> Float[Tensor, "m 4 4"]:
    """Swings left and right about the look-at point, around the cameras' up axis, by ``degrees`` in all."""
    average, target, up = average_camera(w2cs), look_at_point(w2cs, depth), up_direction(w2cs)
    angles = math.radians(degrees) / 2 * _phase(num_frames, turns, w2cs).sin()
    arm = (camera_centers(average) - target).expand(num_frames, 3)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    axis = up.to(arm).expand_as(arm)
    along = (arm * axis).sum(-1, keepdim=True) * axis
    rotated = arm * cos + torch.linalg.cross(axis, arm, dim=-1) * sin + along * (1 - cos)  # Rodrigues
    return look_at(target + rotated, target, up)


def lemniscate(
    w2cs: Float[Tensor, "n 4 4"], num_frames: int, depth: float = 1.0, degrees: float = 12.0, turns: float = 1.0
) -> Float[Tensor, "m 4 4"]:
    """A lying figure of eight around the average camera, ``degrees`` wide, looking at the look-at point."""
    theta = _phase(num_frames, turns, w2cs) + math.pi / 2  # starts at the average camera
    x = theta.cos() / (1 + theta.sin() ** 2)
    offsets = torch.stack([x, x * theta.sin(), torch.zeros_like(x)], -1)
    return _offset_path(w2cs, depth, _reach(w2cs, depth, degrees) * offsets, aim=True)


def spiral(
    w2cs: Float[Tensor, "n 4 4"],
    num_frames: int,
    depth: float = 1.0,
    degrees: float = 12.0,
    turns: float = 1.0,
    z_rate: float = 0.5,
) -> Float[Tensor, "m 4 4"]:
    """Circles around the average camera while moving back and forth, looking at the look-at point."""
    theta = _phase(num_frames, turns, w2cs)
    offsets = torch.stack([theta.cos(), -theta.sin(), -(z_rate * theta).sin()], -1)
    return _offset_path(w2cs, depth, _reach(w2cs, depth, degrees) * offsets, aim=True)


def wander(
    w2cs: Float[Tensor, "n 4 4"], num_frames: int, depth: float = 1.0, degrees: float = 12.0, turns: float = 1.0
) -> Float[Tensor, "m 4 4"]:
    """Drifts sideways and, half as far, forwards, without turning: the parallax of a held camera."""
    theta = _phase(num_frames, turns, w2cs)
    offsets = torch.stack([theta.sin(), torch.zeros_like(theta), (theta.cos() - 1) / 2], -1)
    return _offset_path(w2cs, depth, _reach(w2cs, depth, degrees) * offsets, aim=False)


def train(w2cs: Float[Tensor, "n 4 4"], num_frames: int, **_) -> Float[Tensor, "m 4 4"]:
    """The given cameras in their order, interpolated to ``num_frames``."""
    position = _positions(len(w2cs), num_frames, w2cs)
    index = torch.arange(len(w2cs)).to(position)
    return blend_cameras(w2cs, (1 - (position[:, None] - index).abs()).clamp(min=0))


def stabilised(
    w2cs: Float[Tensor, "n 4 4"], num_frames: int, smoothing: float | None = None, **_
) -> Float[Tensor, "m 4 4"]:
    """The given cameras smoothed by a Gaussian in time, interpolated to ``num_frames``.

    Args:
        smoothing: standard deviation in cameras; an eighth of the sequence by default.
    """
    sigma = max(len(w2cs) / 8 if smoothing is None else smoothing, 0.5)
    position = _positions(len(w2cs), num_frames, w2cs)
    index = torch.arange(len(w2cs)).to(position)
    return blend_cameras(w2cs, torch.exp(-0.5 * ((position[:, None] - index) / sigma) ** 2))


def _positions(num_cameras: int, num_frames: int, like: Tensor) -> Tensor:
    if num_frames < 1:
        raise ValueError(f"A camera path needs at least one frame, got {num_frames}.")
    return torch.linspace(0, num_cameras - 1, num_frames, dtype=like.dtype, device=like.device)


PATHS: dict[str, Callable[..., Tensor]] = {
    "arc": arc,
    "lemniscate": lemniscate,
    "spiral": spiral,
    "wander": wander,
    "fixed": fixed,
    "train": train,
    "stabilised": stabilised,
}


def make_path(
    kind: str,
    cameras: Camera,
    num_frames: int,
    depth: float,
    degrees: float = 12.0,
    turns: float = 1.0,
    follow: bool = False,
) -> Camera:
    """A path by name, with the mean intrinsics of the cameras.

    Args:
        depth: distance to what the cameras look at.
        follow: fly the path relative to the moving, smoothed cameras instead of around their average; for a camera
            that travels through the scene.
    """
    if kind not in PATHS:
        raise ValueError(f"Unknown camera path {kind!r}; there are {', '.join(PATHS)}.")
    if not depth > 0 or not math.isfinite(depth):
        raise ValueError(f"A camera path needs a positive, finite depth, got {depth}.")
    if not follow or kind in ("train", "stabilised"):
        w2cs = PATHS[kind](cameras.w2c, num_frames, depth=depth, degrees=degrees, turns=turns)
    else:
        own = torch.eye(4).to(cameras.w2c)[None]  # the path of one camera at the origin, carried along by the smoothed
        relative = PATHS[kind](own, num_frames, depth=depth, degrees=degrees, turns=turns)
        w2cs = relative @ stabilised(cameras.w2c, num_frames)
    return replace(cameras, K=cameras.K.mean(0), w2c=w2cs)


def travels(w2cs: Float[Tensor, "n 4 4"], depth: float) -> bool:
    """Whether the cameras spread further around their mean than half of ``depth``, or turn by more than 45 degrees."""
    centers, average = camera_centers(w2cs), average_camera(w2cs)
    spread = float((centers - camera_centers(average)).norm(dim=-1).max())
    facing = float((w2cs[:, 2, :3] @ average[2, :3]).min())
    return spread > depth / 2 or facing < math.cos(math.radians(45.0))


