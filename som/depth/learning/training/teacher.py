"""Known depth for supervision where a data set has none: what a plane sweep of every video confirms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from flow.progress import Progress
from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.training.annotations import Labels
from som.depth.sweep import SweepConfig, plane_sweep


def swept_labels(
    sequences: Sequence[DepthSequence],
    progress: Progress | None = None,
    config: SweepConfig = SweepConfig(),  # noqa: B008 (frozen)
) -> tuple[Labels, Float[Tensor, "n"]]:
    """The depth that a plane sweep confirms, weighted by its confidence, and all of its values.

    Args:
        sequences: posed videos of static scenes, or with masks of what moves.
        progress: called with what is being done and the share that is done.

    Raises:
        DepthError: no intrinsics or poses, or a camera that does not move enough.
    """
    depths, confidences = [], []
    for k, sequence in enumerate(sequences):
        if sequence.Ks is None or sequence.w2cs is None:
            what = "intrinsics" if sequence.Ks is None else "camera poses"
            raise DepthError(f"{sequence.name} has no {what}, which teacher sweep needs; give them.")

        def tell(stage: str, share: float, before: int = k) -> None:
            if progress is not None:
                progress(stage, (before + share) / len(sequences))

        found = plane_sweep(sequence.images(), sequence.Ks, sequence.w2cs, config, _ignored(sequence), tell)
        depths.append(found.depth)
        confidences.append(found.confidence)
    known = torch.cat([depth[depth > 0] for depth in depths])
    return Labels(sequences, depths, confidences), known


def _ignored(sequence: DepthSequence) -> Tensor | None:
    """(T,H,W) of pixels that move or must not be used; None if there are no such masks."""
    if not sequence.has_moving and not sequence.has_valid:
        return None
    masks = torch.zeros(len(sequence), *sequence.size, dtype=torch.bool)
    for t in range(len(sequence)):
        moving, valid = sequence.moving(t), sequence.valid(t)
        masks[t] |= torch.zeros_like(masks[t]) if moving is None else moving
        masks[t] |= torch.zeros_like(masks[t]) if valid is None else ~valid
    return masks
