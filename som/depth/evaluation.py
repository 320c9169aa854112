"""Scores of many depth maps: averages over images, scale consistency, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.metrics import (
    METRICS,
    Missing,
    Protocol,
    ScoredPixels,
    check_scale,
    named_protocol,
    score_pixels,
    scored_pixels,
)


@dataclass
class DepthReport:
    """Scores of a set of images: the mean over images of each image's errors."""

    protocol: str
    """Name of the protocol; ``custom`` for one that has none."""
    scale: str
    """How scale was treated: one of ``SCALES``, or the factor as text."""
    metrics: dict[str, float]
    """Mean over images of the errors in ``METRICS``."""
    ratio_median: float
    """Median over images of median(target) / median(pred), before any scaling; 1 if the prediction is metric."""
    ratio_spread: float
    """Standard deviation of the ratios relative to their median: 0 if the scale is the same in all images."""
    coverage: float
    """Mean share of the pixels chosen by the protocol that have a prediction, over images with a true depth."""
    images: list[dict] = field(default_factory=list)
    """``name`` and the result of ``depth_metrics`` of each image."""
    skipped: list[str] = field(default_factory=list)
    """Names of images in which there was nothing to score."""

    def to_dict(self) -> dict:
        """Everything, of plain types, for JSON."""
        return asdict(self)


class DepthEvaluation:
    """Collects images and averages their errors.

    Args:
        protocol: a name in ``PROTOCOLS``, or a ``Protocol``.
        scale: as for ``depth_metrics``; or ``sequence``: one factor for all images, the median of their ratios. Until
            ``report`` that mode keeps every scored pixel (8 bytes each).
        missing: as for ``depth_metrics``.

    Raises:
        DepthError: an unknown protocol, scale or ``missing``.
    """

    def __init__(
        self, protocol: str | Protocol = "eigen", scale: str | float = "median", missing: Missing = "raise"
    ) -> None:
        self.rules = named_protocol(protocol)
        self.protocol = protocol if isinstance(protocol, str) else "custom"
        self.scale = scale
        self.missing = missing
        check_scale(scale)
        if missing not in ("raise", "skip"):
            raise DepthError(f'missing must be "raise" or "skip", got {missing!r}.')
        self._scores: list[dict] = []
        self._kept: list[ScoredPixels] = []
        self._skipped: list[str] = []
        self._coverages: list[float] = []

    def add(
        self,
        pred: Float[Tensor | np.ndarray, "h w"],
        target: Float[Tensor | np.ndarray, "H W"],
        valid: Bool[Tensor | np.ndarray, "H W"] | None = None,
        name: str | None = None,
    ) -> dict | None:
        """Scores one more image; arguments as for ``depth_metrics``.

        Returns:
            its scores; None in ``sequence`` mode, and for an image without a pixel to score.

        Raises:
            DepthError, ValueError: as ``depth_metrics``, with the image's name; but nothing to score is no error here.
        """
        count = len(self._scores) + len(self._kept) + len(self._skipped)
        name = f"{count:05d}" if name is None else name
        try:
            pixels = scored_pixels(pred, target, valid, self.rules, self.missing)
        except ValueError as error:
            raise type(error)(f"image {name}: {error}") from None
        pixels.name = name
        if pixels.chosen:
            self._coverages.append(pixels.coverage)
        if len(pixels.target) == 0:
            self._skipped.append(name)
            return None
        if self.scale == "sequence":
            self._kept.append(pixels)
            return None
        self._scores.append({"name": name, **score_pixels(pixels, self.rules, self.scale)})
        return self._scores[-1]

    def report(self) -> DepthReport:
        """The averages so far.

        Raises:
            DepthError: no image had a pixel to score.
        """
        scores, scale = self._scores, self.scale
        if self._kept:
            factor = float(np.median([pixels.ratio for pixels in self._kept]))
            scores = [{"name": pixels.name, **score_pixels(pixels, self.rules, factor)} for pixels in self._kept]
        if not scores:
            raise DepthError(
                f"nothing to score: {len(self._skipped)} images were added, none with a known true depth that the "
                f"protocol counts and a prediction there."
            )
        ratios = np.array([score["ratio"] for score in scores])
        middle = float(np.median(ratios))
        return DepthReport(
            protocol=self.protocol,
            scale=str(scale),
            metrics={name: float(np.mean([score[name] for score in scores])) for name in METRICS},
            ratio_median=middle,
            ratio_spread=float(np.std(ratios / middle)),
            coverage=float(np.mean(self._coverages)),
            images=scores,
            skipped=list(self._skipped),
        )


def markdown_table(reports: Mapping[str, DepthReport]) -> str:
    """One row per report in GitHub's Markdown: the errors, ratio ± spread, coverage, number of images."""
    columns = ("method", "protocol", "scale", *METRICS, "ratio", "coverage", "images")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * 3 + "---:|" * (len(columns) - 3)]
    for name, report in reports.items():
        errors = (f"{report.metrics[metric]:.3f}" for metric in METRICS)
        ratio = f"{report.ratio_median:.3f} ± {100 * report.ratio_spread:.1f} %"
        cells = (name, report.protocol, report.scale, *errors, ratio, f"{report.coverage:.2f}", str(len(report.images)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
