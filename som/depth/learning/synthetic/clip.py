"""The generated drive as tensors, with its truth and what an imperfect segmenter would say of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som.depth.learning.synthetic.rendering import render
from som.depth.learning.synthetic.street import SIZES, Box, RoadClipConfig, make_street, make_trajectory
from som.depth.metric_scale.instances import Instances, instances_from_masks


@dataclass(frozen=True)
class RoadClip:
    """A clip and its truth."""

    images: Float[Tensor, "t 3 h w"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "t h w"]
    """Exact z in metres at the pixel centres; 0 in the sky."""
    Ks: Float[Tensor, "t 3 3"]
    """Intrinsics in pixels."""
    w2c: Float[Tensor, "t 4 4"]
    """World to camera, OpenCV axes, metres."""
    road: Bool[Tensor, "t h w"]
    """True on the carriageway."""
    instances: Instances
    """Masks and classes as an imperfect segmenter gives them: outliers are not marked."""
    true_heights: Float[Tensor, "t n"]
    """Height of each object of ``instances`` in metres; 0 where absent."""
    outlier: Bool[Tensor, "t n"]
    """Whether the object breaks a rule."""
    object_index: Int[Tensor, "t n"]
    """Which object of the street it is, the same in all frames; -1 where absent."""
    camera_height: float
    """Height of the camera above the road in metres."""


def make_road_clip(config: RoadClipConfig = RoadClipConfig()) -> RoadClip:  # noqa: B008 (frozen)
    """Renders the clip: a textured road between two house fronts under a sky, with parked cars and standing people.

    Textures are fixed to the surfaces and fade out above the pixels' resolution, so that views match each other.
    """
    boxes = make_street(config)
    K = np.array([[config.focal * config.width, 0, config.width / 2], [0, 0, config.height * 0.45], [0, 0, 1.0]])
    K[1, 1] = K[0, 0]
    images, depths, roads, objects, tables, poses = [], [], [], [], [], []
    for c2w in make_trajectory(config):
        image, depth, road, surface = render(c2w, K, config, boxes)
        seen, table = objects_of_frame(surface, boxes)
        images.append(image)
        depths.append(depth)
        roads.append(road)
        objects.append(seen)
        tables.append(table)
        poses.append(np.linalg.inv(c2w))
    instances, index = _number_objects(objects, tables, config)
    heights = torch.tensor([box.height for box in boxes] + [0.0])
    outlier = torch.tensor([bool(box.outlier) for box in boxes] + [False])
    return RoadClip(
        images=torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2).contiguous(),
        depth=torch.from_numpy(np.stack(depths)).float(),
        Ks=torch.from_numpy(K).float().expand(config.frames, 3, 3).clone(),
        w2c=torch.from_numpy(np.stack(poses)).float(),
        road=torch.from_numpy(np.stack(roads)),
        instances=instances,
        true_heights=heights[index],
        outlier=outlier[index],
        object_index=index,
        camera_height=config.camera_height,
    )


def objects_of_frame(surface: np.ndarray, boxes: list[Box]) -> tuple[list[tuple[str, np.ndarray]], list[int]]:
    """Masks of the boxes of which at least 25 pixels are seen; those of mask outliers cut at the foot or drawn too
    tall."""
    seen, table = [], []
    for k in np.unique(surface[surface >= 0]):
        mask = surface == k
        if mask.sum() < 25:
            continue
        share = boxes[k].mask_share
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, extent = rows[0], rows[-1] - rows[0] + 1
        if share < 1:
            mask[top + max(round(share * extent), 1) :] = False
        elif share > 1:
            mask[max(top - round((share - 1) * extent), 0) : top, columns[0] : columns[-1] + 1] = True
        seen.append((boxes[k].label, mask))
        table.append(int(k))
    return seen, table


def _number_objects(
    objects: list[list[tuple[str, np.ndarray]]], tables: list[list[int]], config: RoadClipConfig
) -> tuple[Instances, Tensor]:
    """The instances, and which box each of their table entries is (T,N), -1 where absent."""
    instances = instances_from_masks(objects, config.height, config.width, classes=sorted(SIZES))
    index = torch.full(instances.labels.shape, -1, dtype=torch.long)
    for t, (seen, table) in enumerate(zip(objects, tables, strict=True)):
        # Masks drawn too tall may cover others altogether; those have no number.
        drawn = np.full((config.height, config.width), -1)
        for k, (_, mask) in zip(table, seen, strict=True):
            drawn[mask] = k
        kept = [k for k in table if (drawn == k).any()]
        index[t, : len(kept)] = torch.tensor(kept, dtype=torch.long)
    return instances, index
