"""Triangle meshes of the demo scene: quads, boxes and turned shapes, with texture coordinates and smooth normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Mesh:
    """Triangles with everything but the textures themselves. Only ``vertices`` change when a mesh moves."""

    vertices: np.ndarray
    """(V,3)"""
    triangles: np.ndarray
    """(F,3) vertex numbers."""
    uv: np.ndarray
    """(V,2) texture coordinates in [0,1]; u along rows, v down."""
    group: np.ndarray
    """(V,) vertices of one group share their normal."""
    texture: np.ndarray
    """(F,) texture number."""
    part: np.ndarray
    """(F,) 0 for static surfaces, otherwise the number of the moving object."""

    def moved(self, vertices: np.ndarray) -> Mesh:
        """The same mesh with its vertices elsewhere."""
        return Mesh(vertices, self.triangles, self.uv, self.group, self.texture, self.part)

    def of_part(self, part: int) -> Mesh:
        """The same mesh as part of one moving object."""
        return Mesh(self.vertices, self.triangles, self.uv, self.group, self.texture, np.full_like(self.part, part))

    def corner_normals(self) -> np.ndarray:
        """(F,3,3) unit normals at the corners: the area-weighted mean over each group."""
        corners = self.vertices[self.triangles]
        face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        total = np.zeros((self.group.max() + 1, 3))
        for k in range(3):
            np.add.at(total, self.group[self.triangles[:, k]], face)
        total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return total[self.group[self.triangles]]


def join(meshes: list[Mesh]) -> Mesh:
    """One mesh of several."""
    vertex, group, triangles, groups = 0, 0, [], []
    for mesh in meshes:
        triangles.append(mesh.triangles + vertex)
        groups.append(mesh.group + group)
        vertex += len(mesh.vertices)
        group += mesh.group.max() + 1
    names = ("vertices", "uv", "texture", "part")
    stacked = {name: np.concatenate([getattr(m, name) for m in meshes]) for name in names}
    return Mesh(triangles=np.concatenate(triangles), group=np.concatenate(groups), **stacked)


def quad(corner: tuple, along: tuple, down: tuple, texture: int) -> Mesh:
    """A parallelogram: ``corner`` is the texture's top left, ``along`` its rows and ``down`` its columns."""
    at, right, below = (np.asarray(v, float) for v in (corner, along, down))
    vertices = np.stack([at, at + right, at + right + below, at + below])
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    return Mesh(vertices, triangles, uv, np.zeros(4, int), np.full(2, texture), np.zeros(2, int))


def box(size: tuple, center: tuple, yaw: float, textures: list[int]) -> Mesh:
    """A box turned about z; ``textures`` of the faces front (-y), right, back, left, top, bottom."""
    x, y, z = np.asarray(size) / 2
    faces = [
        quad((-x, -y, z), (2 * x, 0, 0), (0, 0, -2 * z), textures[0]),
        quad((x, -y, z), (0, 2 * y, 0), (0, 0, -2 * z), textures[1]),
        quad((x, y, z), (-2 * x, 0, 0), (0, 0, -2 * z), textures[2]),
        quad((-x, y, z), (0, -2 * y, 0), (0, 0, -2 * z), textures[3]),
        quad((-x, y, z), (2 * x, 0, 0), (0, -2 * y, 0), textures[4]),
        quad((-x, -y, -z), (2 * x, 0, 0), (0, 2 * y, 0), textures[5]),
    ]
    mesh = join(faces)
    return mesh.moved(mesh.vertices @ turn_z(yaw).T + np.asarray(center))


def tube(path: np.ndarray, radii: np.ndarray, around: int, texture: int, ribs: int = 0, depth: float = 0.0) -> Mesh:
    """A surface around a path that stays in one plane x-z (its frames turn about y).

    Args:
        path: (n,3) points.
        radii: (n,) radius at each point.
        around: sides.
        ribs: lengthwise ribs; ``depth`` their height relative to the radius.
    """
    n = len(path)
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    binormal = np.broadcast_to([0.0, 1.0, 0.0], tangent.shape)
    normal = np.cross(binormal, tangent)
    angle = np.linspace(0, 2 * np.pi, around + 1)
    swell = 1 + depth * np.cos(ribs * angle)
    ring = swell[:, None, None] * (np.cos(angle)[:, None, None] * normal + np.sin(angle)[:, None, None] * binormal)
    vertices = (path + radii[:, None] * ring).reshape(-1, 3)
    v = 1 - np.arange(n) / (n - 1)
    uv = np.stack(np.meshgrid(np.linspace(0, 1, around + 1), v, indexing="ij"), -1).reshape(-1, 2)
    i, k = (g.reshape(-1) for g in np.meshgrid(np.arange(around), np.arange(n - 1), indexing="ij"))
    a, b = i * n + k, (i + 1) * n + k
    triangles = np.concatenate([np.stack([a, b, b + 1], 1), np.stack([a, b + 1, a + 1], 1)])
    group = np.arange((around + 1) * n)
    group[around * n :] = group[:n]
    faces = len(triangles)
    return Mesh(vertices, triangles, uv, group, np.full(faces, texture), np.zeros(faces, int))


def turned(profile: list[tuple[float, float]], center: tuple, around: int, texture: int) -> Mesh:
    """A surface of revolution about z; ``profile`` lists (radius, height) from the bottom up."""
    radius, height = np.array(profile, float).T
    path = np.stack([np.zeros_like(height), np.zeros_like(height), height], axis=1)
    angle = np.linspace(0, 2 * np.pi, around + 1)
    mesh = tube(np.stack([path[:, 0], path[:, 1], np.linspace(0, 1, len(path))], 1), radius, around, texture)
    ring = np.stack([np.cos(angle)[:, None] * radius, np.sin(angle)[:, None] * radius], -1)
    vertices = np.concatenate([ring, np.broadcast_to(height[:, None], (around + 1, len(height), 1))], -1)
    return mesh.moved(vertices.reshape(-1, 3) + np.asarray(center))


def turn_z(angle: float) -> np.ndarray:
    """Rotation about the vertical axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def bend(points: np.ndarray, angle: float, direction: float, twist: float, stretch: float, height: float) -> np.ndarray:
    """Bends, twists and stretches (keeping the volume) a body that stands on the origin.

    Args:
        points: (n,3) rest positions; the body reaches up to ``height``.
        angle: by how much the top leans; direction: towards where (radians about z).
        twist: turn of the top about the axis; stretch: factor along the axis.
    """
    s = points[:, 2] / height
    turn = twist * s
    c, w = np.cos(turn), np.sin(turn)
    wide = 1 / np.sqrt(stretch)
    x = (points[:, 0] * c - points[:, 1] * w) * wide
    y = (points[:, 0] * w + points[:, 1] * c) * wide
    flat = np.stack([x, y, points[:, 2] * stretch], 1) @ turn_z(-direction).T
    curvature = (angle if abs(angle) > 1e-6 else 1e-6) / (height * stretch)
    phi = curvature * flat[:, 2]
    bent_x = (1 - np.cos(phi)) / curvature + flat[:, 0] * np.cos(phi)
    bent_z = np.sin(phi) / curvature - flat[:, 0] * np.sin(phi)
    return np.stack([bent_x, flat[:, 1], bent_z], 1) @ turn_z(direction).T
