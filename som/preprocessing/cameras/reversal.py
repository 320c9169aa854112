"""The mirrored scene that explains nearly the same motion, and which of the two to believe.

Where perspective is weak, a scene turned inside out in depth, seen by a camera that moves the opposite way, moves
almost like the true one (Szeliski and Kang, "Shape ambiguities in structure from motion", 1997). Adjustment converges
to either of the two; so both are looked at.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from som.preprocessing.cameras.bundle_adjustment import Scene, camera_coordinates, normalized
from som.preprocessing.cameras.observations import Observations

DEPTH_QUANTILES = (0.02, 0.98)
"""Quantiles of inverse depth that stand for its smallest and largest value."""
MAX_COST_RATIO = 1.1
"""Costs within this factor of each other cannot distinguish the two scenes."""


def reversed_scene(scene: Scene, seen: Observations) -> Scene:
    """The scene with the motion of every camera negated, and near and far exchanged.

    Inverse depth in the first camera becomes the sum of its smallest and largest value, less itself.
    """
    y = scene.X[:, :3] @ scene.R[0].T + scene.X[:, 3:] * scene.t[0]
    rays = y / np.where(np.abs(y[:, 2:]) > 1e-9, y[:, 2:], 1e-9)
    inverse_depth = scene.X[:, 3] / np.where(np.abs(y[:, 2]) > 1e-9, y[:, 2], 1e-9)
    low, high = np.quantile(inverse_depth, DEPTH_QUANTILES)
    mirrored = np.clip(low + high - inverse_depth, 1e-3 * max(high, 1e-3), None)
    X = np.concatenate([(rays + mirrored[:, None] * scene.t[0]) @ scene.R[0], mirrored[:, None]], 1)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return normalized(Scene(scene.R, -scene.t, X, scene.focal), seen)


def nearness_below(scene: Scene, seen: Observations) -> float:
    """Correlation in [-1, 1] of inverse depth with the position down the image.

    Positive where the lower part of the picture is nearer, as it is wherever there is ground.
    """
    y = camera_coordinates(scene, seen)
    inverse_depth = scene.X[seen.point, 3] / np.maximum(y[:, 2], 1e-9)
    clipped = np.clip(inverse_depth, *np.quantile(inverse_depth, DEPTH_QUANTILES))
    return _correlation(clipped, seen.xy[:, 1])


def prefer_reversed(cost: float, reversed_cost: float, below: float, reversed_below: float) -> bool:
    """Whether to believe the reversed scene: it fits better, or as well and has its ground in front.

    Args:
        cost, reversed_cost: robust costs of both, after adjustment.
        below, reversed_below: ``nearness_below`` of both.
    """
    if max(cost, reversed_cost) > MAX_COST_RATIO * min(cost, reversed_cost):
        return reversed_cost < cost
    return reversed_below > below


def _correlation(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
