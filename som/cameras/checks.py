"""Whether numbers from files are a camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from som.errors import UserError


def check_intrinsics(K: np.ndarray, where: str | Path) -> np.ndarray:
    """K (3,3) as float64.

    Raises:
        UserError: it is not [fx 0 cx; 0 fy cy; 0 0 1] with positive focal lengths.
    """
    K = np.asarray(K, np.float64)
    usable = K.shape == (3, 3) and np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0
    if not usable or not np.allclose(K[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]) or abs(K[0, 1]) > 1e-6 * K[0, 0]:
        raise UserError(f"{where}: K must be [fx 0 cx; 0 fy cy; 0 0 1] with positive focal lengths; correct it.")
    return K


def rigid(pose: np.ndarray, where: str) -> np.ndarray:
    """A pose (3,4) or (4,4) as an exactly rigid (4,4); text files round rotations.

    Raises:
        UserError: it is not finite, or further than rounding from a rigid motion.
    """
    pose = np.asarray(pose, np.float64)
    full = np.eye(4)
    full[: pose.shape[0]] = pose
    if not np.isfinite(full).all():
        raise UserError(f"{where}: the pose holds NaN or infinite numbers; leave this frame out.")
    U, S, Vt = np.linalg.svd(full[:3, :3])
    if np.abs(S - 1).max() > 1e-2 or np.linalg.det(U @ Vt) < 0 or np.abs(full[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise UserError(f"{where}: the pose is not rigid (R R^T = 1, det R = 1, last row 0 0 0 1); correct it.")
    full[:3, :3] = U @ Vt
    return full
