"""Where a run's numbers go: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from som.files import write_text


class MeanValues:
    """Averages of named scalars that stay on their device until they are read (one transfer, not one per value).

    Each is the mean over the calls that had it: terms that begin during the run are not diluted.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def pop(self) -> dict[str, float]:
        """The averages since the last call."""
        if not self.sums:
            return {}
        names = list(self.sums)
        means = torch.stack([self.sums[name].float() / self.counts[name] for name in names]).tolist()
        self.sums, self.counts = {}, {}
        return dict(zip(names, means, strict=True))


class RunLog:
    """Appends every report to ``metrics.jsonl`` and TensorBoard.

    Args:
        work_dir: gets metrics.jsonl and logs/; None writes nothing.
        start_step: step from which the run goes on; later entries of an interrupted run are dropped.
    """

    def __init__(self, work_dir: Path | None, start_step: int):
        self._stream = self._writer = None
        if work_dir is None:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed here

        work_dir.mkdir(parents=True, exist_ok=True)
        path = work_dir / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= start_step]
            write_text(path, "".join(line + "\n" for line in kept))
        self._stream = open(path, "a", encoding="utf-8")  # noqa: SIM115 (lives as long as the run)
        self._writer = SummaryWriter(str(work_dir / "logs"), purge_step=start_step + 1)

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """One report; ``kind`` is train or validation. What is not finite becomes null in metrics.jsonl."""
        if self._stream is None or self._writer is None:
            return
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._stream.write(json.dumps({"kind": kind, "step": step, **clean}) + "\n")
        self._stream.flush()
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        if self._stream is not None and self._writer is not None:
            self._stream.close()
            self._writer.close()


def _step(line: str) -> float:
    """The step of a line; infinite for the one that was being written when a run was killed."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf
