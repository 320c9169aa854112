"""What is known of frames beside their images, handed to ``DepthDataset`` as ``annotate``."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.learning.data.dataset import Annotate
from som.depth.metric_scale import DEFAULT_PRIORS, HeightPriors, Instances


class Labels:
    """Known depth: keys ``label`` (H,W), 0 = unknown, and ``label_confidence`` (H,W).

    Args:
        depth: one (T,H,W) for each sequence, at the size of its images; 0 = unknown.
        confidence: the same shapes, weights >= 0.

    Raises:
        DepthError: shapes do not fit the sequences.
    """

    def __init__(
        self,
        sequences: Sequence[DepthSequence],
        depth: Sequence[Float[Tensor, "t h w"]],
        confidence: Sequence[Float[Tensor, "t h w"]],
    ):
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        for sequence, z, weights in zip(sequences, depth, confidence, strict=True):
            expected = (len(sequence), *sequence.size)
            if z.shape != expected or weights.shape != expected:
                shapes = f"{tuple(z.shape)} and {tuple(weights.shape)}"
                raise DepthError(f"labels of {sequence.name} must be {expected}, got {shapes}.")
            self._known[id(sequence)] = (z.float(), weights.float())

    def __call__(self, sequence: DepthSequence, frame: int) -> dict[str, Tensor]:
        depth, weights = self._known[id(sequence)]
        return {"label": depth[frame], "label_confidence": weights[frame]}


class RoadAnnotations:
    """Road and objects of one sequence: keys ``road`` (H,W) bool, ``ids`` (H,W) int32, ``object_heights`` (N) metres.

    Args:
        road: True on the road, at the size of the images.
        instances: the objects of the same frames, at the size of the images.
        priors: heights by class.

    Raises:
        DepthError: shapes do not fit the sequence.
    """

    def __init__(
        self,
        sequence: DepthSequence,
        road: Bool[Tensor, "t h w"],
        instances: Instances,
        priors: HeightPriors = DEFAULT_PRIORS,
    ):
        expected = (len(sequence), *sequence.size)
        if road.shape != expected or instances.ids.shape != expected:
            shapes = f"{tuple(road.shape)} and {tuple(instances.ids.shape)}"
            raise DepthError(f"road and instances of {sequence.name} must be {expected}, got {shapes}.")
        self._road, self._ids, self._heights = road, instances.ids, instances.class_heights(priors)[0]

    def __call__(self, sequence: DepthSequence, frame: int) -> dict[str, Tensor]:
        return {"road": self._road[frame], "ids": self._ids[frame], "object_heights": self._heights[frame]}


def together(*parts: Annotate | None) -> Annotate | None:
    """All that several annotations know; None if there are none."""
    known = [part for part in parts if part is not None]
    if not known:
        return None

    def annotate(sequence: DepthSequence, frame: int) -> dict[str, Tensor]:
        return {key: value for part in known for key, value in part(sequence, frame).items()}

    return annotate
