"""The reference against numbers worked out by hand, and its gradients against finite differences."""

import math

import pytest
import torch

from som.cameras.rotations import quat_wxyz_to_matrix
from som.rendering.reference import rasterize_reference
from tests.rendering.scenes import random_scene


def one_gaussian(**changes) -> dict:
    """A round Gaussian on the axis at depth 4, seen with focal length 8 in a 5 x 5 image: sigma^2 = (8/4 * s)^2."""
    scene = dict(
        means=torch.tensor([[0.0, 0.0, 4.0]]),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 0.5),
        opacities=torch.tensor([0.6]),
        colors=torch.tensor([[0.2, 0.7]]),
        viewmats=torch.eye(4)[None],
        Ks=torch.tensor([[[8.0, 0, 2.5], [0, 8.0, 2.5], [0, 0, 1]]]),
        width=5,
        height=5,
    )
    scene |= changes
    return {k: v.double() if torch.is_tensor(v) else v for k, v in scene.items()}


def test_one_gaussian_by_hand():
    renders, alphas, info = rasterize_reference(**one_gaussian())
    variance = (8 / 4 * 0.5) ** 2 + 0.3
    assert torch.allclose(info["means2d"][0, 0], torch.tensor([2.5, 2.5]).double())
    assert info["depths"].item() == 4
    assert torch.allclose(info["conics"][0, 0], torch.tensor([1 / variance, 0, 1 / variance]).double())
    assert info["radii"][0, 0].tolist() == [math.ceil(math.sqrt(2 * math.log(0.6 * 255)) * math.sqrt(variance))] * 2
    for row, column in ((2, 2), (2, 3), (1, 4)):
        squared = (row - 2) ** 2 + (column - 2) ** 2
        alpha = 0.6 * math.exp(-squared / (2 * variance))
        assert alphas[0, row, column, 0].item() == pytest.approx(alpha, abs=1e-7)
        assert renders[0, row, column].tolist() == pytest.approx([0.2 * alpha, 0.7 * alpha], abs=1e-7)


def test_background_and_depth_by_hand():
    backgrounds = torch.tensor([[1.0, 0.5]]).double()
    renders, alphas, _ = rasterize_reference(**one_gaussian(), backgrounds=backgrounds, render_mode="RGB+D")
    alpha = alphas[0, 2, 2, 0].item()
    assert alpha == pytest.approx(0.6)
    expected = [0.2 * alpha + 1 - alpha, 0.7 * alpha + 0.5 * (1 - alpha), 4 * alpha]
    assert renders[0, 2, 2].tolist() == pytest.approx(expected)
    renders, _, _ = rasterize_reference(**one_gaussian(), render_mode="ED")
    assert renders[0, 2, 2].item() == pytest.approx(4.0)


def test_two_gaussians_front_to_back():
    scene = one_gaussian()
    scene = {k: torch.cat([v, v]) if k in ("means", "quats", "scales", "opacities", "colors") else v
             for k, v in scene.items()}  # fmt: skip
    scene["means"][0, 2] = 4.5  # the first in memory is the one behind
    scene["scales"][0] *= 4.5 / 4
    scene["colors"][0] = torch.tensor([1.0, 0.0])
    renders, alphas, _ = rasterize_reference(**scene)
    assert renders[0, 2, 2].tolist() == pytest.approx([0.6 * 0.2 + 0.4 * 0.6 * 1.0, 0.6 * 0.7])
    assert alphas[0, 2, 2, 0].item() == pytest.approx(1 - 0.4**2)


def test_opacity_clamp_and_stop():
    scene = one_gaussian(opacities=torch.tensor([1.0]))
    assert rasterize_reference(**scene)[1].max().item() == pytest.approx(0.999)
    many = {k: v.repeat(3, *[1] * (v.dim() - 1)) if k in ("means", "quats", "scales", "opacities", "colors") else v
            for k, v in scene.items()}  # fmt: skip
    # 0.001 after the first; the second would leave 1e-6 < 1e-4 and is left out, as is the third
    assert rasterize_reference(**many)[1].max().item() == pytest.approx(0.999)


def test_antialiased_by_hand():
    _, alphas, info = rasterize_reference(**one_gaussian(), rasterize_mode="antialiased")
    factor = 1.0 / 1.3  # sqrt(det / det_blurred) for variances 1 and 1.3
    assert info["opacities"].item() == pytest.approx(0.6 * factor)
    assert alphas[0, 2, 2, 0].item() == pytest.approx(0.6 * factor)


def test_rotations_ignore_the_norm_and_accept_zero():
    q = torch.tensor([[0.5, -0.1, 0.3, 0.2], [0.0, 0, 0, 0]]).double()
    R = quat_wxyz_to_matrix(q)
    assert torch.allclose(R, quat_wxyz_to_matrix(q * 7))
    assert torch.allclose(R @ R.mT, torch.eye(3).double().expand(2, 3, 3))
    assert torch.equal(R[1], torch.eye(3).double())


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
def test_gradients_against_finite_differences(rasterize_mode):
    scene = random_scene(4, 6, 5, 2, 3, sigma=2.0, opacity=(0.3, 0.6))
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats")
    leaves = [scene[name].double().requires_grad_() for name in names]
    backgrounds = torch.rand(1, 2, generator=torch.Generator().manual_seed(1)).double().requires_grad_()

    def images(*values):
        arguments = dict(zip(names, values, strict=False)) | dict(backgrounds=values[-1])
        return rasterize_reference(
            **arguments, Ks=scene["Ks"].double(), width=6, height=5, render_mode="RGB+ED", rasterize_mode=rasterize_mode
        )[:2]

    assert torch.autograd.gradcheck(images, (*leaves, backgrounds), eps=1e-6, atol=1e-6)
