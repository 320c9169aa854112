"""Where a run's numbers go: metrics.jsonl, TensorBoard, and a progress line for the person who waits."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from torch import Tensor


class MeanValues:
    """Averages of named scalars that stay on their device until they are read (one transfer, not one per value).

    Each is the mean over the calls that had it: terms that begin during the run are not diluted.
    """

    def __init__(self):
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
        work_dir: gets metrics.jsonl and logs/.
        start_step: step from which the run goes on; later entries of an interrupted run are dropped.
    """

    def __init__(self, work_dir: Path, start_step: int):
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed here

        work_dir.mkdir(parents=True, exist_ok=True)
        self.path = work_dir / "metrics.jsonl"
        self._drop_after(start_step)
        self.stream = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the run
        self.writer = SummaryWriter(str(work_dir / "logs"), purge_step=start_step + 1)

    def _drop_after(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # the line that was being written when the run was killed
            if entry["step"] <= step:
                kept.append(line)
        self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """One report: ``kind`` is train or validation."""
        clean = {k: (v if math.isfinite(v) else None) for k, v in values.items()}
        self.stream.write(json.dumps({"kind": kind, "step": step, **clean}) + "\n")
        self.stream.flush()
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self.stream.close()
        self.writer.close()


def format_seconds(seconds: float) -> str:
    """1:05 or 2:03:04."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class ProgressLine:
    """Steps, loss, PSNR, Gaussians and time left: a live bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, start: int, total: int, every_seconds: float = 10.0):
        self.start, self.total, self.every_seconds = start, total, every_seconds
        self.began, self.last = time.monotonic(), time.monotonic()
        self.console = Console(file=sys.stderr)
        self.bar = None
        if self.console.is_terminal:
            columns = (TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"))
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("training", total=total, completed=start, text="")

    def __enter__(self) -> ProgressLine:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, step: int, values: dict[str, float], foreground: int, background: int) -> None:
        """Shows the state after ``step`` steps; ``values`` as written to the log."""
        now = time.monotonic()
        done = max(step - self.start, 1)
        left = (now - self.began) / done * (self.total - step)
        text = (
            f"step {step}/{self.total}  loss {values['loss']:.4f}  rgb {values.get('rgb', float('nan')):.4f}  "
            f"PSNR {values['psnr']:.2f} dB  Gaussians {foreground}+{background}  left {format_seconds(left)}"
        )
        if self.bar:
            self.bar.update(self.task, completed=step, text=text)
        elif now - self.last >= self.every_seconds or step >= self.total:
            self.last = now
            self.say(text)
