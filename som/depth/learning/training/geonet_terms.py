"""Terms of the objective after the two methods called GeoNet: flow of depth and motion, and normals of depth."""

from __future__ import annotations

import torch
from torch import Tensor

from som.depth.errors import DepthError
from som.depth.learning.losses.geonet import (
    flow_consistency_loss,
    normal_consistency_loss,
    normals_from_depth,
    rigid_flow,
    rigid_flow_loss,
    tangent_plane_loss,
)
from som.depth.learning.training.context import StepContext
from som.depth.learning.training.supervision import labels


def optical_flow(context: StepContext) -> Tensor:
    """Flow of depth and motion against optical flow, where that is right and the target's pixel does not move."""
    batch, K = context.batch, context.batch["K"]
    if "flow" not in batch:
        raise DepthError("weights.rigid_flow needs optical flow, but the data set has none; set the weight to 0.")
    cameras = context.pairs(K[:, 0]), K[:, 1:].flatten(0, 1), context.T_src_tgt.flatten(0, 1)
    flow, known = batch["flow"].flatten(0, 1), batch["flow_known"].flatten(0, 1)[:, None]
    losses = []
    for depth in context.depths:
        rigid, exists = rigid_flow(context.pairs(depth), *cameras)
        losses.append(rigid_flow_loss(rigid, flow, exists & known, context.pairs(context.valid[:, 0])))
    return torch.stack(losses).mean()


def flow_consistency(context: StepContext) -> Tensor:
    """Flow of depth and motion from the targets to their sources and back; GeoNet's 3 px are for a width of 416."""
    K, W = context.batch["K"], context.target.shape[-1]
    tgt, src = context.pairs(K[:, 0]), K[:, 1:].flatten(0, 1)
    there, exists = rigid_flow(context.pairs(context.depths[0]), tgt, src, context.T_src_tgt.flatten(0, 1))
    back, _ = rigid_flow(context.source_depths.flatten(0, 1), src, tgt, context.T_tgt_src.flatten(0, 1))
    return flow_consistency_loss(there, back, exists * context.pairs(context.valid[:, 0]), alpha=3 * W / 416)


def normals(context: StepContext) -> Tensor:
    """Normals of the predicted depth against those of the known depth, over the scales."""
    K = context.batch["K"][:, 0]
    known, weights = labels(context.batch, "normals")
    wanted, fit = normals_from_depth(known, K)
    fit = fit * (torch.ones_like(known) if weights is None else weights)
    return torch.stack([normal_consistency_loss(depth, wanted, K, fit) for depth in context.depths]).mean()


def tangent_plane(context: StepContext) -> Tensor:
    """Depth against the tangent planes of its neighbours, over the scales; the planes' slants get no gradient."""
    K, losses = context.batch["K"][:, 0], []
    for depth in context.depths:
        slants, fit = normals_from_depth(depth.detach(), K)
        losses.append(tangent_plane_loss(depth, slants, K, fit))
    return torch.stack(losses).mean()


GEONET_TERMS = {
    "rigid_flow": optical_flow,
    "flow_consistency": flow_consistency,
    "normals": normals,
    "tangent_plane": tangent_plane,
}
