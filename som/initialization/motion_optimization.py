"""Joint gradient descent on motion bases, motion coefficients and canonical positions of tracks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from som.initialization.config import InitializationConfig
from som.initialization.lifting import LiftedTracks
from som.losses import base_smoothness, track_smoothness
from som.reductions import weighted_mean
from som.scene.motion import MotionBases

UNOBSERVED_WEIGHT = 0.1
"""Weight of fitted positions, where a track is not observed, in the joint optimisation."""


@dataclass
class FittedMotion:
    """The motion bases with the tracks that they were fitted to, all in scene coordinates."""

    bases: MotionBases
    tracks: LiftedTracks
    positions: Float[Tensor, "q 3"]
    """Canonical positions of the tracks."""
    coefs: Float[Tensor, "q k"]
    """Logits of the tracks' motion weights."""
    labels: Int[Tensor, "q"]
    """The rigid part of each track; parts made by splitting one share its number."""


def optimize_motion(
    motion: FittedMotion, config: InitializationConfig, generator: torch.Generator
) -> FittedMotion:
    """Adam on bases, coefficients and canonical positions: distance to the observed positions, and smoothness.

    Where a track is not observed, its fitted position stands in with a small weight.
    """
    if config.optimization_steps == 0:
        return motion
    tracks, bases = motion.tracks, motion.bases
    positions, coefs = (torch.nn.Parameter(x.clone()) for x in (motion.positions, motion.coefs))
    rates = ((bases.params["rots"], 1e-3), (bases.params["transls"], 1e-3), (coefs, 1e-2), (positions, 3e-4))
    optimizer = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in rates])
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / config.optimization_steps))
    times = torch.arange(bases.num_times)
    with torch.no_grad():
        R, transl = bases.poses(coefs.softmax(-1), times)
        fitted = ((R @ positions[:, :, None])[..., 0] + transl).transpose(0, 1)  # (Q, T, 3)
    targets = torch.where(tracks.observed[..., None], tracks.points, fitted)
    weights = torch.where(tracks.observed, tracks.weights, torch.full_like(tracks.weights, UNOBSERVED_WEIGHT))
    order = torch.randperm(len(tracks), generator=generator)
    batch = min(max(config.optimization_batch // bases.num_times, 1), len(tracks))
    for step in range(config.optimization_steps):
        picked = order[(torch.arange(batch) + step * batch) % len(tracks)]
        R, transl = bases.poses(coefs[picked].softmax(-1), times)
        carried = (R @ positions[picked][:, :, None])[..., 0] + transl  # (T, B, 3)
        distance = torch.linalg.vector_norm(carried - targets[picked].transpose(0, 1), dim=-1)
        loss = weighted_mean(distance, weights[picked].T)
        smooth = base_smoothness(bases.params["rots"], bases.params["transls"])
        smooth = smooth + track_smoothness(carried.transpose(0, 1))
        optimizer.zero_grad(set_to_none=True)
        (loss + config.smoothness_weight * smooth).backward()
        optimizer.step()
        schedule.step()
    motion.positions, motion.coefs = positions.detach(), coefs.detach()
    return motion
