"""Optical flow in both directions to flow/."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from flow.compute import compute_video_flow
from flow.consistency import check_consistency
from flow.factory import make_estimator
from flow.progress import Progress
from flow.video_flow import VideoFlow
from som.errors import UserError
from som.preprocessing.config import FlowSettings, PreprocessRun
from som.preprocessing.stages.base import Outcome, Stage
from som.preprocessing.workspace import Workspace

MIN_CONSISTENT_SHARE = 0.5
"""Share of pixels with forward and backward flow between neighbours in agreement below which flow is unreliable."""


class Flow(Stage):
    """Over several distances in time. An interruption costs one field."""

    name = "flow"
    needs = ("frames",)
    settings = FlowSettings
    leaves = ("flow",)

    def covers(self, run: PreprocessRun) -> list[Any]:
        return [run.flow]

    def check(self, run: PreprocessRun) -> None:
        options = run.flow
        if not options.strides or min(options.strides) < 1 or 1 not in options.strides:
            raise UserError(f"`flow.strides`: distances >= 1 with 1 among them are expected, got {options.strides}.")
        if options.max_side < 64:
            raise UserError(f"`flow.max_side`: must be at least 64, got {options.max_side}.")
        if options.weights is not None and not options.weights.is_file():
            raise UserError(f"`flow.weights` {options.weights}: no such file.")
        with torch.random.fork_rng(devices=[]):  # a network is made with random weights before it gets its own
            make_estimator(options.estimator, weights=options.weights)

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        options, T = work.run.flow, work.num_frames
        estimator = make_estimator(options.estimator, weights=options.weights, device=work.device)
        made = compute_video_flow(
            work.images,
            estimator,
            strides=[stride for stride in options.strides if stride < T],
            max_side=options.max_side,
            folder=work.root / "flow",
            progress=progress,
        )
        findings, warnings = _judge(made, T), []
        share = findings["consistent_share"]["1"]
        if share < MIN_CONSISTENT_SHARE:
            warnings.append(
                f"optical flow between neighbouring frames is reliable on {100 * share:.0f} % of the pixels only: the "
                "motion is very fast, or the picture blurred or without texture; more frames per second would help."
            )
        return Outcome(" ".join(map(str, estimator.provenance().values())), "done", findings, warnings)


def _judge(made: VideoFlow, T: int) -> dict[str, Any]:
    """Size, and on up to 8 pairs of each stride how well forward and backward flow agree; motion in pixels."""
    agree, speed = {}, []
    for stride in made.strides():
        starts = np.unique(np.linspace(0, T - stride - 1, 8).astype(int)).tolist()
        checks = [check_consistency(made.get(s, s + stride), made.get(s + stride, s))[0].consistent for s in starts]
        agree[str(stride)] = round(float(torch.stack(checks).float().mean()), 3)
        if stride == 1:
            speed = [float(made.get(s, s + 1).norm(dim=-1).median()) for s in starts]
    return {
        "size": [made.height, made.width],
        "consistent_share": agree,
        "median_motion_px": round(float(np.median(speed)), 2),
    }
