"""Road and instances from label images in Cityscapes' ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.metric_scale.instances import Instances, instances_from_masks

ROAD_LABEL_ID = 7
"""Road in ``*_labelIds.png``."""
ROAD_TRAIN_ID = 0
"""Road in ``*_labelTrainIds.png`` and in what most networks trained on Cityscapes put out."""
INSTANCE_LABEL_IDS = {24: "person", 26: "car"}
"""Classes with default height priors in ``*_instanceIds.png``, whose values are 1000 x label id + number."""


def road_from_label_ids(label_ids: Int[Tensor, "t h w"], road_id: int = ROAD_LABEL_ID) -> Bool[Tensor, "t h w"]:
    """Road masks from label images: ``ROAD_LABEL_ID`` for label ids, ``ROAD_TRAIN_ID`` for train ids.

    Raises:
        DepthError: no pixel has the id.
    """
    road = label_ids == road_id
    if not bool(road.any()):
        ids = ", ".join(str(i) for i in label_ids.unique().tolist()[:20])
        raise DepthError(
            f"no pixel has the road's id {road_id}; the images hold {ids} (label ids have road {ROAD_LABEL_ID}, "
            f"train ids {ROAD_TRAIN_ID})."
        )
    return road


def instances_from_instance_ids(
    instance_ids: Int[Tensor, "t h w"], classes: dict[int, str] = INSTANCE_LABEL_IDS
) -> Instances:
    """Instances from Cityscapes' instance images; groups (values below 1000) and other classes are left out.

    Args:
        instance_ids: 1000 x label id + number within the class.
        classes: class name by label id.
    """
    frames: list[Sequence[tuple[str, np.ndarray]]] = []
    for image in instance_ids.cpu().numpy():
        values = [int(v) for v in np.unique(image) if v >= 1000 and v // 1000 in classes]
        frames.append([(classes[v // 1000], image == v) for v in values])
    H, W = instance_ids.shape[1:]
    names = list(dict.fromkeys(classes.values()))
    return instances_from_masks(frames, H, W, classes=names)
