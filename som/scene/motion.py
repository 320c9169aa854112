"""Motion as a blend of a few rigid motions shared by all moving Gaussians (Shape of Motion, arXiv 2407.13764)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from som.cameras.rotations import rotation_6d_to_matrix


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
