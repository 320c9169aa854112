"""A multi-view network at work on a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flow.progress import Progress
from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.fusion.consistency import compare_views
from som.depth.learning.multiview.network import MultiViewNet
from som.depth.learning.multiview.units import clip_scale, in_network_units
from som.depth.views import SourceConfig, choose_sources

MEASUREMENTS = SourceConfig("baseline", count=4)
"""Measurement frames of a reference, where nothing else is said."""
MAX_RELATIVE_DEPTH_ERROR = 0.05
"""Relative difference of depth up to which two frames agree, for the confidence; as the plane sweep's filter."""
MAX_REPROJECTION_PX = 1.0
"""Pixels by which the way into the other frame and back may miss."""


@dataclass(frozen=True, eq=False)
class MultiViewDepth:
    """Depth of every frame of a clip, in the unit of its poses."""

    depth: Float[Tensor, "t h w"]
    """z-depth of every pixel; 0 on frames without a measurement frame."""
    confidence: Float[Tensor, "t h w"]
    """Share of the measurement frames whose own depth agrees, in [0, 1]; 0 on what masks say to move."""
    sources: list[list[int]]
    """Measurement frames of each frame; empty where the camera stood still."""


@torch.no_grad()
def predict_views(
    net: MultiViewNet,
    sequence: DepthSequence,
    rule: SourceConfig = MEASUREMENTS,
    depth_range: tuple[float, float] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> MultiViewDepth:
    """Depth of every frame, matched with other frames of the clip.

    Args:
        sequence: a posed clip at the network's image size.
        rule: chooses the measurement frames.
        depth_range: nearest and farthest depth in the unit of the poses; None finds it by a coarse sweep.
        progress: called with what is being done and the share that is done.

    Raises:
        DepthError: no intrinsics or poses, a camera that does not move, or no two frames that the rule puts together.
    """
    scale = clip_scale(sequence, depth_range)
    scaled = in_network_units(sequence, scale.unit)
    sources = measurement_frames(scaled, rule, scale.middle)
    images = scaled.images().to(device)
    K, w2c = (values.to(device) for values in scaled.cameras())
    w2c = w2c.double()
    masks = scaled.moving_masks()
    moving = None if masks is None else masks.to(device)
    net.eval().to(device)
    depth = torch.zeros(len(scaled), *scaled.size, device=device)
    for t, others in enumerate(sources):
        if others:
            views = [t, *others]
            T_meas_ref = (w2c[others] @ torch.linalg.inv(w2c[t])).float()
            ignored = None if moving is None else moving[views][None]
            depth[t] = net(images[views][None], K[views][None], T_meas_ref[None], ignored).depths[0][0, 0]
        if progress is not None:
            progress("network", (t + 1) / len(scaled))
    confidence = torch.zeros_like(depth)
    for t, others in enumerate(sources):
        if others:
            check = compare_views(depth, K, w2c, t, others, MAX_RELATIVE_DEPTH_ERROR, MAX_REPROJECTION_PX)
            confidence[t] = check.agrees.float().mean(0)
    if moving is not None:
        confidence = confidence.masked_fill(moving, 0.0)
    return MultiViewDepth((depth * scale.unit).cpu(), confidence.cpu(), sources)


def measurement_frames(sequence: DepthSequence, rule: SourceConfig, scene_depth: float) -> list[list[int]]:
    """Frames that each frame is matched with; empty where the rule finds none.

    Raises:
        DepthError: it finds none for any frame.
    """
    chosen = choose_sources(
        rule, len(sequence), w2c=sequence.w2cs, K=sequence.Ks, depth=scene_depth, size=sequence.size
    )
    found: Sequence[list[int]] = [[s for s in row if s >= 0] for row in chosen.tolist()]
    if not any(found):
        raise DepthError(
            f"{sequence.name}: no two frames fit the rule {rule.rule} of measurement frames; the camera moves too "
            "little or too far between frames; take another rule or other frames."
        )
    return list(found)
