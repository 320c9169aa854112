"""Weights of the metric losses over training: the rough one falls while the fine one grows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from som.depth.errors import DepthError


@dataclass(frozen=True)
class MetricSchedule:
    """rough(e) = rough_weight (1 - g(e)), fine(e) = fine_weight g(e), g(e) = ln(e + 1) / ln(E + 1) up to epoch E and 1
    after it, where rough stays at rough_weight x rough_rest (FUMET's released schedule)."""

    rough_weight: float = 1.0
    """Weight of the rough height loss at epoch 0."""
    fine_weight: float = 0.01
    """Weight of the camera-height loss from epoch E on; five times as much was found to blur depth."""
    epochs: float = 20.0
    """E, the epoch at which the exchange is over."""
    rough_rest: float = 0.005
    """Share of the rough weight that stays from epoch E on."""

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise DepthError(f"epochs of the metric schedule must be > 0, got {self.epochs}.")

    def growth(self, epoch: float) -> float:
        """g(e) in [0, 1]; epochs count from 0 and may be fractional.

        Raises:
            ValueError: a negative epoch.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be >= 0, got {epoch}.")
        return math.log(epoch + 1) / math.log(self.epochs + 1) if epoch < self.epochs else 1.0

    def rough(self, epoch: float) -> float:
        """Weight of the rough height loss."""
        return self.rough_weight * (1 - self.growth(epoch) if epoch < self.epochs else self.rough_rest)

    def fine(self, epoch: float) -> float:
        """Weight of the camera-height loss."""
        return self.fine_weight * self.growth(epoch)
