"""Depth supervised by order and correlation: what a step draws for it.

The prior enters only through the order and the correlation of its disparities within a frame, neither of which changes
when a frame's disparity is scaled or shifted. The terms themselves are in ``depth_order_terms``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from som import losses
from som.cameras.geometry import sample_depth
from som.data.dataset import Views
from som.training.batch import DepthOrderBatch, FramePairs, LinkedPairs
from som.training.config import DepthOrderConfig

if TYPE_CHECKING:
    from flow.pairs import PairSampler

TERM_NAMES = ("pearson", "pearson_patch", "ordinal", "order_across_frames")


class DepthOrderSampler:
    """Draws pairs and boxes for a batch; everything is a function of the generator given.

    Args:
        views: training views with depth, in scene coordinates.
        config: numbers of pairs and their conditions.
        active: names of the terms whose weight is not 0.
        links: pairs that flow links; their frame indices are indices into ``views``. None turns that term off.
        device: of the training.
    """

    def __init__(
        self,
        views: Views,
        config: DepthOrderConfig,
        active: list[str],
        links: PairSampler | None,
        device: torch.device,
    ):
        if views.depths is None:
            raise ValueError("DepthOrderSampler: the views have no depth.")
        self.config, self.links = config, links if "order_across_frames" in active else None
        self.wants_pairs, self.wants_boxes = "ordinal" in active, "pearson_patch" in active
        self.height, self.width = views.height, views.width
        self.depths, self.cameras = views.depths.to(device), views.cameras.to(device)
        usable = (views.valid & (views.depths > 0)).float()
        self.usable = (usable if views.depth_confidence is None else usable * views.depth_confidence).to(device)
        self.spread = losses.disparity_spread(self.depths, self.usable)

    def draw_linked_views(self, views: list[int], generator: torch.Generator) -> tuple[list[int], list[int]] | None:
        """For every view a random link and the view that it leads to; None without links."""
        if self.links is None:
            return None
        chosen = [self.links.draw_link(view, generator) for view in views]
        return chosen, [self.links.target_of(link) for link in chosen]

    def sample(
        self, views: list[int], links: tuple[list[int], list[int]] | None, generator: torch.Generator
    ) -> DepthOrderBatch:
        """Pairs and boxes of the views with these indices; ``links`` from :meth:`draw_linked_views`."""
        index = torch.tensor(views, device=self.depths.device)
        out = DepthOrderBatch()
        if self.wants_pairs:
            c = self.config
            usable = self.usable[index]
            i, j, weights = losses.sample_frame_pairs(usable, c.pairs, generator, c.near_share, c.near_radius)
            depth, spread = self.depths[index], self.spread[index]
            signs = losses.disparity_order_signs(
                losses.values_at(depth, i), losses.values_at(depth, j), spread, c.min_difference
            )
            out.pairs = FramePairs(i, j, signs, weights)
        if self.wants_boxes:
            device = self.depths.device
            out.boxes = losses.sample_boxes(len(views), self.height, self.width, generator, device=device)
        if links is not None and self.links is not None:
            out.linked = self._linked(self.links, index, *links, generator)
        return out

    def _linked(
        self,
        sampler: PairSampler,
        index: Tensor,
        links: list[int],
        targets: list[int],
        generator: torch.Generator,
    ) -> LinkedPairs:
        c, device = self.config, self.depths.device
        drawn = sampler.draw(links, c.linked_pairs, generator, (self.height, self.width)).to(device)
        target = torch.tensor(targets, device=device)
        depth, spread = self.depths[index], self.spread[index]
        i, j = drawn.first, drawn.second
        source = losses.disparity_order_signs(
            losses.values_at(depth, i), losses.values_at(depth, j), spread, c.min_difference
        )
        places = torch.cat([drawn.target_first, drawn.target_second], 1)
        there_i, there_j = sample_depth(self.depths[target], places).chunk(2, 1)
        other = losses.disparity_order_signs(there_i, there_j, self.spread[target], c.min_difference)
        weights = drawn.weight * losses.values_at(self.usable[index], i) * losses.values_at(self.usable[index], j)
        return LinkedPairs(i, j, source, other, weights, self.cameras[target])


def ramp(config: DepthOrderConfig, progress: float) -> float:
    """Factor on the weights of the four terms at this fraction of the run."""
    if progress >= config.full:
        return 1.0
    return max(0.0, (progress - config.start) / max(config.full - config.start, 1e-9))
