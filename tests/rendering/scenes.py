"""Random scenes to draw, and the comparison of a rasteriser with the dense float64 reference."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from som.rendering.reference import rasterize_reference

LEAVES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")


def random_scene(
    n: int,
    width: int,
    height: int,
    channels: int = 3,
    seed: int = 0,
    *,
    batch: tuple[int, ...] = (),
    cameras: int = 1,
    sigma: float = 3.0,
    opacity: tuple[float, float] = (0.2, 0.9),
    colors_per_view: bool = False,
) -> dict:
    """Gaussians in front of cameras that look at them from slightly different places; ``sigma`` in pixels."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    focal = 0.9 * width
    z = 2 + 8 * uniform(*batch, n)
    x, y = (uniform(*batch, n) * 1.1 - 0.05) * width, (uniform(*batch, n) * 1.1 - 0.05) * height
    means = torch.stack([(x - width / 2) / focal * z, (y - height / 2) / focal * z, z], -1)
    scales = sigma * (0.5 * normal(*batch, n, 1) + 0.4 * normal(*batch, n, 3)).exp() * (z / focal)[..., None]
    viewmats = torch.eye(4).repeat(*batch, cameras, 1, 1)
    angle = 0.05 * normal(*batch, cameras)
    viewmats[..., 0, 0] = viewmats[..., 2, 2] = angle.cos()
    viewmats[..., 0, 2], viewmats[..., 2, 0] = angle.sin(), -angle.sin()
    viewmats[..., :3, 3] = 0.1 * normal(*batch, cameras, 3)
    Ks = torch.tensor([[focal, 0, width / 2 - 0.7], [0, focal * 1.1, height / 2 + 0.4], [0, 0, 1]])
    view = (cameras,) if colors_per_view else ()
    return dict(
        means=means,
        quats=normal(*batch, n, 4) * (0.1 + 3 * uniform(*batch, n, 1)),
        scales=scales,
        opacities=opacity[0] + (opacity[1] - opacity[0]) * uniform(*batch, n),
        colors=uniform(*batch, *view, n, channels),
        viewmats=viewmats,
        Ks=Ks.repeat(*batch, cameras, 1, 1),
        width=width,
        height=height,
    )


def hard_scenes() -> dict[str, dict]:
    """What goes wrong in rasterisers, by name."""
    scenes = {"plain": random_scene(400, 61, 45, 3, 1)}

    around = random_scene(300, 64, 48, 5, 2)
    generator = torch.Generator().manual_seed(20)
    around["means"][:150] = torch.randn(150, 3, generator=generator) * 2  # behind, beside and around the camera
    scenes["around the camera"] = around

    sizes = random_scene(400, 50, 40, 17, 3, sigma=1.0)
    sizes["scales"][:100] *= 0.01
    sizes["scales"][100:130] *= 60
    sizes["opacities"][160:200] = 0.9995  # above the clamp
    sizes["opacities"][200:210] = 0.003  # below 1/255
    scenes["tiny, huge, opaque, transparent"] = sizes

    needles = random_scene(60, 50, 40, 3, 4, sigma=1.0)
    needles["scales"][:30] *= torch.tensor([40.0, 0.05, 1.0])
    scenes["needles"] = needles

    scenes["dense and opaque"] = random_scene(1500, 80, 64, 4, 5, opacity=(0.6, 0.999))

    crowd = random_scene(100, 40, 30, 6, 6, sigma=0.3, opacity=(0.02, 0.3))
    crowd["means"] = torch.tensor([0.1, -0.1, 5.0]) + 0.01 * torch.randn(100, 3, generator=generator)
    scenes["a hundred in one pixel"] = crowd

    scenes["fifteen"] = random_scene(15, 33, 17, 3, 7)
    scenes["seventeen"] = random_scene(17, 16, 16, 1, 8)
    scenes["one"] = random_scene(1, 20, 20, 2, 9, sigma=5.0, opacity=(0.8, 0.8))
    scenes["one pixel"] = random_scene(40, 1, 1, 3, 10, sigma=1.0)
    scenes["one row"] = random_scene(60, 70, 1, 9, 11, sigma=2.0)
    scenes["none seen"] = random_scene(30, 40, 30, 3, 12) | {"means": torch.full((30, 3), -5.0)}
    scenes["several views"] = random_scene(120, 37, 29, 3, 13, cameras=3)
    scenes["several scenes and views"] = random_scene(90, 37, 29, 5, 14, batch=(2, 2), cameras=2)
    scenes["colours per view"] = random_scene(90, 37, 29, 7, 15, batch=(2,), cameras=3, colors_per_view=True)
    return scenes


def backgrounds_for(scene: dict, seed: int = 99) -> Tensor:
    lead = scene["viewmats"].shape[:-2]
    return torch.rand(*lead, scene["colors"].shape[-1], generator=torch.Generator().manual_seed(seed))


def draw(rasterize, scene: dict, dtype=torch.float32, **options):
    """(renders, alphas, info, leaves): the scene's tensors as fresh leaves of the given type, drawn."""
    arguments = scene | options
    leaves = {}
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            value = value.detach().to(dtype).clone()
            if name in LEAVES:
                leaves[name] = value.requires_grad_()
            arguments[name] = value
    return (*rasterize(**arguments), leaves)


def compare(rasterize, scene: dict, seed: int = 7, **options) -> tuple[float, dict[str, float], float]:
    """(error of the images, relative error of each gradient, share of ambiguous pixels) against the reference."""
    generator = torch.Generator().manual_seed(seed)
    want, want_alpha, want_info, want_leaves = draw(rasterize_reference, scene, torch.float64, **options)
    clear = ~want_info["ambiguous"][..., None]
    got, got_alpha, got_info, got_leaves = draw(rasterize, scene, **options)
    assert got.shape == want.shape and got_alpha.shape == want_alpha.shape
    size = max(1.0, want.abs().max().item())
    image_error = max(
        ((got - want) * clear).abs().max().item() / size, ((got_alpha - want_alpha) * clear).abs().max().item()
    )
    weights = torch.randn(want.shape, generator=generator) * clear
    alpha_weights = torch.randn(want_alpha.shape, generator=generator) * clear
    got_info["means2d"].retain_grad()
    want_info["means2d"].retain_grad()
    ((got * weights).sum() + (got_alpha * alpha_weights).sum()).backward()
    ((want * weights).sum() + (want_alpha * alpha_weights).sum()).backward()
    pairs = {name: (got_leaves[name].grad, want_leaves[name].grad) for name in got_leaves}
    pairs["means2d"] = (got_info["means2d"].grad, want_info["means2d"].grad)
    errors = {name: relative_error(*gradients) for name, gradients in pairs.items()}
    return image_error, errors, 1 - clear.float().mean().item()


def relative_error(got: Tensor | None, want: Tensor | None) -> float:
    """Norm of the difference over the norm of ``want``; None counts as zeros."""
    if got is None or want is None:
        present = got if got is not None else want
        return 0.0 if present is None else present.norm().item()
    if want.norm() < 1e-12:
        return got.norm().item()
    error = ((got.double() - want).norm() / want.norm()).item()
    return error if math.isfinite(error) else math.inf
