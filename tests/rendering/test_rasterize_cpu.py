"""The CPU rasteriser against the dense float64 reference: images within 1e-4, gradients within 1e-3."""

import pytest
import torch

from som.rendering import RENDER_MODES, rasterize
from som.rendering.reference import rasterize_reference
from tests.rendering.scenes import backgrounds_for, compare, draw, hard_scenes, random_scene, relative_error

SCENES = hard_scenes()


def assert_close(scene, **options):
    image_error, gradient_errors, ambiguous = compare(rasterize, scene, **options)
    assert ambiguous < 0.05, "too many pixels stand at a threshold for this comparison to mean something"
    assert image_error < 1e-4
    assert max(gradient_errors.values()) < 1e-3, gradient_errors


@pytest.mark.parametrize("name", SCENES)
def test_hard_scenes(name):
    assert_close(SCENES[name])


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("render_mode", RENDER_MODES)
def test_modes(render_mode, rasterize_mode):
    scene = random_scene(150, 40, 35, 3, 21, cameras=2, sigma=1.5)
    assert_close(
        scene, render_mode=render_mode, rasterize_mode=rasterize_mode, backgrounds=backgrounds_for(scene)
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 33])
def test_any_number_of_channels(channels):
    scene = random_scene(80, 33, 21, channels, 30 + channels)
    assert_close(scene, backgrounds=backgrounds_for(scene), render_mode="RGB+ED")


@pytest.mark.parametrize("name", ["needles", "tiny, huge, opaque, transparent", "around the camera"])
def test_antialiased_hard_scenes(name):
    assert_close(SCENES[name], rasterize_mode="antialiased")


def test_absgrad_is_the_sum_over_pixels_of_absolute_gradients():
    scene = random_scene(12, 9, 7, 3, 40, cameras=2, sigma=1.5)
    generator = torch.Generator().manual_seed(3)
    want, want_alpha, want_info, _ = draw(rasterize_reference, scene, torch.float64)
    weights = torch.randn(want.shape, generator=generator)
    alpha_weights = torch.randn(want_alpha.shape, generator=generator)
    per_pixel = ((want * weights).sum(-1) + (want_alpha * alpha_weights).sum(-1)).reshape(-1)
    expected = sum(
        torch.autograd.grad(value, want_info["means2d"], retain_graph=True)[0].abs() for value in per_pixel
    )
    got, got_alpha, info, _ = draw(rasterize, scene, absgrad=True)
    info["means2d"].retain_grad()
    ((got * weights).sum() + (got_alpha * alpha_weights).sum()).backward()
    assert relative_error(info["means2d"].absgrad, expected) < 1e-4
    assert (info["means2d"].absgrad >= info["means2d"].grad.abs() * (1 - 1e-4) - 1e-6).all()


def test_info_has_what_density_control_needs():
    scene = random_scene(50, 40, 30, 3, 41, batch=(2,), cameras=3)
    _, _, info, _ = draw(rasterize, scene)
    _, _, want, _ = draw(rasterize_reference, scene, torch.float64)
    assert info["radii"].shape == (2, 3, 50, 2) and info["radii"].dtype == torch.int32
    assert ((info["radii"] - want["radii"]).abs() <= 1).all()
    seen = (info["radii"] > 0).all(-1)
    for name in ("means2d", "conics", "depths", "opacities"):
        assert relative_error(info[name][seen], want[name][seen]) < 1e-4, name
    sizes = [info[name] for name in ("width", "height", "n_batches", "n_cameras", "tile_size", "tile_width")]
    assert sizes == [40, 30, 2, 3, 16, 3] and info["tile_height"] == 2


def test_other_results_are_differentiable_too():
    """A loss may also use the depths and the image positions themselves."""
    scene = random_scene(40, 30, 20, 3, 42)
    _, _, info, leaves = draw(rasterize, scene)
    _, _, want, want_leaves = draw(rasterize_reference, scene, torch.float64)
    seen = (info["radii"] > 0).all(-1)
    for values in (info, want):
        (values["depths"][seen].sum() + (values["means2d"][seen] ** 2).sum()).backward()
    assert relative_error(leaves["means"].grad, want_leaves["means"].grad) < 1e-4


def test_backward_twice_and_part_of_the_outputs():
    scene = random_scene(40, 30, 20, 3, 43)
    renders, alphas, _, leaves = draw(rasterize, scene)
    inputs = [leaves["means"], leaves["colors"]]
    first = torch.autograd.grad(renders.sum(), inputs, retain_graph=True)
    again = torch.autograd.grad(renders.sum(), inputs, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.autograd.grad(alphas.sum(), inputs)[1].abs().max() == 0


def test_not_contiguous_inputs():
    scene = random_scene(64, 30, 20, 3, 44)
    strided = {k: torch.stack([v, v + 1], -1)[..., 0] if torch.is_tensor(v) else v for k, v in scene.items()}
    assert torch.equal(rasterize(**scene)[0], rasterize(**strided)[0])


@pytest.mark.parametrize("render_mode", RENDER_MODES)
def test_no_gaussians_at_all(render_mode):
    scene = random_scene(0, 20, 10, 3, 45, batch=(2,), cameras=2)
    backgrounds = backgrounds_for(scene).requires_grad_()
    means = scene.pop("means").requires_grad_()
    renders, alphas, info = rasterize(means, **scene, backgrounds=backgrounds, render_mode=render_mode)
    assert alphas.shape == (2, 2, 10, 20, 1) and (alphas == 0).all()
    if "RGB" in render_mode:
        assert torch.equal(renders[..., :3], backgrounds.detach()[..., None, None, :].expand(2, 2, 10, 20, 3))
    if "D" in render_mode:
        assert (renders[..., -1] == 0).all()
    info["means2d"].retain_grad()
    renders.sum().backward()
    assert info["means2d"].grad.shape == (2, 2, 0, 2)
    assert means.grad.shape == (2, 0, 3)
