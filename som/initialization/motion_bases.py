"""Motion bases: rigid parts, refined together, completed over time and split to the wanted number."""

from __future__ import annotations

import logging

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.cameras.rotations import matrix_to_rotation_6d, slerp
from som.initialization.clustering import kmeans, track_neighbors
from som.initialization.config import InitializationConfig
from som.initialization.lifting import LiftedTracks
from som.initialization.motion_optimization import FittedMotion, optimize_motion
from som.initialization.procrustes import robust_procrustes
from som.initialization.rigid_parts import RigidParts, estimate_tolerance, find_parts, single_threaded
from som.scene.motion import MotionBases

logger = logging.getLogger(__name__)

MIN_BASIS_WEIGHT = 1e-4
"""Weight of bases that have no part in a point's motion; small, since each drags by its share of its distance."""
MAX_RESIDUAL_TOLERANCES = 4.0
"""Distances above this many tolerances count no more."""
PARENT_MOTION_WEIGHT = 0.05
"""Share that the parent's motion has in the fit of a part made by splitting."""


def assign(
    parts: RigidParts, tracks: LiftedTracks, neighbors: Int[Tensor, "q n"], tolerance: float
) -> tuple[Int[Tensor, "q"], Float[Tensor, "q k"], Float[Tensor, "q 3"]]:
    """The part that explains each track and its neighbours best; the residuals under all parts (Q, K), and the place
    of each track in its own."""
    found = [parts.residuals(k, tracks, MAX_RESIDUAL_TOLERANCES * tolerance) for k in range(len(parts))]
    residuals = torch.stack([f[0] for f in found], 1)  # (Q, K)
    labels = (residuals + residuals[neighbors].mean(1)).argmin(1)
    places = torch.stack([f[1] for f in found], 1)
    return labels, residuals, places[torch.arange(len(tracks)), labels]


def fit_part(
    parts: RigidParts, k: int, tracks: LiftedTracks, members: Tensor, places: Tensor, tolerance: float
) -> None:
    """Fits the poses of part k, in place, at all times when at least three (or all) of its members are seen."""
    if not members.any():
        return
    mine = tracks.select(members)
    seen = mine.observed.sum(0)
    covered = seen >= min(3, len(mine))
    source = places[members].expand(len(parts.t[k]), -1, -1)
    target, weights = mine.points.transpose(0, 1), mine.weights.T
    R, t = robust_procrustes(source, target, weights, tolerance, parts.R[k], parts.t[k])
    parts.R[k] = torch.where(covered[:, None, None], R, parts.R[k])
    parts.t[k] = torch.where(covered[:, None], t, parts.t[k])
    parts.covered[k] = covered


def refine_parts(
    parts: RigidParts, tracks: LiftedTracks, neighbors: Int[Tensor, "q n"], tolerance: float, iterations: int = 5
) -> tuple[Int[Tensor, "q"], Float[Tensor, "q k"], Float[Tensor, "q 3"]]:
    """Alternates between assigning tracks to parts and fitting parts to their tracks; changes ``parts`` in place."""
    labels, residuals, places = assign(parts, tracks, neighbors, tolerance)
    for _ in range(iterations):
        for k in range(len(parts)):
            fit_part(parts, k, tracks, labels == k, places, tolerance)
        labels, residuals, places = assign(parts, tracks, neighbors, tolerance)
    return labels, residuals, places


def fill_gaps(R: Tensor, t: Tensor, covered: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """Poses at times without a fit: between fits, the rotation turns evenly and the centre moves straight; at both
    ends the nearest fit is held.

    Args:
        R, t, covered: (T,3,3), (T,3), (T,).
        center: (3,) the place in the part whose path is interpolated.
    """
    known = covered.nonzero()[:, 0].numpy()
    if len(known) in (0, len(covered)):
        return R, t
    times = np.arange(len(covered)).clip(known[0], known[-1])
    path = (R @ center + t).numpy()
    turned = R[known[0]].expand_as(R)
    if len(known) > 1:
        turned = torch.from_numpy(slerp(known, R[covered].numpy(), times)).to(R)
    moved = torch.from_numpy(np.stack([np.interp(times, known, path[known, i]) for i in range(3)], -1)).to(t)
    R = torch.where(covered[:, None, None], R, turned)
    return R, torch.where(covered[:, None], t, moved - R @ center)


def split_parts(
    parts: RigidParts,
    labels: Tensor,
    residuals: Tensor,
    places: Tensor,
    tracks: LiftedTracks,
    count: int,
    tolerance: float,
    generator: torch.Generator,
) -> tuple[RigidParts, Tensor, Tensor]:
    """Halves the part that deforms most (or is largest) until there are ``count``, each half with its own motion.

    A half follows its own tracks and, weakly, its parent's motion, which alone decides where it is not seen.

    Returns:
        the parts, the part of each track, and the original part of each part (K,).
    """
    labels, origin = labels.clone(), torch.arange(len(parts))
    energy = residuals**2 + (0.02 * tolerance) ** 2
    while len(parts) < count:
        sizes = torch.bincount(labels, minlength=len(parts))
        score = torch.zeros(len(parts), dtype=energy.dtype).index_add_(0, labels, energy * tracks.weights.sum(1))
        score[sizes < 20] = 0
        parent = int(score.argmax())
        if score[parent] == 0:
            break
        members = (labels == parent).nonzero()[:, 0]
        halves, _ = kmeans(places[members], 2, generator)
        if halves.max() == 0:
            break
        old = RigidParts(*(v[parent : parent + 1].clone() for v in vars(parts).values()))
        parts = parts.cat(old)
        labels[members[halves == 1]] = len(parts) - 1
        origin = torch.cat([origin, origin[parent : parent + 1]])
        for k, half in ((parent, 0), (len(parts) - 1, 1)):
            own = members[halves == half]
            _fit_half(parts, k, old, tracks.select(own), places[own], places[members], tolerance)
    return parts, labels, origin


def _fit_half(
    parts: RigidParts, k: int, parent: RigidParts, mine: LiftedTracks, places: Tensor, all_places: Tensor, tol: float
) -> None:
    """Fits part k to its tracks plus some places carried by the parent's motion."""
    anchors = all_places[:: max(len(all_places) // 200, 1)]
    carried = anchors @ parent.R[0].transpose(-1, -2) + parent.t[0][:, None]  # (T, A, 3)
    T, n = len(parent.t[0]), len(places)
    source = torch.cat([places, anchors]).expand(T, -1, -1)
    target = torch.cat([mine.points.transpose(0, 1), carried], 1)
    pull = PARENT_MOTION_WEIGHT * n / len(anchors) * torch.ones_like(carried[..., 0])
    weights = torch.cat([mine.weights.T, pull], 1)
    parts.R[k], parts.t[k] = robust_procrustes(source, target, weights, tol, parent.R[0], parent.t[0])


def blend_logits(
    labels: Int[Tensor, "q"], neighbors: Int[Tensor, "q n"], fits: Bool[Tensor, "q k"]
) -> Float[Tensor, "q k"]:
    """Logits of weights shared between a track's own base (half) and its neighbours' bases that ``fits`` it (half)."""
    own = torch.nn.functional.one_hot(labels, fits.shape[1]).float()
    return (0.5 * own + 0.5 * own[neighbors].mean(1) * fits + MIN_BASIS_WEIGHT).log()


def _discover(
    tracks: LiftedTracks, neighbors: Tensor, config: InitializationConfig, generator: torch.Generator
) -> tuple[RigidParts, float]:
    """Rigid parts that explain enough of the tracks, with the smallest tolerance that allows it.

    Where that takes all the bases, noise may have broken bodies into pieces; a larger tolerance that explains more with
    fewer parts is then preferred.

    Returns:
        the parts and their tolerance.
    """
    tolerance = config.part_tolerance or estimate_tolerance(tracks, neighbors, generator)
    subset = tracks.select(torch.randperm(len(tracks), generator=generator)[:4096])

    def attempt(tolerance: float) -> tuple[RigidParts, float]:
        parts, share = find_parts(subset, config.num_motion_bases, tolerance, generator)
        logger.info("%d rigid parts explain %.0f %% of the tracks to %.3g units.", len(parts), 100 * share, tolerance)
        return parts, share

    (best, best_share), best_tolerance = attempt(tolerance), tolerance
    for _ in range(3):
        enough = best_share >= config.min_explained_share and len(best) < config.num_motion_bases
        if enough or config.part_tolerance is not None:
            break
        tolerance *= 2
        parts, share = attempt(tolerance)
        if best_share < config.min_explained_share or (len(parts) < len(best) and share > best_share):
            best, best_share, best_tolerance = parts, share, tolerance
    return best, best_tolerance


@single_threaded()
def fit_motion(
    tracks: LiftedTracks, config: InitializationConfig, generator: torch.Generator
) -> FittedMotion:
    """Motion bases for tracks in scene coordinates; canonical positions are those at the time when most are seen."""
    tracks = LiftedTracks(tracks.points.double(), tracks.observed, tracks.weights.double())
    neighbors = track_neighbors(tracks, 9)
    parts, tolerance = _discover(tracks, neighbors, config, generator)
    labels, residuals, places = refine_parts(parts, tracks, neighbors, tolerance)
    for k in range(len(parts)):
        members = labels == k
        center = places[members].mean(0) if members.any() else places.new_zeros(3)
        parts.R[k], parts.t[k] = fill_gaps(parts.R[k], parts.t[k], parts.covered[k], center)
    used = labels.unique()
    parts = RigidParts(parts.R[used], parts.t[used], parts.covered[used])
    labels, residuals = torch.searchsorted(used, labels), residuals[:, used]
    own_residuals = residuals.gather(1, labels[:, None])
    fits = residuals <= torch.maximum(2 * own_residuals, torch.tensor(2 * tolerance))
    parts, halves, origin = split_parts(
        parts, labels, own_residuals[:, 0], places, tracks, config.num_motion_bases, tolerance, generator
    )
    R0, t0 = (x[:, int(tracks.observed.sum(0).argmax())] for x in (parts.R, parts.t))  # (K,3,3), (K,3)
    positions = (R0[halves] @ places[..., None])[..., 0] + t0[halves]
    rots = parts.R @ R0.transpose(-1, -2)[:, None]
    transls = parts.t - (rots @ t0[:, None, :, None])[..., 0]
    motion = FittedMotion(
        bases=MotionBases(matrix_to_rotation_6d(rots).float(), transls.float()),
        tracks=LiftedTracks(tracks.points.float(), tracks.observed, tracks.weights.float()),
        positions=positions.float(),
        coefs=blend_logits(halves, neighbors, fits[:, origin]),
        labels=origin[halves],
    )
    return optimize_motion(motion, config, generator)
