"""Motion as a blend of a few rigid motions shared by all moving Gaussians (Shape of Motion, arXiv 2407.13764)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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


class MotionBases(nn.Module):
    """K rigid motions over T time indices.

    Parameters:
        rots: (K, T, 6), 6D rotations.
        transls: (K, T, 3), translations in scene units.

    The pose of a Gaussian with weights w at time t is R = orthonormalise(sum_k w_k rots[k, t]),
    tau = sum_k w_k transls[k, t]: the *raw* 6D vectors are blended, then orthonormalised.
    """

    def __init__(self, rots: Float[Tensor, "k t 6"], transls: Float[Tensor, "k t 3"]):
        super().__init__()
        if rots.ndim != 3 or rots.shape[2] != 6 or tuple(transls.shape) != (*rots.shape[:2], 3):
            raise ValueError(
                f"MotionBases: rots {tuple(rots.shape)} and transls {tuple(transls.shape)} must be (K,T,6) and (K,T,3)."
            )
        self.params = nn.ParameterDict(
            {"rots": nn.Parameter(rots.detach().clone()), "transls": nn.Parameter(transls.detach().clone())}
        )

    @property
    def num_bases(self) -> int:
        return self.params["rots"].shape[0]

    @property
    def num_times(self) -> int:
        return self.params["rots"].shape[1]

    def poses(
        self, weights: Float[Tensor, "g k"], times: Int[Tensor, "b"] | Float[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b g 3 3"], Float[Tensor, "b g 3"]]:
        """Rotations and translations that carry canonical points to each time: x_t = R x + tau.

        Args:
            weights: convex weights, (G, K).
            times: frames, any number, repetition allowed; integers in [0, T), or real numbers in [0, T - 1], between
                two of which the raw 6D rotations and the translations are interpolated linearly.
        """
        motion = torch.cat([self.params["rots"], self.params["transls"]], dim=-1)  # (K, T, 9)
        if times.is_floating_point():
            before = times.floor().long()
            after = (before + 1).clamp(max=self.num_times - 1)
            share = (times - before).to(motion)[:, None]
            motion = motion[:, before] + share * (motion[:, after] - motion[:, before])  # (K, B, 9)
        else:
            motion = motion[:, times]
        blended = torch.einsum("gk,kbc->bgc", weights, motion)
        r6, transls = blended.split([6, 3], dim=-1)
        return rotation_6d_to_matrix(r6), transls

    def carry(
        self,
        points: Float[Tensor, "g 3"],
        weights: Float[Tensor, "g k"],
        times: Int[Tensor, "b"] | Float[Tensor, "b"],
    ) -> tuple[Float[Tensor, "b g 3 3"], Float[Tensor, "b g 3"]]:
        """Rotations, and where canonical points with these weights are at each time."""
        R, transl = self.poses(weights, times)
        # products and sums: a batch of 3 x 3 matrix products is several times slower on a CPU
        return R, (R * points[:, None, :]).sum(-1) + transl
