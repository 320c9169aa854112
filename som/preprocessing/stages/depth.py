"""Depth to depth/ and depth_confidence/, in one scale with the cameras; transforms.json, which makes the folder a data
set."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flow.progress import Progress
from flow.track_files import read_tracks
from som.cameras.geometry import resize_intrinsics
from som.data.folder import HEADER
from som.depth.records import write_depth_prior
from som.errors import UserError
from som.preprocessing.config import DepthSettings, PreprocessRun
from som.preprocessing.moving.depth import moving_depth
from som.preprocessing.providers import registry
from som.preprocessing.providers.base import DepthProvider, DepthResult
from som.preprocessing.providers.depth import reduce_masks
from som.preprocessing.scene_cameras import SceneCameras
from som.preprocessing.stages.base import Outcome, ProvidedStage, outcome_of
from som.preprocessing.workspace import Workspace

MIN_COMPARED_POINTS = 50
"""Triangulated points that must have depth for its scale to be compared with that of the cameras."""
MAX_SCALE_SPREAD = 0.3
"""Relative spread of that scale, over the points, above which depth and cameras hardly fit each other."""


class Depth(ProvidedStage[DepthProvider]):
    """Depth of every frame that has a camera."""

    name = "depth"
    needs = ("cameras", "masks", "tracks")
    settings = DepthSettings
    leaves = (HEADER, "depth", "depth_confidence")
    registry = registry.DEPTH

    def covers(self, run: PreprocessRun) -> list[Any]:
        return [*super().covers(run), run.seed, run.name]

    def check(self, run: PreprocessRun) -> None:
        options = run.depth
        if options.max_side < 64:
            raise UserError(f"`depth.max_side`: must be at least 64, got {options.max_side}.")
        for name in ("budget_s", "given_unit"):
            value = getattr(options, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"`depth.{name}`: must be positive, got {value}.")
        if options.weights is not None and not options.weights.is_file():
            raise UserError(f"`depth.weights` {options.weights}: no such file.")
        super().check(run)

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        provenance = work.provenance()
        work.write_header(work.cameras, provenance)
        if self.name in work.run.skip:
            return Outcome("left out, as the options say", "skipped")
        found: DepthResult = self.ask(
            work,
            progress,
            moving=lambda: work.foreground,
            cameras=lambda: work.cameras,
            depth=work.read_depth_of_cameras,
            tracks=work.read_tracks,
        )
        self.expect("depth", found.depth, (work.num_frames, None, None))
        if found.confidence is not None:
            self.expect("confidence", found.confidence, tuple(found.depth.shape))
        outcome = outcome_of(found)
        outcome.findings = {"kind": found.kind, **outcome.findings}
        depth, cameras, source = found.depth, found.cameras or work.cameras, dict(found.source)
        if found.unit == "own" and found.kind != "relative":
            depth, cameras = _in_one_scale(found, cameras, work, outcome)
        if cameras is not work.cameras:
            work.write_header(cameras, provenance)
        used = np.flatnonzero(cameras.registered)
        depth, confidence = depth[used], None if found.confidence is None else found.confidence[used]
        if found.moving == "unknown":
            depth, corrected = _with_moving_objects(depth, confidence, used, work)
            source, outcome.findings = source | corrected, outcome.findings | corrected
        names = [work.frames.names[i] for i in used]
        write_depth_prior(
            work.root, depth, confidence, found.kind, source, names=names, overwrite=True, drop_other_depth=True
        )
        outcome.findings["coverage"] = round(float((depth > 0).float().mean()), 3)
        if confidence is not None:
            outcome.findings["mean_confidence"] = round(float(confidence.mean()), 3)
        return outcome


def _in_one_scale(
    found: DepthResult, cameras: SceneCameras, work: Workspace, outcome: Outcome
) -> tuple[Tensor, SceneCameras]:
    """Depth and cameras, one of them scaled to the other: cameras become metric if depth is, else depth follows."""
    ratio = _scale_of(found.depth, cameras, work.frames.size)
    if ratio is None:
        if found.kind == "metric" and cameras.static:
            return found.depth, cameras.scaled(1.0, "metric")
        if not cameras.static:
            outcome.warnings.append(
                "the scale of the given depth could not be compared with that of the cameras, for lack of triangulated "
                "points, and is taken to be the same; if the scene comes out torn, set `depth.given_kind` to relative."
            )
        return found.depth, cameras
    factor, spread = ratio
    outcome.findings |= {"scale_of_cameras": factor, "scale_spread": spread}
    if spread > MAX_SCALE_SPREAD:
        outcome.warnings.append(
            f"given depth and triangulated points differ by a factor that spreads by {100 * spread:.0f} %: the "
            "depth is not of one scale; `depth.given_kind` relative lets training align every frame."
        )
    if found.kind == "metric" and cameras.world_scale != "metric":
        return found.depth, cameras.scaled(factor, "metric")
    return found.depth / factor, cameras


def _scale_of(depth: Tensor, cameras: SceneCameras, size: tuple[int, int]) -> tuple[float, float] | None:
    """Median of depth over triangulated depth, and its relative spread (median deviation); None for too few."""
    sparse = torch.from_numpy(cameras.sparse_maps(size, (depth.shape[1], depth.shape[2])))
    both = (sparse > 0) & (depth > 0)
    if int(both.sum()) < MIN_COMPARED_POINTS:
        return None
    ratio = depth[both] / sparse[both]
    factor = float(ratio.median())
    return factor, float((ratio / factor - 1).abs().median())


def _with_moving_objects(
    depth: Tensor, confidence: Tensor | None, used: np.ndarray, work: Workspace
) -> tuple[Tensor, dict[str, Any]]:
    """Depth (n,h,w) of the frames ``used`` with that of moving objects corrected, and what was done."""
    (H, W), (h, w), path = work.frames.size, depth.shape[1:], work.root / "tracks.npz"
    if work.foreground is None or not path.is_file():
        return depth, {}
    moving = reduce_masks(work.foreground[used], (h, w))
    if not bool(moving.any()):
        return depth, {}
    tracks = read_tracks(path, work.num_frames, scale=(w / W, h / H))
    K = resize_intrinsics(torch.from_numpy(work.cameras.K[used]).float(), w / W, h / H)
    confidence = torch.ones_like(depth) if confidence is None else confidence
    options = work.run.depth.moving
    return moving_depth(depth, confidence, moving, tracks.xy[:, used], tracks.visible[:, used], K, options)
