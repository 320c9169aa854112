"""Prior heights of object classes: a mean and a standard deviation in metres, built in or read from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from som.depth.errors import DepthError


@dataclass(frozen=True)
class HeightPrior:
    """Height of a class of objects, N(mean, std^2)."""

    mean: float
    """Mean height in metres, > 0."""
    std: float
    """Standard deviation between individuals in metres, >= 0."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and self.mean > 0):
            raise DepthError(f"a height prior needs a finite mean > 0 in metres, got {self.mean}.")
        if not (math.isfinite(self.std) and self.std >= 0):
            raise DepthError(f"a height prior needs a finite std >= 0 in metres, got {self.std}.")


HeightPriors = Mapping[str, HeightPrior]
"""Priors by class name, the name that instance files use."""

DEFAULT_PRIORS: dict[str, HeightPrior] = {
    "car": HeightPrior(1.526, 0.137),
    "person": HeightPrior(1.761, 0.113),
}
"""Means and deviations of the 3D boxes labelled "Car" and "Pedestrian" in KITTI's object training set (Germany, 2011),
as published in the configuration of MonoFlex (Zhang et al., CVPR 2021). KITTI's boxes are tight; loosely labelled sets
give cars of 1.6 to 1.7 m. Metric depth is proportional to these means: give your own where cars or people differ."""


def read_priors(path: str | Path) -> dict[str, HeightPrior]:
    """Reads priors from a JSON file ``{"car": {"mean": 1.53, "std": 0.14}, ...}``, heights in metres.

    Raises:
        DepthError: the file is missing, is no such JSON, or holds an impossible height.
    """
    path = Path(path)
    expected = f'{path} must be JSON like {{"car": {{"mean": 1.53, "std": 0.14}}}}'
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DepthError(f"cannot read the height priors {path}: {error.strerror}.") from error
    except ValueError as error:
        raise DepthError(f"{expected}; it is no JSON ({error}).") from error
    if not isinstance(entries, dict) or not entries:
        raise DepthError(f"{expected}; it holds no classes.")
    priors = {}
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"mean", "std"}:
            raise DepthError(f"{expected}; the entry of {name!r} is {entry!r}.")
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in entry.values()):
            raise DepthError(f"{expected}; the entry of {name!r} is {entry!r}.")
        try:
            priors[name] = HeightPrior(**entry)
        except DepthError as error:
            raise DepthError(f"{path}, class {name!r}: {error}") from error
    return priors
