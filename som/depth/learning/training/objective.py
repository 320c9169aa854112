"""The objective: named terms of what the networks say about one batch, and their weighted sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from som.cameras.geometry import invert_se3, warp
from som.depth.learning.losses.consistency import depth_disagreement, pair_loss
from som.depth.learning.losses.multiscale import upsample_to
from som.depth.learning.losses.photometric import identity_errors, reprojection_loss
from som.depth.learning.losses.smoothness import edge_aware_smoothness, geonet_smoothness, second_order_smoothness
from som.depth.learning.losses.velocity import velocity_loss
from som.depth.learning.training.batches import Batch
from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.learning.training.context import StepContext
from som.depth.learning.training.geonet_terms import GEONET_TERMS
from som.depth.learning.training.metric import HeightState, MetricTerms
from som.depth.learning.training.supervision import supervised_loss
from som.depth.networks import DepthModule, DepthOutput, PoseNet
from som.reductions import weighted_mean

SELF_SUPERVISED = ("photometric", "geometry")
"""Terms that share their warps."""
MOVED = (*SELF_SUPERVISED, "velocity", "rigid_flow", "flow_consistency")
"""Terms that need the motion between target and sources."""


def photometric(context: StepContext, masks: Tensor | None) -> Tensor:
    """Sources warped into the target, at full size for every scale; see ``som.depth.learning.losses.photometric``."""
    config, K = context.config, context.batch["K"]
    target, sources = context.target, context.sources
    road = context.batch.get("road")
    options: dict[str, Any] = {
        "identity": identity_errors(target, sources) if config.auto_mask else None,
        "weights": masks,
        "valid": context.valid[:, 0],
        "keep": None if road is None else road[:, None],
        "reduction": "mean" if config.photometric_form == "mean" else "min",
    }
    cameras = (K[:, 0], K[:, 1:], context.T_src_tgt)
    losses = [reprojection_loss(target, sources, depth, *cameras, **options).loss for depth in context.depths]
    return torch.stack(losses).mean()


def pair_values(context: StepContext) -> tuple[Tensor, Tensor]:
    """Photometric and geometry term of every pair of target and source, both directions summed as published.

    The sources are averaged, not summed, so that a weight means the same for any number of them.
    """
    K = context.batch["K"]
    loss = pair_loss(
        context.pairs(context.target),
        context.sources.flatten(0, 1),
        context.pairs(context.depths[0]),
        context.source_depths.flatten(0, 1),
        context.pairs(K[:, 0]),
        K[:, 1:].flatten(0, 1),
        context.T_src_tgt.flatten(0, 1),
        context.T_tgt_src.flatten(0, 1),
        valid_a=context.pairs(context.valid[:, 0]),
        valid_b=context.valid[:, 1:].flatten(0, 1),
        auto_mask=context.config.auto_mask,
    )
    return loss.photometric, loss.geometry


def geometry(context: StepContext) -> tuple[Tensor, Float[Tensor, "b s h w"]]:
    """Disagreement of the target's depth with that of each source, and the self-discovered mask 1 - disagreement."""
    K, T = context.batch["K"], context.T_src_tgt.flatten(0, 1)
    depth, source_depths = context.pairs(context.depths[0]), context.source_depths.flatten(0, 1)
    warped = warp(source_depths, depth, context.pairs(K[:, 0]), K[:, 1:].flatten(0, 1), T)
    disagreement = depth_disagreement(warped.depth, warped.values)
    weights = warped.in_view * context.pairs(context.valid[:, 0])
    mask = (1 - disagreement.detach())[:, 0].unflatten(0, (-1, context.sources.shape[1]))
    return weighted_mean(disagreement, weights), mask


def smoothness(context: StepContext) -> Tensor:
    """Edge-aware smoothness of every scale's disparity against the image at that scale, halved with the scale."""
    form = context.config.smoothness_form
    losses: dict[str, Callable[..., Tensor]] = {
        "first": edge_aware_smoothness,
        "second": second_order_smoothness,
        "geonet": geonet_smoothness,
    }
    total = context.target.new_zeros(())
    for scale, disparity in enumerate(context.output.disparities):
        image = F.adaptive_avg_pool2d(context.target, (disparity.shape[-2], disparity.shape[-1]))
        total = total + losses[form](disparity, image) / 2**scale
    return total / len(context.output.disparities)


def supervised(context: StepContext) -> Tensor:
    """Difference to known depth, in the configured form, over the scales."""
    return supervised_loss(context.config.supervision, context.net, context.output, context.depths, context.batch)


def velocity(context: StepContext) -> Tensor:
    """Length of the predicted motions against the distances known from the data set."""
    distance, known = travelled(context.batch)
    return velocity_loss(context.T_src_tgt, distance, known)


def travelled(batch: Batch) -> tuple[Float[Tensor, "b s"], Bool[Tensor, "b s"]]:
    """Metres between target and sources: from poses, else from mean speed and time; and where that is known."""
    if "T_src_tgt" in batch:
        distance = batch["T_src_tgt"][..., :3, 3].norm(dim=-1)
        return distance, torch.ones_like(distance, dtype=torch.bool)
    speeds, times = batch["speeds"], batch["timestamps"]
    distance = (speeds[:, 1:] + speeds[:, :1]) / 2 * (times[:, 1:] - times[:, :1]).abs().float()
    return distance, distance.isfinite()


TERMS: dict[str, Callable[[StepContext], Tensor]] = {
    "smoothness": smoothness,
    "supervised": supervised,
    "velocity": velocity,
    **GEONET_TERMS,
}
"""Terms that stand alone; photometric and geometry share their warps, the metric terms their measurements."""


class DepthObjective(nn.Module):
    """Runs the networks on a batch and sums the weighted terms; terms of weight 0 are never computed.

    It is a module so that data parallelism can wrap it: its parameters are those of the networks.

    Args:
        depth_net: predicts the depth of targets, and of sources where a term compares them.
        pose_net: predicts the relative poses; None takes the data set's.
    """

    def __init__(self, config: DepthTrainingConfig, depth_net: DepthModule, pose_net: PoseNet | None):
        super().__init__()
        self.config, self.depth_net, self.pose_net = config, depth_net, pose_net
        self.weights = {f.name: float(getattr(config.weights, f.name)) for f in fields(config.weights)}
        self.active = [name for name, weight in self.weights.items() if weight != 0]
        self.metric = MetricTerms()

    def forward(self, batch: Batch, heights: HeightState) -> dict[str, Tensor]:
        """Unweighted values of the active terms, and ``loss``, their weighted sum. Everything else that the terms found
        is in ``heights.seen``."""
        context = self._predict(batch, heights)
        values = self._self_supervised(context)
        values |= {name: TERMS[name](context) for name in self.active if name in TERMS}
        factors: dict[str, float] = {}
        if self._uses("rough_height", "camera_height"):
            metric, factors = self.metric(context.depths, batch, heights, self.active)
            values |= metric
        total = [self.weights[name] * factors.get(name, 1.0) * value for name, value in values.items()]
        return {**values, "loss": torch.stack([context.target.new_zeros(()), *total]).sum()}

    def _uses(self, *names: str) -> bool:
        return any(name in self.active for name in names)

    def _self_supervised(self, context: StepContext) -> dict[str, Tensor]:
        config = self.config
        values, masks = {}, None
        if config.photometric_form == "pairs" and self._uses(*SELF_SUPERVISED):
            values["photometric"], values["geometry"] = pair_values(context)
            return {name: value for name, value in values.items() if name in self.active}
        if self._uses("geometry"):
            values["geometry"], masks = geometry(context)
        if self._uses("photometric"):
            values["photometric"] = photometric(context, masks)
        return values

    def _predict(self, batch: Batch, heights: HeightState) -> StepContext:
        config, inputs = self.config, batch["inputs"]
        pairs = self._uses("photometric") and config.photometric_form == "pairs"
        wants_sources = pairs or self._uses("geometry", "flow_consistency")
        B, N, _, H, W = inputs.shape
        output, source_depths = self._depth(batch, wants_sources)
        depths = [1 / disparity for disparity in upsample_to(output.disparities, (H, W))]
        motion = self._poses(batch, output) if self._uses(*MOVED) else None
        valid = torch.ones((B, N, 1, H, W), device=inputs.device)
        if "valid" in batch:
            valid = valid * batch["valid"][:, :, None]
        if config.mask_moving and "moving" in batch:
            valid = valid * ~batch["moving"][:, :, None]
        return StepContext(config, batch, self.depth_net, output, depths, source_depths, motion, valid, heights)

    def _depth(self, batch: Batch, with_sources: bool) -> tuple[DepthOutput, Tensor | None]:
        """Prediction for the targets, and the depth of the sources, from one pass."""
        inputs = batch["inputs"]
        B, N = inputs.shape[:2]
        images = inputs[:, 0] if not with_sources else torch.cat([inputs[:, 0], inputs[:, 1:].flatten(0, 1)])
        if self.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._autocast(images.device):
            output = self.depth_net(images)
        if not with_sources:
            return output, None
        return _first(output, B), output.depths[0][B:].unflatten(0, (B, N - 1))

    def _poses(self, batch: Batch, output: DepthOutput) -> tuple[Tensor, Tensor]:
        """Relative poses in both directions; two independent predictions where a pose net is made so and both count."""
        if self.pose_net is None:
            return batch["T_src_tgt"], invert_se3(batch["T_src_tgt"])
        inputs, frames = batch["inputs"], batch["frames"]
        offsets = frames[:, 1:] - frames[:, :1]
        # in the small net of SfMLearner the translation follows the scale of depth, or both drift together
        scale = output.disparities[0].mean((1, 2, 3)) if self.config.pose == "cnn" else None
        with self._autocast(inputs.device):
            forward = self.pose_net(inputs[:, 0], inputs[:, 1:], offsets, scale)
        both = self.config.photometric_form == "pairs" and self.config.pose != "packnet"
        if not both or self.pose_net.style.temporal_order:
            return forward, invert_se3(forward)
        S = offsets.shape[1]
        target = inputs[:, :1].expand(-1, S, -1, -1, -1).flatten(0, 1)[:, None]
        with self._autocast(inputs.device):
            backward = self.pose_net(inputs[:, 1:].flatten(0, 1), target, -offsets.flatten()[:, None])
        return forward, backward[:, 0].unflatten(0, (-1, S))

    def _autocast(self, device: torch.device):
        precision = self.config.precision
        dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
        return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def _first(output: DepthOutput, count: int) -> DepthOutput:
    """The prediction for the first ``count`` images."""

    def cut(maps: list[Tensor]) -> list[Tensor]:
        return [m[:count] for m in maps]

    logits = None if output.logits is None else cut(output.logits)
    deviation = None if output.deviation is None else output.deviation[:count]
    return DepthOutput(cut(output.depths), cut(output.disparities), logits, deviation)
