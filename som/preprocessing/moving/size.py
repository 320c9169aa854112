"""How the depth of an object changes: at twice the depth it appears half as large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from som.preprocessing.moving.options import MovingDepthOptions
from som.preprocessing.moving.segments import Segments

DEFAULT = MovingDepthOptions()


@dataclass(frozen=True)
class Comparisons:
    """E pairs of segments (a, b) of one object."""

    a: Int[np.ndarray, "e"]
    b: Int[np.ndarray, "e"]
    change: Float[np.ndarray, "e"]
    """Log depth of b less that of a, by their sizes."""
    sigma: Float[np.ndarray, "e"]
    """Standard deviation of ``change``."""


def compare_sizes(
    segments: Segments, xy: Float[np.ndarray, "q t 2"], options: MovingDepthOptions = DEFAULT
) -> Comparisons:
    """Compares segments of every object that are ``segments.strides`` frames apart.

    With s the length to which a vertical unit of the object is mapped from a to b (by the affine map that fits their
    common tracks; turning about the vertical does not change it), the change is -log s. With e the median residual of
    this map as a share of the object's extent, its standard deviation is 2 e sqrt(1 + (e / d)²),
    where d is ``size.deformation``.

    Args:
        segments: as ``find_segments`` found them on the same tracks.
        xy: tracked points in pixels of the masks.
    """
    at, T, found = segments.of_track, segments.of_track.shape[1], []
    deformation = options.size.deformation
    for stride in options.segments.strides:
        for t in range(T - stride):
            both = (at[:, t] >= 0) & (at[:, t + stride] >= 0)
            for a, b in np.unique(at[both][:, [t, t + stride]], axis=0):
                chosen = both & (at[:, t] == a) & (at[:, t + stride] == b)
                compared = _size_ratio(xy[chosen, t], xy[chosen, t + stride], options)
                if compared is not None:
                    size, error = compared
                    found.append((a, b, -np.log(size), 2 * max(error, 1e-3) * np.sqrt(1 + (error / deformation) ** 2)))
    a, b, change, sigma = np.array(found, np.float64).reshape(-1, 4).T
    return Comparisons(a.astype(np.int64), b.astype(np.int64), change, sigma)


def _size_ratio(
    source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"], options: MovingDepthOptions
) -> tuple[float, float] | None:
    """Length that a vertical unit has after the affine map from source to target, and the median residual of this map
    as a share of the target's extent; None where it is not known."""
    for _ in range(2):  # the second time without what fits worst
        spread = min(source.std(0).min(), target.std(0).min()) if len(source) else 0.0
        if len(source) < options.segments.min_tracks or spread < options.size.min_spread:
            return None
        design = np.concatenate([source - source.mean(0), np.ones((len(source), 1))], 1)
        affine = np.linalg.lstsq(design, target, rcond=None)[0]
        error = np.linalg.norm(target - design @ affine, axis=1)
        kept = error <= 2.5 * max(np.median(error), 0.1)
        source, target = source[kept], target[kept]
    size = float(np.linalg.norm(affine[1]))
    return (size, float(np.median(error) / target.std(0).mean())) if 0.25 < size < 4 else None
