"""A budget of wall-clock time."""

from __future__ import annotations

import time

from som.depth.errors import DepthError


class Clock:
    """What is left of a time budget that begins now; None is no limit.

    Raises:
        DepthError: the budget is not positive.
    """

    def __init__(self, budget_s: float | None):
        if budget_s is not None and not budget_s > 0:
            raise DepthError(f"budget_s must be positive, got {budget_s}.")
        self.budget_s, self.began = budget_s, time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def left(self) -> float | None:
        """Seconds left, at least 0; None without a budget."""
        return None if self.budget_s is None else max(self.budget_s - self.elapsed(), 0.0)
