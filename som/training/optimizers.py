"""One Adam per parameter tensor (density control rewrites tensors one by one) and the learning-rate schedule."""

from __future__ import annotations

import torch

from som.scene import DynamicScene
from som.training.config import LearningRates

GroupedOptimizers = dict[str, dict[str, torch.optim.Optimizer]]


def make_optimizers(scene: DynamicScene, rates: LearningRates) -> GroupedOptimizers:
    """Optimisers by part (foreground, background, motion_bases) and parameter name."""
    groups: GroupedOptimizers = {}
    for part in ("foreground", "background", "motion_bases"):
        module = getattr(scene, part)
        if module is not None:
            groups[part] = {
                name: torch.optim.Adam([param], lr=initial_rate(rates, part, name), eps=1e-8, fused=True)
                for name, param in module.params.items()
            }
    return groups


def initial_rate(rates: LearningRates, part: str, name: str) -> float:
    """Learning rate of a parameter at the start of the run."""
    if part == "background" and name == "opacities":
        return rates.background_opacities
    return getattr(rates, name)


def apply_schedule(groups: GroupedOptimizers, rates: LearningRates, progress: float) -> None:
    """Sets every rate to initial * final_factor ** progress, progress in [0, 1]."""
    factor = rates.final_factor**progress
    for part, optimizers in groups.items():
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = initial_rate(rates, part, name) * factor


def optimizers_state(groups: GroupedOptimizers) -> dict:
    """Plain tensors and numbers, for a checkpoint."""
    return {part: {name: o.state_dict() for name, o in group.items()} for part, group in groups.items()}


def load_optimizers_state(groups: GroupedOptimizers, state: dict) -> None:
    """Inverse of :func:`optimizers_state`, on optimisers made for the same scene."""
    for part, group in groups.items():
        for name, optimizer in group.items():
            optimizer.load_state_dict(state[part][name])
