"""Rotations as matrices, quaternions (w, x, y, z), rotation vectors and 6D vectors: every convention stands here.

What the optimisation goes through at every step is written out, without branches and differentiable everywhere; the
tests check it against ``roma``. What works on arrays goes through scipy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Real
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor


def rotation_6d_to_matrix(r6: Float[Tensor, "*b 6"], eps: float = 1e-6) -> Float[Tensor, "*b 3 3"]:
    """Rotation whose first two *columns* are the Gram-Schmidt orthonormalisation of the two halves of ``r6``.

    The continuous representation of Zhou et al., CVPR 2019 (arXiv 1812.07035). Opposite rotations can blend to a zero
    or collinear pair, for which no rotation is defined; norms are guarded by ``eps``, so that everything stays finite.
    """

    def unit(v: Tensor) -> Tensor:
        return v * torch.rsqrt((v * v).sum(-1, keepdim=True) + eps * eps)

    a1, a2 = r6.split(3, dim=-1)
    b1 = unit(a1)
    b2 = unit(a2 - (b1 * a2).sum(-1, keepdim=True) * b1)
    b3 = torch.linalg.cross(b1, b2, dim=-1)
    return torch.stack([b1, b2, b3], dim=-1)


def matrix_to_rotation_6d(R: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """The first two columns; inverse of :func:`rotation_6d_to_matrix` on rotations."""
    return torch.cat([R[..., :, 0], R[..., :, 1]], dim=-1)


def matrix_to_quat_wxyz(R: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions of rotation matrices, differentiable everywhere.

    Picks the best conditioned of the four formulas of Shepperd (1978) per matrix, without branching: row i of the
    4x4 matrix below is 4 q_i q, and the row with the largest diagonal entry is normalised.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = R.flatten(-2).unbind(-1)
    wx, wy, wz = m21 - m12, m02 - m20, m10 - m01
    xy, xz, yz = m01 + m10, m02 + m20, m12 + m21
    ww, xx, yy, zz = 1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22
    rows = torch.stack([ww, wx, wy, wz, wx, xx, xy, xz, wy, xy, yy, yz, wz, xz, yz, zz], -1).unflatten(-1, (4, 4))
    best = torch.stack([ww, xx, yy, zz], -1).detach().argmax(-1)
    row = torch.take_along_dim(rows, best[..., None, None], dim=-2).squeeze(-2)
    return torch.nn.functional.normalize(row, dim=-1)


def quat_multiply_wxyz(a: Float[Tensor, "*b 4"], b: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """Hamilton product a b: the rotation b followed by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def quat_wxyz_to_matrix(quats_wxyz: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of quaternions of any norm; the zero quaternion gives the identity, and no gradient."""
    norm = quats_wxyz.norm(dim=-1, keepdim=True)
    zero = norm == 0
    unit = torch.where(zero, 0.0, quats_wxyz / torch.where(zero, 1.0, norm)).unbind(-1)
    return torch.stack(_matrix_entries(*unit), -1).reshape(*quats_wxyz.shape[:-1], 3, 3)


def _matrix_entries(w, x, y, z):
    """The nine entries, row by row, of the rotations of unit quaternions: tensors, or numbers."""
    return [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip


def cross_matrix(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """[v]ₓ, with [v]ₓ u = v × u."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def rotvec_to_matrix(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotations from axis times angle in radians, by Rodrigues' formula.

    R = I + sin(a)/a [v]ₓ + (1 - cos(a))/a² [v]ₓ², a = |v|. Smooth everywhere, with the exact gradient at v = 0.
    """
    squared = v.square().sum(-1)[..., None, None]
    skew = cross_matrix(v)
    # (1 - cos a) / a² = ½ sinc²(a/2), which does not cancel for small angles.
    half = _sinc_of_square(squared / 4)
    eye = torch.eye(3, dtype=v.dtype, device=v.device)
    return eye + _sinc_of_square(squared) * skew + 0.5 * half.square() * (skew @ skew)


def _sinc_of_square(squared: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """sin(x) / x from x²: analytic in x², so value and gradient are right at zero too."""
    near = squared < 0.25
    s = torch.where(near, squared, torch.zeros_like(squared))
    series = torch.ones_like(s)
    for k in range(8, 0, -1):  # the first term left out is below 1e-19
        series = 1 - s / (2 * k * (2 * k + 1)) * series
    x = torch.where(near, torch.ones_like(squared), squared).sqrt()
    return torch.where(near, series, x.sin() / x)


def mean_rotations(
    rotations: Float[Tensor, "n 3 3"], weights: Float[Tensor, "m n"]
) -> tuple[Float[Tensor, "m 3 3"], Bool[Tensor, "m"]]:
    """M weighted chordal means of N rotations in float64, and whether they are unique: opposite ones have no mean."""
    mean = torch.einsum("mn,nij->mij", weights, rotations).double()
    R, singular_values = roma.special_procrustes(mean, return_singular_values=True)
    return R, singular_values[:, 1] + singular_values[:, 2] > 1e-6


def axis_rotation(axis: int, angle: ArrayLike) -> Float[np.ndarray, "*b 3 3"]:
    """Right-handed rotations about the axis x (0), y (1) or z (2) by angles in radians."""
    angle = np.asarray(angle, np.float64)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    R = np.broadcast_to(np.eye(3), (*angle.shape, 3, 3)).copy()
    R[..., i, i] = R[..., j, j] = np.cos(angle)
    R[..., j, i] = np.sin(angle)
    R[..., i, j] = -np.sin(angle)
    return R


def angles_degrees(R: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n"]:
    """By how much each rotation turns."""
    return np.degrees(Rotation.from_matrix(R).magnitude())


def rotation_of_quat_wxyz(quat_wxyz: Sequence[float]) -> Float[np.ndarray, "3 3"]:
    """The rotation matrix of one quaternion of any norm but 0, in float64."""
    quat = np.asarray(quat_wxyz, np.float64)
    return np.array(_matrix_entries(*(quat / np.linalg.norm(quat)))).reshape(3, 3)


def quat_xyzw_to_matrix(quats_xyzw: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 3 3"]:
    """Rotation matrices of quaternions of any norm but 0, the scalar last."""
    return Rotation.from_quat(quats_xyzw).as_matrix()


def slerp(
    times: Real[np.ndarray, "n"], rotations: Float[np.ndarray, "n 3 3"], wanted: Real[np.ndarray, "m"]
) -> Float[np.ndarray, "m 3 3"]:
    """Rotations at ``wanted`` times that turn evenly, about one axis, from each given rotation to the next.

    Args:
        times: rising, two at least.
        wanted: within the range of ``times``.
    """
    return Slerp(times, Rotation.from_matrix(rotations))(wanted).as_matrix()
