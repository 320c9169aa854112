"""The search for cameras and an unknown focal length: several starts, the lowest cost wins, all points refine it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from flow.progress import Progress
from flow.video_flow import VideoFlow
from som.cameras.geometry import interpolate_poses
from som.errors import UserError
from som.preprocessing.cameras.bundle_adjustment import FocalPrior, Scene, normalized, residual_scale, residuals
from som.preprocessing.cameras.global_mapping import GlobalMappingError, is_available, map_cameras
from som.preprocessing.cameras.incremental import build_scene, refine_scene, triangulated_scene
from som.preprocessing.cameras.observations import Observations
from som.preprocessing.cameras.options import CameraOptions
from som.preprocessing.cameras.reversal import nearness_below, prefer_reversed, reversed_scene

Method = Literal["auto", "global_mapping", "bundle_adjustment", "static"]


@dataclass(frozen=True)
class Problem:
    """Observations in pixels of the images, and what the solvers need beside them."""

    seen: Observations
    num_frames: int
    size: tuple[int, int]
    center: Float[np.ndarray, "2"]
    pixel: float
    """Size of a pixel of the flow fields, in pixels of the images."""
    scales: tuple[float, ...]
    """Of the robust loss in pixels of the images, from tolerant to strict."""
    known_focal: float | None

    @property
    def longer_side(self) -> int:
        return max(self.size)

    @staticmethod
    def of(flow: VideoFlow, seen: Observations, options: CameraOptions) -> Problem:
        H, W = flow.image_height, flow.image_width
        sx, sy = W / flow.width, H / flow.height
        pixel = float(np.sqrt(sx * sy))
        return Problem(
            seen.scaled(sx, sy),
            flow.num_frames,
            (H, W),
            np.array([W / 2, H / 2]),
            pixel,
            tuple(pixel * scale for scale in (*options.search.loss_scales, options.noise)),
            options.known_focal(W),
        )

    def intrinsics(self, focal: float) -> Float[np.ndarray, "3 3"]:
        return np.array([[focal, 0, self.center[0]], [0, focal, self.center[1]], [0, 0, 1.0]])


@dataclass(frozen=True)
class Candidate:
    """One start and what came of it."""

    method: str
    start: float
    scene: Scene
    cost: float
    """Mean over the observations in square pixels of the flow fields."""
    inlier_share: float
    """Of the observations within a pixel of the flow fields."""
    seconds: float

    def record(self, longer_side: int) -> dict:
        return {
            "method": self.method,
            "start": round(self.start / longer_side, 4),
            "focal": round(self.scene.focal / longer_side, 4),
            "cost": round(self.cost, 5),
            "inlier_share": round(self.inlier_share, 4),
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Found:
    """The best cameras, and what was tried on the way."""

    method: str
    scene: Scene
    findings: dict
    """starts, failures, focal_known, focal_spread, focal_cost_rise, loss_scale_px: plain JSON."""


def search(problem: Problem, method: Method, options: CameraOptions, say: Progress) -> Found:
    """Tries all starts with some of the points, and refines the one of the lowest cost with all.

    Raises:
        UserError: no start leads anywhere.
    """
    if method == "global_mapping" and not is_available():
        raise UserError(
            "global mapping needs pycolmap 4 or later; pip install 'som4d[cameras]', or choose bundle-adjustment as "
            "`cameras.provider`."
        )
    failures: list[str] = []
    first = "global_mapping" if method == "global_mapping" else "bundle_adjustment"
    candidates = _try_starts(problem, options, first, failures, say)
    doubtful = max((c.inlier_share for c in candidates), default=0) < options.search.min_inlier_share
    if method == "auto" and doubtful and is_available():
        candidates += _try_starts(problem, options, "global_mapping", failures, say)
    if not candidates:
        raise UserError(
            f"no cameras could be estimated ({'; '.join(failures)}); give masks of what moves, `cameras.focal`, or "
            "cameras from another program."
        )
    say("looking at the reversed scene", 0.78)
    lowest = min(candidates, key=lambda c: c.cost)
    best, reversal = _unreversed(problem, options, lowest)
    findings = reversal | {
        "focal_known": problem.known_focal is not None,
        "longer_side": problem.longer_side,
        "starts": [c.record(problem.longer_side) for c in candidates],
        "failures": failures,
    }
    if problem.known_focal is None:
        say("testing the focal length", 0.8)
        most_cost = options.search.max_cost_ratio * lowest.cost
        possible = [c.scene.focal for c in (best, *candidates) if c.cost <= most_cost]
        findings["focal_spread"] = float(max(possible) / min(possible) - 1)
        findings["focal_cost_rise"] = _focal_cost_rise(problem, options, best)
    say("refining", 0.85)
    complete = _triangulated(problem, problem.seen, best.scene.w2c(), best.scene.focal)
    prior = _prior(problem, options)
    refined = refine_scene(complete, problem.seen, problem.center, scales=problem.scales[1:], prior=prior)
    noise = residual_scale(refined.scene, problem.seen, problem.center)
    least, most = (factor * problem.scales[-1] for factor in options.search.noise_range)
    last = min(max(float(noise), least), most)
    refined = refine_scene(refined.scene, problem.seen, problem.center, scales=(last,), prior=prior)
    return Found(best.method, refined.scene, findings | {"loss_scale_px": round(last, 4)})


def _try_starts(
    problem: Problem, options: CameraOptions, method: str, failures: list[str], say: Progress
) -> list[Candidate]:
    """What comes of every focal length to start from; appends to ``failures`` where nothing does."""
    starts = [problem.known_focal] if problem.known_focal else [s * problem.longer_side for s in options.focal_starts]
    candidates = []
    for i, start in enumerate(starts):

        def report(share: float, i=i, start=start) -> None:
            what = method.replace("_", " ")
            say(f"{what}, focal length from {start:.0f} px", 0.05 + 0.75 * (i + share) / len(starts))

        try:
            candidates.append(_solve(problem, options, method, start, report))
        except GlobalMappingError as error:
            failures.append(f"{method} from {start:.0f} px: {error}")
    return candidates


def _unreversed(problem: Problem, options: CameraOptions, best: Candidate) -> tuple[Candidate, dict]:
    """The better one of a scene and of its reversal in depth, and how close both are."""
    seen = problem.seen.thinned(options.search_points)
    prior, scales = _prior(problem, options), problem.scales[:-1]
    turned = refine_scene(reversed_scene(best.scene, seen), seen, problem.center, scales=scales, prior=prior)
    cost = turned.cost / (len(seen.xy) * problem.pixel**2)
    below, turned_below = nearness_below(best.scene, seen), nearness_below(turned.scene, seen)
    use = prefer_reversed(best.cost, cost, below, turned_below)
    findings = {
        "reversal_cost_ratio": cost / best.cost,
        "reversal_used": use,
        "nearness_below": turned_below if use else below,
    }
    if not use:
        return best, findings
    inliers = float((residuals(turned.scene, seen, problem.center)[1] < problem.pixel**2).mean())
    return replace(best, scene=turned.scene, cost=cost, inlier_share=inliers), findings


def _focal_cost_rise(problem: Problem, options: CameraOptions, best: Candidate) -> float:
    """Relative rise of the cost at least if the focal length is held longer or shorter and all else adapts."""
    seen = problem.seen.thinned(options.search_points)
    scale, change = problem.scales[-2:-1], options.search.focal_change
    free, longer, shorter = (
        refine_scene(
            replace(best.scene, focal=factor * best.scene.focal), seen, problem.center, scales=scale, prior=None
        )
        for factor in (1.0, change, 1 / change)
    )
    return float(min(longer.cost, shorter.cost) / free.cost - 1)


def _solve(
    problem: Problem, options: CameraOptions, method: str, start: float, report: Callable[[float], None]
) -> Candidate:
    """Cameras from one start and some of the points, with a free focal length, or with the known one."""
    began = time.monotonic()
    report(0.0)
    seen = problem.seen.thinned(options.search_points)
    if method == "global_mapping":
        scene = _mapped_scene(problem, seen, options, start)
    else:
        scene = build_scene(
            seen,
            problem.num_frames,
            problem.center,
            start,
            scale=problem.scales[0],
            options=options.incremental,
            progress=lambda share: report(0.7 * share),
        )
    report(0.7)
    # All but the last, strict scale, at which the cost hardly differs between a bad scene and a worse one.
    solution = refine_scene(scene, seen, problem.center, scales=problem.scales[:-1], prior=_prior(problem, options))
    cost = solution.cost / (len(seen.xy) * problem.pixel**2)
    report(1.0)
    squared = residuals(solution.scene, seen, problem.center)[1]
    inliers = float((squared < problem.pixel**2).mean())
    return Candidate(method, start, solution.scene, cost, inliers, time.monotonic() - began)


def _prior(problem: Problem, options: CameraOptions) -> FocalPrior | None:
    return None if problem.known_focal else FocalPrior(options.default_focal * problem.longer_side)


def _mapped_scene(problem: Problem, seen: Observations, options: CameraOptions, focal: float) -> Scene:
    """pycolmap's cameras, those it left out interpolated, and all points triangulated anew."""
    mapped = map_cameras(
        seen,
        problem.num_frames,
        problem.size,
        focal,
        options,
        options.num_threads or torch.get_num_threads(),
        known_focal=problem.known_focal is not None,
    )
    return _triangulated(problem, seen, interpolate_poses(mapped.w2c, mapped.registered), mapped.focal)


def _triangulated(problem: Problem, seen: Observations, w2c: Float[np.ndarray, "t 4 4"], focal: float) -> Scene:
    return normalized(triangulated_scene(seen, w2c, focal, problem.center), seen)
