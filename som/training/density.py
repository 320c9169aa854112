"""Strategies that add and remove Gaussians while a scene is optimised. Free of torch to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from som.scene import DynamicScene
    from som.training.optimizers import GroupedOptimizers


@runtime_checkable
class Strategy(Protocol):
    """What the trainer asks of density control; in the manner of gsplat's strategies, for scenes with several parts.

    All that a strategy remembers lies in its state, a dict of plain values and tensors (also nested) that is saved in
    checkpoints. Random numbers come from torch's own generators, which the trainer seeds in every step.
    """

    def initialize_state(self, scene: DynamicScene) -> dict[str, Any]:
        """The state at the beginning of a run."""

    def step_pre_backward(
        self,
        scene: DynamicScene,
        optimizers: GroupedOptimizers,
        state: dict[str, Any],
        step: int,
        total_steps: int,
        info: dict[str, Any],
    ) -> None:
        """Called between the rendering of a step and its backward pass.

        Args:
            scene: changed in place only by ``step_post_backward``.
            optimizers: of the scene's parameters, by part and name.
            state: changed in place.
            step: steps done, this one included, of ``total_steps``.
            info: the rasteriser's intermediate results (see ``rasterize``), and ``width`` and ``height`` of the views.
        """

    def step_post_backward(
        self,
        scene: DynamicScene,
        optimizers: GroupedOptimizers,
        state: dict[str, Any],
        step: int,
        total_steps: int,
        info: dict[str, Any],
    ) -> None:
        """Called when the optimisers have made their step; may change the scene, and the optimisers with it."""


@dataclass
class AdaptiveDensity:
    """Adaptive density control: Gaussians where the image gradient stays high multiply, useless ones are removed."""

    enabled: bool = True
    """Whether Gaussians are added and removed at all."""
    start: float = 0.1
    """Fraction of the run after which it starts."""
    end: float = 0.7
    """Fraction of the run after which the set of Gaussians stays fixed."""
    every: int = 100
    """Steps between two rounds."""
    gradient_threshold: float = 2e-4
    """Mean norm of the gradient of the 2D centre (in normalised image units) above which a Gaussian is densified."""
    max_scale: float = 0.01
    """Scene units. Above it a Gaussian with high gradient is split, below it duplicated."""
    split_radius: float = 0.05
    """Part of the longer image side. A Gaussian with high gradient and a larger radius on screen is split."""
    cull_opacity: float = 0.05
    """Gaussians less opaque than this are removed."""
    cull_scale: float = 0.5
    """Scene units. Larger foreground Gaussians are removed (background: times the extent of the background)."""
    cull_radius: float = 0.5
    """Part of the longer image side. Gaussians with a larger radius on screen are removed."""
    reset_at: tuple[float, ...] = ()
    """Fractions of the run at which all opacities are clamped down to ``reset_opacity``; culling pauses after each."""
    reset_opacity: float = 0.08
    """Opacity after a reset (never raised)."""
    cull_pause: float = 0.08
    """Fraction of the run after a reset during which nothing is culled by opacity."""
    max_foreground: int = 100_000
    """Largest number of foreground Gaussians; the ones with the highest gradient are densified first."""
    max_background: int = 300_000
    """Largest number of background Gaussians."""

    def initialize_state(self, scene: DynamicScene) -> dict[str, Any]:
        """Statistics of every part, and the extent of the background."""
        from som.training import adaptive_density

        return adaptive_density.initialize_state(scene)

    def step_pre_backward(
        self,
        scene: DynamicScene,
        optimizers: GroupedOptimizers,
        state: dict[str, Any],
        step: int,
        total_steps: int,
        info: dict[str, Any],
    ) -> None:
        """Asks for the gradients of the 2D centres."""
        if info["means2d"].requires_grad:
            info["means2d"].retain_grad()

    def step_post_backward(
        self,
        scene: DynamicScene,
        optimizers: GroupedOptimizers,
        state: dict[str, Any],
        step: int,
        total_steps: int,
        info: dict[str, Any],
    ) -> None:
        """Takes the gradients in, and does what is due after this step."""
        from som.training import adaptive_density

        adaptive_density.observe(scene, state, info)
        adaptive_density.refine(self, scene, optimizers, state, step, total_steps)
