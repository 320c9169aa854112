"""Metric terms of a training run: heights of objects, and the camera-height label that moves from epoch to epoch."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.learning.losses.metric import camera_height_loss, rough_height_loss
from som.depth.learning.training.batches import Batch
from som.depth.learning.training.distributed import Processes
from som.depth.metric_scale import (
    CameraHeightLabel,
    FrameConfig,
    LabelConfig,
    MetricSchedule,
    ObjectStatus,
    height_candidates,
)
from som.depth.metric_scale.objects import apply_horizon_test, measure_frames


class HeightState:
    """The camera-height label with the epoch's schedule of weights, shared by all processes.

    Args:
        label, schedule, frame: how the label moves, how the two terms exchange their weights, how frames are measured.
    """

    def __init__(
        self,
        label: LabelConfig = LabelConfig(),  # noqa: B008 (frozen)
        schedule: MetricSchedule = MetricSchedule(1.0, 1.0),  # noqa: B008 (frozen)
        frame: FrameConfig = FrameConfig(),  # noqa: B008 (frozen)
    ):
        self.label, self.schedule, self.frame = CameraHeightLabel(label), schedule, frame
        self.progress = 0.0
        """Epochs done, with fractions."""
        self.seen: list[Tensor] = []
        """``height_candidates`` (P,3) of the batches measured since the last ``collect``: of all objects, also
        of those that contradict the label, since a label that is wrong would keep just those that confirm it."""

    @property
    def epoch(self) -> int:
        return self.label.epoch

    def value(self) -> float | None:
        """The label in metres; None while there is none."""
        return self.label.value()

    def collect(self, processes: Processes) -> None:
        """Hands the candidates that all processes have seen to the label of every process."""
        own = torch.cat(self.seen).tolist() if self.seen else []
        self.seen = []
        for candidates in processes.gather(own):
            self.label.add(torch.tensor(candidates, dtype=torch.float64).view(-1, 3))

    def end_epoch(self) -> None:
        """Moves the label."""
        self.label.end_epoch()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return self.label.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``."""
        self.label.load_state_dict(state)


class MetricTerms:
    """The terms ``rough_height`` and ``camera_height`` of a batch with keys ``road`` (B,H,W) bool, ``ids`` (B,H,W) and
    ``object_heights`` (B,N), as ``RoadAnnotations`` gives them."""

    def __call__(
        self, depths: list[Float[Tensor, "b 1 h w"]], batch: Batch, heights: HeightState, active: list[str]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Values of the active terms, averaged over scales, and the factors that the schedule puts on their weights."""
        if "road" not in batch:
            raise DepthError("the metric terms need road masks and objects of known height; give them, or set 0.")
        K, road, ids, known = batch["K"][:, 0], batch["road"], batch["ids"], batch["object_heights"]
        measured = measure_frames(depths[0], K, road, ids, known, heights.frame)
        heights.seen.append(height_candidates(measured))
        # the rough loss believes the label and leaves out what contradicts it
        height = heights.value()
        status = apply_horizon_test(measured, height, heights.frame)
        used = torch.where(status == ObjectStatus.USED, known, torch.zeros_like(known))
        values, factors = {}, {}
        if "rough_height" in active:
            terms = [rough_height_loss(depth, ids, used, measured.height_per_depth) for depth in depths]
            values["rough_height"] = torch.stack(terms).mean()
            factors["rough_height"] = heights.schedule.rough(heights.progress)
        if "camera_height" in active and height is not None:
            terms = [camera_height_loss(depth, K, road, height) for depth in depths]
            values["camera_height"] = torch.stack(terms).mean()
            factors["camera_height"] = heights.schedule.fine(heights.progress)
        return values, factors
