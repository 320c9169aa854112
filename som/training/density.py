"""Adaptive density control: where the image still pulls at Gaussians there are too few of them; invisible ones go.

The rules are those of 3D Gaussian Splatting (Kerbl et al. 2023), for foreground and background separately, written on
gsplat's strategy operations, which keep parameters and Adam moments in step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gsplat.strategy import ops
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.scene import DynamicScene
from som.scene.gaussians import Gaussians
from som.training.config import DensityConfig
from som.training.optimizers import GroupedOptimizers


@dataclass
class Statistics:
    """What has been seen of every Gaussian of one part since the last round of density control."""

    gradient: Float[Tensor, "g"]
    """Sum over views of the norm of the 2D centre's gradient, in normalised image units."""
    count: Float[Tensor, "g"]
    """Number of views in which it was visible."""
    radius: Float[Tensor, "g"]
    """Largest radius on screen, as a part of the longer image side."""

    @staticmethod
    def zeros(count: int, device: torch.device) -> Statistics:
        return Statistics(*(torch.zeros(count, device=device) for _ in range(3)))


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
    statistics.gradient += torch.where(visible, norm, 0.0).sum(0)
    statistics.count += visible.sum(0)
    largest = torch.where(visible, radii.amax(-1), 0).amax(0) / max(width, height)
    torch.maximum(statistics.radius, largest, out=statistics.radius)


@dataclass
class DensityReport:
    """What one round did to one part."""

    duplicated: int = 0
    split: int = 0
    removed: int = 0


class DensityController:
    """Collects statistics every step and changes the set of Gaussians every ``config.every`` steps.

    Args:
        scene: whose foreground and background are changed in place.
        optimizers: theirs; kept in step.
        total_steps: length of the run, which turns the configuration's fractions into steps.
    """

    def __init__(self, scene: DynamicScene, optimizers: GroupedOptimizers, config: DensityConfig, total_steps: int):
        self.scene, self.optimizers, self.config, self.total_steps = scene, optimizers, config, total_steps
        self.statistics = {part: self._fresh(part) for part in self._parts()}
        self.background_extent = self._extent(scene.background)

    def _parts(self) -> list[str]:
        return [part for part in ("foreground", "background") if getattr(self.scene, part) is not None]

    def _fresh(self, part: str) -> Statistics:
        gaussians = getattr(self.scene, part)
        return Statistics.zeros(len(gaussians), gaussians.means.device)

    @staticmethod
    def _extent(background: Gaussians | None) -> float:
        """Half the largest 5-95 % extent of the background, the unit of its size limit."""
        if background is None or len(background) == 0:
            return 1.0
        points = background.means.detach()
        rank = max(1, round(0.05 * len(points)))
        low = points.kthvalue(rank, dim=0).values
        high = points.kthvalue(len(points) + 1 - rank, dim=0).values
        return float((high - low).max()) / 2

    @torch.no_grad()
    def observe(self, info: dict, width: int, height: int) -> None:
        """Takes in the rasteriser's ``info`` after the backward pass (means2d (B, 1, G, 2) with its gradient)."""
        gradient = info["means2d"].grad
        if gradient is None:
            return
        gradients, radii = gradient.flatten(0, 1), info["radii"].flatten(0, 1)
        split_at = self.scene.num_foreground
        slices = {"foreground": slice(0, split_at), "background": slice(split_at, None)}
        for part, statistics in self.statistics.items():
            accumulate(statistics, gradients[:, slices[part]], radii[:, slices[part]], width, height)

    @torch.no_grad()
    def step(self, step: int) -> dict[str, DensityReport]:
        """Runs what is due after ``step`` steps; returns what was done, by part (empty if nothing was due)."""
        config, progress = self.config, step / self.total_steps
        reports = {}
        if not config.enabled:
            return reports
        if step % config.every == 0 and config.start <= progress < config.stop:
            for part in self._parts():
                reports[part] = self._round(part, culls=self._culls_at(progress))
                self.statistics[part] = self._fresh(part)
        if any(step == round(at * self.total_steps) for at in config.reset_at):
            for part in self._parts():
                params, optimizers = getattr(self.scene, part).params, self.optimizers[part]
                ops.reset_opa(params, optimizers, {}, config.reset_opacity)
        return reports

    def _culls_at(self, progress: float) -> bool:
        """Whether opacity culling is on: off for a while after every reset."""
        return not any(at <= progress < at + self.config.cull_pause for at in self.config.reset_at)

    def _round(self, part: str, culls: bool) -> DensityReport:
        gaussians, optimizers, statistics = getattr(self.scene, part), self.optimizers[part], self.statistics[part]
        config = self.config
        limit = config.max_foreground if part == "foreground" else config.max_background
        remove = self._to_remove(part, statistics, culls)
        room = limit - len(gaussians) + int(remove.sum())
        grow = self._to_grow(statistics, remove, max(room, 0))
        big = (gaussians.scales.amax(-1) > config.max_scale) | (statistics.radius > config.split_radius)
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

    def _to_remove(self, part: str, statistics: Statistics, culls: bool) -> Bool[Tensor, "g"]:
        gaussians, config = getattr(self.scene, part), self.config
        largest = config.cull_scale * (self.background_extent if part == "background" else 1.0)
        remove = (gaussians.scales.amax(-1) > largest) | (statistics.radius > config.cull_radius)
        if culls:
            remove |= gaussians.opacities < config.cull_opacity
        if bool(remove.all()):  # never leave a part empty: keep its most opaque Gaussian
            remove[gaussians.opacities.argmax()] = False
        return remove

    def _to_grow(self, statistics: Statistics, remove: Tensor, room: int) -> Bool[Tensor, "g"]:
        """Gaussians with a high mean gradient, the highest first if there is not room for all."""
        mean = statistics.gradient / statistics.count.clamp(min=1)
        mean = torch.where(remove, 0.0, mean)
        grow = mean > self.config.gradient_threshold
        if int(grow.sum()) > room:
            chosen = torch.zeros_like(grow)
            chosen[mean.topk(room).indices] = True
            grow &= chosen
        return grow

    def state(self) -> dict:
        """Plain tensors, for a checkpoint."""
        return {
            "background_extent": self.background_extent,
            **{part: vars(statistics).copy() for part, statistics in self.statistics.items()},
        }

    def load_state(self, state: dict) -> None:
        """Inverse of :meth:`state`."""
        self.background_extent = state["background_extent"]
        for part in self._parts():
            device = getattr(self.scene, part).means.device
            self.statistics[part] = Statistics(**{k: v.to(device) for k, v in state[part].items()})
