"""Finds the parts of a scene that move rigidly, and their motion, from trajectories seen for part of the time.

A part is grown from a small neighbourhood of tracks at one time: its pose at the next and the previous time follows
from the tracks of the part that are seen there, and every track whose positions, undone by the poses so far, stay in
one place joins the part. So poses chain through overlapping tracks, and a spinning ball, whose tracks each live for
some frames only, is still followed as one part. Parts are found one after another, largest first, and then refined
together: every track goes to the part that explains it best, every part is fitted to its tracks.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from som.initialization.clustering import middle_times
from som.initialization.lifting import LiftedTracks
from som.initialization.procrustes import robust_procrustes, weighted_procrustes

SEED_NEIGHBORS = 24
"""Tracks from which a part starts to grow: those nearest to its seed."""
SEEDS_PER_ROUND = 4
"""Seeds that are grown in a round, of which the part with most tracks is kept."""
MIN_PART_TRACKS = 4
"""Fewer tracks determine no rigid motion."""
MIN_TOLERANCE_UNITS = 4e-3
"""Scene units; below it, differences are noise of interpolation."""


@contextmanager
def single_threaded():
    """Runs torch on one thread: for many tiny operations, waiting for other threads costs far more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class RigidParts:
    """K rigid motions that carry part coordinates to scene positions: x_t = R p + t."""

    R: Float[Tensor, "k t 3 3"]
    t: Float[Tensor, "k t 3"]
    covered: Bool[Tensor, "k t"]
    """The pose was fitted to tracks seen at that time."""

    def __len__(self) -> int:
        return len(self.R)

    def undo(self, part: int, tracks: LiftedTracks) -> Float[Tensor, "q t 3"]:
        """Positions of all tracks in the coordinates of one part."""
        return torch.einsum("qti,tij->qtj", tracks.points - self.t[part], self.R[part])

    def cat(self, other: RigidParts) -> RigidParts:
        return RigidParts(*(torch.cat([a, b]) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def residuals(self, part: int, tracks: LiftedTracks, clip: float) -> tuple[Tensor, Tensor]:
        """(Q,) root mean square distance from the track's mean place in the part, and that place (Q,3).

        Observations where the part has no pose, and single distances above it, count as ``clip``.
        """
        local = self.undo(part, tracks)
        w = tracks.weights * self.covered[part]
        place = (w[..., None] * local).sum(1) / w.sum(1).clamp(min=1e-12)[:, None]
        squared = ((local - place[:, None]) ** 2).sum(-1).clamp(max=clip**2)
        squared = torch.where(self.covered[part], squared, torch.full_like(squared, clip**2))
        spread = (tracks.weights * squared).sum(1) / tracks.weights.sum(1).clamp(min=1e-12)
        n = (w > 0).sum(1).clamp(min=1)  # a track that is never seen while the part has a pose keeps the full ``clip``
        return (spread * n / (n - 1).clamp(min=1)).sqrt(), place


@single_threaded()
def estimate_tolerance(tracks: LiftedTracks, neighbors: Int[Tensor, "q k"], generator: torch.Generator) -> float:
    """Three times the typical deviation of a small neighbourhood from rigid motion over a few frames."""
    middle, T, rms = middle_times(tracks), tracks.points.shape[1], []
    for i in torch.randperm(len(tracks), generator=generator)[:200].tolist():
        near, start = neighbors[i].unique(), int(middle[i])
        for end in (start - 3, start + 3):
            end = min(max(end, 0), T - 1)
            both = near[tracks.observed[near, start] & tracks.observed[near, end]]
            if end == start or len(both) < 6:
                continue
            x, y = tracks.points[both, start], tracks.points[both, end]
            R, t = weighted_procrustes(x, y, torch.ones_like(x[:, 0]))
            rms.append(((x @ R.T + t - y) ** 2).sum(-1).mean().sqrt())
    typical = float(torch.stack(rms).median()) if rms else 0.0
    return max(3 * typical, MIN_TOLERANCE_UNITS)


class _Growth:
    """One part while it grows in time and in members."""

    def __init__(self, tracks: LiftedTracks, members: Tensor, start: int, tolerance: float, reach: float):
        Q, T = tracks.observed.shape
        self.tracks, self.tolerance, self.reach = tracks, tolerance, reach
        self.R = torch.eye(3, dtype=tracks.points.dtype).repeat(T, 1, 1)
        self.t = tracks.points.new_zeros(T, 3)
        self.covered = torch.zeros(T, dtype=torch.bool)
        self.sums, self.squares, self.counts = (tracks.points.new_zeros(*s) for s in ((Q, 3), (Q,), (Q,)))
        self.members = torch.zeros(Q, dtype=torch.bool)
        self.members[members] = True
        self.seeds = self.members.clone()
        self._absorb(start)

    def _absorb(self, time: int) -> None:
        """Adds the positions of all tracks at a solved time to their running mean and spread in the part."""
        seen = self.tracks.observed[:, time]
        local = (self.tracks.points[:, time] - self.t[time]) @ self.R[time] * seen[:, None]
        self.sums += local
        self.squares += (local**2).sum(-1)
        self.counts += seen
        self.covered[time] = True

    @property
    def places(self) -> Float[Tensor, "q 3"]:
        return self.sums / self.counts.clamp(min=1)[:, None]

    @property
    def spread(self) -> Float[Tensor, "q"]:
        variance = self.squares / self.counts.clamp(min=1) - (self.places**2).sum(-1)
        return (variance.clamp(min=0) * self.counts / (self.counts - 1).clamp(min=1)).sqrt()

    def _update_members(self) -> None:
        tested = self.counts >= 3
        fits = self.spread < self.tolerance
        candidates = (tested & fits).nonzero()[:, 0]
        core = self.members & (self.counts > 0)
        if len(candidates) and core.any():
            places = self.places
            distance = cKDTree(places[core].numpy()).query(
                places[candidates].numpy(), distance_upper_bound=self.reach, workers=1
            )[0]
            candidates = candidates[torch.from_numpy(distance) < self.reach]
        self.members = self.seeds & ~(tested & ~fits)
        self.members[candidates] = True

    def extend(self, time: int, previous: int) -> bool:
        """Solves the pose at ``time`` from its neighbour in time; False if too few members are seen there."""
        support = (self.members & self.tracks.observed[:, time] & (self.counts > 0)).nonzero()[:, 0]
        if len(support) < MIN_PART_TRACKS:
            return False
        self.R[time], self.t[time] = robust_procrustes(
            self.places[support],
            self.tracks.points[support, time],
            self.tracks.weights[support, time],
            self.tolerance,
            self.R[previous],
        )
        self._absorb(time)
        self._update_members()
        return True

    def explained(self) -> Bool[Tensor, "q"]:
        """Tracks that fit the part over most of their life."""
        life = self.tracks.observed.sum(1)
        return self.members & (self.counts >= 0.7 * life) & (self.spread < self.tolerance)


def grow_part(tracks: LiftedTracks, seed: int, tolerance: float) -> _Growth:
    """Follows the part around one track as far as tracks carry it, forwards and backwards in time."""
    T = tracks.observed.shape[1]
    start = int(middle_times(tracks.select(torch.tensor([seed])))[0])
    adjacent = tracks.observed[:, max(start - 1, 0)] | tracks.observed[:, min(start + 1, T - 1)]
    present = (tracks.observed[:, start] & adjacent).nonzero()[:, 0]
    distance = torch.linalg.vector_norm(tracks.points[present, start] - tracks.points[seed, start], dim=-1)
    nearest = distance.argsort()[:SEED_NEIGHBORS]
    radius = float(distance[nearest[-1]]) if len(nearest) else 0.0
    growth = _Growth(tracks, present[nearest], start, tolerance, reach=max(2 * radius, 10 * tolerance))
    low = high = start
    moved = True
    while moved:
        moved = False
        if high + 1 < T and growth.extend(high + 1, high):
            high, moved = high + 1, True
        if low > 0 and growth.extend(low - 1, low):
            low, moved = low - 1, True
    return growth


@single_threaded()
def find_parts(
    tracks: LiftedTracks, max_parts: int, tolerance: float, generator: torch.Generator
) -> tuple[RigidParts, float]:
    """Grows parts one after another, each time the candidate that explains the most that is still unexplained.

    Returns:
        the parts, and the share of tracks that they explain within the tolerance.
    """
    life = tracks.observed.sum(1).to(tracks.points)
    open_tracks = torch.ones(len(tracks), dtype=torch.bool)
    parts: list[_Growth] = []
    least = max(0.005 * float(life.sum()), 10.0)
    failures = 0
    while len(parts) < max_parts and open_tracks.sum() >= MIN_PART_TRACKS and failures < 2:
        seeds = torch.multinomial((life * open_tracks).float(), SEEDS_PER_ROUND, replacement=True, generator=generator)
        grown = [grow_part(tracks, seed, tolerance) for seed in seeds.unique().tolist()]
        scores = [float((life * (g.explained() & open_tracks)).sum()) for g in grown]
        best = max(range(len(grown)), key=scores.__getitem__)
        if scores[best] < least:
            failures += 1
            continue
        parts.append(grown[best])
        open_tracks &= ~grown[best].explained()
    if not parts:
        parts = [grow_part(tracks, int(life.argmax()), tolerance)]
    stacked = RigidParts(
        torch.stack([g.R for g in parts]), torch.stack([g.t for g in parts]), torch.stack([g.covered for g in parts])
    )
    return stacked, 1 - float((life * open_tracks).sum() / life.sum())
