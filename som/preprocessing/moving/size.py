"""How the depth of a thing changes: at twice the depth it appears half as large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from som.preprocessing.moving.sightings import MIN_TRACKS, STRIDES, Sightings

MIN_SPREAD = 2.0
"""Standard deviation in pixels, along both axes, of the places of the tracks by which sizes are compared."""
RIGID = 0.03
"""Residual of the affine map, as a share of the thing's extent, above which it deforms and its size says little."""


@dataclass(frozen=True)
class Comparisons:
    """E pairs of sightings (a, b) of one thing."""

    a: Int[np.ndarray, "e"]
    b: Int[np.ndarray, "e"]
    change: Float[np.ndarray, "e"]
    """Log depth of b less that of a, as their sizes tell."""
    sigma: Float[np.ndarray, "e"]
    """Standard deviation of ``change``."""


def compare_sizes(sightings: Sightings, xy: Float[np.ndarray, "q t 2"]) -> Comparisons:
    """Compares sightings of every thing that are ``STRIDES`` frames apart.

    With s the length to which a vertical unit of the thing is mapped from a to b (by the affine map that fits their
    common tracks; turning about the vertical does not change it), the change is -log s. With e the median residual of
    this map as a share of the thing's extent, its standard deviation is 2 e sqrt(1 + (e / RIGID)²).

    Args:
        sightings: as ``find_sightings`` found them on the same tracks.
        xy: tracked points in pixels of the masks.
    """
    at, T, found = sightings.of_track, sightings.of_track.shape[1], []
    for stride in STRIDES:
        for t in range(T - stride):
            both = (at[:, t] >= 0) & (at[:, t + stride] >= 0)
            for a, b in np.unique(at[both][:, [t, t + stride]], axis=0):
                chosen = both & (at[:, t] == a) & (at[:, t + stride] == b)
                compared = _size_ratio(xy[chosen, t], xy[chosen, t + stride])
                if compared is not None:
                    size, error = compared
                    found.append((a, b, -np.log(size), 2 * max(error, 1e-3) * np.sqrt(1 + (error / RIGID) ** 2)))
    a, b, change, sigma = np.array(found, np.float64).reshape(-1, 4).T
    return Comparisons(a.astype(np.int64), b.astype(np.int64), change, sigma)


def _size_ratio(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> tuple[float, float] | None:
    """Length that a vertical unit has after the affine map from source to target, and the median residual of this map
    as a share of the target's extent; None where it cannot be told."""
    for _ in range(2):  # the second time without what fits worst
        if len(source) < MIN_TRACKS or source.std(0).min() < MIN_SPREAD or target.std(0).min() < MIN_SPREAD:
            return None
        design = np.concatenate([source - source.mean(0), np.ones((len(source), 1))], 1)
        affine = np.linalg.lstsq(design, target, rcond=None)[0]
        error = np.linalg.norm(target - design @ affine, axis=1)
        kept = error <= 2.5 * max(np.median(error), 0.1)
        source, target = source[kept], target[kept]
    size = float(np.linalg.norm(affine[1]))
    return (size, float(np.median(error) / target.std(0).mean())) if 0.25 < size < 4 else None
