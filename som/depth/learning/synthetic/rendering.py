"""Ray casting of the generated street: colour, depth and what each pixel shows."""

from __future__ import annotations

import numpy as np

from som.depth.learning.synthetic.street import KERB, WALL, WALL_HEIGHT, Box, RoadClipConfig


def render(c2w: np.ndarray, K: np.ndarray, config: RoadClipConfig, boxes: list[Box]):
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
        for k, side in enumerate((-WALL, WALL)):
            t = (side - origin[0]) / rays[..., 0]
            level = origin[1] + t * rays[..., 1]
            hit = (t > 0.05) & (t < depth) & (level > config.camera_height - WALL_HEIGHT)
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
    return color, depth, ground & (np.abs(points[..., 0]) < KERB), surface


def _window(box: Box, c2w: np.ndarray, K: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
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
    on_road = (np.abs(points[..., 0]) < KERB)[..., None]
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
