"""Tiny synthetic inputs with known motion."""

from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation

from som.cameras import Camera
from som.data.dataset import Tracks, VideoDataset, Views
from som.initialization.lifting import LiftedTracks

H, W, FOCAL = 48, 64, 60.0


def turning(axis, degrees_per_frame: float, velocity, center, num_times: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations (T,3,3) and translations (T,3) of a body that turns about its moving centre."""
    angles = torch.arange(num_times)[:, None] * torch.tensor(axis, dtype=torch.float64) * degrees_per_frame
    R = torch.from_numpy(Rotation.from_rotvec(angles.numpy(), degrees=True).as_matrix())
    center = torch.tensor(center, dtype=torch.float64)
    path = center + torch.arange(num_times)[:, None] * torch.tensor(velocity, dtype=torch.float64)
    return R, path - (R @ center[:, None])[..., 0]


def rigid_tracks(
    motions, per_body: int = 300, life: int | None = None, noise: float = 0.0, seed: int = 0
) -> tuple[LiftedTracks, torch.Tensor]:
    """Tracks on spheres of radius 0.3 about (body, 0, 0), each seen for ``life`` consecutive times; and their body."""
    g = torch.Generator().manual_seed(seed)
    points, labels = [], []
    T = len(motions[0][0])
    for body, (R, t) in enumerate(motions):
        p = torch.nn.functional.normalize(torch.randn(per_body, 3, generator=g, dtype=torch.float64), dim=-1) * 0.3
        p[:, 0] += body
        points.append(torch.einsum("tij,qj->qti", R, p) + t)
        labels.append(torch.full((per_body,), body))
    points = torch.cat(points)
    observed = torch.ones(points.shape[:2], dtype=torch.bool)
    if life is not None:
        start = torch.randint(1 - life, T, (len(points), 1), generator=g)
        times = torch.arange(T)
        observed = (times >= start) & (times < start + life)
    points = points + noise * torch.randn(points.shape, generator=g, dtype=torch.float64)
    tracks = LiftedTracks((points * observed[..., None]).float(), observed, observed.float())
    kept = observed.sum(1) >= min(3, T)
    return tracks.select(kept), torch.cat(labels)[kept]


def sliding_square(
    num_times: int = 6, step: float = 0.1, with_tracks: bool = True, has_background: bool = True, moving: bool = True
) -> VideoDataset:
    """A square of side 0.6 at depth 2 slides in x before a wall at depth 4; the camera rests at the origin."""
    K = torch.tensor([[FOCAL, 0, W / 2], [0, FOCAL, H / 2], [0, 0, 1]])
    row, column = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    x, y = (column - W / 2) / FOCAL * 2, (row - H / 2) / FOCAL * 2
    left = -0.5 + step * torch.arange(num_times)[:, None, None]
    square = (x >= left) & (x < left + 0.6) & (y.abs() < 0.3)
    depths = torch.where(square, 2.0, 4.0)
    images = torch.where(square[..., None], torch.tensor([255, 0, 0]), torch.tensor([0, 255, 255])).to(torch.uint8)
    tracks = None
    if with_tracks:
        grid = torch.cartesian_prod(torch.linspace(0.06, 0.54, 7), torch.linspace(-0.24, 0.24, 7))
        at = torch.stack(
            [grid[:, :1] + left[:, 0, 0], grid[:, 1:].expand(-1, num_times)], -1
        )  # (Q, T, 2) in metres at depth 2
        xy = at / 2 * FOCAL + torch.tensor([W / 2, H / 2])
        tracks = Tracks(
            query_times=torch.arange(len(xy)) % num_times,
            xy=xy,
            visible=torch.ones(xy.shape[:2], dtype=torch.bool),
            confidence=torch.ones(xy.shape[:2]),
        )
    return VideoDataset(
        name="square",
        num_times=num_times,
        train=Views(
            names=[str(i) for i in range(num_times)],
            times=torch.arange(num_times),
            images=images,
            cameras=Camera(K, torch.eye(4).repeat(num_times, 1, 1), *images.shape[2:0:-1]),
            valid=torch.ones_like(square),
            foreground=square if moving else torch.zeros_like(square),
            depths=depths,
        ),
        tracks=tracks,
        has_background=has_background,
    )
