"""The optimisation loop: deterministic, interruptible, resumable at any step, by one process or many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from som.depth.errors import DepthError
from som.depth.learning.data.dataset import DepthDataset
from som.depth.learning.training.batches import Batch, BatchPlan, load_batches
from som.depth.learning.training.checkpoint import DepthCheckpoint, Units
from som.depth.learning.training.collapse import MaskWatch
from som.depth.learning.training.config import DepthTrainingConfig, check_training, micro_batch
from som.depth.learning.training.distributed import Processes
from som.depth.learning.training.metric import HeightState
from som.depth.learning.training.objective import DepthObjective
from som.depth.learning.training.optimization import RunningStatistics, make_optimizer, rate_factor, set_rates
from som.depth.networks import DepthModule, PoseNet
from som.runs.checkpoint import save_step
from som.runs.device import seeded
from som.runs.interruption import Interrupted, NonFiniteLossError, Stop
from som.runs.log import MeanValues, RunLog
from som.runs.work_dir import checkpoint_path
from som.settings.plain import to_plain

Callback = Callable[[int, int, dict[str, float]], None]
"""Called at every report with the steps done, the steps planned, and the mean values since the last."""
REPLAN_EVERY_STEPS = 10
"""Steps between two looks at the clock, where there is a time budget."""


class DepthTrainer:
    """Trains a depth network, and a pose network where there is one, on a data set.

    Args:
        depth_net, pose_net: changed in place.
        dataset: gives the samples; its seed should be the configuration's.
        work_dir: gets checkpoints/ and metrics.jsonl; None writes nothing.
        units: of the network's depth, for the checkpoint.
        processes: this process among all.
        budget_s: wall-clock seconds after which training has to be over; the planned steps, and with them the schedule
            of the learning rate, shrink to fit. Only then does the result depend on the machine's speed.
        objective: of these networks; None is ``DepthObjective``.
    """

    def __init__(
        self,
        config: DepthTrainingConfig,
        depth_net: DepthModule,
        dataset: DepthDataset,
        *,
        pose_net: PoseNet | None = None,
        work_dir: Path | None = None,
        units: Units = "relative",
        device: torch.device | str = "cpu",
        processes: Processes = Processes(),  # noqa: B008 (frozen)
        heights: HeightState | None = None,
        budget_s: float | None = None,
        objective: DepthObjective | None = None,
    ):
        check_training(config, processes.count)
        self.config, self.dataset, self.processes = config, dataset, processes
        self.device, self.units, self.budget_s = torch.device(device), units, budget_s
        if config.precision != "float32" and self.device.type != "cuda":
            raise DepthError(f"precision {config.precision} needs a GPU; use float32 on {self.device.type}.")
        self.work_dir = None if work_dir is None else Path(work_dir)
        self.objective = (objective or DepthObjective(config, depth_net, pose_net)).to(self.device)
        self._use_channels_last()  # before anything looks at the parameters' memory layout
        self.optimizer = make_optimizer(config, depth_net, pose_net)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.statistics = RunningStatistics(self.objective)
        self.watch = MaskWatch(config.collapse)
        self.heights = heights or HeightState()
        self.step, self.total_steps = 0, config.steps
        self.plan = BatchPlan(
            len(dataset),
            config.batch_size,
            micro_batch(config, processes.count),
            config.seed,
            processes.rank,
            processes.count,
        )
        self._parallel = DistributedDataParallel(self.objective) if processes.count > 1 else None

    def _use_channels_last(self) -> None:
        if self.config.channels_last:
            for module in self.objective.modules():
                if isinstance(module, torch.nn.Conv2d):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, callback: Callback | None = None, stop: Stop | None = None) -> None:
        """Runs from the current step to the end, writing checkpoints.

        Args:
            callback: called at every report, in the first process.
            stop: asked after every step; a number other than 0 saves and ends the run.

        Raises:
            NonFiniteLossError: a term became NaN or infinite.
            CollapseError: the masks are being gamed.
            Interrupted: ``stop`` said so; the state was saved first.
        """
        saves = self.work_dir is not None and self.processes.is_first
        log = RunLog(self.work_dir if saves else None, self.step)
        means, began, start = MeanValues(), time.monotonic(), self.step
        batches = load_batches(self.dataset, self.plan, self.step, self.total_steps, self.config.workers, self.device)
        self.objective.train()
        try:
            while self.step < self.total_steps:
                means.add(self.train_step(batches))
                self._replan(time.monotonic() - began, self.step - start)
                last = self.step == self.total_steps
                if self.step % self.config.log_every == 0 or last:
                    self._report(means.pop(), log, callback)
                if saves and (self.step % self.config.checkpoint_every == 0 or last):
                    self.save(numbered=True)
                # all processes have to stop after the same step
                number = self.processes.largest(0 if stop is None else stop(), self.device)
                if number and not last:
                    if saves:
                        self.save(numbered=False)
                    raise Interrupted(self.step, number)
        finally:
            log.close()

    def train_step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One optimisation step; returns the mean of every term over its micro batches, on the device."""
        config, count = self.config, len(self.plan.micro_batches)
        set_rates(self.optimizer, rate_factor(config, self.step / self.total_steps))
        self._begin_epochs()
        values: dict[str, Tensor] = {}
        with self.statistics.averaged(count, self.processes) as statistics:
            for k, number in enumerate(self.plan.micro_batches):
                statistics.micro_batch()
                # everything random is a function of seed, step and micro batch
                seed = (config.seed * 1_000_003 + self.step) * 4099 + number
                forward, wait = self._parallel or self.objective, k < count - 1
                with seeded(seed, self.device), self._parallel.no_sync() if self._parallel and wait else nullcontext():
                    terms = forward(next(batches), self.heights)
                    self.scaler.scale(terms["loss"] / count).backward()
                for name, value in terms.items():
                    values[name] = values.get(name, 0.0) + value.detach() / count
        if self.heights.seen:
            self.heights.collect(self.processes)
        names = sorted(values)
        mean = self.processes.mean(torch.stack([values[name].float() for name in names]))
        values = dict(zip(names, mean, strict=True))
        if self.device.type == "cpu" or self.step % config.log_every == 0:
            self._raise_if_nonfinite(values)  # on a GPU asking every step would wait for it every step
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), config.max_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return values

    def _begin_epochs(self) -> None:
        """Closes the epochs that are over: the camera-height label moves then."""
        epoch = self.plan.epoch(self.step)
        while self.heights.epoch < epoch:
            self.heights.end_epoch()
        self.heights.progress = self.step * self.plan.batch_size / self.plan.length

    def _replan(self, elapsed: float, done: int) -> None:
        """Fewer steps, if those that were planned would take longer than the budget."""
        if self.budget_s is None or done % REPLAN_EVERY_STEPS:
            return
        affordable = self.step + int(max(self.budget_s - elapsed, 0.0) / (elapsed / done))
        wanted = max(min(self.config.steps, affordable), self.step)
        # the slowest process decides
        self.total_steps = -self.processes.largest(-wanted, self.device)

    def _raise_if_nonfinite(self, values: dict[str, Tensor]) -> None:
        bad = [name for name, value in values.items() if name != "loss" and not bool(value.isfinite())]
        if bad or not bool(values["loss"].isfinite()):
            saved = "" if self.work_dir is None else f"; the last good state is {checkpoint_path(self.work_dir)}"
            raise NonFiniteLossError(
                f"step {self.step}: the loss term {', '.join(bad) or 'sum'} became NaN or infinite{saved}; "
                "lower its weight or the learning rate."
            )

    def _report(self, values: dict[str, float], log: RunLog, callback: Callback | None) -> None:
        if "photometric" in values and "geometry" in values:
            self.watch.add(values["photometric"], values["geometry"])
        values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        height = self.heights.value()
        if height is not None:
            values["camera_height_label"] = height
        log.write("train", self.step, values)
        if callback is not None and self.processes.is_first:
            callback(self.step, self.total_steps, values)

    def checkpoint(self) -> DepthCheckpoint:
        """The networks, and everything needed to go on."""
        pose_net = self.objective.pose_net
        return DepthCheckpoint(
            step=self.step,
            network=self.objective.depth_net.settings(),
            depth_net=self.objective.depth_net.state_dict(),
            config=to_plain(self.config),
            units=self.units,
            pose=None if pose_net is None else {"name": self.config.pose, "style": self.config.pose_style},
            pose_net=None if pose_net is None else pose_net.state_dict(),
            training={
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "watch": self.watch.state(),
                "heights": self.heights.state(),
                "total_steps": self.total_steps,
            },
        )

    def save(self, numbered: bool) -> Path:
        """Writes last.ckpt, and with ``numbered`` step_XXXXXX.ckpt; returns the path.

        Raises:
            NonFiniteLossError: a parameter is not finite; nothing is overwritten then.
            ValueError: the trainer has no work dir.
        """
        if self.work_dir is None:
            raise ValueError("DepthTrainer.save: this trainer has no work dir.")
        for name, parameter in self.objective.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise NonFiniteLossError(
                    f"step {self.step}: {name} is not finite; the last good state is {checkpoint_path(self.work_dir)}. "
                    "Lower the learning rate."
                )
        keep, payload = self.config.keep_checkpoints, vars(self.checkpoint())
        return save_step(self.work_dir, self.step, "depth network", payload, numbered=numbered, keep=keep)

    def load(self, checkpoint: DepthCheckpoint) -> None:
        """Becomes the trainer that wrote the checkpoint.

        Raises:
            DepthError: the checkpoint lacks the trainer's state, or is of other networks.
        """
        state = checkpoint.training
        try:
            self.objective.depth_net.load_state_dict(checkpoint.depth_net)
            if self.objective.pose_net is not None:
                self.objective.pose_net.load_state_dict(checkpoint.pose_net or {})
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.watch.load_state(state["watch"])
            self.heights.load_state(state["heights"])
            self.total_steps = state["total_steps"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DepthError(f"the checkpoint lacks the trainer's state ({reason}); a run cannot go on.") from error
        self.step = checkpoint.step
