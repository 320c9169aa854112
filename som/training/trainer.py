"""The optimisation loop of one scene against one video, interruptible and resumable at any step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from som.data.dataset import VideoDataset
from som.runs.checkpoint import CheckpointError, save_step
from som.runs.device import seeded
from som.runs.interruption import Interrupted, NonFiniteLossError, Stop
from som.runs.log import MeanValues, RunLog
from som.runs.work_dir import checkpoint_path
from som.scene import DynamicScene
from som.scene.checkpoint import Checkpoint
from som.training.config import TrainingConfig
from som.training.density import Strategy
from som.training.depth_order import TERM_NAMES, DepthOrderSampler
from som.training.objective import Objective, Term
from som.training.optimizers import apply_schedule, load_optimizers_state, make_optimizers, optimizers_state
from som.training.sampling import BatchSampler
from som.training.validation import quick_scores

if TYPE_CHECKING:
    from flow.pairs import PairSampler


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """How the optimisation goes."""

    step: int
    """Steps done."""
    total_steps: int
    values: dict[str, float]
    """Every term of the objective, ``loss`` (their weighted sum) and ``psnr`` in dB: means since the last report."""
    seconds_left: float
    """Until the last step, if the others take as long as those since the run was begun or resumed."""
    scene: DynamicScene
    """The scene as it is now; the trainer goes on changing it."""


Callback = Callable[[StepReport], None]


def total_steps(config: TrainingConfig, num_views: int) -> int:
    """The steps that are asked for; by default 500 for every 8 training views, rounded up (Shape of Motion's)."""
    return config.steps if config.steps is not None else 500 * math.ceil(num_views / 8)


class Trainer:
    """Optimises ``scene`` against ``dataset.train``.

    Args:
        scene: changed in place; its normalisation says how the data set's world maps to scene coordinates.
        dataset: in world units.
        work_dir: gets checkpoints/, logs/ and metrics.jsonl.
        seed: of every random choice; together with the step it determines the run.
        run_config: stored in every checkpoint.
        links: pixel pairs that optical flow links between training views, by index; without them the term
            order_across_frames rests.
        strategy: how Gaussians multiply and disappear; None takes ``config.density``.
        extra_losses: further terms of the objective, see :class:`Objective`.
    """

    def __init__(
        self,
        scene: DynamicScene,
        dataset: VideoDataset,
        config: TrainingConfig,
        work_dir: Path,
        *,
        device: torch.device,
        seed: int = 0,
        run_config: dict | None = None,
        links: PairSampler | None = None,
        strategy: Strategy | None = None,
        extra_losses: Mapping[str, Term] | None = None,
    ):
        self.config, self.work_dir, self.device, self.seed = config, Path(work_dir), device, seed
        self.run_config = run_config or {}
        self.scene = scene.to(device)
        self.scene.rasterize_mode = config.rasterize_mode
        self.dataset = scene.normalization.dataset_to_scene(dataset)
        self.height, self.width = dataset.train.height, dataset.train.width
        self.total_steps = total_steps(config, len(dataset.train))
        self.optimizers = make_optimizers(self.scene, config.learning_rates)
        self.strategy: Strategy = strategy or config.density
        self.density = self.strategy.initialize_state(self.scene)
        self.objective = Objective(
            config.losses, dataset.num_times, dataset.has_background, config.depth_order, extra_losses
        )
        self.sampler = BatchSampler(
            self.dataset,
            config.batch_size,
            config.track_targets,
            config.tracks_per_view,
            seed,
            device,
            self._depth_order_sampler(links),
        )
        self.step = 0
        self._nonfinite = torch.zeros((), dtype=torch.bool, device=device)

    def _depth_order_sampler(self, links: PairSampler | None) -> DepthOrderSampler | None:
        active = [name for name in TERM_NAMES if name in self.objective.active]
        if not active or self.dataset.train.depths is None:
            return None
        return DepthOrderSampler(self.dataset.train, self.config.depth_order, active, links, self.device)

    @classmethod
    def resume(
        cls, checkpoint: Checkpoint, dataset: VideoDataset, config: TrainingConfig, work_dir: Path, **kwargs
    ) -> Trainer:
        """The trainer exactly as it was when the checkpoint was written.

        Raises:
            CheckpointError: the checkpoint lacks the trainer's state.
        """
        trainer = cls(checkpoint.scene, dataset, config, work_dir, **kwargs)
        trainer.step = checkpoint.step
        try:
            load_optimizers_state(trainer.optimizers, checkpoint.training["optimizers"])
            trainer.density = _on_device(checkpoint.training["density"], trainer.device)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{work_dir}: the checkpoint lacks the trainer's state ({error}); a run cannot go on from it."
            ) from error
        return trainer

    def train(self, callback: Callback | None = None, stop: Stop | None = None) -> None:
        """Runs from the current step to the end, writing checkpoints.

        Args:
            callback: called every ``config.log_every`` steps and after the last.
            stop: asked after every step; a number other than 0 saves and ends the run.

        Raises:
            NonFiniteLossError: a term became NaN or infinite.
            Interrupted: ``stop`` said so; the state was saved first.
        """
        log = RunLog(self.work_dir, self.step)
        means, began, start = MeanValues(), time.monotonic(), self.step
        validation_steps = self._validation_steps()
        try:
            while self.step < self.total_steps:
                means.add(self.train_step())
                last = self.step == self.total_steps
                if self.step % self.config.log_every == 0 or last:
                    pace = (time.monotonic() - began) / (self.step - start)
                    self._report(means.pop(), pace * (self.total_steps - self.step), log, callback)
                if self.step in validation_steps:
                    self._validate(log)
                if self.step % self.config.checkpoint_every == 0 or last:
                    self.save(numbered=True)
                number = 0 if stop is None else stop()
                if number:
                    self.save(numbered=False)
                    raise Interrupted(self.step, number)
        finally:
            log.close()

    def train_step(self) -> dict[str, torch.Tensor]:
        """One optimisation step; returns the value of every term, the total and the batch's PSNR (on the device)."""
        # everything random is a function of (seed, step): resuming repeats nothing and skips nothing
        with seeded(self.seed * 1_000_003 + self.step, self.device):
            return self._seeded_step()

    def _seeded_step(self) -> dict[str, torch.Tensor]:
        apply_schedule(self.optimizers, self.config.learning_rates, self.step / self.total_steps)
        batch = self.sampler.sample(self.step)
        values, render = self.objective(self.scene, batch, self.step / self.total_steps)
        loss = values["loss"]
        if self.device.type == "cpu":
            self._raise_if_nonfinite(values)
        else:  # asking every step would wait for the GPU every step
            self._nonfinite |= ~torch.isfinite(loss)
        info = {**render.info, "width": self.width, "height": self.height}
        density = (self.scene, self.optimizers, self.density, self.step + 1, self.total_steps, info)
        self.strategy.step_pre_backward(*density)
        loss.backward()
        for group in self.optimizers.values():
            for optimizer in group.values():
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.strategy.step_post_backward(*density)
        return {name: value.detach() for name, value in values.items()}

    def _raise_if_nonfinite(self, values: dict[str, torch.Tensor]) -> None:
        scores = ("loss", "psnr", "discordance")
        bad = [name for name, value in values.items() if name not in scores and not bool(value.isfinite())]
        if bad or not bool(values["loss"].isfinite()):
            raise NonFiniteLossError(
                f"step {self.step}: the loss term {', '.join(bad) or 'sum'} became NaN or infinite; "
                f"the last good state is {checkpoint_path(self.work_dir)}. "
                "Lower its weight (`training.losses`) or the learning rates."
            )

    def _validation_steps(self) -> set[int]:
        count = self.config.validations if self.dataset.val is not None else 0
        return {round(self.total_steps * (i + 1) / count) for i in range(count)}

    def _report(self, values: dict[str, float], seconds_left: float, log: RunLog, callback: Callback | None) -> None:
        if bool(self._nonfinite):
            self._raise_if_nonfinite({k: torch.tensor(v) for k, v in values.items()})
        log.write(
            "train",
            self.step,
            {**values, "foreground": self.scene.num_foreground, "background": self.scene.num_background},
        )
        if callback is not None:
            callback(StepReport(self.step, self.total_steps, values, seconds_left, self.scene))

    def _validate(self, log: RunLog) -> None:
        if self.dataset.val is None:
            return
        scores = quick_scores(self.scene, self.dataset.val, self.device, self.dataset.has_background)
        log.write("validation", self.step, scores)
        text = ", ".join(f"{name} {value:.2f} dB" for name, value in scores.items())
        logger.info("step %d: held-out views: %s", self.step, text)

    def save(self, numbered: bool) -> Path:
        """Writes last.ckpt, and with ``numbered`` step_XXXXXX.ckpt; returns the path.

        Raises:
            NonFiniteLossError: a parameter is not finite; nothing is overwritten then.
        """
        for part, group in self.optimizers.items():
            for name in group:
                if not bool(torch.isfinite(getattr(self.scene, part).params[name]).all()):
                    raise NonFiniteLossError(
                        f"step {self.step}: {part}.{name} is not finite; the last good state is "
                        f"{checkpoint_path(self.work_dir)}. Lower the learning rates."
                    )
        checkpoint = Checkpoint(
            scene=self.scene,
            step=self.step,
            config=self.run_config,
            training={"optimizers": optimizers_state(self.optimizers), "density": self.density},
        )
        keep, payload = self.config.keep_checkpoints, checkpoint.payload()
        return save_step(self.work_dir, self.step, "scene", payload, numbered=numbered, keep=keep)


def _on_device(value: Any, device: torch.device) -> Any:
    """Plain values with their tensors on the device."""
    if isinstance(value, dict):
        return {key: _on_device(v, device) for key, v in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value
