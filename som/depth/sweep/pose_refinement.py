"""Poses corrected so that the images fit each other through the depth that the sweep confirmed.

Poses from a depth camera's tracker, or from few features, are often off by a pixel or two, which costs a sweep more
than anything else. Direct alignment of the images (Engel et al., DSO, PAMI 2018, without its photometric model) removes
most of that; a second sweep with the corrected poses then finds more depth, and better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import in_image, invert_se3, pixel_centers, project, sample_image, transform_points, unproject
from som.cameras.rotations import cross_matrix
from som.depth.errors import DepthError
from som.depth.fusion.checks import check_cameras, check_maps


@dataclass(frozen=True)
class RefinementConfig:
    """How poses are refined: two stages from blurred to fine images."""

    blurs: tuple[float, ...] = (2.0, 0.7)
    """Standard deviation of the blur in pixels, per stage."""
    steps: tuple[float, ...] = (1e-3, 3e-4)
    """Step size of Adam per stage: radians, and shares of the median depth."""
    iterations: int = 60
    """Iterations per stage."""
    points: int = 1500
    """Points per pair of frames, at most; evenly spread over those with depth."""
    total_points: int = 600_000
    """Points of all pairs together, at most."""
    min_points: int = 100
    """Points of known depth that a frame needs to be compared with others."""
    loss_scale: float = 0.01
    """Difference of grey values, in [0, 1], at which the penalty turns from quadratic to linear."""

    def __post_init__(self) -> None:
        if not self.blurs or len(self.blurs) != len(self.steps) or min((*self.blurs, *self.steps)) <= 0:
            raise DepthError("refinement of poses needs as many steps as blurs, at least one of each, all above 0.")
        if min(self.iterations, self.points, self.total_points, self.min_points) < 1:
            raise DepthError("refinement of poses needs at least one iteration and one point.")
        if self.loss_scale <= 0:
            raise DepthError(f"the loss scale of the refinement of poses must be above 0, got {self.loss_scale}.")


@torch.no_grad()
def refine_poses(
    images: Float[Tensor, "t 3 h w"],
    Ks: Float[Tensor, "t 3 3"],
    w2cs: Float[Tensor, "t 4 4"],
    depth: Float[Tensor, "t h w"],
    sources: Sequence[Sequence[int]],
    moving: Bool[Tensor, "t h w"] | None = None,
    config: RefinementConfig = RefinementConfig(),
) -> Float[Tensor, "t 4 4"]:
    """Poses under which the grey values of points seen in several frames differ least.

    Minimises the mean of ``sqrt(r^2 + loss_scale^2)`` over pairs of frames and points, with r the difference of
    grey values less its mean over the pair (exposure), by Adam over one small rigid motion per frame. Depth stays as it
    is, which holds the scale. Deterministic.

    Args:
        images: RGB in [0, 1].
        Ks: intrinsics in pixels of the images.
        w2cs: poses to start from, within a few pixels of right.
        depth: z-depth, 0 = unknown; ``SweepResult.depth``.
        sources: frames that each frame is compared with; ``SweepResult.sources``.
        moving: True where something moves.

    Returns:
        refined poses, float64, on the device of ``images``; the mean correction of all frames is taken out.

    Raises:
        DepthError: bad input, or no frame has enough depth.
    """
    check_maps("images", images, (-1, 3, -1, -1))
    T, _, H, W = images.shape
    K, w2c = check_cameras(Ks, w2cs, T, (H, W))
    check_maps("depth", depth, (T, H, W))
    if moving is not None:
        check_maps("moving", moving, (T, H, W), torch.bool)
        depth = depth.masked_fill(moving, 0.0)
    K, w2c = K.to(images.device), w2c.to(images.device)
    pairs = [
        (t, j) for t, others in enumerate(sources) for j in others if int((depth[t] > 0).sum()) >= config.min_points
    ]
    if not pairs:
        raise DepthError("no frame has enough depth to refine poses by; check the sweep's result before refining.")
    problem = _Problem(images, K.float(), depth, pairs, moving, config)
    correction = torch.zeros(T, 6, device=images.device)
    for blur, step in zip(config.blurs, config.steps, strict=True):
        correction = problem.minimize(correction, w2c, blur, step)
    correction -= correction[problem.touched].mean(0) * problem.touched[:, None]
    return _rigid(correction.double() * problem.unit.double()) @ w2c


class _Problem:
    """Points of all pairs of frames, and their grey values."""

    def __init__(
        self,
        images: Tensor,
        K: Tensor,
        depth: Tensor,
        pairs: Sequence[tuple[int, int]],
        moving: Tensor | None,
        config: RefinementConfig,
    ):
        H, W = images.shape[-2:]
        self.K, self.config = K, config
        self.grey = images.mean(1, keepdim=True).float()
        self.seen = None if moving is None else 1 - moving[..., None].float()
        self.first, self.second = torch.tensor(pairs, device=images.device).T
        self.touched = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.touched[self.first] = self.touched[self.second] = True
        count = max(1, min(config.points, config.total_points // len(pairs)))
        picked = {t: _spread(depth[t].flatten() > 0, count) for t in {t for t, _ in pairs}}
        index = torch.stack([picked[t] for t, _ in pairs])
        self.xy = pixel_centers(H, W, device=images.device).view(-1, 2)[index]
        z = depth.flatten(1)[self.first[:, None], index].float()
        self.points = unproject(self.xy, z, K[self.first])
        scale = float(z.median())
        self.unit = torch.tensor([1.0] * 3 + [scale] * 3, device=images.device)

    def minimize(self, correction: Float[Tensor, "t 6"], w2c: Tensor, blur: float, step: float) -> Float[Tensor, "t 6"]:
        """Corrections (rotation vector, translation in units of depth) after one stage."""
        grey = _blurred(self.grey, blur).permute(0, 2, 3, 1)
        here = sample_image(grey[self.first], self.xy)[..., 0]
        there = grey[self.second]
        variable = correction.clone().requires_grad_()
        optimizer = torch.optim.Adam([variable], lr=step)
        for _ in range(self.config.iterations):
            with torch.enable_grad():
                loss = self._loss(variable, w2c, here, there)
                (variable.grad,) = torch.autograd.grad(loss, variable)
            optimizer.step()
        return variable.detach()

    def _loss(self, correction: Tensor, w2c: Tensor, here: Tensor, there: Tensor) -> Tensor:
        pose = _rigid(correction * self.unit).double() @ w2c
        T_second_first = (pose[self.second] @ invert_se3(pose[self.first])).float()
        at, z = project(transform_points(T_second_first, self.points), self.K[self.second])
        weight = (in_image(at, *there.shape[1:3]) & (z > 0)).float()
        if self.seen is not None:
            weight = weight * sample_image(self.seen[self.second], at, mode="nearest")[..., 0].detach()
        residual = sample_image(there, at)[..., 0] - here
        total = weight.sum(1, keepdim=True).clamp(min=1)
        residual = residual - (residual.detach() * weight).sum(1, keepdim=True) / total
        return ((residual.square() + self.config.loss_scale**2).sqrt() * weight).sum() / weight.sum().clamp(min=1)


def _rigid(vector: Float[Tensor, "t 6"]) -> Float[Tensor, "t 4 4"]:
    """Rotation exp([w]x) and translation of (w, t) vectors."""
    turn, shift = vector.split(3, dim=-1)
    top = torch.cat([torch.linalg.matrix_exp(cross_matrix(turn)), shift[..., None]], dim=-1)
    bottom = vector.new_tensor([0.0, 0, 0, 1]).expand(len(vector), 1, 4)
    return torch.cat([top, bottom], dim=1)


def _spread(known: Bool[Tensor, "n"], count: int) -> Tensor:
    """``count`` indices of known elements, spread by the golden ratio; some repeat where fewer are known."""
    index = known.nonzero()[:, 0]
    share = torch.frac(torch.arange(count, dtype=torch.float64, device=known.device) * 0.6180339887498949)
    return index[(share * len(index)).long()]


def _blurred(images: Float[Tensor, "t 1 h w"], sigma: float) -> Float[Tensor, "t 1 h w"]:
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(images, [radius] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
