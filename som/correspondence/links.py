"""Optical flow between the training views of a data set, and what is drawn from it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flow.compute import compute_video_flow
from flow.consistency import check_consistency
from flow.factory import make_estimator
from flow.pair_drawing import PairOptions
from flow.pairs import PairSampler, build_pair_sampler
from flow.progress import Progress
from flow.sampling import inside, pixel_centers
from flow.video_flow import VideoFlow
from som.correspondence.config import FlowConfig
from som.data.dataset import VideoDataset, Views
from som.errors import UserError
from som.initialization.depth_alignment import StaticLinks

MAX_RETURN_ERROR_PX = 0.5
"""Static links come from pixels that the flow back brings home to within this many pixels."""
MASK_MARGIN_PX = 3
"""Static links keep this many pixels of the flow field away from the foreground."""


def training_flow(
    dataset: VideoDataset,
    config: FlowConfig,
    folder: Path | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> tuple[VideoFlow, str]:
    """Flow between training views by their index, which must be in the order of time; and what made it, in words.

    Args:
        folder: where computed fields are kept and found again; None keeps them in memory.
        device: where RAFT runs.
        progress: called with the share of the fields that is done.

    Raises:
        UserError: unusable weights, a folder that cannot be used, or no flow in the data set that should bring it.
    """
    views = dataset.train
    if config.source == "dataset" and dataset.flow is None:
        raise UserError("`flow.source` dataset: the data set has no flow/flow.json; `som4d preprocess` makes it.")
    try:
        wanted = config.source == "dataset" or (config.source == "auto" and config.weights is None)
        if dataset.flow is not None and wanted:
            flow = dataset.flow.select(views.times.tolist(), (views.height, views.width))
            if flow.strides():
                return flow, "of the data set"
        estimator = make_estimator(config.estimator, weights=config.weights, device=device)
        flow = compute_video_flow(
            views.images,
            estimator,
            strides=[s for s in config.strides if s < len(views)] or [1],
            max_side=config.max_side,
            folder=folder,
            progress=progress,
        )
        return flow, " ".join(f"{value}" for value in estimator.provenance().values())
    except UserError as error:
        raise UserError(f"optical flow of the training views: {error}") from error


def link_pixel_pairs(views: Views, flow: VideoFlow, pairs: PairOptions | None = None) -> PairSampler:
    """Pairs of reliable pixels between views that flow connects; ``draw`` gives them in the views' pixels."""
    return build_pair_sampler(flow, views.images, options=pairs, valid=views.valid)


def link_static_points(
    views: Views, flow: VideoFlow, per_link: int = 400, generator: torch.Generator | None = None
) -> StaticLinks:
    """Pixels of static surfaces that flow connects, drawn evenly over all pairs of views.

    Args:
        views: a pixel counts as static where it lies outside ``foreground``; without masks every pixel does, and moving
            things have to be outvoted.
        per_link: at most this many from each pair of views.
    """
    size = (flow.height, flow.width)
    static = views.valid if views.foreground is None else views.valid & ~views.foreground
    static = _shrink_to(static, size)
    scale = torch.tensor([views.width / flow.width, views.height / flow.height])
    centers = pixel_centers(*size).view(-1, 2)
    parts: list[tuple[int, int, Tensor, Tensor]] = []
    for source, target in flow.pairs():
        if source > target or (target, source) not in flow:
            continue
        forward, backward = flow.get(source, target), flow.get(target, source)
        checks = check_consistency(forward, backward)
        for a, b, field, check in ((source, target, forward, checks[0]), (target, source, backward, checks[1])):
            reached = centers + field.view(-1, 2)
            arrives = inside(reached, *size)
            row, column = torch.where(arrives[:, None], reached, 0.5).floor().long().clamp(min=0).unbind(1)[::-1]
            there = static[b][row.clamp(max=size[0] - 1), column.clamp(max=size[1] - 1)]
            good = check.consistent.flatten() & (check.error.flatten() < MAX_RETURN_ERROR_PX)
            usable = (good & arrives & there & static[a].flatten()).nonzero()[:, 0]
            picked = usable[torch.randperm(len(usable), generator=generator)[:per_link]]
            parts.append((a, b, centers[picked] * scale, reached[picked] * scale))
    return StaticLinks(
        source=torch.cat([torch.full((len(p[2]),), p[0]) for p in parts]),
        target=torch.cat([torch.full((len(p[2]),), p[1]) for p in parts]),
        source_xy=torch.cat([p[2] for p in parts]),
        target_xy=torch.cat([p[3] for p in parts]),
    )


def _shrink_to(static: Tensor, size: tuple[int, int]) -> Tensor:
    """(n,H,W) masks at the size of the flow, without a margin beside what is not static."""
    other = torch.nn.functional.adaptive_max_pool2d((~static).float()[:, None], size)
    side = 2 * MASK_MARGIN_PX + 1
    return torch.nn.functional.max_pool2d(other, side, stride=1, padding=MASK_MARGIN_PX)[:, 0] < 0.5
