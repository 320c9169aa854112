"""The last prior: depth, estimated from the clip or given, in one scale with the cameras."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from depth.data.sequence import target_size
from depth.errors import DepthError, NoParallaxError
from depth.estimate import DepthPrior, estimate_depth, guess_layout
from depth.geometry import resize_intrinsics
from depth.records import write_depth_prior
from depth.training.collapse import CollapseError
from depth.training.config import DepthConfig
from flow.frames import reduce_image
from flow.track_files import read_tracks
from som.device import choose_device
from som.errors import UserError
from som.preprocessing.importing.cameras import import_cameras
from som.preprocessing.importing.depth import import_depth
from som.preprocessing.moving_depth import keep_size
from som.preprocessing.scene_cameras import SceneCameras
from som.preprocessing.stages import Outcome
from som.preprocessing.workspace import Progress, Workspace

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
        names=work.frames.names,
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
    options, names = work.run.cameras, work.frames.names
    given = import_cameras(
        options.given,
        names=names,
        size=tuple(work.frames.size),
        kind=options.given_kind,
        focal=options.focal,
        fov=options.fov,
        source_size=options.given_size,
        allow_pickle=options.allow_pickle,
    )
    if given.depth is None:
        return None
    kind = "metric" if given.world_scale == "metric" else "scale"
    depth = torch.from_numpy(given.depth)
    _write(work, work.cameras, depth, None, kind, given.source)
    return Outcome("given with the cameras", "given", {"kind": kind, "coverage": float((depth > 0).float().mean())})


def _estimated(work: Workspace, progress: Progress) -> Outcome:
    """Plane sweep and network; a guess at the layout where the camera does not travel."""
    options, cameras, size = work.run.depth, work.cameras, tuple(work.frames.size)
    used = np.flatnonzero(cameras.registered)
    small = target_size(size, max_side=min(options.max_side, max(size)))
    images = np.stack([reduce_image(work.images[i], max(small)) for i in used])
    small = images.shape[1:3]
    frames = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    K = resize_intrinsics(torch.from_numpy(cameras.K[used]).float(), small[1] / size[1], small[0] / size[0])
    w2c = torch.from_numpy(cameras.w2c[used]).float()
    moving = None
    if work.foreground is not None:
        moving = torch.nn.functional.adaptive_max_pool2d(work.foreground[used].float()[:, None], small)[:, 0] > 0.5
    warnings = []
    reason = "the camera stands still" if cameras.static and options.method != "layout" else None
    if options.method != "layout" and reason is None:
        sparse = torch.from_numpy(cameras.sparse_maps(size, small)[used])
        try:
            prior = estimate_depth(
                frames,
                K,
                w2c,
                moving,
                sparse=sparse if bool((sparse > 0).any()) else None,
                weights=options.weights,
                config=DepthConfig(max_side=max(small), seed=work.run.seed, refine_poses=options.refine_poses),
                device=choose_device(work.run.device, work.run.threads),
                budget_s=options.budget_s,
                progress=progress,
            )
            if prior.scale_log.get("poses_refined"):
                refined = dataclasses.replace(cameras, w2c=_placed(cameras.w2c, used, prior.w2c))
                work.write_header(refined, work.provenance())
            return _finish(work, prior, used, moving, warnings)
        except (NoParallaxError, CollapseError) as error:
            if options.method == "estimate":
                raise UserError(f"depth: {error}") from error
            reason = str(error).rstrip(".")
        except DepthError as error:
            raise UserError(f"depth: {error}") from error
    elif options.method == "estimate":
        raise UserError("--depth.method estimate: the camera stands still, so the clip shows no depth; use layout.")
    if reason is not None:
        warnings.append(
            f"depth cannot be measured ({reason}); a guess is used, level ground and a wall with moving things "
            "standing on it. Views from where the camera was are right, views from elsewhere are not; depth of another "
            "program (--depth.given) would help."
        )
    points = torch.from_numpy(cameras.sparse_maps(size, small, all_points=True)[used])
    prior = guess_layout(frames, K, moving, w2c=w2c, sparse=points)
    if prior.units == "relative":
        # a unit of its own, in which the little that the cameras travel would be arbitrary
        stood = dataclasses.replace(cameras, w2c=_placed(cameras.w2c, used, prior.w2c))
        work.write_header(stood, work.provenance())
    return _finish(work, prior, used, moving, warnings)


def _placed(w2c: Float[np.ndarray, "t 4 4"], used: np.ndarray, placed: Float[Tensor, "n 4 4"]) -> np.ndarray:
    w2c = w2c.copy()
    w2c[used] = placed.double().numpy()
    return w2c


def _finish(
    work: Workspace, prior: DepthPrior, used: np.ndarray, moving: Bool[Tensor, "n h w"] | None, warnings: list[str]
) -> Outcome:
    log = {key: value for key, value in prior.scale_log.items() if value is not None}
    path = work.root / "tracks.npz"
    if moving is not None and bool(moving.any()) and path.is_file():
        (H, W), (h, w) = work.frames.size, moving.shape[1:]
        tracks = read_tracks(path, work.num_frames, scale=(w / W, h / H))
        sized, found = keep_size(prior.depth, moving, tracks.xy[:, used], tracks.visible[:, used])
        prior, log = dataclasses.replace(prior, depth=sized), log | found
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
