"""Choosing evenly spread points, and the size of Gaussians that then cover a surface."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

MIN_CELL_FOOTPRINTS = 0.7
"""Cells are never smaller than this many pixel footprints: finer points repeat what one pixel shows."""
GRID_OFFSET = np.array([0.37, 0.61, 0.53])
"""Shifts the grid, lest a surface at a round coordinate lies on the border of cells and fills both sides."""


def _one_per_cell(points: np.ndarray, sizes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Indices of the first point in every cell of side ``sizes`` and every group."""
    cell = np.floor(points / sizes[:, None] + GRID_OFFSET).astype(np.int64)
    with np.errstate(over="ignore"):
        key = (cell * np.array([73856093, 19349663, 83492791])).sum(1) * 1000003 + groups * 2654435761
    return np.unique(key, return_index=True)[1]


def thin_points(
    points: Float[Tensor, "n 3"],
    footprints: Float[Tensor, "n"],
    count: int,
    groups: Int[Tensor, "n"] | None = None,
) -> Int[Tensor, "m"]:
    """Indices of at most ``count`` points, one a cell of a grid whose cells grow with the footprint.

    Args:
        points: positions.
        footprints: size of a pixel at each point; nearby views keep more detail than distant ones.
        groups: points of different groups never compete for a cell.

    Returns:
        ascending indices. The order of the points decides which one of a cell is kept.
    """
    if len(points) == 0 or count <= 0:
        return torch.zeros(0, dtype=torch.long)
    xyz, level = points.double().numpy(), torch.log2(footprints.double().clamp(min=1e-9)).floor().numpy()
    base = np.zeros(len(xyz), np.int64) if groups is None else groups.numpy().astype(np.int64)
    base = base * 1009 + level.astype(np.int64)
    low, high = np.log(MIN_CELL_FOOTPRINTS), np.log(MIN_CELL_FOOTPRINTS)
    kept = _one_per_cell(xyz, MIN_CELL_FOOTPRINTS * 2.0**level, base)
    while len(kept) > count:  # the cells are too small: double them until they are not, then halve the interval
        low, high = high, high + np.log(2.0)
        kept = _one_per_cell(xyz, np.exp(high) * 2.0**level, base)
    for _ in range(6 if high > low else 0):
        middle = 0.5 * (low + high)
        tried = _one_per_cell(xyz, np.exp(middle) * 2.0**level, base)
        if len(tried) > count:
            low = middle
        else:
            high, kept = middle, tried
    return torch.from_numpy(np.sort(kept))


def spacing(points: Float[Tensor, "n 3"], footprints: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Root mean square distance to the three nearest other points, between 0.3 footprints and the 95 % quantile."""
    if len(points) < 2:
        return footprints.clone()
    k = min(3, len(points) - 1)
    distance = cKDTree(points.numpy()).query(points.numpy(), k=np.arange(2, k + 2), workers=-1)[0]
    mean = torch.from_numpy(np.sqrt((distance**2).mean(1))).to(points)
    highest = torch.from_numpy(np.quantile(mean.numpy(), [0.95])).to(points)
    return torch.maximum(torch.minimum(mean, highest), 0.3 * footprints)
