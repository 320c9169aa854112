"""Depth of a clip from beginning to end: sweep, network, blend, scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import resize_intrinsics
from som.data.memory import memory_sequence
from som.data.sequence import DepthSequence
from som.depth.errors import DepthError
from som.depth.estimate.anchors import add_anchors, resize_maps
from som.depth.estimate.blending import blend
from som.depth.estimate.clock import Clock
from som.depth.estimate.layout import fit_layout
from som.depth.estimate.moving import below_feet, stand_on_ground
from som.depth.estimate.prior import Clip, DepthPrior, Units, check_clip
from som.depth.estimate.scale import scaled_to_metres
from som.depth.estimate.student import Progress, at_size, network_size, predict_depth
from som.depth.estimate.teacher import nearest_maps, sweep_teacher
from som.depth.learning.training.annotations import Labels
from som.depth.learning.training.build import known_depth, make_dataset, make_networks, network_config, resolve_pose
from som.depth.learning.training.collapse import CollapseError, collapse_reason, ramp_warning
from som.depth.learning.training.config import DepthConfig, DepthTrainingConfig, LossWeights
from som.depth.learning.training.trainer import DepthTrainer
from som.depth.metric_scale import Instances
from som.depth.metrics import resize_by_disparity
from som.depth.networks import DepthNet, NetworkConfig, make_depth_net
from som.depth.weights import load_weights

MIN_TEACHER_COVERAGE = 0.02
"""Share of the pixels that a teacher must know for a network to learn from it."""
LAYOUT_WEIGHT = 0.03
"""Confidence of the fitted layout as a label where the sweep knows nothing, if it knows hardly anything at all.
Measured depth has some 0.3 to 1."""
MAX_COVERAGE_FOR_LAYOUT = 0.4
"""Share of the pixels that the sweep knows from which on the network does better without a layout."""
MIN_LAYOUT_RATIO, MAX_LAYOUT_RATIO = 0.2, 2.0
"""The layout stays within these factors of the smallest and largest measured depth."""
MAX_OBJECT_CONFIDENCE = 0.2
"""Largest confidence of moving objects at the depth of what they stand on."""
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
        moving: pixels of objects that move by themselves; they teach nothing and get a low confidence.
        valid: pixels that may be used at all; the others teach nothing and get confidence 0.
        road, objects: for metric scale from objects of known height on a road.
        distances: metres from each frame to the next (speed times time), for metric scale; the last is not used.
        sparse: depth that is known otherwise (lidar, points of SfM), in the unit of the poses, 0 = unknown. Points that
            contradict a sure sweep are left out, and so are points on ``moving`` pixels, where several views agree on
            nothing real.
        weights: pretrained weights that the network starts from, see ``som.depth.weights``.
        config: settings; None is the default for one clip on a CPU.
        budget_s: wall-clock seconds to stay within: the sweep works on smaller images and the network learns for fewer
            steps. Only then does the result depend on the machine's speed.
        progress: called with what is being done and the share that is done.

    Returns:
        the prior at the size of the frames.

    Raises:
        DepthError: bad input, or sparse depth in another unit than the poses.
        NoParallaxError: poses are given and the camera does not travel enough; see ``guess_layout``.
        CollapseError: the depth is flat or collapsed; the message says why.
    """
    config = config or DepthConfig()
    clip = check_clip(frames, K, poses, moving, valid, road, objects, distances)
    if sparse is not None and (sparse.shape != (len(frames), *clip.size) or not bool((sparse >= 0).all())):
        raise DepthError(f"sparse must be {(len(frames), *clip.size)}, depths >= 0, got {tuple(sparse.shape)}.")
    teacher = config.teacher if config.teacher != "auto" else ("none" if clip.w2c is None else "sweep")
    if teacher == "sweep" and clip.w2c is None:
        raise DepthError("the plane sweep needs camera poses; give them, or set teacher to none.")
    run = _Run(clip, config, torch.device(device), Clock(budget_s), progress or _silent, weights)
    with torch.random.fork_rng():
        prior = run.with_teacher(sparse) if teacher == "sweep" else run.self_supervised(sparse)
    return scaled_to_metres(prior, clip)


def check_weights(path: str | Path, config: DepthConfig | None = None) -> None:
    """Loads pretrained weights into the network that ``estimate_depth`` would train, and throws it away.

    Raises:
        DepthError: the file cannot be read, or does not fit the network.
    """
    options = (config or DepthConfig()).student.network
    parts = {name: getattr(options, name) for name in ("name", "head", "upsampling", "num_scales", "bins")}
    with torch.random.fork_rng(devices=[]):
        load_weights(make_depth_net(NetworkConfig(**parts)), path)


@dataclass
class _Run:
    clip: Clip
    config: DepthConfig
    device: torch.device
    clock: Clock
    progress: Progress
    weights: str | Path | None

    def with_teacher(self, sparse: Tensor | None) -> DepthPrior:
        """Sweep, network, blend."""
        teacher = sweep_teacher(self.clip, self.config, self.device, self.clock, self.progress)
        self.clip = replace(self.clip, w2c=teacher.w2c)
        depth, confidence, log = teacher.depth, teacher.confidence, dict(teacher.log)
        size = (depth.shape[1], depth.shape[2])
        if sparse is not None:
            known = sparse if self.clip.moving is None else sparse.masked_fill(self.clip.moving, 0.0)
            depth, confidence, joined = add_anchors(depth, confidence, resize_maps(known, size))
            log |= joined
        coverage = float((depth > 0).float().mean())
        if coverage < MIN_TEACHER_COVERAGE:
            raise CollapseError(
                f"the plane sweep finds depth that several views confirm on {100 * coverage:.1f} % of the pixels only: "
                "the poses or K may be wrong, the scene without texture, or all of it moving."
            )
        swept_s = self.clock.elapsed()
        layout, fitted = self._layout(depth, confidence)
        log |= fitted
        net, steps = self._student(*layout)
        network, _ = predict_depth(net, self._sequence(), size, self.device, self.progress)
        log |= {
            "teacher_coverage": coverage,
            "network_steps": steps,
            "sweep_seconds": swept_s,
            "sweep_range": [r if math.isfinite(r) else None for r in teacher.range],
            "size": list(size),
        }
        return replace(self._blended(depth, confidence, network, log), teacher=depth, network=network)

    def _layout(self, depth: Tensor, confidence: Tensor) -> tuple[tuple[Tensor, Tensor], dict]:
        """What the network learns from: the sweep and, if that knows little, a fitted layout of ground and wall.

        Where nothing supervises it a network may say anything, such as a road that is farther than the houses on it;
        where much does, it knows better than any layout.
        """
        weight = LAYOUT_WEIGHT * max(1 - float((depth > 0).float().mean()) / MAX_COVERAGE_FOR_LAYOUT, 0.0)
        if not weight:
            return (depth, confidence), {}
        (height, width), (H, W) = depth.shape[1:], self.clip.size
        K = resize_intrinsics(self.clip.K, width / W, height / H)
        layout, log = fit_layout(depth, confidence, K, self.clip.require_poses())
        measured = depth[depth > 0]
        layout = layout.clamp(MIN_LAYOUT_RATIO * float(measured.min()), MAX_LAYOUT_RATIO * float(measured.max()))
        blind = depth <= 0
        if self.clip.ignored is not None:
            blind &= ~nearest_maps(self.clip.ignored, (height, width))
        labels = torch.where(blind, layout.to(depth), depth), torch.where(blind, weight, confidence)
        return labels, log

    def _blended(self, teacher: Tensor, confidence: Tensor, network: Tensor, log: dict) -> DepthPrior:
        """Sweep and network in one map, with moving objects on the ground."""
        size = (teacher.shape[1], teacher.shape[2])
        moving = None if self.clip.moving is None else nearest_maps(self.clip.moving, size)
        depth, confidence = blend(teacher, confidence, network, moving, self.config.blend)
        if moving is not None and self.config.moving == "stand":
            depth, standing = stand_on_ground(depth, moving)
            # what stands is known as well as the ground below it, and no better
            ground = below_feet(confidence, moving).clamp(self.config.blend.moving_confidence, MAX_OBJECT_CONFIDENCE)
            confidence = torch.where(standing, ground, confidence)
        self._check(depth, None)
        return self._prior(depth, confidence, "scene", {"method": "plane sweep and network", **log})

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

    def _prior(self, depth: Tensor, confidence: Tensor, units: Units, log: dict) -> DepthPrior:
        """At the size of the frames."""
        warning = ramp_warning(depth, self.clip.frames, self.config.student.collapse)
        if warning is not None:
            log["warnings"] = [*log.get("warnings", []), warning]
        size = self.clip.size
        resized = torch.nn.functional.interpolate(confidence[:, None], size, mode="bilinear")[:, 0].clamp(0, 1)
        if self.clip.valid is not None:
            resized = resized.masked_fill(~self.clip.valid, 0.0)
        log["seconds"] = self.clock.elapsed()
        return DepthPrior(resize_by_disparity(depth, *size), resized, self.clip.K, self.clip.w2c, units, log)


def _silent(stage: str, share: float) -> None:
    """Progress that nobody watches."""
