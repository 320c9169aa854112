import pytest
import torch

from som.cameras import Camera
from som.data.dataset import GroundTruthTracks, VideoDataset, Views
from som.data.normalization import Normalization
from som.scene import DynamicScene, Gaussians, MotionBases

WIDTH, HEIGHT, TIMES = 32, 24, 5
K = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
NORMALIZATION = Normalization(torch.tensor([1.0, -2.0, 0.5]), 2.5)


def random_gaussians(count, num_bases, generator):
    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    return Gaussians.from_values(
        means=rand(count, 3) - 0.5,
        quats=torch.randn(count, 4, generator=generator),
        scales=0.05 + 0.1 * rand(count, 3),
        opacities=0.5 + 0.5 * rand(count),
        colors=rand(count, 3),
        motion_coefs=None if num_bases is None else torch.randn(count, num_bases, generator=generator),
    )


@pytest.fixture
def scene() -> DynamicScene:
    """20 + 20 random Gaussians, 2 bases, 5 times; scene coordinates differ from the world by scale and centre."""
    g = torch.Generator().manual_seed(0)
    rots = torch.eye(3)[:, :2].T.reshape(6) + 0.1 * torch.randn(2, TIMES, 6, generator=g)
    bases = MotionBases(rots, 0.1 * torch.randn(2, TIMES, 3, generator=g))
    return DynamicScene(random_gaussians(20, 2, g), bases, random_gaussians(20, None, g), NORMALIZATION)


def cameras_in_world(shift: float = 0.0) -> torch.Tensor:
    """One camera per time that moves slowly to the right, three scene units in front of the scene."""
    w2cs = torch.eye(4).repeat(TIMES, 1, 1)
    centers = torch.tensor([0.0, 0.0, -3.0]) + torch.arange(TIMES)[:, None] * torch.tensor([0.05, 0.0, 0.0])
    centers[:, 1] += shift
    w2cs[:, :3, 3] = -NORMALIZATION.points_to_world(centers)
    return w2cs


@torch.no_grad()
def views_of(scene: DynamicScene, w2cs: torch.Tensor, prefix: str) -> Views:
    """The scene's own renders as ground truth."""
    cameras = Camera(K, w2cs, WIDTH, HEIGHT)
    seen = scene.normalization.cameras_to_scene(cameras)
    out = scene.rasterize_views(seen.w2c, seen.K, torch.arange(TIMES), WIDTH, HEIGHT)
    return Views(
        names=[f"{prefix}_{t:03d}" for t in range(TIMES)],
        times=torch.arange(TIMES),
        images=(out.rgb.clamp(0, 1) * 255).round().to(torch.uint8),
        cameras=cameras,
        valid=torch.ones(TIMES, HEIGHT, WIDTH, dtype=torch.bool),
        foreground=out.foreground > 0.5,
        depths=torch.where(out.alpha > 0.2, out.depth, 0.0) * scene.normalization.scale,
    )


@pytest.fixture
def dataset(scene) -> VideoDataset:
    """A data set that the scene explains exactly, with held-out views."""
    return VideoDataset(
        name="own",
        num_times=TIMES,
        train=views_of(scene, cameras_in_world(), "a"),
        val=views_of(scene, cameras_in_world(0.2), "b"),
        fps=5.0,
        world_scale="metric",
    )


@pytest.fixture
def render_views():
    """``views_of`` for tests."""
    return views_of


def ball_scene_and_tracks(offset_world=(0.0, 0.0, 0.0)):
    """One opaque ball that moves right along with time; from time 3 on it is behind a wall."""
    positions = torch.tensor([[-0.9 + 0.35 * t, 0.0, 0.0] for t in range(TIMES)])
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(1, TIMES, 6)
    size = torch.full((1, 3), 0.12)
    one = torch.ones(1)
    turn = torch.tensor([[1.0, 0, 0, 0]])
    ball = Gaussians.from_values(torch.zeros(1, 3), turn, size, one, torch.ones(1, 3), torch.zeros(1, 1))
    xs = torch.linspace(0.15, 1.5, 10)
    wall_means = torch.stack(torch.meshgrid(xs, torch.linspace(-1, 1, 14), torch.tensor([-1.0]), indexing="ij"), -1)
    wall_means = wall_means.reshape(-1, 3)
    n = len(wall_means)
    wall = Gaussians.from_values(
        wall_means, turn.expand(n, 4), torch.full((n, 3), 0.1), torch.ones(n), torch.zeros(n, 3)
    )
    scene = DynamicScene(ball, MotionBases(identity, positions[None]), wall, NORMALIZATION)
    w2cs = cameras_in_world()[:1].expand(TIMES, 4, 4).clone()
    dataset = VideoDataset("ball", TIMES, views_of(scene, w2cs, "a"), world_scale="metric")
    xyz = NORMALIZATION.points_to_world(positions)[None] + torch.tensor(offset_world)
    camera_points = positions - torch.tensor([0.0, 0.0, -3.0])
    xy = camera_points[:, :2] / camera_points[:, 2:] * 30 + torch.tensor([WIDTH / 2, HEIGHT / 2])
    visible = torch.tensor([[True, True, True, False, False]])
    dataset.ground_truth_tracks = GroundTruthTracks(
        query_times=torch.tensor([1]), xyz=xyz, xy=xy[None], visible=visible, moving=torch.tensor([True])
    )
    return scene, dataset


@pytest.fixture
def make_ball():
    """``ball_scene_and_tracks`` for tests."""
    return ball_scene_and_tracks
