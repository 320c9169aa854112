"""The objective: named terms, each a loss on what one batched render gave, and their weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from som import losses
from som.cameras.geometry import sample_image
from som.errors import UserError
from som.reductions import weighted_mean
from som.scene import DynamicScene, ForegroundPoses, SceneRender
from som.training import depth_order_terms
from som.training.batch import Batch
from som.training.config import DepthOrderConfig, LossWeights
from som.training.context import CarriedTracks, StepContext
from som.training.depth_order import TERM_NAMES, ramp

BACKGROUND_COLOR = 1.0
"""What shows through where a scene without background has a hole (white)."""
SMOOTHNESS_GAUSSIANS = 4096
"""Foreground Gaussians whose accelerations are looked at in one step."""
RIGIDITY_GAUSSIANS = 2048
"""Foreground Gaussians whose neighbourhoods are compared in one step."""


def rgb(context: StepContext) -> Tensor:
    """Photometric loss; without a background, what does not move is expected to show the backdrop."""
    batch = context.batch
    target = batch.images
    if not context.has_background and batch.foreground is not None:
        target = torch.where(batch.foreground[..., None], target, torch.full_like(target, BACKGROUND_COLOR))
    return losses.photometric(context.render.rgb, target, batch.valid)


def alpha(context: StepContext) -> Tensor:
    """The scene is opaque wherever there is something to see."""
    batch = context.batch
    target = None if context.has_background or batch.foreground is None else batch.foreground.float()
    return losses.coverage(context.render.alpha, target, batch.valid)


def mask(context: StepContext) -> Tensor:
    """The foreground covers the foreground mask and nothing else."""
    if context.batch.foreground is None or context.scene.foreground is None:
        return context.zero()
    return losses.foreground_mask(context.render.foreground, context.batch.foreground.float(), context.batch.valid)


def depth(context: StepContext) -> Tensor:
    """Rendered disparity agrees with the prior's."""
    prior = context.batch.depth
    if prior is None:
        return context.zero()
    return losses.disparity_l1(context.render.depth, prior.depths, prior.weights)


def depth_gradient(context: StepContext) -> Tensor:
    """Disparity has the prior's slopes and edges."""
    prior = context.batch.depth
    if prior is None:
        return context.zero()
    return losses.disparity_gradient(context.render.depth, prior.depths, prior.weights)


def _track_gains(context: StepContext, carried: CarriedTracks) -> Tensor:
    gains = losses.interval_gains(context.batch.times[:, None], carried.targets.times, context.num_times)
    return gains[..., None].expand(carried.weight.shape)


def track_2d(context: StepContext) -> Tensor:
    """Surface points are carried to where their tracks go."""
    carried = context.carried
    if carried is None:
        return context.zero()
    xy, z = carried.targets.cameras.project(carried.points)
    weight = carried.weight * (z.detach() > 0)
    height, width = context.render.rgb.shape[1:3]
    gains = _track_gains(context, carried)
    return losses.track_2d(xy, carried.tracks.target_xy, weight, (height, width), gains)


def track_depth(context: StepContext) -> Tensor:
    """Carried points lie at the depth that the prior gives at the track's other end."""
    carried = context.carried
    if carried is None:
        return context.zero()
    z = carried.targets.cameras.project(carried.points)[1]
    return losses.track_depth(z, carried.tracks.target_depth, carried.weight, _track_gains(context, carried))


def smooth_bases(context: StepContext) -> Tensor:
    """Motion bases do not jerk."""
    bases = context.scene.motion_bases
    if bases is None:
        return context.zero()
    return losses.base_smoothness(bases.params["rots"], bases.params["transls"])


def smooth_tracks(context: StepContext) -> Tensor:
    """Gaussians do not jerk."""
    if context.around is None:
        return context.zero()
    return losses.track_smoothness(context.around.transpose(1, 2))


def smooth_along_ray(context: StepContext) -> Tensor:
    """Gaussians do not jerk towards or away from the camera, which one view does not constrain."""
    if context.around is None:
        return context.zero()
    return losses.ray_acceleration(context.around.transpose(1, 2), context.batch.cameras.centers[:, None])


def scale_variance(context: StepContext) -> Tensor:
    """Gaussians do not become needles."""
    parts = [p for p in (context.scene.foreground, context.scene.background) if p is not None]
    return losses.scale_variance(torch.cat([part.params["scales"] for part in parts]))


def rigidity(context: StepContext) -> Tensor:
    """Neighbours keep their place in each other's moving frame, from a rendered to any other time."""
    if context.scene.moving is None:
        return context.zero()
    foreground, bases = context.scene.moving
    means, weights = foreground.means, foreground.motion_weights
    sample = torch.randint(len(means), (min(len(means), RIGIDITY_GAUSSIANS),), device=means.device)
    times = torch.cat([context.batch.times[:1], torch.randint(context.num_times, (1,), device=means.device)])
    R, x = bases.carry(means[sample], weights[sample], times)
    neighbors, closeness = losses.nearest_neighbors(means[sample], 8)
    return losses.as_rigid_as_possible(x[0], R[0], x[1], R[1], neighbors, closeness)


Term = Callable[[StepContext], Tensor]
"""One term of the objective: a scalar."""
TERMS: dict[str, Term] = {
    "rgb": rgb,
    "alpha": alpha,
    "mask": mask,
    "depth": depth,
    "depth_gradient": depth_gradient,
    "pearson": depth_order_terms.pearson,
    "pearson_patch": depth_order_terms.pearson_patch,
    "ordinal": depth_order_terms.ordinal,
    "order_across_frames": depth_order_terms.order_across_frames,
    "track_2d": track_2d,
    "track_depth": track_depth,
    "smooth_bases": smooth_bases,
    "smooth_tracks": smooth_tracks,
    "smooth_along_ray": smooth_along_ray,
    "scale_variance": scale_variance,
    "rigidity": rigidity,
}


class Objective:
    """Renders a batch once and sums the weighted terms; terms of weight 0 are never computed.

    Args:
        weights: one per name in ``TERMS``.
        num_times: T of the data set.
        has_background: whether everything outside the foreground is static scene (else it is nothing).
        order: settings of the depth terms by order and correlation.
        extra: further terms by name, added with weight 1.

    Raises:
        UserError: a further term has the name of a built-in one.
    """

    def __init__(
        self,
        weights: LossWeights,
        num_times: int,
        has_background: bool,
        order: DepthOrderConfig | None = None,
        extra: Mapping[str, Term] | None = None,
    ):
        self.extra = dict(extra or {})
        if taken := {*TERMS, "loss", "psnr", "discordance"} & set(self.extra):
            raise UserError(f"`extra_losses`: {', '.join(sorted(taken))} is a name of training's own; choose another.")
        self.weights = {f.name: float(getattr(weights, f.name)) for f in fields(weights)}
        self.order = order or DepthOrderConfig()
        self.active = [name for name, weight in self.weights.items() if weight != 0]
        self.num_times, self.has_background = num_times, has_background

    def __call__(
        self, scene: DynamicScene, batch: Batch, progress: float = 1.0
    ) -> tuple[dict[str, Tensor], SceneRender]:
        """Unweighted values of the active terms with ``loss`` (their weighted sum) and ``psnr``; and the render.

        Args:
            progress: fraction of the run that is over; the depth terms by order and correlation come in gradually.
        """
        context = self._render(scene, batch)
        factors = dict.fromkeys(TERM_NAMES, ramp(self.order, progress))
        usable = [n for n in self.active if n not in factors or (batch.depth is not None and factors[n] > 0)]
        values = {name: TERMS[name](context) for name in usable}
        weighted = [self.weights[name] * factors.get(name, 1.0) * value for name, value in values.items()]
        further = {name: term(context) for name, term in self.extra.items()}
        values |= further
        weighted += further.values()
        values["loss"] = torch.stack([context.zero(), *weighted]).sum()
        if batch.depth_order.pairs is not None:
            values["discordance"] = depth_order_terms.discordance(context, batch.depth_order.pairs)
        with torch.no_grad():
            seen = batch.valid
            if not self.has_background and batch.foreground is not None:
                seen = seen & batch.foreground
            error = weighted_mean(((context.render.rgb - batch.images) ** 2).mean(-1), seen)
            values["psnr"] = -10 * torch.log10(error.clamp(min=1e-10))
        return values, context.render

    def _uses(self, *names: str) -> bool:
        return any(name in self.active for name in names)

    def _render(self, scene: DynamicScene, batch: Batch) -> StepContext:
        height, width = batch.images.shape[1:3]
        targets = batch.targets
        wants_tracks = targets is not None and targets.tracks is not None and self._uses("track_2d", "track_depth")
        carries = wants_tracks or (batch.depth_order.linked is not None and self._uses("order_across_frames"))
        track_times = targets.times if targets is not None and carries and scene.moving is not None else None
        poses, around = self._foreground_poses(scene, batch, track_times)
        render = scene.rasterize_views(
            batch.cameras.w2c,
            batch.cameras.K,
            batch.times,
            width,
            height,
            background_color=BACKGROUND_COLOR,
            track_times=track_times,
            poses=poses,
        )
        carried = _carried_tracks(render, batch) if wants_tracks else None
        return StepContext(scene, batch, render, self.num_times, self.has_background, self.order, around, carried)

    def _foreground_poses(
        self, scene: DynamicScene, batch: Batch, track_times: Tensor | None
    ) -> tuple[ForegroundPoses | None, Tensor | None]:
        """Foreground poses that the step needs: for the render; and, of a random sample, around each rendered time."""
        if scene.moving is None:
            return None, None
        foreground, bases = scene.moving
        B, weights = len(batch.times), foreground.motion_weights
        times = batch.times[:, None] if track_times is None else torch.cat([batch.times[:, None], track_times], 1)
        R, x = (v.unflatten(0, times.shape) for v in bases.carry(foreground.means, weights, times.flatten()))
        rotation = R.split([1, times.shape[1] - 1], dim=1)[0]
        position, tracked = x.split([1, times.shape[1] - 1], dim=1)
        poses = ForegroundPoses(rotation.squeeze(1), position.squeeze(1), None if track_times is None else tracked)
        if self.num_times < 3 or not self._uses("smooth_tracks", "smooth_along_ray"):
            return poses, None
        sample = torch.randperm(len(weights), device=weights.device)[:SMOOTHNESS_GAUSSIANS]
        middle = batch.times.clamp(1, self.num_times - 2)[:, None]
        times = torch.cat([middle - 1, middle, middle + 1], 1)
        _, around = bases.carry(foreground.means[sample], weights[sample], times.flatten())
        return poses, around.unflatten(0, (B, 3))


def _carried_tracks(render: SceneRender, batch: Batch) -> CarriedTracks | None:
    """Rendered track positions under the tracks' source pixels; a point counts where the pixel is covered."""
    targets, rendered = batch.targets, render.tracks
    if targets is None or targets.tracks is None or rendered is None:
        return None
    B, N, H, W, _ = rendered.shape
    xy = targets.tracks.source_xy
    stacked = rendered.permute(0, 2, 3, 1, 4).reshape(B, H, W, N * 3)
    points = sample_image(stacked, xy).unflatten(-1, (N, 3)).transpose(1, 2)  # (B, N, P, 3)
    covered = sample_image(render.alpha.detach()[..., None], xy)[..., 0] > 0.5
    weight = targets.tracks.weight * covered[:, None]
    if batch.foreground is not None:
        # between a moving and a static pixel the interpolated position is neither's
        inside = sample_image(batch.foreground.float()[..., None], xy)[..., 0] > 0.99
        weight = weight * inside[:, None]
    return CarriedTracks(points, weight, targets.tracks, targets)
