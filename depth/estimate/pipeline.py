"""Depth of a clip from beginning to end: sweep, network, blend, scale."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from depth.data.sequence import DepthSequence, nearest_pixels, resize_depth, target_size
from depth.errors import DepthError
from depth.estimate.blending import blend
from depth.estimate.moving import stand_on_ground
from depth.estimate.prior import Clip, DepthPrior, check_clip
from depth.estimate.scale import scaled_to_metres
from depth.estimate.student import Progress, at_size, network_size, predict_depth
from depth.geometry import resize_intrinsics
from depth.metric_scale import Instances
from depth.metrics import resize_by_disparity
from depth.networks import DepthNet
from depth.sweep import SweepConfig, SweepResult, plane_sweep
from depth.training.annotations import Labels
from depth.training.build import known_depth, make_dataset, make_networks, network_config, resolve_pose
from depth.training.collapse import CollapseError, collapse_reason
from depth.training.config import DepthConfig, DepthTrainingConfig, LossWeights, SweepOptions
from depth.training.memory import memory_sequence
from depth.training.trainer import DepthTrainer
from depth.weights import load_weights

MIN_COVERAGE = 0.02
"""Share of the pixels that a teacher must know for a network to learn from it."""
SWEEP_SHARE = 0.6
"""Share of a time budget that the sweep may take."""
SMALLEST_SIDE = 64
"""A sweep that is too slow is not reduced below this many pixels."""
STANDING = 0.2
"""Confidence of moving things at the depth of what they stand on."""
SELF_SUPERVISED_CONFIDENCE = 0.3
"""Confidence of depth that no other view has confirmed."""


def estimate_depth(
    frames: Float[Tensor, "t 3 h w"],
    K: Float[Tensor, "*t 3 3"],
    poses: Float[Tensor, "t 4 4"] | None = None,
    moving: Bool[Tensor, "t h w"] | None = None,
    *,
    valid: Bool[Tensor, "t h w"] | None = None,
    road: Bool[Tensor, "t h w"] | None = None,
    objects: Instances | None = None,
    distances: Float[Tensor, "t"] | None = None,
    sparse: Float[Tensor, "t h w"] | None = None,
    weights: str | Path | None = None,
    config: DepthConfig | None = None,
    device: torch.device | str = "cpu",
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> DepthPrior:
    """Depth of every pixel of a clip.

    With poses: a plane sweep, filtered by the agreement of the views; a small network that learns from it and says
    something about every pixel; both blended. Without poses: self-supervised training with a pose network, which needs
    a long run or pretrained weights and gives depth in an unknown unit. Then, if it can be known, metric scale.

    Args:
        frames: RGB in [0, 1].
        K: intrinsics in pixels of the frames, pixel centres at +0.5.
        poses: world to camera.
        moving: pixels of things that move by themselves; they teach nothing and get a low confidence.
        valid: pixels that may be used at all; the others teach nothing and get confidence 0.
        road, objects: for metric scale from objects of known height on a road.
        distances: metres from each frame to the next (speed times time), for metric scale; the last is not used.
        sparse: depth that is known otherwise (lidar, points of SfM), in the unit of the poses, 0 = unknown.
        weights: pretrained weights that the network starts from, see ``depth.weights``.
        config: settings; None is the default for one clip on a CPU.
        budget_s: wall-clock seconds to stay within: the sweep works on smaller images and the network learns for fewer
            steps. Only then does the result depend on the machine's speed.
        progress: called with what is being done and the share that is done.

    Returns:
        the prior at the size of the frames.

    Raises:
        DepthError: bad input, or a camera that does not move.
        CollapseError: the depth is flat or collapsed; the message says why.
    """
    config = config or DepthConfig()
    clip = check_clip(frames, K, poses, moving, valid, road, objects, distances)
    if sparse is not None and (sparse.shape != (len(frames), *clip.size) or not bool((sparse >= 0).all())):
        raise DepthError(f"sparse must be {(len(frames), *clip.size)}, depths >= 0, got {tuple(sparse.shape)}.")
    teacher = config.teacher if config.teacher != "auto" else ("none" if clip.w2c is None else "sweep")
    if teacher == "sweep" and clip.w2c is None:
        raise DepthError("the plane sweep needs camera poses; give them, or set teacher to none.")
    run = _Run(clip, config, torch.device(device), _Clock(budget_s), progress or _silent, weights)
    with torch.random.fork_rng():
        prior = run.with_teacher(sparse) if teacher == "sweep" else run.self_supervised(sparse)
    return scaled_to_metres(prior, clip)


class _TooSlow(Exception):
    """The sweep would not end within its share of the budget."""

    def __init__(self, projected: float):
        super().__init__()
        self.projected = projected


class _Clock:
    """What is left of a time budget."""

    def __init__(self, budget_s: float | None):
        if budget_s is not None and not budget_s > 0:
            raise DepthError(f"budget_s must be positive, got {budget_s}.")
        self.budget_s, self.began = budget_s, time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def left(self) -> float | None:
        return None if self.budget_s is None else max(self.budget_s - self.elapsed(), 0.0)


@dataclass
class _Run:
    clip: Clip
    config: DepthConfig
    device: torch.device
    clock: _Clock
    progress: Progress
    weights: str | Path | None

    def with_teacher(self, sparse: Tensor | None) -> DepthPrior:
        """Sweep, network, blend."""
        sweep, size = self._sweep()
        teacher, confidence = sweep.depth.cpu(), sweep.confidence.cpu()
        if sparse is not None:
            known = resize_maps(sparse, size)
            teacher, confidence = torch.where(known > 0, known, teacher), confidence.masked_fill(known > 0, 1.0)
        moving = None if self.clip.moving is None else nearest_maps(self.clip.moving, size)
        coverage = float((teacher > 0).float().mean())
        if coverage < MIN_COVERAGE:
            raise CollapseError(
                f"the plane sweep finds depth that several views confirm on {100 * coverage:.1f} % of the pixels only: "
                "the poses or K may be wrong, the scene without texture, or all of it moving."
            )
        swept_s = self.clock.elapsed()
        net, steps = self._student(teacher, confidence)
        network, _ = predict_depth(net, self._sequence(), size, self.device, self.progress)
        depth, confidence = blend(teacher, confidence, network, moving)
        if moving is not None and self.config.moving == "stand":
            depth, standing = stand_on_ground(depth, moving)
            confidence = confidence.masked_fill(standing, STANDING)
        self._check(depth, None)
        log = {
            "method": "plane sweep and network",
            "teacher_coverage": coverage,
            "network_steps": steps,
            "sweep_seconds": swept_s,
            "sweep_range": [r if math.isfinite(r) else None for r in sweep.range],
            "size": list(size),
        }
        return replace(self._prior(depth, confidence, "scene", log), teacher=teacher, network=network)

    def self_supervised(self, sparse: Tensor | None) -> DepthPrior:
        """Training on the views alone, with poses given or learned."""
        size = network_size(self.clip.size, self.config.student_side)
        settings = at_size(self.config.self_supervised, size, self.config.seed)
        sequence, labels = self._sequence(), None
        if sparse is not None:
            known = resize_maps(sparse, size)
            labels = (known, (known > 0).float())
            if not settings.weights.supervised:
                settings = replace(settings, weights=replace(settings.weights, supervised=1.0))
        net, pose, steps = self._train(settings, sequence, labels, "self-supervised training")
        depth, deviation = predict_depth(net, sequence, None, self.device, self.progress)
        self._check(depth, net.config.depth_range, pose != "given")
        confidence = torch.full_like(depth, SELF_SUPERVISED_CONFIDENCE)
        if deviation is not None:
            confidence = confidence / (1 + deviation / 0.1)
        if self.clip.moving is not None:
            confidence = confidence.masked_fill(nearest_maps(self.clip.moving, size), 0.0)
        log = {"method": "self-supervised", "pose": pose, "network_steps": steps, "size": list(size)}
        return self._prior(depth, confidence, "scene" if pose == "given" else "relative", log)

    def _sequence(self) -> DepthSequence:
        """The frames at the network's size."""
        clip = self.clip
        size = network_size(clip.size, self.config.student_side)
        return memory_sequence(clip.frames, clip.K, clip.w2c, clip.ignored, size=size)

    def _sweep(self) -> tuple[SweepResult, tuple[int, int]]:
        """The teacher, at a size that the budget allows, and that size."""
        side = min(self.config.max_side, max(self.clip.size))
        while True:
            size = target_size(self.clip.size, max_side=side)
            try:
                return self._sweep_at(size), size
            except _TooSlow as slow:
                allowed = SWEEP_SHARE * (self.clock.left() or 0.0)
                side = min(int(side * math.sqrt(max(allowed / slow.projected, 0.01))), side - 1)
                if side < SMALLEST_SIDE:
                    raise DepthError(
                        f"a budget of {self.clock.budget_s:g} s is too short for a sweep of {len(self.clip.K)} frames; "
                        "give more time or fewer frames."
                    ) from None

    def _sweep_at(self, size: tuple[int, int]) -> SweepResult:
        clip, (H, W) = self.clip, self.clip.size
        images = memory_sequence(clip.frames, clip.K, size=size).images().to(self.device)
        K = resize_intrinsics(clip.K, size[1] / W, size[0] / H)
        ignored = None if clip.ignored is None else nearest_maps(clip.ignored, size)
        began = time.monotonic()

        def watch(done: int, total: int) -> None:
            self.progress("sweep", done / total)
            left = self.clock.left()
            if left is not None and done == 2:
                projected = (time.monotonic() - began) / done * total
                if projected > SWEEP_SHARE * left and max(size) > SMALLEST_SIDE:
                    raise _TooSlow(projected)

        return plane_sweep(images, K, clip.w2c, sweep_config(self.config.sweep), ignored, watch)

    def _student(self, teacher: Tensor, confidence: Tensor) -> tuple[DepthNet, int]:
        """A network that has learned from the teacher, and how many steps it took."""
        size = network_size(self.clip.size, self.config.student_side)
        known = resize_maps(teacher, size), nearest_maps(confidence, size)
        settings = at_size(self.config.student, size, self.config.seed)
        sequence = self._sequence()
        net, _, steps = self._train(settings, sequence, known, "network")
        if self.config.refine_steps:
            refined = replace(
                at_size(self.config.self_supervised, size, self.config.seed + 1),
                steps=self.config.refine_steps,
                pose="given",
                learning_rate=settings.learning_rate / 5,
                weights=LossWeights(supervised=0.5),
            )
            more = self._train(refined, sequence, known, "refinement", net)[2]
            steps += more
        return net, steps

    def _train(
        self,
        settings: DepthTrainingConfig,
        sequence: DepthSequence,
        known: tuple[Tensor, Tensor] | None,
        stage: str,
        net: DepthNet | None = None,
    ) -> tuple[DepthNet, str, int]:
        """Trains a network (``net`` or a new one); returns it, where its poses came from, and the steps done."""
        pose = resolve_pose(settings, [sequence])
        labels = None if known is None else Labels([sequence], [known[0]], [known[1]])
        scale = known_depth([sequence], None if known is None else [known[0]])
        wanted = network_config(settings, [sequence], pose, scale)
        fresh, pose_net = make_networks(settings, wanted, pose)
        if net is None:
            net = fresh
            if self.weights is not None:
                load_weights(net, self.weights)
        dataset = make_dataset(settings, [sequence], wanted.initial_depth, labels)
        trainer = DepthTrainer(
            settings, net, dataset, pose_net=pose_net, device=self.device, budget_s=self.clock.left()
        )
        trainer.train(lambda step, total, _: self.progress(stage, step / total))
        return net, pose, trainer.step

    def _check(self, depth: Tensor, span: tuple[float, float] | None, poses_learned: bool = False) -> None:
        reason = collapse_reason(depth, span, self.config.student.collapse, poses_learned)
        if reason is not None:
            raise CollapseError(f"no depth to return: {reason}.")

    def _prior(self, depth: Tensor, confidence: Tensor, units: str, log: dict) -> DepthPrior:
        """At the size of the frames."""
        size = self.clip.size
        resized = torch.nn.functional.interpolate(confidence[:, None], size, mode="bilinear")[:, 0].clamp(0, 1)
        if self.clip.valid is not None:
            resized = resized.masked_fill(~self.clip.valid, 0.0)
        log["seconds"] = self.clock.elapsed()
        return DepthPrior(resize_by_disparity(depth, *size), resized, self.clip.K, self.clip.w2c, units, log)


def sweep_config(options: SweepOptions) -> SweepConfig:
    """The sweep's own configuration."""
    near, far = options.depth_range or (None, None)
    return SweepConfig(
        num_planes=options.num_planes,
        near=near,
        far=far,
        cost=options.cost,
        num_sources=options.num_sources,
        min_views=options.min_views,
    )


def resize_maps(depth: Float[Tensor, "t h w"], size: tuple[int, int]) -> Float[Tensor, "t h2 w2"]:
    """Depth with unknown (0) pixels at another size, by ``resize_depth``."""
    return torch.stack([torch.from_numpy(resize_depth(z.cpu().numpy(), size)) for z in depth.float()])


def nearest_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(T,H,W) masks or weights at another size: each pixel takes the value under its centre."""
    return torch.stack([torch.from_numpy(nearest_pixels(m.cpu().numpy(), size)) for m in maps])


def _silent(stage: str, share: float) -> None:
    """Progress that nobody watches."""
