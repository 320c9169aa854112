"""Depth supervised by order and correlation: what a step draws for it, and the four terms of the objective.

The prior enters only through the order and the correlation of its disparities within a frame, neither of which changes
when a frame's disparity is scaled or shifted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from som import losses
from som.cameras.geometry import sample_depth, transform_points, unproject_to_world
from som.data.dataset import Views
from som.training.config import DepthOrderConfig

if TYPE_CHECKING:
    from flow.pairs import PairSampler
    from som.training.objective import StepContext

MARGIN_SHARE = 0.05
"""The margin of an order is at most this share of the spread of the rendered log depth in the image."""
TERM_NAMES = ("pearson", "pearson_patch", "ordinal", "order_across_frames")


@dataclass
class FramePairs:
    """P pairs of pixels inside each view."""

    i: Int[Tensor, "b p"]
    """Flat index row * W + column of the first pixel."""
    j: Int[Tensor, "b p"]
    """Flat index of the second pixel."""
    signs: Float[Tensor, "b p"]
    """Order of the prior: +1 where i is farther, -1 where j is, 0 tied or unknown."""
    weights: Float[Tensor, "b p"]
    """Product of the two pixels' confidences; 0 where either may not be used."""


@dataclass
class LinkedPairs:
    """P pairs of pixels of each view that flow links to one other view, the first of the batch's target times."""

    i: Int[Tensor, "b p"]
    j: Int[Tensor, "b p"]
    """Flat indices of the pixels in the view."""
    source_signs: Float[Tensor, "b p"]
    """Order of the view's own prior."""
    target_signs: Float[Tensor, "b p"]
    """Order of the other view's prior at the linked places."""
    weights: Float[Tensor, "b p"]
    """Reliability of both links; 0 where the pair may not be used."""


@dataclass
class DepthOrderBatch:
    """What the terms need besides the views; None where a term is off."""

    pairs: FramePairs | None = None
    boxes: Int[Tensor, "b k 2"] | None = None
    linked: LinkedPairs | None = None


class DepthOrderSampler:
    """Draws pairs and boxes for a batch; everything is a function of the generator given.

    Args:
        views: training views with depth.
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
        self.config, self.links = config, links if "order_across_frames" in active else None
        self.wants_pairs, self.wants_boxes = "ordinal" in active, "pearson_patch" in active
        self.height, self.width = views.height, views.width
        self.depths = views.depths.to(device)
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
        if links is not None:
            out.linked = self._linked(index, *links, generator)
        return out

    def _linked(self, index: Tensor, links: list[int], targets: list[int], generator: torch.Generator) -> LinkedPairs:
        c, device = self.config, self.depths.device
        drawn = self.links.draw(links, c.linked_pairs, generator, (self.height, self.width)).to(device)
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
        return LinkedPairs(i, j, source, other, weights)


def ramp(config: DepthOrderConfig, progress: float) -> float:
    """Factor on the weights of the four terms at this fraction of the run."""
    if progress >= config.full:
        return 1.0
    return max(0.0, (progress - config.start) / max(config.full - config.start, 1e-9))


def _weights(context: StepContext) -> Tensor:
    """Confidence of the prior where the scene is there at all."""
    batch = context.batch
    weights = batch.valid * (context.render.alpha.detach() > 0.5)
    return weights.float() if batch.depth_confidence is None else weights * batch.depth_confidence


def _margin(context: StepContext) -> Float[Tensor, "b 1"]:
    """The order's margin in each image: smaller where depth varies little, or right pairs would be pulled apart."""
    depth, alpha = (x.detach()[:, ::4, ::4].flatten(1) for x in (context.render.depth, context.render.alpha))
    there = ((depth > 0) & (alpha > 0.5)).float()
    log_depth = torch.where(there > 0, depth, torch.ones_like(there)).log()
    shares = there / there.sum(1, keepdim=True).clamp(min=1)
    deviation = log_depth - (shares * log_depth).sum(1, keepdim=True)
    spread = (shares * deviation.square()).sum(1, keepdim=True).sqrt()
    return (MARGIN_SHARE * spread).clamp(max=context.depth_order.margin)


def _covered(context: StepContext, i: Tensor, j: Tensor) -> Tensor:
    alpha = context.render.alpha.detach()
    return (losses.values_at(alpha, i) > 0.5) & (losses.values_at(alpha, j) > 0.5)


def pearson(context: StepContext) -> Tensor:
    """Rendered disparity correlates with the prior's over each image."""
    return losses.pearson_depth(context.render.depth, context.batch.depths, _weights(context))


def pearson_patch(context: StepContext) -> Tensor:
    """Rendered disparity correlates with the prior's in local boxes."""
    boxes = context.batch.depth_order.boxes
    return losses.patch_pearson_depth(context.render.depth, context.batch.depths, boxes, _weights(context))


def ordinal(context: StepContext) -> Tensor:
    """What the prior says is farther is rendered farther, inside an image."""
    pairs, depth, c = context.batch.depth_order.pairs, context.render.depth, context.depth_order
    weights = pairs.weights * _covered(context, pairs.i, pairs.j)
    z_i, z_j = losses.values_at(depth, torch.cat([pairs.i, pairs.j], 1)).chunk(2, 1)
    return losses.ordinal_depth(z_i, z_j, pairs.signs, weights, c.kind, _margin(context), c.temperature, c.sharpness)


def order_across_frames(context: StepContext) -> Tensor:
    """The order that one frame's prior gives holds in the linked frame, in both directions.

    Forth: the surfaces seen at the pair are carried to the linked time and ordered by their depth in that camera. Back:
    the linked frame's order is required of the depth rendered here.
    """
    linked, c = context.batch.depth_order.linked, context.depth_order
    if linked is None:
        return context.render.depth.new_zeros(())
    index = torch.cat([linked.i, linked.j], 1)
    weights = linked.weights * _covered(context, linked.i, linked.j)
    here_i, here_j = losses.values_at(context.render.depth, index).chunk(2, 1)
    there_i, there_j = _carried_depth(context, index).chunk(2, 1)
    options = (weights, c.gate, c.kind, _margin(context), c.temperature, c.sharpness)
    forth = losses.cross_frame_order(there_i, there_j, linked.source_signs, linked.target_signs, *options)
    back = losses.cross_frame_order(here_i, here_j, linked.target_signs, linked.source_signs, *options)
    return 0.5 * (forth + back)


def _carried_depth(context: StepContext, index: Int[Tensor, "b p"]) -> Float[Tensor, "b p"]:
    """z in the linked camera of the surfaces seen at these pixels, carried to the linked time."""
    batch, render = context.batch, context.render
    B, H, W = render.depth.shape
    if render.tracks is not None:
        stacked = render.tracks.permute(0, 2, 3, 1, 4).reshape(B, H * W, -1)
        picked = stacked.gather(1, index[..., None].expand(-1, -1, stacked.shape[-1]))
        points = picked.split([3, picked.shape[-1] - 3], dim=-1)[0]
    else:  # nothing moves
        xy = torch.stack([index % W, index.div(W, rounding_mode="floor")], -1) + 0.5
        points = unproject_to_world(xy.to(render.depth), losses.values_at(render.depth, index), batch.Ks, batch.w2cs)
    return transform_points(batch.target_w2cs[:, 0], points)[..., 2]


@torch.no_grad()
def discordance(context: StepContext) -> Tensor:
    """Share of the batch's in-image pairs that are rendered in the wrong order."""
    pairs = context.batch.depth_order.pairs
    z_i, z_j = losses.values_at(context.render.depth, torch.cat([pairs.i, pairs.j], 1)).chunk(2, 1)
    return losses.discordance_rate(z_i, z_j, pairs.signs, pairs.weights)
