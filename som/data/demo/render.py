"""A small exact ray caster for triangle meshes: colour with area-light shadows, and geometry at any image point.

``Views`` hold the triangles as pinhole cameras see them, sorted into tiles. For a ray (x, y, 1) and a triangle abc in
camera coordinates the three products with ``edges`` are w_i / z, where w are the barycentric coordinates of the hit
and z its depth: the hit is inside if none is negative, and their sum is 1 / z. This needs no clipping.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

TILE = 4
NEAR = 0.05
LIGHTS_PER_SAMPLE = 1


class Views(NamedTuple):
    """A mesh as V pinhole cameras (or points of a light) of equal size see it; principal points in the centre."""

    w2cs: np.ndarray
    """(V,4,4) world to camera, OpenCV axes."""
    focal: float
    width: int
    height: int
    edges: np.ndarray
    """(V,F,3,3)"""
    starts: np.ndarray
    """(V*tiles+1,) where each tile's triangles start in ``members``."""
    members: np.ndarray
    """Triangle numbers, view by view and tile by tile."""


class Surface(NamedTuple):
    """How a mesh looks: per-triangle corner positions, normals and texture coordinates, and the textures."""

    corners: np.ndarray
    """(F,3,3) world positions."""
    normals: np.ndarray
    """(F,3,3) unit normals at the corners."""
    uv: np.ndarray
    """(F,3,2) in [0,1]."""
    texture: np.ndarray
    """(F,) texture number."""
    texels: np.ndarray
    """(N,3) linear colours of all textures, row by row."""
    layout: np.ndarray
    """(textures,3) first texel, height, width."""
    glow: np.ndarray
    """(textures,) 1 for textures that shine by themselves."""


def make_views(corners: np.ndarray, w2cs: np.ndarray, focal: float, width: int, height: int) -> Views:
    """Prepares triangles (F,3,3) for cameras (V,4,4)."""
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    w2cs = np.ascontiguousarray(w2cs, dtype=np.float64)
    edges, span = _edges_and_tiles(corners, w2cs, float(focal), width, height)
    starts, members = _bin(span, tiles_x, tiles_y)
    return Views(w2cs, float(focal), width, height, edges, starts, members)


@njit(cache=True, nogil=True)
def _to_camera(w2c, p):
    x = w2c[0, 0] * p[0] + w2c[0, 1] * p[1] + w2c[0, 2] * p[2] + w2c[0, 3]
    y = w2c[1, 0] * p[0] + w2c[1, 1] * p[1] + w2c[1, 2] * p[2] + w2c[1, 3]
    z = w2c[2, 0] * p[0] + w2c[2, 1] * p[1] + w2c[2, 2] * p[2] + w2c[2, 3]
    return x, y, z


@njit(cache=True, nogil=True)
def _cross_into(out, a, b):
    out[0], out[1], out[2] = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(cache=True, nogil=True)
def _edges_and_tiles(corners, w2cs, focal, width, height):
    """Edge functions (V,F,3,3), and the tiles (V,F,4) first x, first y, last x, last y that a triangle may touch."""
    views, count = w2cs.shape[0], corners.shape[0]
    edges, span = np.empty((views, count, 3, 3)), np.zeros((views, count, 4), np.int64)
    for view in range(views):
        for n in range(count):
            a = _to_camera(w2cs[view], corners[n, 0])
            b = _to_camera(w2cs[view], corners[n, 1])
            c = _to_camera(w2cs[view], corners[n, 2])
            out = edges[view, n]
            _cross_into(out[0], b, c)
            _cross_into(out[1], c, a)
            _cross_into(out[2], a, b)
            det = a[0] * out[0, 0] + a[1] * out[0, 1] + a[2] * out[0, 2]
            tiles = span[view, n]
            if abs(det) < 1e-12 or max(a[2], b[2], c[2]) < NEAR:
                tiles[2] = -1
                continue
            for i in range(9):
                out[i // 3, i % 3] /= det
            low_x, low_y, high_x, high_y = 0.0, 0.0, width - 1.0, height - 1.0
            if min(a[2], b[2], c[2]) >= NEAR:
                ax, bx, cx = a[0] / a[2], b[0] / b[2], c[0] / c[2]
                ay, by, cy = a[1] / a[2], b[1] / b[2], c[1] / c[2]
                low_x = max(low_x, min(ax, bx, cx) * focal + 0.5 * width)
                low_y = max(low_y, min(ay, by, cy) * focal + 0.5 * height)
                high_x = min(high_x, max(ax, bx, cx) * focal + 0.5 * width)
                high_y = min(high_y, max(ay, by, cy) * focal + 0.5 * height)
            if high_x < 0 or high_y < 0:
                tiles[2] = -1
            else:
                tiles[0], tiles[1] = int(low_x) // TILE, int(low_y) // TILE
                tiles[2], tiles[3] = int(high_x) // TILE, int(high_y) // TILE
    return edges, span


@njit(cache=True, nogil=True)
def _bin(span, tiles_x, tiles_y):
    """Sorts triangles into tiles: where each tile starts, and the triangle numbers tile by tile."""
    views, count = span.shape[:2]
    starts = np.zeros(views * tiles_x * tiles_y + 1, np.int64)
    members = np.empty(0, np.int64)
    for fill in range(2):
        for view in range(views):
            for n in range(count):
                for ty in range(span[view, n, 1], span[view, n, 3] + 1):
                    for tx in range(span[view, n, 0], span[view, n, 2] + 1):
                        tile = (view * tiles_y + ty) * tiles_x + tx
                        if fill:
                            starts[tile] -= 1
                            members[starts[tile]] = n
                        else:
                            starts[tile] += 1
        if not fill:
            starts = np.cumsum(starts)
            members = np.empty(starts[-1], np.int64)
    return starts, members


@njit(cache=True, nogil=True)
def _first_hit(views, view, x, y):
    """The nearest triangle at image point (x, y): its number (-1: none), 1/z and barycentric coordinates."""
    best, found, w0, w1 = 0.0, -1, 0.0, 0.0
    if x < 0 or y < 0 or x >= views.width or y >= views.height:
        return found, best, w0, w1
    tiles_x, tiles_y = -(-views.width // TILE), -(-views.height // TILE)
    tile = (view * tiles_y + int(y) // TILE) * tiles_x + int(x) // TILE
    dx = (x - 0.5 * views.width) / views.focal
    dy = (y - 0.5 * views.height) / views.focal
    e = views.edges
    for k in range(views.starts[tile], views.starts[tile + 1]):
        n = views.members[k]
        e0 = e[view, n, 0, 0] * dx + e[view, n, 0, 1] * dy + e[view, n, 0, 2]
        if e0 < 0:
            continue
        e1 = e[view, n, 1, 0] * dx + e[view, n, 1, 1] * dy + e[view, n, 1, 2]
        if e1 < 0:
            continue
        e2 = e[view, n, 2, 0] * dx + e[view, n, 2, 1] * dy + e[view, n, 2, 2]
        inverse = e0 + e1 + e2
        if e2 >= 0 and inverse > best:
            best, found, w0, w1 = inverse, n, e0 / inverse, e1 / inverse
    return found, best, w0, w1


@njit(cache=True, nogil=True)
def cast(views, view, xy):
    """What one view sees at image points (N,2): triangle (N,), z-depth (N,), barycentric coordinates (N,3)."""
    count = xy.shape[0]
    triangle, depth, weights = np.empty(count, np.int64), np.zeros(count), np.zeros((count, 3))
    for i in range(count):
        n, inverse, w0, w1 = _first_hit(views, view, xy[i, 0], xy[i, 1])
        triangle[i] = n
        if n >= 0:
            depth[i] = 1.0 / inverse
            weights[i, 0], weights[i, 1], weights[i, 2] = w0, w1, 1.0 - w0 - w1
    return triangle, depth, weights


@njit(cache=True, nogil=True)
def see(views, view, points):
    """Projection (N,2) and exact visibility (N,) of surface points (N,3): nothing lies in front of them."""
    count = points.shape[0]
    xy, visible = np.empty((count, 2)), np.zeros(count, np.bool_)
    for i in range(count):
        x, y, z = _to_camera(views.w2cs[view], points[i])
        safe = max(z, 1e-6)
        xy[i, 0] = x / safe * views.focal + 0.5 * views.width
        xy[i, 1] = y / safe * views.focal + 0.5 * views.height
        if z > NEAR and 0 <= xy[i, 0] < views.width and 0 <= xy[i, 1] < views.height:
            _, inverse, _, _ = _first_hit(views, view, xy[i, 0], xy[i, 1])
            visible[i] = inverse <= (1.0 + 1e-4) / z
    return xy, visible


@njit(cache=True, nogil=True)
def _mix(values, n, k, w0, w1):
    """Component k of per-corner values (F,3,C) at barycentric coordinates of triangle n."""
    return values[n, 0, k] * w0 + values[n, 1, k] * w1 + values[n, 2, k] * (1.0 - w0 - w1)


@njit(cache=True, nogil=True)
def _texel(surface, texture, u, v, out):
    """Bilinear texture lookup into ``out`` (3,)."""
    start, height, width = surface.layout[texture, 0], surface.layout[texture, 1], surface.layout[texture, 2]
    x = min(max(u * width - 0.5, 0.0), width - 1.001)
    y = min(max(v * height - 0.5, 0.0), height - 1.001)
    x0, y0 = int(x), int(y)
    fx, fy = x - x0, y - y0
    at = start + y0 * width + x0
    for c in range(3):
        top = surface.texels[at, c] * (1 - fx) + surface.texels[at + 1, c] * fx
        low = surface.texels[at + width, c] * (1 - fx) + surface.texels[at + width + 1, c] * fx
        out[c] = top * (1 - fy) + low * fy


@njit(cache=True, nogil=True)
def render_color(view, surface, lights, lighting, eye, room, samples):
    """(H,W,3) linear colour: diffuse surfaces under an area light with soft shadows, a small lamp and ambient light.

    Args:
        view: the camera (the first of ``view`` is rendered); lights: views from the points of the area light.
        lighting: (L+4,3) places of those points, then place and colour of the lamp, colours of area and ambient light.
        eye: (3,) camera centre.
        room: (4,) left, right, back and floor coordinates, near which ambient light fades.
        samples: rays per pixel and axis.
    """
    image = np.zeros((view.height, view.width, 3))
    albedo, p, normal = np.empty(3), np.empty(3), np.empty(3)
    count = lights.w2cs.shape[0]
    for row in range(view.height):
        for column in range(view.width):
            for s in range(samples * samples):
                n, _, w0, w1 = _first_hit(
                    view, 0, column + (s % samples + 0.5) / samples, row + (s // samples + 0.5) / samples
                )
                if n < 0:
                    continue
                u, v = _mix(surface.uv, n, 0, w0, w1), _mix(surface.uv, n, 1, w0, w1)
                _texel(surface, surface.texture[n], u, v, albedo)
                if surface.glow[surface.texture[n]] > 0:
                    for c in range(3):
                        image[row, column, c] += albedo[c]
                    continue
                length, facing = 0.0, 0.0
                for c in range(3):
                    p[c], normal[c] = _mix(surface.corners, n, c, w0, w1), _mix(surface.normals, n, c, w0, w1)
                    length += normal[c] * normal[c]
                    facing += normal[c] * (eye[c] - p[c])
                length = np.sqrt(length) * (1.0 if facing > 0 else -1.0)
                for c in range(3):
                    normal[c] /= length
                key = 0.0
                for k in range(LIGHTS_PER_SAMPLE):
                    j = (s * LIGHTS_PER_SAMPLE + k) % count
                    key += _received(p, normal, lighting[j], 0.0) * _lit(lights, j, p, normal)
                lamp, fade = _received(p, normal, lighting[count], 0.1), _ambient(p, normal, room)
                for c in range(3):
                    light = lighting[count + 1, c] * lamp + lighting[count + 3, c] * fade
                    light += lighting[count + 2, c] * key / LIGHTS_PER_SAMPLE
                    image[row, column, c] += albedo[c] * light
    return image / (samples * samples)


@njit(cache=True, nogil=True)
def _received(p, normal, source, softening):
    """Irradiance at a surface point from a point source of unit strength, without occlusion."""
    x, y, z = source[0] - p[0], source[1] - p[1], source[2] - p[2]
    squared = x * x + y * y + z * z
    cosine = (normal[0] * x + normal[1] * y + normal[2] * z) / np.sqrt(squared)
    return max(cosine, 0.0) / (squared + softening)


@njit(cache=True, nogil=True)
def _lit(lights, j, p, normal):
    """1 if nothing stands between light j and the point (or the light's view does not cover it)."""
    shifted = (p[0] + 2e-3 * normal[0], p[1] + 2e-3 * normal[1], p[2] + 2e-3 * normal[2])
    x, y, z = _to_camera(lights.w2cs[j], shifted)
    if z < NEAR:
        return 1.0
    x, y = x / z * lights.focal + 0.5 * lights.width, y / z * lights.focal + 0.5 * lights.height
    _, inverse, _, _ = _first_hit(lights, j, x, y)
    return 1.0 if inverse <= (1.0 + 2e-3) / z else 0.0


@njit(cache=True, nogil=True)
def _ambient(p, normal, room):
    """Share of ambient light: less near walls and floor, less on what faces down."""
    fade = 0.75 + 0.25 * normal[2]
    for distance in (p[0] - room[0], room[1] - p[0], room[2] - p[1], p[2] - room[3]):
        if distance > 2e-3:
            fade *= 1.0 - 0.4 * np.exp(-distance / 0.22)
    return fade
