import pytest
import torch

from som.cameras import Camera
from som.data.dataset import Tracks, VideoDataset, Views
from som.data.normalization import Normalization
from som.scene import DynamicScene, Gaussians, MotionBases

T, H, W = 6, 24, 32


def make_scene(seed: int = 0) -> DynamicScene:
    """A ball of 30 Gaussians that slides in front of a wall of 80, in scene coordinates."""
    g = torch.Generator().manual_seed(seed)
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(2, T, 1)
    slide = torch.zeros(2, T, 3)
    slide[:, :, 0] = torch.linspace(-0.4, 0.4, T)
    ball = Gaussians.from_values(
        means=0.15 * torch.randn(30, 3, generator=g),
        quats=torch.randn(30, 4, generator=g),
        scales=torch.full((30, 3), 0.06),
        opacities=torch.full((30,), 0.8),
        colors=torch.tensor([0.9, 0.2, 0.1]) * (0.5 + 0.5 * torch.rand(30, 1, generator=g)),
        motion_coefs=torch.randn(30, 2, generator=g),
    )
    wall = torch.rand(80, 3, generator=g) * torch.tensor([2.4, 1.8, 0.1]) - torch.tensor([1.2, 0.9, -0.8])
    background = Gaussians.from_values(
        means=wall,
        quats=torch.randn(80, 4, generator=g),
        scales=torch.full((80, 3), 0.15),
        opacities=torch.full((80,), 0.9),
        colors=torch.rand(80, 3, generator=g),
    )
    return DynamicScene(ball, MotionBases(identity, slide), background, Normalization(torch.zeros(3), 1.0))


@torch.no_grad()
def make_dataset() -> VideoDataset:
    """The scene above as seen by a slowly moving camera, with exact depth, masks and tracks of the ball's centre."""
    scene = make_scene()
    w2cs = torch.eye(4).repeat(T, 1, 1)
    w2cs[:, 2, 3] = 3.0
    w2cs[:, 0, 3] = torch.linspace(-0.1, 0.1, T)
    Ks = torch.tensor([[30.0, 0, W / 2], [0, 30, H / 2], [0, 0, 1]]).repeat(T, 1, 1)
    times = torch.arange(T)
    out = scene.rasterize_views(w2cs, Ks, times, W, H)
    views = Views(
        names=[f"{t:03d}" for t in range(T)],
        times=times,
        images=(out.rgb.clamp(0, 1) * 255).round().to(torch.uint8),
        cameras=Camera(Ks, w2cs, W, H),
        valid=torch.ones(T, H, W, dtype=torch.bool),
        foreground=out.foreground > 0.5,
        depths=out.depth,
    )
    centers = scene.foreground_poses(times).positions
    cam = centers.transpose(0, 1) @ torch.eye(3) + w2cs[:, :3, 3]
    xy = cam[..., :2] / cam[..., 2:] * 30 + torch.tensor([W / 2, H / 2])
    visible = torch.ones(30, T, dtype=torch.bool)
    tracks = Tracks(torch.zeros(30, dtype=torch.long), xy, visible, visible.float())
    return VideoDataset(name="slide", num_times=T, train=views, val=views.select([1, 4]), tracks=tracks)


@pytest.fixture
def scene() -> DynamicScene:
    return make_scene()


@pytest.fixture
def dataset() -> VideoDataset:
    return make_dataset()
