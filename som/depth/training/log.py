"""Where a run's numbers go: metrics.jsonl."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor


class MeanValues:
    """Averages of named scalars that stay on their device until they are read; each over the calls that had it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def pop(self) -> dict[str, float]:
        """The averages since the last call."""
        names = list(self.sums)
        means = [self.sums[name].float() / self.counts[name] for name in names]
        self.sums, self.counts = {}, {}
        return dict(zip(names, torch.stack(means).tolist(), strict=True)) if names else {}


class RunLog:
    """Appends every report to a file of JSON lines.

    Args:
        path: the file; None writes nothing.
        start_step: step from which the run goes on; later lines of an interrupted run are dropped.
    """

    def __init__(self, path: Path | None, start_step: int):
        self.stream = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= start_step]
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.stream = open(path, "a", encoding="utf-8")  # noqa: SIM115 (lives as long as the run)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line; what is not finite becomes null."""
        if self.stream is not None:
            clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self.stream.write(json.dumps({"step": step, **clean}) + "\n")
            self.stream.flush()

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()


def _step(line: str) -> float:
    """The step of a line; infinite for the one that was being written when a run was killed."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf
