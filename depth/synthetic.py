"""A generated drive along a street with exact depth, cameras, road and objects of known height.

World axes are x right, y down, z along the street; the road is the plane y = camera_height and the camera centre
stays on y = 0. Everything is a function of the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from depth.errors import DepthError
from depth.metric_scale.instances import Instances, instances_from_masks
from depth.metric_scale.priors import DEFAULT_PRIORS, HeightPriors

_WALL, _WALL_HEIGHT, _KERB = 8.0, 9.0, 4.6
_SIZES = {"car": (1.75, 4.2), "person": (0.55, 0.4)}
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
        if missing := set(_SIZES) - set(self.priors):
            raise DepthError(f"priors of a road clip must name car and person; {sorted(missing)} is missing.")


@dataclass(frozen=True)
class RoadClip:
    """A clip and its truth."""

    images: Float[Tensor, "t 3 h w"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "t h w"]
    """Exact z in metres at the pixel centres; 0 in the sky."""
    Ks: Float[Tensor, "t 3 3"]
    """Intrinsics in pixels."""
    w2c: Float[Tensor, "t 4 4"]
    """World to camera, OpenCV axes, metres."""
    road: Bool[Tensor, "t h w"]
    """True on the carriageway."""
    instances: Instances
    """Masks and classes as an imperfect segmenter gives them: outliers are not marked."""
    true_heights: Float[Tensor, "t n"]
    """Height of each object of ``instances`` in metres; 0 where absent."""
    outlier: Bool[Tensor, "t n"]
    """Whether the object breaks a rule."""
    object_index: Int[Tensor, "t n"]
    """Which object of the street it is, the same in all frames; -1 where absent."""
    camera_height: float
    """Height of the camera above the road in metres."""


@dataclass(frozen=True)
class _Box:
    low: np.ndarray
    high: np.ndarray
    label: str
    height: float
    color: np.ndarray
    outlier: str
    mask_share: float


def make_road_clip(config: RoadClipConfig = RoadClipConfig()) -> RoadClip:
    """Renders the clip: a textured road between two house fronts under a sky, with parked cars and standing people.

    Textures are fixed to the surfaces and fade out above the pixels' resolution, so that views match each other.
    """
    boxes = _street(config)
    K = np.array([[config.focal * config.width, 0, config.width / 2], [0, 0, config.height * 0.45], [0, 0, 1.0]])
    K[1, 1] = K[0, 0]
    images, depths, roads, objects, tables, poses = [], [], [], [], [], []
    for c2w in _trajectory(config):
        image, depth, road, surface = _render(c2w, K, config, boxes)
        seen, table = _objects_of_frame(surface, boxes)
        images.append(image)
        depths.append(depth)
        roads.append(road)
        objects.append(seen)
        tables.append(table)
        poses.append(np.linalg.inv(c2w))
    instances, index = _number_objects(objects, tables, config)
    heights = torch.tensor([box.height for box in boxes] + [0.0])
    outlier = torch.tensor([bool(box.outlier) for box in boxes] + [False])
    return RoadClip(
        images=torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2).contiguous(),
        depth=torch.from_numpy(np.stack(depths)).float(),
        Ks=torch.from_numpy(K).float().expand(config.frames, 3, 3).clone(),
        w2c=torch.from_numpy(np.stack(poses)).float(),
        road=torch.from_numpy(np.stack(roads)),
        instances=instances,
        true_heights=heights[index],
        outlier=outlier[index],
        object_index=index,
        camera_height=config.camera_height,
    )


def _street(config: RoadClipConfig) -> list[_Box]:
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


def _make_box(label: str, x: float, z: float, kind: str, config: RoadClipConfig, rng: np.random.Generator) -> _Box:
    prior = config.priors[label]
    width, length = _SIZES[label]
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
    return _Box(low, high, label, float(height), rng.uniform(0.2, 0.9, 3), kind, float(share))


def _trajectory(config: RoadClipConfig) -> list[np.ndarray]:
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
        c2w[:3, :3] = _rotation(1, swing[2]) @ _rotation(0, -swing[0]) @ _rotation(2, swing[1])
        c2w[:3, 3] = [0.5 * np.sin(0.07 * t + phase[3]), 0.0, config.speed * t]
        poses.append(c2w)
    return poses


def _rotation(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation about one of the axes."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    R = np.eye(3)
    R[a, a] = R[b, b] = np.cos(angle)
    R[b, a], R[a, b] = np.sin(angle), -np.sin(angle)
    return R


def _render(c2w: np.ndarray, K: np.ndarray, config: RoadClipConfig, boxes: list[_Box]):
    """Image (H,W,3), depth (H,W), road (H,W), and the index of the box that each pixel shows, -1 for none."""
    H, W = config.height, config.width
    y, x = np.mgrid[0:H, 0:W] + 0.5
    # Rays have z = 1 in the camera, so that the ray parameter is the depth.
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1) @ c2w[:3, :3].T
    origin = c2w[:3, 3]
    depth = np.full((H, W), np.inf)
    surface = np.full((H, W), -1)
    axis = np.zeros((H, W), int)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (config.camera_height - origin[1]) / rays[..., 1]
        hit = t > 0.05
        depth[hit], axis[hit] = t[hit], 1
        for k, side in enumerate((-_WALL, _WALL)):
            t = (side - origin[0]) / rays[..., 0]
            level = origin[1] + t * rays[..., 1]
            hit = (t > 0.05) & (t < depth) & (level > config.camera_height - _WALL_HEIGHT)
            depth[hit], surface[hit], axis[hit] = t[hit], -2 - k, 0
        for k, box in enumerate(boxes):
            window = _window(box, c2w, K, H, W)
            near, far = (box.low - origin) / rays[window], (box.high - origin) / rays[window]
            entry = np.minimum(near, far)
            t, leave = entry.max(-1), np.maximum(near, far).min(-1)
            hit = (t < leave) & (t > 0.05) & (t < depth[window])
            depth[window][hit], surface[window][hit], axis[window][hit] = t[hit], k, entry.argmax(-1)[hit]
    sky = ~np.isfinite(depth)
    depth[sky] = 0.0
    points = origin + rays * depth[..., None]
    ground = (surface == -1) & ~sky
    color = _shade(points, rays, depth, surface, axis, K[0, 0], config, boxes)
    color[sky] = _sky(rays[sky])
    return color, depth, ground & (np.abs(points[..., 0]) < _KERB), surface


def _window(box: _Box, c2w: np.ndarray, K: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns outside of which the box is not seen; all of them for a box that reaches behind the camera."""
    corners = np.stack(np.meshgrid(*zip(box.low, box.high, strict=True)), -1).reshape(-1, 3)
    x, y, z = ((corners - c2w[:3, 3]) @ c2w[:3, :3] @ K.T).T
    if z.max() < 0.05:
        return slice(0, 0), slice(0, 0)
    if z.min() < 0.05:
        return slice(0, height), slice(0, width)
    ends = [
        np.clip([np.floor(v.min()), np.ceil(v.max())], 0, n).astype(int) for v, n in ((y / z, height), (x / z, width))
    ]
    return slice(*ends[0]), slice(*ends[1])


def _objects_of_frame(surface: np.ndarray, boxes: list[_Box]) -> tuple[list[tuple[str, np.ndarray]], list[int]]:
    """Masks of the boxes of which at least 25 pixels are seen; those of mask outliers cut at the foot or drawn too
    tall."""
    seen, table = [], []
    for k in np.unique(surface[surface >= 0]):
        mask = surface == k
        if mask.sum() < 25:
            continue
        share = boxes[k].mask_share
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, extent = rows[0], rows[-1] - rows[0] + 1
        if share < 1:
            mask[top + max(round(share * extent), 1) :] = False
        elif share > 1:
            mask[max(top - round((share - 1) * extent), 0) : top, columns[0] : columns[-1] + 1] = True
        seen.append((boxes[k].label, mask))
        table.append(int(k))
    return seen, table


def _number_objects(
    objects: list[list[tuple[str, np.ndarray]]], tables: list[list[int]], config: RoadClipConfig
) -> tuple[Instances, Tensor]:
    """The instances, and which box each of their table entries is (T,N), -1 where absent."""
    instances = instances_from_masks(objects, config.height, config.width, classes=sorted(_SIZES))
    index = torch.full(instances.labels.shape, -1, dtype=torch.long)
    for t, (seen, table) in enumerate(zip(objects, tables, strict=True)):
        # Masks drawn too tall may cover others altogether; those have no number.
        drawn = np.full((config.height, config.width), -1)
        for k, (_, mask) in zip(table, seen, strict=True):
            drawn[mask] = k
        kept = [k for k in table if (drawn == k).any()]
        index[t, : len(kept)] = torch.tensor(kept, dtype=torch.long)
    return instances, index


def _shade(points, rays, depth, surface, axis, focal, config, boxes) -> np.ndarray:
    """Colours (H,W,3) of solid surfaces: value noise on the two axes along each surface, and a few painted marks."""
    u = np.where(axis == 0, points[..., 2], points[..., 0])
    v = np.where(axis == 1, points[..., 2], points[..., 1])
    facing = np.abs(np.take_along_axis(rays, axis[..., None], -1)[..., 0]) / np.linalg.norm(rays, axis=-1)
    # Between the pixel's extents along and across the slope.
    footprint = depth / focal / np.sqrt(np.maximum(facing, 1e-3))
    noise = _noise(u, v, surface * 7 + axis, footprint, config.seed)
    boxed = surface >= 0
    base = np.array([box.color for box in boxes] or [[0.5] * 3])[np.where(boxed, surface, 0)]
    fronts = np.array([0.55, 0.48, 0.42]) + 0.25 * (_hash(np.floor(u / 5), surface, config.seed)[..., None] - 0.5)
    base = np.where(boxed[..., None], base, fronts)
    ground = (surface == -1)[..., None]
    on_road = (np.abs(points[..., 0]) < _KERB)[..., None]
    base = np.where(ground, np.where(on_road, [0.42, 0.42, 0.44], [0.45, 0.43, 0.34]), base)
    color = base * (0.45 + 1.1 * noise[..., None])
    lane = (np.abs(points[..., 0]) < 0.08) & (np.mod(points[..., 2], 6) < 3) & ground[..., 0]
    color[lane] = 0.92
    window = (surface < -1) & (np.mod(u, 2.0) < 0.9) & (np.mod(v, 2.4) < 1.3)
    color[window] *= 0.5
    return np.clip(color, 0, 1)


def _sky(rays: np.ndarray) -> np.ndarray:
    """Colour by elevation."""
    up = np.clip(-rays[:, 1:2] / np.linalg.norm(rays, axis=-1, keepdims=True), 0, 1)
    return np.array([0.80, 0.86, 0.93]) - up * np.array([0.35, 0.22, 0.08])


def _noise(u: np.ndarray, v: np.ndarray, surface: np.ndarray, footprint: np.ndarray, seed: int) -> np.ndarray:
    """Value noise in [0, 1], four octaves from 1.5 m to 5 cm; those finer than two pixels fade into their mean."""
    total = np.zeros_like(u)
    for octave, (frequency, amplitude) in enumerate(((0.7, 0.3), (2.1, 0.3), (6.3, 0.25), (19.0, 0.15))):
        a, b = u * frequency, v * frequency
        i, j = np.floor(a), np.floor(b)
        s, t = a - i, b - j
        s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
        key = surface * 13 + octave
        corner = [[_hash(i + di, key, seed, j + dj) for dj in (0, 1)] for di in (0, 1)]
        value = (corner[0][0] * (1 - s) + corner[1][0] * s) * (1 - t) + (corner[0][1] * (1 - s) + corner[1][1] * s) * t
        visible = np.clip(2 - 2 * footprint * frequency, 0, 1)
        total += amplitude * (0.5 + visible * (value - 0.5))
    return total


def _hash(i: np.ndarray, key: np.ndarray, seed: int, j: np.ndarray | float = 0.0) -> np.ndarray:
    """Uniform numbers in [0, 1) from integer coordinates, by mixing bits in 64-bit arithmetic that wraps."""
    with np.errstate(over="ignore"):
        n = np.asarray(i).astype(np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        n += np.asarray(j).astype(np.int64).astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
        n += np.asarray(key).astype(np.int64).astype(np.uint64) * np.uint64(0x165667B19E3779F9) + np.uint64(seed)
        n = (n ^ (n >> np.uint64(31))) * np.uint64(0xD6E8FEB86659FD93)
    return ((n ^ (n >> np.uint64(32))) & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2**32


def degrade_depth(
    depth: Float[Tensor, "t h w"], noise: float = 0.05, smear: float = 1.5, seed: int = 0
) -> Float[Tensor, "t h w"]:
    """Depth as a weak net gives it: smeared over object edges, wavy and noisy.

    Disparity is blurred with a Gaussian of ``smear`` pixels (the sky has disparity 0), then depth is multiplied by
    exp(noise x g), g a unit normal field half of whose variance varies over some 10 pixels and half per pixel.

    Args:
        depth: exact z, 0 = sky.
        noise: standard deviation of the relative error.
        smear: standard deviation of the blur in pixels; 0 keeps the edges.
        seed: seed of the noise.

    Returns:
        depth in the same unit, 0 where it was 0: a mask of the sky is taken for given.
    """
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    z = depth.double().cpu().numpy()
    disparity = np.divide(1.0, z, out=np.zeros_like(z), where=z > 0)
    disparity = ndimage.gaussian_filter(disparity, (0, smear, smear), mode="nearest")
    waves = ndimage.gaussian_filter(rng.standard_normal(z.shape), (0, 5, 5), mode="reflect")
    field_ = np.sqrt(0.5) * (waves / waves.std() + rng.standard_normal(z.shape))
    out = np.where(z > 0, np.exp(noise * field_) / np.maximum(disparity, 1e-6), 0.0)
    return torch.from_numpy(out).to(depth)
