"""A set of 3D Gaussians as optimisable parameters."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

LOGIT_EPS = 1e-4


def logit(p: Tensor) -> Tensor:
    """Inverse sigmoid of values clamped to [LOGIT_EPS, 1 - LOGIT_EPS], so that black, white and opaque stay finite."""
    p = p.clamp(LOGIT_EPS, 1 - LOGIT_EPS)
    return torch.log(p) - torch.log1p(-p)


class Gaussians(nn.Module):
    """G Gaussians. Parameters are stored unconstrained, under gsplat's names (its strategy operations expect them):

    ========================  ==================  =======================================
    ``params`` entry          shape               meaning
    ========================  ==================  =======================================
    ``means``                 (G, 3)              centre; canonical frame if it moves
    ``quats``                 (G, 4)              wxyz, normalised on use
    ``scales``                (G, 3)              log of the standard deviations
    ``opacities``             (G,)                logit
    ``colors``                (G, 3)              logit of RGB (no view dependence)
    ``motion_coefs``          (G, K), foreground  logits of the weights of the K motion bases
    ========================  ==================  =======================================
    """

    def __init__(
        self,
        means: Float[Tensor, "g 3"],
        quats: Float[Tensor, "g 4"],
        scales: Float[Tensor, "g 3"],
        opacities: Float[Tensor, "g"],
        colors: Float[Tensor, "g 3"],
        motion_coefs: Float[Tensor, "g k"] | None = None,
    ):
        super().__init__()
        named = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
        if motion_coefs is not None:
            named["motion_coefs"] = motion_coefs
        shapes = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "colors": (3,)}
        for name, value in named.items():
            expected = (len(means), *shapes.get(name, value.shape[1:]))
            if tuple(value.shape) != expected:
                raise ValueError(f"Gaussians: {name} has shape {tuple(value.shape)}, expected {expected}.")
        self.params = nn.ParameterDict({k: nn.Parameter(v.detach().clone().contiguous()) for k, v in named.items()})

    @classmethod
    def from_values(
        cls,
        means: Float[Tensor, "g 3"],
        quats: Float[Tensor, "g 4"],
        scales: Float[Tensor, "g 3"],
        opacities: Float[Tensor, "g"],
        colors: Float[Tensor, "g 3"],
        motion_coefs: Float[Tensor, "g k"] | None = None,
    ) -> Gaussians:
        """From physical values: linear scales, opacities and colours in [0, 1] (clamped away from 0 and 1)."""
        return cls(means, quats, scales.clamp(min=1e-8).log(), logit(opacities), logit(colors), motion_coefs)

    def __len__(self) -> int:
        return len(self.params["means"])

    @property
    def means(self) -> Float[Tensor, "g 3"]:
        return self.params["means"]

    @property
    def quats_wxyz(self) -> Float[Tensor, "g 4"]:
        return torch.nn.functional.normalize(self.params["quats"], dim=-1)

    @property
    def scales(self) -> Float[Tensor, "g 3"]:
        return self.params["scales"].exp()

    @property
    def opacities(self) -> Float[Tensor, "g"]:
        return self.params["opacities"].sigmoid()

    @property
    def colors(self) -> Float[Tensor, "g 3"]:
        return self.params["colors"].sigmoid()

    @property
    def motion_weights(self) -> Float[Tensor, "g k"]:
        """Convex weights of the motion bases."""
        return self.params["motion_coefs"].softmax(dim=-1)
