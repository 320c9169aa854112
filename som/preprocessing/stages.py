"""The stages from a video to a data set folder. Each reads what earlier ones left and says what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from flow.compute import compute_video_flow
from flow.consistency import check_consistency
from flow.errors import FlowError
from flow.factory import make_estimator
from flow.progress import Progress
from flow.queries import query_points
from flow.track_files import write_tracks
from flow.tracks import TrackingOptions, track_points
from som.errors import UserError
from som.preprocessing.cameras.estimate import estimate_cameras
from som.preprocessing.cameras.options import CameraOptions
from som.preprocessing.config import part
from som.preprocessing.frames.extract import extract_frames
from som.preprocessing.importing.cameras import ImportedCameras, import_cameras
from som.preprocessing.importing.masks import ImportedMasks, import_masks
from som.preprocessing.importing.tracks import import_tracks
from som.preprocessing.masks.estimate import estimate_masks
from som.preprocessing.masks.options import MaskOptions
from som.preprocessing.scene_cameras import SceneCameras
from som.preprocessing.workspace import Workspace
from som.runs.device import choose_device

WEAK_FLOW = 0.5
"""Below this share of pixels on which forward and backward flow agree between neighbours, flow is called unreliable."""
SHORT_TRACKS = 4
"""Frames below which the mean moving track is too short to carry motion."""
CAMERA_REMEDY = "give a part in which the camera moves steadily (--frames.start, --frames.end), or --cameras.given."


@dataclass
class Outcome:
    """How a stage ended."""

    method: str
    """What did it, in words."""
    state: str = "done"
    findings: dict[str, Any] = field(default_factory=dict)
    """Plain JSON."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that a person should read."""


Stage = Callable[[Workspace, Progress], Outcome]


def frames(work: Workspace, progress: Progress) -> Outcome:
    """Video or images to images/."""
    work.frames = extract_frames(work.run.source, work.root / "images", work.run.frames, progress)
    work.forget("images")
    H, W = work.frames.size
    return Outcome(f"{work.num_frames} frames of {W}x{H}", "done", work.frames.findings, work.frames.warnings)


def flow(work: Workspace, progress: Progress) -> Outcome:
    """Optical flow in both directions to flow/."""
    options, T = work.run.flow, work.num_frames
    try:
        device = choose_device(work.run.device)
        estimator = make_estimator(options.estimator, weights=options.weights, device=device)
        made = compute_video_flow(
            work.images,
            estimator,
            strides=[stride for stride in options.strides if stride < T],
            max_side=options.max_side,
            folder=work.root / "flow",
            progress=progress,
        )
    except FlowError as error:
        raise UserError(f"optical flow: {error}") from error
    work.forget("flow")
    agree, speed = {}, []
    for stride in made.strides():
        starts = np.unique(np.linspace(0, T - stride - 1, 8).astype(int))
        checks = [check_consistency(made.get(s, s + stride), made.get(s + stride, s))[0].consistent for s in starts]
        agree[str(stride)] = round(float(torch.stack(checks).float().mean()), 3)
        if stride == 1:
            speed = [float(made.get(s, s + 1).norm(dim=-1).median()) for s in starts]
    findings = {"size": [made.height, made.width], "consistent_share": agree}
    findings["median_motion_px"] = round(float(np.median(speed)), 2)
    warnings = []
    if agree["1"] < WEAK_FLOW:
        warnings.append(
            f"optical flow between neighbouring frames is reliable on {100 * agree['1']:.0f} % of the pixels only: the "
            "motion is very fast, or the picture blurred or without texture; more frames per second would help."
        )
    return Outcome(" ".join(map(str, estimator.provenance().values())), "done", findings, warnings)


def motion(work: Workspace, progress: Progress) -> Outcome:
    """First masks to motion/, by cameras that are estimated from everything: they keep moving things out of the next.

    A large moving thing can be mistaken for near ground by a camera that hardly travels; what moves can only be told
    apart with the help of cameras. So both are found twice.
    """
    run = work.run
    if (
        "masks" in run.skip
        or run.masks.method == "none"
        or run.masks.given is not None
        or run.cameras.given is not None
    ):
        return Outcome("not needed", "skipped")
    options = part(run.cameras, CameraOptions)
    quick = dataclasses.replace(options, focal_starts=(options.default_focal,))
    found, known = {}, {}
    try:
        rough = estimate_cameras(
            work.flow, frames=work.images, options=quick, progress=lambda text, share: progress(text, 0.6 * share)
        )
        known = {"K": rough.K, "w2c": rough.w2c, "registered": rough.registered}
    except UserError as error:
        found["cameras"] = str(error)  # masks from the picture's own motion may help the next attempt
    masks = estimate_masks(
        work.flow,
        torch.from_numpy(work.images),
        **known,
        options=part(run.masks, MaskOptions),
        progress=lambda text, share: progress(text, 0.6 + 0.4 * share),
    )
    work.write_masks("motion", masks.foreground)
    work.forget("motion")
    return Outcome(masks.method, "done", masks.findings | found)


def cameras(work: Workspace, progress: Progress) -> Outcome:
    """Cameras to cameras.npz."""
    options, names = work.run.cameras, work.frames.names
    if options.given is not None:
        given = given_cameras(work)
        found, outcome = SceneCameras.from_import(given), Outcome("given", "given", given.source, given.warnings)
    else:
        moving = _given_masks(work).foreground if work.run.masks.given is not None else _motion(work)
        estimate = estimate_cameras(
            work.flow,
            moving=None if moving is None else moving.numpy(),
            frames=work.images,
            options=part(options, CameraOptions),
            progress=progress,
        )
        found = SceneCameras.from_estimate(estimate)
        outcome = Outcome(estimate.method, "done", estimate.findings, estimate.warnings)
    if found.registered.sum() < 2:
        count = int(found.registered.sum())
        raise UserError(f"cameras: only {count} of {len(names)} frames have a camera; {CAMERA_REMEDY}")
    found.save(work.root / "cameras.npz")
    work.forget("cameras")
    outcome.findings |= {
        "frames": len(names),
        "registered": int(found.registered.sum()),
        "static": bool(found.static),
        "focal": [round(float(f), 2) for f in found.K[0, [0, 1], [0, 1]]],
    }
    return outcome


def masks(work: Workspace, progress: Progress) -> Outcome:
    """Masks of what moves by itself to foreground/."""
    work.forget("foreground")
    if "masks" in work.run.skip or work.run.masks.method == "none":
        for path in (work.root / "foreground").glob("*.png"):
            path.unlink()
        if (work.root / "foreground").is_dir():
            (work.root / "foreground").rmdir()
        return Outcome("nothing moves, as the options say", "skipped")
    if work.run.masks.given is not None:
        given = _given_masks(work)
        foreground, outcome = given.foreground, Outcome("given", "given", given.source, given.warnings)
    else:
        camera = work.cameras
        found = estimate_masks(
            work.flow,
            torch.from_numpy(work.images),
            K=camera.K[0],
            w2c=camera.w2c,
            registered=camera.registered,
            options=part(work.run.masks, MaskOptions),
            progress=progress,
        )
        foreground, outcome = found.foreground, Outcome(found.method, "done", found.findings, found.warnings)
    shares = foreground.flatten(1).float().mean(1)
    outcome.findings["foreground_share"] = [round(float(share), 4) for share in shares]
    work.write_masks("foreground", foreground)
    return outcome


def tracks(work: Workspace, progress: Progress) -> Outcome:
    """Point tracks to tracks.npz."""
    options, path = work.run.tracks, work.root / "tracks.npz"
    if "tracks" in work.run.skip:
        work.remove(["tracks.npz"])
        return Outcome("left out, as the options say", "skipped")
    H, W = work.frames.size
    if options.given is not None:
        given = import_tracks(options.given, frames=work.frames.naming, size=(H, W), source_size=options.given_size)
        made, outcome = given.tracks, Outcome("given", "given", given.source, given.warnings)
    else:
        xy, times = query_points(
            options.num_tracks,
            work.num_frames,
            (H, W),
            foreground=work.foreground,
            frames=torch.from_numpy(work.images),
            foreground_share=options.foreground_share,
            seed=work.run.seed,
        )
        field = work.flow
        scale = xy.new_tensor([W / field.width, H / field.height])
        progress("tracks", 0.0)
        chained = TrackingOptions(strides=field.strides())
        made = track_points(field, xy / scale, times, chained).scaled(*scale.tolist())
        outcome = Outcome(f"chained flow over {', '.join(map(str, field.strides()))} frames")
    write_tracks(path, made)
    seen = made.visible.sum(1).float()
    outcome.findings |= {"tracks": len(made), "mean_visible_frames": round(float(seen.mean()), 1) if len(made) else 0}
    if work.foreground is not None and len(made):
        start = made.xy[torch.arange(len(made)), made.query_frames].floor().long()
        column, row = start[:, 0].clamp(0, W - 1), start[:, 1].clamp(0, H - 1)
        moving = work.foreground[made.query_frames, row, column]
        mean = float(seen[moving].mean()) if bool(moving.any()) else 0.0
        outcome.findings |= {"moving_tracks": int(moving.sum()), "mean_visible_frames_moving": round(mean, 1)}
        if bool(work.foreground.any()) and mean < SHORT_TRACKS:
            outcome.warnings.append(
                f"points on moving things are followed over {mean:.1f} frames on average, too few to learn their "
                "motion well; more frames per second, or tracks of a learned tracker (--tracks.given), would help."
            )
    return outcome


def given_cameras(work: Workspace) -> ImportedCameras:
    """The cameras of another program that the options name."""
    options = work.run.cameras
    return import_cameras(
        options.given,
        frames=work.frames.naming,
        size=tuple(work.frames.size),
        kind=options.given_kind,
        focal=options.focal,
        fov=options.fov,
        source_size=options.given_size,
        allow_pickle=options.allow_pickle,
    )


def _motion(work: Workspace):
    """The first masks, where this run's options want them."""
    wanted = "masks" not in work.run.skip and work.run.masks.method != "none"
    return work.motion if wanted else None


def _given_masks(work: Workspace) -> ImportedMasks:
    """The masks of another program that the options name."""
    options = work.run.masks
    return import_masks(
        options.given,
        frames=work.frames.naming,
        size=tuple(work.frames.size),
        object_ids=options.given_objects,
        source_size=options.given_size,
    )
