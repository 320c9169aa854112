"""gsplat on a GPU against our kernels on the CPU: the same call must draw the same image."""

import pytest
import torch

from som.rendering import RENDER_MODES, rasterize
from tests.rendering.scenes import backgrounds_for, draw, random_scene, relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def on_gpu(scene: dict) -> dict:
    return {k: v.cuda() if torch.is_tensor(v) else v for k, v in scene.items()}


def both(scene: dict, **options):
    """The images and gradients of one scene on the CPU and on the GPU (the latter brought back)."""
    results = []
    for place in (scene | options, on_gpu(scene | options)):
        renders, alphas, info, leaves = draw(rasterize, place)
        info["means2d"].retain_grad()
        weights = torch.randn(renders.shape, generator=torch.Generator().manual_seed(5)).to(renders.device)
        ((renders * weights).sum() + alphas.sum()).backward()
        gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        gradients["means2d"] = info["means2d"].grad
        if options.get("absgrad"):
            gradients["absgrad"] = info["means2d"].absgrad
        gradients = {name: gradient.cpu() for name, gradient in gradients.items()}
        results.append((renders.detach().cpu(), alphas.detach().cpu(), gradients, info))
    return results


def assert_same(scene: dict, **options):
    cpu, gpu = both(scene, **options)
    for ours, theirs in zip(cpu[:2], gpu[:2], strict=True):
        assert ours.shape == theirs.shape
        # A pixel at a threshold (alpha 1/255, T 1e-4) may fall on either side of it; those are few and differ little.
        difference = (ours - theirs).abs() / max(1.0, theirs.abs().max().item())
        assert (difference > 1e-4).float().mean() < 0.02
        assert difference.max() < 0.05
    for name, gradient in cpu[2].items():
        assert relative_error(gradient, gpu[2][name].double()) < 2e-2, name


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("render_mode", RENDER_MODES)
def test_modes(render_mode, rasterize_mode):
    scene = random_scene(300, 64, 48, 3, 80, cameras=2)
    scene["backgrounds"] = backgrounds_for(scene)
    assert_same(scene, render_mode=render_mode, rasterize_mode=rasterize_mode)


@pytest.mark.parametrize("channels", [1, 3, 5, 17])
def test_channels(channels):
    assert_same(random_scene(300, 64, 48, channels, 81))


def test_scenes_and_views():
    assert_same(random_scene(200, 50, 40, 3, 82, batch=(2,), cameras=3))
    assert_same(random_scene(200, 50, 40, 3, 83, batch=(2,), cameras=3, colors_per_view=True))


def test_absgrad():
    assert_same(random_scene(300, 64, 48, 3, 84), absgrad=True)


def test_info():
    cpu, gpu = both(random_scene(300, 64, 48, 3, 85, cameras=2))
    for name, value in cpu[3].items():
        other = gpu[3][name]
        if torch.is_tensor(value):
            assert value.shape == other.shape and value.dtype == other.dtype, name
        else:
            assert value == other, name
    assert ((cpu[3]["radii"] - gpu[3]["radii"].cpu()).abs() <= 1).all()


def test_no_gaussians():
    renders, alphas, _ = rasterize(**on_gpu(random_scene(0, 20, 10, 3, 86)))
    assert renders.is_cuda and (renders == 0).all() and (alphas == 0).all()
