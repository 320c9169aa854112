"""Groups of points and the neighbourhoods of tracks."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from som.initialization.lifting import LiftedTracks


def kmeans(
    points: Float[Tensor, "n d"], num_clusters: int, generator: torch.Generator, iterations: int = 20
) -> tuple[Int[Tensor, "n"], Float[Tensor, "k d"]]:
    """Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii 2007).

    Returns:
        labels (N,) and centres (K, D); K is smaller than asked for if there are fewer distinct points.
    """
    centers = points[torch.randint(len(points), (1,), generator=generator)]
    nearest = ((points - centers) ** 2).sum(-1)
    while len(centers) < num_clusters and nearest.max() > 0:
        chosen = points[torch.multinomial(nearest[:: max(len(nearest) // 2**20, 1)], 1, generator=generator)]
        centers = torch.cat([centers, chosen])
        nearest = torch.minimum(nearest, ((points - chosen) ** 2).sum(-1))
    for _ in range(iterations):
        labels = torch.cdist(points, centers).argmin(1)
        counts = torch.bincount(labels, minlength=len(centers))
        sums = torch.zeros_like(centers).index_add_(0, labels, points)
        moved = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centers)
        if torch.equal(moved, centers):
            break
        centers = moved
    return torch.cdist(points, centers).argmin(1), centers


def middle_times(tracks: LiftedTracks) -> Int[Tensor, "q"]:
    """The median observed time of each track."""
    seen = tracks.observed.long().cumsum(1)
    return (seen < (seen[:, -1:] + 1) // 2).sum(1).clamp(max=tracks.observed.shape[1] - 1)


def track_neighbors(tracks: LiftedTracks, k: int) -> Int[Tensor, "q k"]:
    """The k tracks closest to each track among those observed at its middle time, itself first.

    Where fewer are observed then, the list is filled up with the track itself.
    """
    neighbors = torch.arange(len(tracks))[:, None].repeat(1, k)
    middle = middle_times(tracks)
    for time in middle.unique().tolist():
        present = tracks.observed[:, time].nonzero()[:, 0]
        asking = (middle == time).nonzero()[:, 0]
        tree = cKDTree(tracks.points[present, time].numpy())
        wanted = min(k, len(present))
        found = tree.query(tracks.points[asking, time].numpy(), k=np.arange(1, wanted + 1), workers=-1)[1]
        neighbors[asking, :wanted] = present[torch.from_numpy(found)]
    return neighbors
