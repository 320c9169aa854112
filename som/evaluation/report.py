"""What an evaluation found: printed as a table, written as strict JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from som.files import write_text

IMAGE_METRICS = ("psnr", "ssim", "lpips")
REGIONS = ("", "_foreground", "_background", "_covisible")
DECIMALS = {"psnr": 2, "lpips": 3, "ssim": 3}


@dataclass
class EvaluationReport:
    """Scores of one scene on one split of one data set. Undefined values are nan here and null in JSON."""

    dataset: str
    """Name of the data set."""
    split: str
    """``val`` (held-out views) or ``train`` (views the scene was fitted to: says nothing about novel views)."""
    num_views: int
    """How many views were scored."""
    num_views_available: int
    """How many the split has."""
    summary: dict[str, float]
    """Mean over views of the per-view values that are defined, and the track metrics."""
    per_frame: list[dict]
    """One row per view: name, time and its values."""
    definitions: dict[str, str]
    """What each value means."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Metrics that could not be computed, and why."""
    step: int | None = None
    """Training step of the scene."""

    def to_dict(self) -> dict:
        """Plain values; nan and infinities become None."""
        return finite_or_none(asdict(self))

    def headline(self) -> str:
        """One line for logs."""
        names = [n for n in (*IMAGE_METRICS, "depth_abs_rel", "mask_iou", "tracks_3d_epe") if n in self.summary]
        values = ", ".join(f"{n} {format_value(n, self.summary[n])}" for n in names)
        return f"{self.dataset} {self.split} ({self.num_views} views): {values}"


def finite_or_none(value):
    """Replaces nan and infinities, which JSON does not know, by None; everything else is kept."""
    if isinstance(value, dict):
        return {k: finite_or_none(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_value(name: str, value: float | None) -> str:
    """A number with the decimals that are usual for the metric; a dash where undefined."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{DECIMALS.get(name.split('_')[0], 4)}f}"


def write_json(report: EvaluationReport, path: Path) -> None:
    """Strict JSON: null where a value is undefined."""
    write_text(path, json.dumps(report.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(report: EvaluationReport, path: Path) -> None:
    """One row per view; empty cells where a value is undefined."""
    columns = list(dict.fromkeys(key for row in report.per_frame for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(finite_or_none(report.per_frame))
    write_text(path, buffer.getvalue())


def print_report(report: EvaluationReport, console: Console | None = None) -> None:
    """Prints images by region, then everything else, then what is missing."""
    console = console or Console()
    step = "" if report.step is None else f", step {report.step}"
    views = f"{report.num_views} of {report.num_views_available} {report.split} views"
    console.print(f"[bold]{report.dataset}[/bold]: {views}{step}")
    if report.split == "train":
        console.print("There are no held-out views: these are the views the scene was fitted to.", style="yellow")
    console.print(_image_table(report.summary))
    rest = {k: v for k, v in report.summary.items() if not k.startswith(IMAGE_METRICS)}
    if rest:
        table = Table("metric", "value")
        table.columns[1].justify = "right"
        for name, value in rest.items():
            table.add_row(name, format_value(name, value))
        console.print(table)
    for name, reason in report.unavailable.items():
        console.print(f"{name}: unavailable, {reason}", style="yellow", highlight=False)


def _image_table(summary: dict[str, float]) -> Table:
    table = Table("pixels", *(m.upper() for m in IMAGE_METRICS))
    for column in table.columns[1:]:
        column.justify = "right"
    for region in REGIONS:
        if f"psnr{region}" in summary:
            cells = [format_value(m, summary.get(m + region)) for m in IMAGE_METRICS]
            table.add_row(region.removeprefix("_") or "all valid", *cells)
    if "ssim_covisible_dycheck" in summary:
        table.add_row("covisible, DyCheck", "", format_value("ssim", summary["ssim_covisible_dycheck"]), "")
    return table
