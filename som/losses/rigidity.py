"""Local rigidity of moving Gaussians between two times, over fixed nearest neighbours.

Shape of Motion's paper (arXiv 2407.13764) names a rigidity term; these are its local-isometry form and the
as-rigid-as-possible form used by MoSca (arXiv 2405.17421) and Dynamic 3D Gaussians (arXiv 2308.09713).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from scipy.spatial import cKDTree
from torch import Tensor

from som.reductions import weighted_mean


def nearest_neighbors(
    points: Float[Tensor, "g 3"], k: int
) -> tuple[Int[Tensor, "g k"], Float[Tensor, "g k"]]:
    """Indices of the k nearest other points and weights ``exp(-d^2 / (2 s^2))``, s the median neighbour distance.

    With fewer than k other points the lists are shorter: k becomes G - 1. Call it rarely; it runs on the CPU.
    """
    k = max(min(k, len(points) - 1), 0)
    if k == 0:
        empty = points.new_zeros(len(points), 0)
        return empty.long(), empty
    xyz = points.detach().cpu().numpy()
    distances, indices = cKDTree(xyz).query(xyz, k=k + 1, workers=-1)
    own = indices == np.arange(len(xyz))[:, None]
    own[~own.any(1), -1] = True  # among coincident points the query may miss the point itself
    d = torch.from_numpy(distances[~own].reshape(len(points), k)).to(points)
    width = d.median().clamp(min=1e-12)
    neighbors = torch.from_numpy(indices[~own].reshape(len(points), k)).to(points.device)
    return neighbors, torch.exp(-0.5 * (d / width) ** 2)


def _check(name: str, a: Tensor, b: Tensor, neighbors: Tensor, weights: Tensor | None) -> None:
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 3:
        raise ValueError(f"{name}: positions must both be (G,3), got {tuple(a.shape)} and {tuple(b.shape)}.")
    if neighbors.ndim != 2 or len(neighbors) != len(a):
        raise ValueError(f"{name}: neighbors must be (G,k), got {tuple(neighbors.shape)} for G = {len(a)}.")
    if weights is not None and weights.shape != neighbors.shape:
        raise ValueError(f"{name}: weights {tuple(weights.shape)} must be {tuple(neighbors.shape)}.")


def local_isometry(
    positions_a: Float[Tensor, "g 3"],
    positions_b: Float[Tensor, "g 3"],
    neighbors: Int[Tensor, "g k"],
    weights: Shaped[Tensor, "g k"] | None = None,
) -> Float[Tensor, ""]:
    """Mean change of the distance to each neighbour between times a and b.

    Args:
        positions_a, positions_b: the same points at two times, scene units.
        neighbors: indices of each point's k neighbours, see ``nearest_neighbors``.
        weights: >= 0 for every pair; None is 1.

    Returns:
        scalar >= 0 in scene units; 0 for a rigid motion of all; a differentiable 0 when nothing has weight.

    Raises:
        ValueError: the shapes disagree.
    """
    _check("local_isometry", positions_a, positions_b, neighbors, weights)
    length_a, length_b = (
        torch.linalg.vector_norm(x[neighbors] - x[:, None], dim=-1) for x in (positions_a, positions_b)
    )
    return weighted_mean((length_a - length_b).abs(), weights)


def as_rigid_as_possible(
    positions_a: Float[Tensor, "g 3"],
    rotations_a: Float[Tensor, "g 3 3"],
    positions_b: Float[Tensor, "g 3"],
    rotations_b: Float[Tensor, "g 3 3"],
    neighbors: Int[Tensor, "g k"],
    weights: Shaped[Tensor, "g k"] | None = None,
) -> Float[Tensor, ""]:
    """Mean change of each neighbour's position as seen in the point's own rotating frame.

    ``|| R_a^T (x_j - x_i)_a - R_b^T (x_j - x_i)_b ||``. Stricter than ``local_isometry``: it also ties each point's
    rotation to the motion of its surroundings.

    Args:
        positions_a, positions_b: the same points at two times, scene units.
        rotations_a, rotations_b: rotations from the canonical frame to those times.
        neighbors: indices of each point's k neighbours, see ``nearest_neighbors``.
        weights: >= 0 for every pair; None is 1.

    Returns:
        scalar >= 0 in scene units; 0 for a rigid motion of all; a differentiable 0 when nothing has weight.

    Raises:
        ValueError: the shapes disagree.
    """
    _check("as_rigid_as_possible", positions_a, positions_b, neighbors, weights)
    if rotations_a.shape != (len(positions_a), 3, 3) or rotations_b.shape != rotations_a.shape:
        raise ValueError("as_rigid_as_possible: rotations must both be (G,3,3).")
    local_a, local_b = (
        (x[neighbors] - x[:, None]) @ R for x, R in ((positions_a, rotations_a), (positions_b, rotations_b))
    )  # row vectors: v @ R = R^T v
    return weighted_mean(torch.linalg.vector_norm(local_a - local_b, dim=-1), weights)
