"""The last prior: depth, estimated from the clip or given, in one scale with the cameras."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flow.frames import reduce_image
from flow.progress import Progress
from flow.track_files import read_tracks
from som.cameras.geometry import resize_intrinsics
from som.depth.errors import DepthError, NoParallaxError
from som.depth.estimate import DepthPrior, estimate_depth, guess_layout
from som.depth.records import write_depth_prior
from som.depth.training.collapse import CollapseError
from som.depth.training.config import DepthConfig
from som.errors import UserError
from som.preprocessing.importing.depth import import_depth
from som.preprocessing.moving.depth import moving_depth
from som.preprocessing.scene_cameras import SceneCameras
from som.preprocessing.stages import Outcome, given_cameras
from som.preprocessing.workspace import Workspace
from som.runs.device import choose_device

MIN_ANCHORS = 50
"""Triangulated points that must have a given depth for its scale to be compared with that of the cameras."""
WRONG_SPREAD = 0.3
"""Relative spread of that scale, over the points, above which depth and cameras hardly fit each other."""


def depth(work: Workspace, progress: Progress) -> Outcome:
    """Depth to depth/ and depth_confidence/, and transforms.json, which makes the folder a data set."""
    provenance = work.provenance()
    work.write_header(work.cameras, provenance)
    if "depth" in work.run.skip:
        return Outcome("left out, as the options say", "skipped")
    if work.run.depth.given is not None:
        return _given(work, provenance)
    if work.run.cameras.given is not None and work.run.depth.method == "auto":
        outcome = _from_cameras_file(work)
        if outcome is not None:
            return outcome
    return _estimated(work, progress)


def _given(work: Workspace, provenance: dict) -> Outcome:
    """Depth of another program, with cameras brought to its scale or it to the cameras'."""
    options, cameras = work.run.depth, work.cameras
    given = import_depth(
        options.given,
        frames=work.frames.naming,
        size=tuple(work.frames.size),
        kind=options.given_kind,
        values=options.given_values,
        unit=options.given_unit,
        source_size=options.given_size,
    )
    depth, warnings, findings = given.depth, list(given.warnings), {"kind": given.kind, **given.source}
    if given.kind != "relative":
        ratio = _scale_of(depth, cameras, tuple(work.frames.size))
        if ratio is None and not cameras.static:
            warnings.append(
                "the scale of the given depth could not be compared with that of the cameras, for lack of triangulated "
                "points, and is taken to be the same; if the scene comes out torn, give --depth.given-kind relative."
            )
        if ratio is not None:
            factor, spread = ratio
            findings |= {"scale_of_cameras": factor, "scale_spread": spread}
            if spread > WRONG_SPREAD:
                warnings.append(
                    f"given depth and triangulated points differ by a factor that spreads by {100 * spread:.0f} %: the "
                    "depth is not of one scale; --depth.given-kind relative lets training align every frame."
                )
            if given.kind == "metric" and cameras.world_scale != "metric":
                cameras = cameras.scaled(factor, "metric")
            else:
                depth = depth / factor
        elif given.kind == "metric" and cameras.static:
            cameras = cameras.scaled(1.0, "metric")
        work.write_header(cameras, provenance)
    _write(work, cameras, depth, given.confidence, given.kind, given.source)
    findings["coverage"] = round(float((depth > 0).float().mean()), 3)
    return Outcome("given", "given", findings, warnings)


def _scale_of(depth: Tensor, cameras: SceneCameras, size: tuple[int, int]) -> tuple[float, float] | None:
    """Median of given depth over triangulated depth, and its relative spread (median deviation); None for too few."""
    sparse = torch.from_numpy(cameras.sparse_maps(size, size))
    both = (sparse > 0) & (depth > 0)
    if int(both.sum()) < MIN_ANCHORS:
        return None
    ratio = depth[both] / sparse[both]
    factor = float(ratio.median())
    return factor, float((ratio / factor - 1).abs().median())


def _from_cameras_file(work: Workspace) -> Outcome | None:
    """The depth that came in the file of the given cameras, if it holds any: it has their scale."""
    given = given_cameras(work)
    if given.depth is None:
        return None
    kind = "metric" if given.world_scale == "metric" else "scale"
    depth = torch.from_numpy(given.depth)
    _write(work, work.cameras, depth, None, kind, given.source)
    return Outcome("given with the cameras", "given", {"kind": kind, "coverage": float((depth > 0).float().mean())})


@dataclass(frozen=True)
class _Clip:
    """The registered frames at the size that depth is estimated at."""

    used: Int[np.ndarray, "n"]
    frames: Float[Tensor, "n 3 h w"]
    K: Float[Tensor, "n 3 3"]
    w2c: Float[Tensor, "n 4 4"]
    moving: Bool[Tensor, "n h w"] | None

    @staticmethod
    def of(work: Workspace) -> _Clip:
        cameras, size = work.cameras, tuple(work.frames.size)
        used = np.flatnonzero(cameras.registered)
        images = np.stack([reduce_image(work.images[i], work.run.depth.max_side) for i in used])
        small, moving = images.shape[1:3], None
        if work.foreground is not None:
            shares = work.foreground[used].float()[:, None]
            moving = torch.nn.functional.adaptive_max_pool2d(shares, small)[:, 0] > 0.5
        K = torch.from_numpy(cameras.K[used]).float()
        return _Clip(
            used=used,
            frames=torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
            K=resize_intrinsics(K, small[1] / size[1], small[0] / size[0]),
            w2c=torch.from_numpy(cameras.w2c[used]).float(),
            moving=moving,
        )

    def points(self, work: Workspace, all_points: bool = False) -> Float[Tensor, "n h w"]:
        """z of the triangulated points, 0 elsewhere."""
        small = tuple(self.frames.shape[2:])
        maps = work.cameras.sparse_maps(tuple(work.frames.size), small, all_points)
        return torch.from_numpy(maps[self.used])


def _estimated(work: Workspace, progress: Progress) -> Outcome:
    """Plane sweep and network; a guess at the layout where the camera does not travel."""
    method, clip, warnings = work.run.depth.method, _Clip.of(work), []
    if method != "layout":
        prior, reason = (None, "the camera stands still") if work.cameras.static else _measured(work, clip, progress)
        if prior is not None:
            if prior.scale_log.get("poses_refined"):
                _replace_poses(work, clip, prior)
            return _finish(work, clip, prior, warnings)
        if method == "estimate":
            raise UserError(f"--depth.method estimate: {reason}; use auto or layout, or give depth (--depth.given).")
        warnings.append(
            f"depth cannot be measured ({reason}); a guess is used, level ground and a wall with moving things "
            "standing on it. Views from where the camera was are right, views from elsewhere are not; depth of another "
            "program (--depth.given) would help."
        )
    prior = guess_layout(clip.frames, clip.K, clip.moving, w2c=clip.w2c, sparse=clip.points(work, all_points=True))
    if prior.units == "relative":
        # a unit of its own, in which the little that the cameras travel would be arbitrary
        _replace_poses(work, clip, prior)
    return _finish(work, clip, prior, warnings)


def _measured(work: Workspace, clip: _Clip, progress: Progress) -> tuple[DepthPrior | None, str]:
    """The estimate, or None and why the clip does not show its depth."""
    options, points = work.run.depth, clip.points(work)
    try:
        prior = estimate_depth(
            clip.frames,
            clip.K,
            clip.w2c,
            clip.moving,
            sparse=points if bool((points > 0).any()) else None,
            weights=options.weights,
            config=DepthConfig(max_side=options.max_side, seed=work.run.seed, refine_poses=options.refine_poses),
            device=choose_device(work.run.device),
            budget_s=options.budget_s,
            progress=progress,
        )
        return prior, ""
    except (NoParallaxError, CollapseError) as error:
        return None, str(error).rstrip(".")
    except DepthError as error:
        raise UserError(f"depth: {error}") from error


def _replace_poses(work: Workspace, clip: _Clip, prior: DepthPrior) -> None:
    """Writes transforms.json with the poses that the depth goes with, and with their unit."""
    w2c = work.cameras.w2c.copy()
    w2c[clip.used] = prior.w2c.double().numpy()
    scale = "arbitrary" if prior.units == "relative" else work.cameras.world_scale
    work.write_header(dataclasses.replace(work.cameras, w2c=w2c, world_scale=scale), work.provenance())


def _finish(work: Workspace, clip: _Clip, prior: DepthPrior, warnings: list[str]) -> Outcome:
    """Corrects the depth of moving things, and writes it."""
    used, moving = clip.used, clip.moving
    log = {key: value for key, value in prior.scale_log.items() if value is not None}
    path = work.root / "tracks.npz"
    if moving is not None and bool(moving.any()) and path.is_file():
        (H, W), (h, w) = work.frames.size, moving.shape[1:]
        tracks = read_tracks(path, work.num_frames, scale=(w / W, h / H))
        corrected, found = moving_depth(
            prior.depth, prior.confidence, moving, tracks.xy[:, used], tracks.visible[:, used], clip.K
        )
        prior, log = dataclasses.replace(prior, depth=corrected), log | found
    names = [work.frames.names[i] for i in used]
    # a guessed layout has one unit for the whole clip, too
    kind = "metric" if prior.units == "metric" else "scale"
    write_depth_prior(
        work.root, prior.depth, prior.confidence, kind, log, names=names, overwrite=True, drop_other_depth=True
    )
    findings = {"kind": kind, **log, "mean_confidence": round(float(prior.confidence.mean()), 3)}
    return Outcome(str(log.get("method", "estimated")), "done", findings, warnings + list(log.get("warnings", [])))


def _write(work: Workspace, cameras: SceneCameras, depth: Tensor, confidence: Tensor | None, kind: str, source) -> None:
    """Depth (T,H,W) of the registered frames."""
    used = np.flatnonzero(cameras.registered)
    names = [work.frames.names[i] for i in used]
    confidence = None if confidence is None else confidence[used]
    try:
        write_depth_prior(
            work.root, depth[used], confidence, kind, source, names=names, overwrite=True, drop_other_depth=True
        )
    except DepthError as error:
        raise UserError(f"depth: {error}") from error
