"""A guess at the depth of a clip that shows none: the camera stands still, or only turns."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import pixel_centers, unproject
from som.depth.errors import DepthError
from som.depth.estimate.blending import gaussian_blur
from som.depth.estimate.moving import stand_on_ground
from som.depth.estimate.prior import Clip, DepthPrior, check_clip

PITCH_DEG = 5.0
"""Degrees by which a camera held in the hand is taken to look down."""
WALL_DISTANCE = 5.0
"""Distance of the wall in heights of the camera above the ground. Its error: docs/depth.md."""
PITCHES_DEG = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0, 30.0)
WALL_DISTANCES = (2.0, 3.0, 5.0, 8.0, 13.0, 21.0)
"""What a layout is fitted over."""
ERROR_PER_STEP = 0.01
"""Relative error of depth that has to be gained for each step away from the usual pitch and distance."""
FIT_SIDE_POINTS = 96
"""Layouts are compared with depth at so many points along the longer side."""
MIN_FIT_POINTS = 50
POINT_REACH_SHARE = 0.04
"""How far, as a share of the longer image side, a triangulated point bends the layout around it."""
LONE_POINT_DAMPING = 5.0
"""A point by itself bends the layout by 1 / (1 + this) of its deviation: with so little parallax points are noisy."""
MAX_LOG_DEVIATION = 1.0
"""Largest deviation in log depth that is believed of a point."""
STATIC_CONFIDENCE = 0.1
"""Of the ground and the wall: nothing was measured."""
MOVING_CONFIDENCE = 0.05
"""Of moving pixels that stand on nothing."""
OBJECT_CONFIDENCE = 0.2
"""Of moving objects at the depth of their foot: their order in depth is likely right, their distance is not known."""


def guess_layout(
    frames: Float[Tensor, "t 3 h w"],
    K: Float[Tensor, "*t 3 3"],
    moving: Bool[Tensor, "t h w"] | None = None,
    *,
    w2c: Float[Tensor, "t 4 4"] | None = None,
    valid: Bool[Tensor, "t h w"] | None = None,
    sparse: Float[Tensor, "t h w"] | None = None,
    pitch: float = PITCH_DEG,
    wall: float = WALL_DISTANCE,
) -> DepthPrior:
    """Depth of a scene that looks as most do: level ground that recedes to a wall, on which moving objects stand.

    Nothing of it is measured. It gives what cannot be known a sane shape: near at the bottom of the image, far above,
    moving objects in front of what they hide. With n the downward unit vector in camera axes and r = K^-1 (x, y, 1), in
    units of the camera's height above the ground::

        1 / z = max(n . r,  |r - (n . r) n| / wall)

    the nearer of the ground plane and an upright wall all around the camera, so that a camera that turns sees one and
    the same room. The horizon n . r = 0 follows from K and ``pitch``. Moving objects stand on the ground
    (``stand_on_ground``), also those that the lower border of the image cuts off.

    Args:
        frames: RGB in [0, 1].
        K: intrinsics in pixels of the frames, pixel centres at +0.5.
        moving: pixels of objects that move by themselves.
        w2c: world to camera, of which the rotations are used; None takes the camera to stand still. Over the clip the
            camera is taken not to roll and to look down by ``pitch`` on average.
        valid: pixels that may be used; the others get confidence 0.
        sparse: z-depth of points that were triangulated with ``w2c``, 0 = unknown. Where a camera travels a little,
            they are noisy but fit its poses; the layout is then fitted to them (``fit_layout``) and bent towards them
            nearby, and the poses stay as they are. Fewer than ``MIN_FIT_POINTS`` make no difference.
        pitch: degrees by which the camera looks down, in (-90, 90).
        wall: distance of the wall in heights of the camera above the ground, > 0.

    Returns:
        the prior: confidence at most 0.2, ``scale_log["method"]`` "layout guess". Fitted to ``sparse``, ``units`` are
        scene and ``w2c`` are those given; else ``units`` are relative (1 is the camera's height) and all cameras of
        ``w2c`` are in one place.

    Raises:
        DepthError: bad input.
    """
    clip = check_clip(frames, K, w2c, moving, valid, None, None, None)
    if not -90 < pitch < 90 or not wall > 0:
        raise DepthError(f"a guessed layout needs a pitch in (-90, 90) degrees and a wall > 0, got {pitch}, {wall}.")
    T, (H, W) = len(clip.K), clip.size
    if sparse is not None and clip.w2c is not None and int((sparse > 0).sum()) >= MIN_FIT_POINTS:
        return _layout_of_points(clip, sparse)
    rotations = torch.eye(3).expand(T, 3, 3) if clip.w2c is None else clip.w2c[:, :3, :3]
    # one row more than the image: what its lower border cuts off stands just below
    depth = _room(clip.K, _down(rotations, math.radians(pitch)), H + 1, W, wall)
    depth, confidence = _with_moving(depth, clip)
    log = {"method": "layout guess", "pitch": pitch, "wall": wall, "factor": 1.0}
    poses = torch.eye(4).repeat(T, 1, 1)
    poses[:, :3, :3] = rotations
    return DepthPrior(depth, confidence, clip.K, poses, "relative", log)


def _layout_of_points(clip: Clip, sparse: Float[Tensor, "t h w"]) -> DepthPrior:
    """The layout that fits triangulated points, under the poses that they were found with."""
    known = sparse if clip.ignored is None else sparse.masked_fill(clip.ignored, 0.0)
    layout, log = fit_layout(known, (known > 0).float(), clip.K, clip.require_poses())
    depth = _drawn_to_points(layout, known)
    depth, confidence = _with_moving(torch.cat([depth, depth[:, -1:]], dim=1), clip)
    log = {"method": "layout guess, fitted to points", **log, "factor": 1.0}
    return DepthPrior(depth, confidence, clip.K, clip.w2c, "scene", log)


def _drawn_to_points(layout: Float[Tensor, "t h w"], points: Float[Tensor, "t h w"]) -> Float[Tensor, "t h w"]:
    """The layout times the local mean ratio of points and layout, by a normalised convolution that fades to 1."""
    known = points > 0
    ratio = torch.where(known, points.clamp(min=1e-9).log() - layout.log(), 0.0).clamp(
        -MAX_LOG_DEVIATION, MAX_LOG_DEVIATION
    )
    sigma = POINT_REACH_SHARE * max(points.shape[1:])
    lone = 1 / (2 * math.pi * sigma**2)  # the weight of a single point where it lies
    correction = gaussian_blur(ratio, sigma) / (gaussian_blur(known.float(), sigma) + LONE_POINT_DAMPING * lone)
    return layout * correction.exp()


def _with_moving(depth: Float[Tensor, "t h1 w"], clip: Clip) -> tuple[Float[Tensor, "t h w"], Float[Tensor, "t h w"]]:
    """Depth with moving objects on the ground, and its confidence; ``depth`` has one row more below the image."""
    T, (H, W) = len(clip.K), clip.size
    confidence = torch.full((T, H, W), STATIC_CONFIDENCE)
    if clip.moving is not None:
        below = torch.zeros(T, 1, W, dtype=torch.bool)
        depth, standing = stand_on_ground(depth, torch.cat([clip.moving, below], dim=1))
        confidence = confidence.masked_fill(clip.moving, MOVING_CONFIDENCE).masked_fill(
            standing[:, :H], OBJECT_CONFIDENCE
        )
    if clip.valid is not None:
        confidence = confidence.masked_fill(~clip.valid, 0.0)
    return depth[:, :H].contiguous(), confidence


def fit_layout(
    depth: Float[Tensor, "t h w"],
    confidence: Float[Tensor, "t h w"],
    K: Float[Tensor, "t 3 3"],
    w2c: Float[Tensor, "t 4 4"],
) -> tuple[Float[Tensor, "t h w"], dict]:
    """The ground and wall of ``guess_layout`` that fit what is known of a clip's depth best.

    For what nothing else says something of. Pitch and wall are those of the clip with the smallest mean deviation of
    log depth, weighted by confidence; the height above the ground is each frame's own (the median), that of the clip
    where a frame knows nothing.

    Args:
        depth: z-depth, 0 = unknown.
        confidence: in [0, 1], of the depth.
        K: intrinsics in pixels of the maps.
        w2c: world to camera, of which the rotations are used.

    Returns:
        depth of every pixel, in the unit of ``depth``, and what was found: ``layout_pitch`` in degrees, ``layout_wall``
        in heights of the camera, ``layout_deviation`` of log depth.

    Raises:
        DepthError: nothing is known.
    """
    (H, W), step = depth.shape[1:], max(max(depth.shape[1:]) // FIT_SIDE_POINTS, 1)
    known = (depth > 0) & (confidence > 0)
    if not bool(known.any()):
        raise DepthError("a layout cannot be fitted where no depth is known.")
    K, rotations = K.float().cpu(), w2c[:, :3, :3].float().cpu()
    seen, weight = depth[:, ::step, ::step], (confidence * known)[:, ::step, ::step]
    found = []
    for i, pitch in enumerate(PITCHES_DEG):
        down = _down(rotations, math.radians(pitch))
        for j, wall in enumerate(WALL_DISTANCES):
            room = _room(K, down, H, W, wall)[:, ::step, ::step]
            ratio = torch.where(weight > 0, seen.clamp(min=1e-9).log() - room.log(), torch.nan)
            heights = ratio.flatten(1).nanmedian(1).values
            heights = heights.nan_to_num(float(ratio.nanmedian().nan_to_num(0.0)))[:, None, None]
            deviation = float(((ratio - heights).abs().nan_to_num(0.0) * weight).sum() / weight.sum().clamp(min=1e-9))
            strange = abs(i - PITCHES_DEG.index(PITCH_DEG)) + abs(j - WALL_DISTANCES.index(WALL_DISTANCE))
            found.append((deviation + ERROR_PER_STEP * strange, heights.exp(), pitch, wall, deviation))
    _, heights, pitch, wall, deviation = min(found, key=lambda one: one[0])
    log = {"layout_pitch": pitch, "layout_wall": wall, "layout_deviation": deviation}
    return _room(K, _down(rotations, math.radians(pitch)), H, W, wall) * heights, log


def _down(rotations: Float[Tensor, "t 3 3"], pitch: float) -> Float[Tensor, "t 3"]:
    """Which way is down in every camera's axes: one direction of the world, the mean of the cameras' own, tilted."""
    own = torch.tensor([0.0, math.cos(pitch), math.sin(pitch)])
    world = torch.nn.functional.normalize((rotations.transpose(1, 2) @ own).mean(0), dim=0)
    return rotations @ world


def _room(
    K: Float[Tensor, "t 3 3"], down: Float[Tensor, "t 3"], height: int, width: int, wall: float
) -> Float[Tensor, "t h w"]:
    """z-depth of ground and wall, in heights of the camera above the ground."""
    T = len(K)
    xy = pixel_centers(height, width).view(1, -1, 2).expand(T, -1, -1)
    rays = unproject(xy, torch.ones(T, height * width), K)
    slope = (rays * down[:, None]).sum(-1)
    level = (rays - slope[..., None] * down[:, None]).norm(dim=-1)
    return (1 / torch.maximum(slope, level / wall)).view(T, height, width)
