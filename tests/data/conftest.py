"""A tiny video with known cameras, written by the tests in every on-disk format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from som.cameras import Camera
from som.data.config import DemoData
from som.data.dataset import GroundTruthTracks, Tracks, VideoDataset, Views
from som.data.demo import load_demo

HEIGHT, WIDTH, TIMES = 24, 32, 4


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    axis = axis / np.linalg.norm(axis)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@dataclass
class Toy:
    """Frames of ``size`` whose only red pixel is the projection of ``point``; depth there is exact."""

    images: np.ndarray
    depths: np.ndarray
    foreground: np.ndarray
    w2cs: np.ndarray
    K: np.ndarray
    point: np.ndarray

    def check(self, views: Views, scale: float = 1.0) -> None:
        """The red pixel of every view is where its camera projects the point, at the right depth."""
        for i, time in enumerate(views.times.tolist()):
            K, w2c = views.cameras.K[i].double().numpy(), views.cameras.w2c[i].double().numpy()
            camera = w2c[:3, :3] @ self.point + w2c[:3, 3]
            x, y = (K @ camera)[:2] / camera[2]
            wanted = self.w2cs[time][:3, :3] @ self.point + self.w2cs[time][:3, 3]
            assert np.allclose((x, y), (self.K @ wanted)[:2] / wanted[2] * scale, atol=1e-3)
            if scale == 1.0:
                assert views.images[i, int(y), int(x)].tolist() == [255, 0, 0]
                if views.depths is not None:
                    assert abs(float(views.depths[i, int(y), int(x)]) - camera[2]) < 1e-4 * camera[2]


@pytest.fixture
def toy() -> Toy:
    return make_toy()


def make_toy(still: bool = False) -> Toy:
    rng = np.random.default_rng(0)
    K = np.array([[30.0, 0, 15.5], [0, 31.0, 12.25], [0, 0, 1]])
    point = np.array([0.3, -0.2, 4.0])
    images = rng.integers(0, 200, (TIMES, HEIGHT, WIDTH, 3)).astype(np.uint8)
    depths = rng.uniform(2, 6, (TIMES, HEIGHT, WIDTH)).astype(np.float32)
    foreground = np.zeros((TIMES, HEIGHT, WIDTH), bool)
    foreground[:, 8:16, 10:20] = True
    w2cs = np.repeat(np.eye(4)[None], TIMES, 0)
    for t in range(TIMES):
        if not still:
            w2cs[t, :3, :3] = rotation(np.array([0.2, 1.0, 0.1]), 0.04 * t)
            w2cs[t, :3, 3] = 0.1 * t, -0.05 * t, 0.02 * t
        camera = w2cs[t, :3, :3] @ point + w2cs[t, :3, 3]
        x, y = (K @ camera)[:2] / camera[2]
        images[t, int(y), int(x)] = 255, 0, 0
        depths[t, int(y), int(x)] = camera[2]
    return Toy(images, depths, foreground, w2cs, K, point)


@pytest.fixture
def still_toy() -> Toy:
    """The same with a camera that does not move."""
    return make_toy(still=True)


@pytest.fixture
def toy_dataset(toy: Toy) -> VideoDataset:
    """The tiny video as a data set with one held-out view, tracks and ground truth."""

    def views(index: list[int], names: list[str], covisible: bool) -> Views:
        return Views(
            names=names,
            times=torch.tensor(index),
            images=torch.from_numpy(toy.images[index]),
            cameras=Camera.from_arrays(toy.K, toy.w2cs[index], *toy.images.shape[2:0:-1]),
            valid=torch.from_numpy(toy.depths[index] > 2.1),
            foreground=torch.from_numpy(toy.foreground[index]),
            depths=torch.from_numpy(toy.depths[index]),
            depth_confidence=torch.from_numpy(toy.depths[index] / 8),
            covisible=torch.from_numpy(toy.depths[index] > 3) if covisible else None,
        )

    generator = torch.Generator().manual_seed(0)
    count = 5
    xy = torch.rand((count, TIMES, 2), generator=generator) * 20
    visible = torch.rand((count, TIMES), generator=generator) > 0.3
    return VideoDataset(
        name="toy",
        num_times=TIMES,
        train=views([0, 1, 2, 3], ["a", "b", "c", "d"], False),
        val=views([2], ["c"], True),
        tracks=Tracks(torch.tensor([0, 0, 1, 2, 3]), xy, visible, visible.float() * 0.5),
        ground_truth_tracks=GroundTruthTracks(
            torch.tensor([0, 0, 1, 2, 3]),
            torch.rand((count, TIMES, 3), generator=generator),
            xy,
            visible,
            torch.arange(count) > 2,
        ),
        fps=12.5,
        depth_kind="scale",
        world_scale="metric",
        source={"images": "made up"},
    )


SMALL_DEMO = {"width": 96, "height": 54, "num_times": 6, "held_out_times": 2, "samples": 1}


@pytest.fixture(scope="session")
def demo_config(tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    return DemoData(cache_dir=Path(tmp_path_factory.mktemp("demo")), **SMALL_DEMO)


@pytest.fixture(scope="session")
def demo(demo_config: DemoData) -> VideoDataset:
    return load_demo(demo_config)
