"""The first scene of a video: everything that is known before any picture is rendered."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from flow.progress import Progress
from som.data.dataset import VideoDataset
from som.data.normalization import Normalization
from som.errors import UserError
from som.initialization.background import initialize_background, lift_pixels
from som.initialization.config import InitializationConfig
from som.initialization.foreground import initialize_foreground
from som.initialization.lifting import LiftedTracks, lift_tracks
from som.initialization.motion_bases import fit_motion
from som.initialization.rigid_parts import single_threaded
from som.scene import DynamicScene

logger = logging.getLogger(__name__)

MIN_SCENE_UNIT_RATIO = 0.1
"""The unit of the scene is at least this share of the size of the whole scene, however small the moving part is."""


def find_normalization(
    dataset: VideoDataset, tracks: LiftedTracks, generator: torch.Generator
) -> Normalization:
    """Centre and size of the moving objects' trajectories, or of all that is seen if nothing moves.

    Raises:
        UserError: no pixel has a known depth.
    """
    views = dataset.train
    everywhere = lift_pixels(views, torch.ones_like(views.valid), views.valid, 100_000, generator).points
    if len(everywhere) == 0:
        raise UserError(
            f"{dataset.name}: no valid pixel of the training views has a known depth (> 0): no scene can be started. "
            "Check the depth files, or make them with `som4d preprocess`."
        )
    whole = Normalization.from_points(everywhere)
    moving = tracks.points[tracks.observed]
    if len(moving) == 0 and views.foreground is not None:
        moving = lift_pixels(views, views.foreground, views.valid, 100_000, generator).points
    if len(moving) == 0:
        return whole
    part = Normalization.from_points(moving)
    return Normalization(part.center, max(part.scale, MIN_SCENE_UNIT_RATIO * whole.scale))


@single_threaded()
def initialize_scene(
    dataset: VideoDataset,
    config: InitializationConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> DynamicScene:
    """Gaussians and motion bases of a video, from its depth, masks and tracks.

    Args:
        dataset: in world units, on the CPU. Without tracks the foreground is lifted as if it rested; without a
            foreground mask everything is static, unless ``has_background`` is False: then everything moves.
        config: numbers and tolerances; None takes the defaults.
        seed: of all random choices.
        progress: called with each stage as it begins, and the share that is done.

    Torch is kept to one thread meanwhile: the work consists of many small operations.

    Returns:
        the scene, on the CPU, with its normalisation. ``foreground`` is None if nothing moves, ``background`` is None
        if nothing is static.

    Raises:
        UserError: there are no depths, or no valid pixel has one.
    """
    config = config or InitializationConfig()
    report = progress or (lambda stage, share: None)
    generator = torch.Generator().manual_seed(seed)
    if dataset.train.depths is None:
        raise UserError(
            f"{dataset.name}: the training views have no depth: no scene can be started. "
            "Make it with `som4d preprocess`."
        )
    if dataset.train.foreground is None and not dataset.has_background:
        dataset = replace(dataset, train=replace(dataset.train, foreground=torch.ones_like(dataset.train.valid)))

    report("lifting tracks", 0.0)
    tracks = lift_tracks(dataset, config, generator)
    normalization = find_normalization(dataset, tracks, generator)
    views = normalization.views_to_scene(dataset.train)

    motion, foreground = None, None
    if views.foreground is not None and views.foreground.any():
        if len(tracks):
            report("fitting motion bases", 0.1)
            points = normalization.points_to_scene(tracks.points) * tracks.observed[..., None]
            motion = fit_motion(LiftedTracks(points, tracks.observed, tracks.weights), config, generator)
        else:
            logger.warning("%s: no usable tracks; foreground pixels of all frames start at rest.", dataset.name)
        report("placing foreground", 0.7)
        foreground = initialize_foreground(views, motion, dataset.num_times, config, generator)
    background = None
    if dataset.has_background:
        report("placing background", 0.9)
        background = initialize_background(views, config, generator)
    if foreground is None and background is None:
        raise UserError(
            f"{dataset.name}: no foreground pixel has a known depth and the data set has no background. "
            "Check the foreground masks and the depth files."
        )
    gaussians, bases = foreground or (None, None)
    logger.info(
        "initial scene of %s: %d foreground and %d background Gaussians, %d motion bases from %d tracks, unit %.3g",
        dataset.name,
        0 if gaussians is None else len(gaussians),
        0 if background is None else len(background),
        0 if bases is None else bases.num_bases,
        len(tracks),
        normalization.scale,
    )
    return DynamicScene(gaussians, bases, background, normalization, num_times=dataset.num_times)
