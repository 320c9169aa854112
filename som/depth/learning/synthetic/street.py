"""What the generated drive shows: boxes of known height along a street, and the camera's way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from som.cameras.rotations import axis_rotation
from som.depth.errors import DepthError
from som.depth.metric_scale.priors import DEFAULT_PRIORS, HeightPriors

WALL, WALL_HEIGHT, KERB = 8.0, 9.0, 4.6
SIZES = {"car": (1.75, 4.2), "person": (0.55, 0.4)}
"""Width and length of the boxes in metres."""


@dataclass(frozen=True)
class RoadClipConfig:
    """What the clip shows and how the camera moves."""

    frames: int = 60
    """Number of frames T."""
    width: int = 192
    """Width of the frames in pixels."""
    height: int = 112
    """Height of the frames in pixels."""
    focal: float = 0.8
    """Focal length as a share of the width."""
    camera_height: float = 1.5
    """Height of the camera above the road in metres, the same in all frames."""
    speed: float = 1.0
    """Metres forward per frame."""
    pitch: tuple[float, float] = (1.5, 1.0)
    """Mean and amplitude of the pitch in degrees; positive looks down."""
    roll: tuple[float, float] = (1.0, 1.5)
    """Mean and amplitude of the roll in degrees; positive turns the camera clockwise."""
    yaw: tuple[float, float] = (0.0, 2.0)
    """Mean and amplitude of the yaw in degrees; positive looks to the right."""
    priors: HeightPriors = field(default_factory=lambda: dict(DEFAULT_PRIORS))
    """Height distributions of ``car`` and ``person``, from which the objects are drawn."""
    outliers: float = 0.0
    """Share of the objects that break a rule: a third each has another class' height, hangs off the road at a wrong
    size, or has wrong masks."""
    seed: int = 0
    """Seed of the street, the motion and the outliers."""

    def __post_init__(self) -> None:
        if min(self.frames, self.width, self.height) < 1 or self.focal <= 0 or self.camera_height <= 0:
            raise DepthError("frames, width, height, focal and camera_height of a road clip must be > 0.")
        if not 0 <= self.outliers <= 1:
            raise DepthError(f"outliers of a road clip must be a share in [0, 1], got {self.outliers}.")
        if missing := set(SIZES) - set(self.priors):
            raise DepthError(f"priors of a road clip must name car and person; {sorted(missing)} is missing.")


@dataclass(frozen=True)
class Box:
    low: np.ndarray
    high: np.ndarray
    label: str
    height: float
    color: np.ndarray
    outlier: str
    mask_share: float


def make_street(config: RoadClipConfig) -> list[Box]:
    """Cars along both kerbs with people between them; a fixed share made outliers."""
    rng = np.random.default_rng([config.seed, 1])
    places = []
    for side in (-1, 1):
        z = 5.0 + rng.uniform(0, 4)
        while z < config.speed * config.frames + 70:
            places.append(("car", side * rng.uniform(2.9, 3.6), z))
            places.append(("person", side * rng.uniform(2.2, 5.5), z + rng.uniform(2.8, 4.5)))
            z += rng.uniform(6.5, 10)
    kinds = [""] * len(places)
    for number, k in enumerate(rng.permutation(len(places))[: round(config.outliers * len(places))]):
        kinds[k] = ("class", "place", "mask")[number % 3]
    return [_make_box(label, x, z, kind, config, rng) for (label, x, z), kind in zip(places, kinds, strict=True)]


def _make_box(label: str, x: float, z: float, kind: str, config: RoadClipConfig, rng: np.random.Generator) -> Box:
    prior = config.priors[label]
    width, length = SIZES[label]
    height = max(rng.normal(prior.mean, prior.std), 0.3 * prior.mean)
    lift, share = 0.0, 1.0
    if kind in ("class", "place"):
        height = prior.mean * (rng.uniform(0.5, 0.75) if rng.random() < 0.5 else rng.uniform(1.35, 1.9))
    if kind == "place":
        lift, length = rng.uniform(0.5, 2.0), 0.4
    if kind == "mask":
        share = rng.uniform(0.4, 0.7) if rng.random() < 0.5 else rng.uniform(1.4, 1.8)
    ground = config.camera_height - lift
    low = np.array([x - width / 2, ground - height, z - length / 2])
    high = np.array([x + width / 2, ground, z + length / 2])
    return Box(low, high, label, float(height), rng.uniform(0.2, 0.9, 3), kind, float(share))


def make_trajectory(config: RoadClipConfig) -> list[np.ndarray]:
    """Camera-to-world matrices: swaying angles and lane position at constant height."""
    phase = np.random.default_rng([config.seed, 2]).uniform(0, 2 * np.pi, 4)
    poses = []
    for t in range(config.frames):
        (p, r, y), rate = (config.pitch, config.roll, config.yaw), (0.35, 0.23, 0.13)
        swing = [
            np.deg2rad(mean + amplitude * np.sin(rate[k] * t + phase[k]))
            for k, (mean, amplitude) in enumerate((p, r, y))
        ]
        c2w = np.eye(4)
        c2w[:3, :3] = axis_rotation(1, swing[2]) @ axis_rotation(0, -swing[0]) @ axis_rotation(2, swing[1])
        c2w[:3, 3] = [0.5 * np.sin(0.07 * t + phase[3]), 0.0, config.speed * t]
        poses.append(c2w)
    return poses
