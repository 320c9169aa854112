"""Cameras of a casual video from its optical flow: recognises a static camera, tries several focal lengths, says how
far to trust the outcome."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Bool, UInt8

from flow.video_flow import VideoFlow
from som.cameras.geometry import interpolate_poses
from som.errors import UserError
from som.preprocessing.cameras.bundle_adjustment import Scene, residuals
from som.preprocessing.cameras.diagnosis import explain, measure_trust
from som.preprocessing.cameras.observations import observe
from som.preprocessing.cameras.options import CameraOptions, TrustOptions
from som.preprocessing.cameras.result import CameraEstimate
from som.preprocessing.cameras.search import Method, Problem, Progress, search
from som.preprocessing.cameras.static import measure_stillness


def estimate_cameras(
    flow: VideoFlow,
    *,
    method: Method = "auto",
    moving: Bool[np.ndarray, "t h w"] | None = None,
    frames: UInt8[np.ndarray, "t h w 3"] | None = None,
    options: CameraOptions | None = None,
    progress: Progress | None = None,
) -> CameraEstimate:
    """Estimates one pose a frame and one focal length for all.

    Args:
        flow: fields of both directions at stride 1 and, better, further ones; may be smaller than the images.
        method: auto recognises a static camera, else adjusts from several focal lengths and takes the best, and asks
            global mapping too where few points fit and pycolmap is there; global_mapping needs pycolmap;
            bundle_adjustment uses the flow alone; static gives every frame the same camera.
        moving: (T,H,W) at image size, True = moves by itself; points on it are left out.
        frames: (T,H,W,3) RGB at image size; points without texture are then avoided.
        progress: called with what is being done and a share in [0, 1].

    Raises:
        UserError: the inputs do not fit together, or nothing usable comes out.
    """
    options = options or CameraOptions()
    started = time.monotonic()
    _check_inputs(flow, moving, frames)
    say = progress or (lambda what, share: None)
    say("tracking points", 0.0)
    problem = Problem.of(flow, observe(flow, options, moving, frames), options)
    stillness = measure_stillness(problem.seen, flow.num_frames, problem.size, problem.pixel * options.static_motion)
    if method == "static" or (method == "auto" and stillness.is_static):
        estimate = _static_estimate(problem, options)
    else:
        estimate = _moving_estimate(problem, method, options, say)
    estimate.findings |= {
        "static": estimate.static,
        "still_share": stillness.share,
        "largest_median_motion_px": stillness.median_motion,
        "seconds": round(time.monotonic() - started, 2),
    }
    if method == "static" and not stillness.is_static:
        estimate.warnings.append(
            f"the camera was said to be static but the picture moves by up to {stillness.median_motion:.1f} px; "
            "choose `cameras.provider` auto unless moving objects fill most of the picture."
        )
    say("done", 1.0)
    return estimate


def _static_estimate(problem: Problem, options: CameraOptions) -> CameraEstimate:
    T = problem.num_frames
    focal = problem.known_focal or options.default_focal * problem.longer_side
    estimate = CameraEstimate(
        w2c=np.broadcast_to(np.eye(4), (T, 4, 4)).copy(),
        K=problem.intrinsics(focal),
        size=problem.size,
        registered=np.ones(T, bool),
        static=True,
        points=np.zeros((0, 3)),
        obs_frame=np.zeros(0, np.int64),
        obs_point=np.zeros(0, np.int64),
        obs_xy=np.zeros((0, 2)),
        method="static",
    )
    estimate.findings = measure_trust(estimate, options.trust) | {"focal_known": problem.known_focal is not None}
    if problem.known_focal is None:
        fov = estimate.findings["horizontal_fov_deg"]
        estimate.warnings.append(
            f"the camera stands still, which says nothing about its lens: a field of view of {fov:.0f} degrees is "
            "assumed; give `cameras.fov` or `cameras.focal` if you know it."
        )
    return estimate


def _moving_estimate(problem: Problem, method: Method, options: CameraOptions, say: Progress) -> CameraEstimate:
    found = search(problem, method, options, say)
    estimate = _to_estimate(problem, found.method, found.scene, options.trust)
    estimate.findings |= found.findings
    estimate.warnings += explain(estimate, options.trust)
    return estimate


def _to_estimate(problem: Problem, method: str, scene: Scene, options: TrustOptions) -> CameraEstimate:
    """Leaves out points at infinity, judges the frames, and makes the first registered camera the world."""
    seen = problem.seen
    errors = np.sqrt(residuals(scene, seen, problem.center)[1])
    fits = errors < problem.pixel
    inliers = np.bincount(seen.frame[fits], minlength=problem.num_frames)
    total = np.bincount(seen.frame, minlength=problem.num_frames)
    registered = (inliers >= options.min_inliers) & (inliers >= options.min_registered_share * total)
    if registered.sum() < 2:
        raise UserError(
            "no camera motion explains the video's flow; give masks of everything that moves, `cameras.focal`, or "
            "cameras from another program."
        )
    w2c = interpolate_poses(scene.w2c(), registered)
    first = w2c[np.flatnonzero(registered)[0]]
    points = scene.X[:, :3] / np.where(np.abs(scene.X[:, 3:]) > 1e-9, scene.X[:, 3:], 1e-9)
    z = np.einsum("mj,mj->m", w2c[seen.frame, 2, :3], points[seen.point]) + w2c[seen.frame, 2, 3]
    behind = np.bincount(seen.point, z <= 0, minlength=seen.num_points) > 0
    far = np.bincount(seen.point, z > options.max_depth, minlength=seen.num_points) > 0
    kept, chosen = seen.select(~(behind | far)[seen.point])
    points = points[chosen] @ first[:3, :3].T + first[:3, 3]
    estimate = CameraEstimate(
        w2c=w2c @ np.linalg.inv(first),
        K=problem.intrinsics(scene.focal),
        size=problem.size,
        registered=registered,
        static=False,
        points=points,
        obs_frame=kept.frame,
        obs_point=kept.point,
        obs_xy=kept.xy,
        method=method,
    )
    estimate.findings = measure_trust(estimate, options)
    return estimate


def _check_inputs(flow: VideoFlow, moving: np.ndarray | None, frames: np.ndarray | None) -> None:
    size = (flow.num_frames, flow.image_height, flow.image_width)
    for name, value, expected in (("moving", moving, size), ("frames", frames, (*size, 3))):
        if value is not None and tuple(value.shape) != expected:
            raise UserError(
                f"{name} must be {expected} to fit the flow, got {tuple(value.shape)}; make both from the same frames."
            )
    if flow.num_frames < 3:
        raise UserError(f"cameras need at least 3 frames, the video has {flow.num_frames}; take more of it.")
