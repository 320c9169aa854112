"""Adaptive density control: where the image still pulls at Gaussians there are too few of them; invisible ones go.

The rules are those of 3D Gaussian Splatting (Kerbl et al. 2023), for foreground and background separately, written on
gsplat's strategy operations, which keep parameters and Adam moments in step. Settings: ``AdaptiveDensity``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gsplat.strategy import ops
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.scene import DynamicScene
from som.scene.gaussians import Gaussians
from som.training.density import AdaptiveDensity
from som.training.optimizers import GroupedOptimizers

Statistics = dict[str, Tensor]
"""What has been seen of each of the G Gaussians of one part since the last round, all (G):

``gradient``, the sum over views of the norm of the 2D centre's gradient, in normalised image units; ``count``, the
number of views in which it was visible; ``radius``, the largest radius on screen, as a part of the longer image side.
"""


@dataclass
class DensityReport:
    """What one round did to one part."""

    duplicated: int = 0
    split: int = 0
    removed: int = 0


def initialize_state(scene: DynamicScene) -> dict[str, Any]:
    """``background_extent``, and the statistics of every part of the scene by its name."""
    statistics = {part: no_statistics(gaussians) for part, gaussians in _parts(scene)}
    return {"background_extent": extent(scene.background), **statistics}


def no_statistics(gaussians: Gaussians) -> Statistics:
    """Those of Gaussians that nothing has been seen of."""
    zeros = torch.zeros(len(gaussians), device=gaussians.means.device)
    return {"gradient": zeros, "count": zeros.clone(), "radius": zeros.clone()}


def extent(background: Gaussians | None) -> float:
    """Half the largest 5-95 % extent of the background, the unit of its size limit."""
    if background is None or len(background) == 0:
        return 1.0
    points = background.means.detach()
    rank = max(1, round(0.05 * len(points)))
    low = points.kthvalue(rank, dim=0).values
    high = points.kthvalue(len(points) + 1 - rank, dim=0).values
    return float((high - low).max()) / 2


@torch.no_grad()
def observe(scene: DynamicScene, state: dict[str, Any], info: dict[str, Any]) -> None:
    """Takes in the rasteriser's ``info`` after the backward pass (means2d (B, 1, G, 2) with its gradient)."""
    gradient = info["means2d"].grad
    if gradient is None:
        return
    gradients, radii = gradient.flatten(0, 1), info["radii"].flatten(0, 1)
    slices = {"foreground": slice(0, scene.num_foreground), "background": slice(scene.num_foreground, None)}
    for part, _ in _parts(scene):
        rows = slices[part]
        accumulate(state[part], gradients[:, rows], radii[:, rows], info["width"], info["height"])


def accumulate(
    statistics: Statistics,
    gradients: Float[Tensor, "b g 2"],
    radii: Int[Tensor, "b g 2"],
    width: int,
    height: int,
) -> None:
    """Adds one batch of B views.

    Args:
        gradients: of the *mean* loss over the batch with respect to the 2D centres in pixels.
        radii: on screen in pixels, (x, y); 0 = not visible.
    """
    visible = (radii > 0).all(-1)
    # per-view gradient in units of half the image, as 3D Gaussian Splatting's threshold expects
    to_ndc = gradients.new_tensor([width / 2.0, height / 2.0]) * gradients.shape[0]
    norm = (gradients * to_ndc).norm(dim=-1)
    statistics["gradient"] += torch.where(visible, norm, 0.0).sum(0)
    statistics["count"] += visible.sum(0)
    largest = torch.where(visible, radii.amax(-1), 0).amax(0) / max(width, height)
    torch.maximum(statistics["radius"], largest, out=statistics["radius"])


@torch.no_grad()
def refine(
    config: AdaptiveDensity,
    scene: DynamicScene,
    optimizers: GroupedOptimizers,
    state: dict[str, Any],
    step: int,
    total_steps: int,
) -> dict[str, DensityReport]:
    """Does what is due after ``step`` steps; returns what was done, by part (empty if nothing was due)."""
    progress = step / total_steps
    reports: dict[str, DensityReport] = {}
    if not config.enabled:
        return reports
    if step % config.every == 0 and config.start <= progress < config.end:
        culls = not any(at <= progress < at + config.cull_pause for at in config.reset_at)
        for part, gaussians in _parts(scene):
            background = part == "background"
            limit = config.max_background if background else config.max_foreground
            largest = config.cull_scale * (state["background_extent"] if background else 1.0)
            remove = _to_remove(config, gaussians, state[part], largest, culls)
            room = limit - len(gaussians) + int(remove.sum())
            grow = _to_grow(config, state[part], remove, max(room, 0))
            reports[part] = _change(config, gaussians, optimizers[part], state[part], remove, grow)
            state[part] = no_statistics(gaussians)
    if any(step == round(at * total_steps) for at in config.reset_at):
        for part, gaussians in _parts(scene):
            ops.reset_opa(gaussians.params, optimizers[part], {}, config.reset_opacity)
    return reports


def _parts(scene: DynamicScene) -> Iterator[tuple[str, Gaussians]]:
    for name, gaussians in (("foreground", scene.foreground), ("background", scene.background)):
        if gaussians is not None:
            yield name, gaussians


def _to_remove(
    config: AdaptiveDensity, gaussians: Gaussians, statistics: Statistics, largest: float, culls: bool
) -> Bool[Tensor, "g"]:
    """Gaussians that are too large in space or on screen or, where ``culls``, too transparent."""
    remove = (gaussians.scales.amax(-1) > largest) | (statistics["radius"] > config.cull_radius)
    if culls:
        remove |= gaussians.opacities < config.cull_opacity
    if bool(remove.all()):  # never leave a part empty: keep its most opaque Gaussian
        remove[gaussians.opacities.argmax()] = False
    return remove


def _to_grow(config: AdaptiveDensity, statistics: Statistics, remove: Tensor, room: int) -> Bool[Tensor, "g"]:
    """Gaussians with a high mean gradient, the highest first if there is not room for all."""
    mean = statistics["gradient"] / statistics["count"].clamp(min=1)
    mean = torch.where(remove, 0.0, mean)
    grow = mean > config.gradient_threshold
    if int(grow.sum()) > room:
        chosen = torch.zeros_like(grow)
        chosen[mean.topk(room).indices] = True
        grow &= chosen
    return grow


def _change(
    config: AdaptiveDensity,
    gaussians: Gaussians,
    optimizers: dict[str, torch.optim.Optimizer],
    statistics: Statistics,
    remove: Bool[Tensor, "g"],
    grow: Bool[Tensor, "g"],
) -> DensityReport:
    """Duplicates or splits those that grow, and removes the others."""
    big = (gaussians.scales.amax(-1) > config.max_scale) | (statistics["radius"] > config.split_radius)
    # each operation appends or removes rows, so the masks are carried along as if they were statistics
    masks = {"remove": remove, "split": grow & big, "duplicate": grow & ~big}
    report = DensityReport(int(masks["duplicate"].sum()), int(masks["split"].sum()), int(remove.sum()))
    if report.duplicated:
        selected = masks["duplicate"]
        ops.duplicate(gaussians.params, optimizers, masks, selected)
        masks["split"][len(selected) :] = False
    if report.split:
        ops.split(gaussians.params, optimizers, masks, masks["split"].clone(), revised_opacity=True)
    if report.removed:
        ops.remove(gaussians.params, optimizers, {}, masks["remove"])
    return report
