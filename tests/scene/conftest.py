import pytest
import torch

from som.data.normalization import Normalization
from som.scene import DynamicScene, Gaussians, MotionBases


def make_gaussians(count: int, num_bases: int | None, generator: torch.Generator) -> Gaussians:
    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    return Gaussians.from_values(
        means=rand(count, 3) - 0.5,
        quats=torch.randn(count, 4, generator=generator),
        scales=0.03 + 0.05 * rand(count, 3),
        opacities=0.3 + 0.6 * rand(count),
        colors=rand(count, 3),
        motion_coefs=None if num_bases is None else torch.randn(count, num_bases, generator=generator),
    )


@pytest.fixture
def scene() -> DynamicScene:
    """A small random scene of 40 + 60 Gaussians, 3 bases and 5 times, in front of the camera at z = -3."""
    g = torch.Generator().manual_seed(0)
    rots = torch.eye(3)[:, :2].T.reshape(6) + 0.2 * torch.randn(3, 5, 6, generator=g)
    bases = MotionBases(rots, 0.1 * torch.randn(3, 5, 3, generator=g))
    normalization = Normalization(torch.tensor([1.0, 2.0, 3.0]), 2.5)
    return DynamicScene(make_gaussians(40, 3, g), bases, make_gaussians(60, None, g), normalization)


@pytest.fixture
def cameras():
    """Two cameras (w2cs, Ks) and the image size (width, height)."""
    w2cs = torch.eye(4).repeat(2, 1, 1)
    w2cs[:, 2, 3] = 3.0
    w2cs[1, 0, 3] = 0.3
    K = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
    return w2cs, K.expand(2, 3, 3), (32, 24)
