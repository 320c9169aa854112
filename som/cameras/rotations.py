"""Rotations as matrices, quaternions (w, x, y, z), rotation vectors and 6D vectors: every convention stands here.

What the optimisation goes through at every step is written out, without branches and differentiable everywhere; the
tests check it against ``roma``. Elsewhere use ``roma`` (quaternions x, y, z, w) itself.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp


def slerp(
    times: Float[np.ndarray, "n"], rotations: Float[np.ndarray, "n 3 3"], wanted: Float[np.ndarray, "m"]
) -> Float[np.ndarray, "m 3 3"]:
    """Rotations at ``wanted`` times that turn evenly, about one axis, from each given rotation to the next.

    Args:
        times: rising, two at least.
        wanted: within the range of ``times``.
    """
    return Slerp(times, Rotation.from_matrix(rotations))(wanted).as_matrix()
