"""The four terms of the objective that supervise depth by order and correlation."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from som import losses
from som.training.batch import DepthPrior, FramePairs, LinkedPairs
from som.training.context import StepContext

MAX_MARGIN_SHARE = 0.05
"""The margin of an order is at most this share of the spread of the rendered log depth in the image."""


def pearson(context: StepContext) -> Tensor:
    """Rendered disparity correlates with the prior's over each image."""
    prior = context.batch.depth
    if prior is None:
        return context.zero()
    return losses.pearson_depth(context.render.depth, prior.depths, _weights(context, prior))


def pearson_patch(context: StepContext) -> Tensor:
    """Rendered disparity correlates with the prior's in local boxes."""
    prior, boxes = context.batch.depth, context.batch.depth_order.boxes
    if prior is None or boxes is None:
        return context.zero()
    return losses.patch_pearson_depth(context.render.depth, prior.depths, boxes, _weights(context, prior))


def ordinal(context: StepContext) -> Tensor:
    """What the prior says is farther is rendered farther, inside an image."""
    pairs, depth, c = context.batch.depth_order.pairs, context.render.depth, context.depth_order
    if pairs is None:
        return context.zero()
    weights = pairs.weights * _covered(context, pairs)
    z_i, z_j = losses.values_at(depth, torch.cat([pairs.i, pairs.j], 1)).chunk(2, 1)
    return losses.ordinal_depth(z_i, z_j, pairs.signs, weights, c.kind, _margin(context), c.temperature, c.sharpness)


def order_across_frames(context: StepContext) -> Tensor:
    """The order that one frame's prior gives holds in the linked frame, in both directions.

    Forth: the surfaces seen at the pair are carried to the linked time and ordered by their depth in that camera. Back:
    the linked frame's order is required of the depth rendered here.
    """
    linked, c = context.batch.depth_order.linked, context.depth_order
    if linked is None:
        return context.zero()
    index = torch.cat([linked.i, linked.j], 1)
    weights = linked.weights * _covered(context, linked)
    here_i, here_j = losses.values_at(context.render.depth, index).chunk(2, 1)
    there_i, there_j = _carried_depth(context, linked, index).chunk(2, 1)
    options = (weights, c.gate, c.kind, _margin(context), c.temperature, c.sharpness)
    forth = losses.cross_frame_order(there_i, there_j, linked.source_signs, linked.target_signs, *options)
    back = losses.cross_frame_order(here_i, here_j, linked.target_signs, linked.source_signs, *options)
    return 0.5 * (forth + back)


@torch.no_grad()
def discordance(context: StepContext, pairs: FramePairs) -> Tensor:
    """Share of the batch's in-image pairs that are rendered in the wrong order."""
    z_i, z_j = losses.values_at(context.render.depth, torch.cat([pairs.i, pairs.j], 1)).chunk(2, 1)
    return losses.discordance_rate(z_i, z_j, pairs.signs, pairs.weights)


def _weights(context: StepContext, prior: DepthPrior) -> Tensor:
    """Confidence of the prior where the scene is there at all."""
    return prior.weights * (context.render.alpha.detach() > 0.5)


def _margin(context: StepContext) -> Float[Tensor, "b 1"]:
    """The order's margin in each image: smaller where depth varies little, or right pairs would be pulled apart."""
    depth, alpha = (x.detach()[:, ::4, ::4].flatten(1) for x in (context.render.depth, context.render.alpha))
    there = ((depth > 0) & (alpha > 0.5)).float()
    log_depth = torch.where(there > 0, depth, torch.ones_like(there)).log()
    shares = there / there.sum(1, keepdim=True).clamp(min=1)
    deviation = log_depth - (shares * log_depth).sum(1, keepdim=True)
    spread = (shares * deviation.square()).sum(1, keepdim=True).sqrt()
    return (MAX_MARGIN_SHARE * spread).clamp(max=context.depth_order.margin)


def _covered(context: StepContext, pairs: FramePairs | LinkedPairs) -> Tensor:
    """Whether the scene is there at both pixels."""
    alpha = context.render.alpha.detach()
    return (losses.values_at(alpha, pairs.i) > 0.5) & (losses.values_at(alpha, pairs.j) > 0.5)


def _carried_depth(context: StepContext, linked: LinkedPairs, index: Int[Tensor, "b p"]) -> Float[Tensor, "b p"]:
    """z in the linked camera of the surfaces seen at these pixels, carried to the linked time."""
    batch, render = context.batch, context.render
    B, H, W = render.depth.shape
    if render.tracks is not None:
        stacked = render.tracks.permute(0, 2, 3, 1, 4).reshape(B, H * W, -1)
        picked = stacked.gather(1, index[..., None].expand(-1, -1, stacked.shape[-1]))
        points = picked.split([3, picked.shape[-1] - 3], dim=-1)[0]
    else:  # nothing moves
        xy = torch.stack([index % W, index.div(W, rounding_mode="floor")], -1) + 0.5
        points = batch.cameras.unproject(xy.to(render.depth), losses.values_at(render.depth, index))
    return linked.target_cameras.project(points)[1]
