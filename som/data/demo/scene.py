"""The demo scene: a corner of a room in which a painted block slides and turns and a potted cactus dances."""

from __future__ import annotations

import numpy as np
import torch

from som.cameras import Camera
from som.data.demo import textures
from som.data.demo.mesh import Mesh, bend, box, join, quad, tube, turn_z, turned
from som.data.demo.render import Surface, Views, make_views, render_color

LEFT, RIGHT, BACK, FRONT, CEILING = -2.5, 2.5, 2.0, -4.2, 3.1
BLOCK, CACTUS = 1, 2
"""Numbers of the moving objects; 0 is everything static."""
CACTUS_PLACE = np.array([0.82, 0.42, 0.3])
CACTUS_HEIGHT = 1.0
LAMP = np.array([-1.62, 1.45, 1.62])
LAMP_COLOR = np.array([0.75, 0.5, 0.22])
KEY_POINTS, KEY_RADIUS = 9, 0.28
KEY_PLACE = np.array([-1.75, -0.9, 2.95])
KEY_COLOR = np.array([11.6, 10.4, 8.7])
AMBIENT_COLOR = np.array([0.31, 0.35, 0.42])
PIXELS_PER_METRE = 105.0


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(4,4) w2c of a camera at ``eye`` that looks at ``target`` with z up."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    w2c = np.eye(4)
    w2c[:3, :3], w2c[:3, 3] = R, -R @ eye
    return w2c


class DemoScene:
    """Geometry, look and motion; everything follows from ``seed``. ``phase`` in [0, 1] runs through the video."""

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        self.sway = rng.uniform(0, 2 * np.pi) if seed else 0.0
        self.images: list[np.ndarray] = []
        self.glowing: list[int] = []
        self._ids: dict[str, int] = {}
        self._paint(rng)
        self.rest, self.moving = self._model(rng)
        self.texels, self.layout = self._pack()
        self.glow = np.array([1.0 if i in self.glowing else 0.0 for i in range(len(self.images))])

    # -- look -------------------------------------------------------------------------------------------------------

    def _add(self, name: str, image: np.ndarray, glowing: bool = False) -> None:
        self._ids[name] = len(self.images)
        self.images.append(image)
        if glowing:
            self.glowing.append(self._ids[name])

    def _paint(self, rng: np.random.Generator) -> None:
        depth, width, height = BACK - FRONT, RIGHT - LEFT, CEILING
        rug = (0.12 - LEFT, BACK + 0.15, 1.6, 1.1)
        self._add("floor", textures.floor(rng, PIXELS_PER_METRE, (width, depth), rug))
        self._add("bricks", textures.bricks(rng, 80, (depth, height)))
        self._add("back", textures.wall(rng, 80, (width, height), "7fa3a1"))
        self._add("right", textures.wall(rng, 80, (depth, height), "7fa3a1"))
        self._add("poster", textures.poster(rng))
        self._add("crate", textures.crate(rng))
        self._add("crate2", textures.crate(rng))
        self._add("books", textures.books(rng))
        self._add("wood", textures.plain(rng, "7a4a2b", 0.12))
        for face in range(6):
            self._add(f"face{face}", textures.toy_face(rng, face))
        self._add("cactus", textures.cactus(rng, ribs=9))
        self._add("arm", textures.cactus(rng, ribs=6, height=90, width=100))
        self._add("flower", textures.plain(rng, "f25f8a", 0.2))
        self._add("pot", textures.bands(rng, "c4633f", "f6e2bd"))
        self._add("vase", textures.bands(rng, "2b5f8a", "f3efe6"))
        self._add("soil", textures.plain(rng, "4a3426", 0.3))
        self._add("metal", textures.plain(rng, "3a3a42", 0.1))
        self._add("shade", np.clip(textures.plain(rng, "ffe2a8", 0.05) * 1.0, 0, 1), glowing=True)

    def _pack(self) -> tuple[np.ndarray, np.ndarray]:
        """All textures as one list of linear colours, and where each begins."""
        layout, start = [], 0
        for image in self.images:
            layout.append((start, *image.shape[:2]))
            start += image.shape[0] * image.shape[1]
        return np.concatenate([i.reshape(-1, 3) for i in self.images]) ** 2.2, np.array(layout)

    # -- geometry ---------------------------------------------------------------------------------------------------

    def _model(self, rng: np.random.Generator) -> tuple[Mesh, dict[int, np.ndarray]]:
        """The rest mesh, and the vertices that belong to each moving object."""
        t = self._ids
        depth, width = BACK - FRONT, RIGHT - LEFT
        static = [
            quad((LEFT, BACK, 0), (width, 0, 0), (0, -depth, 0), t["floor"]),
            quad((LEFT, FRONT, CEILING), (0, depth, 0), (0, 0, -CEILING), t["bricks"]),
            quad((LEFT, BACK, CEILING), (width, 0, 0), (0, 0, -CEILING), t["back"]),
            quad((RIGHT, BACK, CEILING), (0, -depth, 0), (0, 0, -CEILING), t["right"]),
            box((1.15, 0.04, 0.78), (0.12, BACK - 0.03, 1.36), 0.0, [t["poster"]] + [t["wood"]] * 5),
            box((0.62, 0.62, 0.62), (1.95, 1.42, 0.31), 0.2, [t["crate"]] * 6),
            box((0.46, 0.46, 0.46), (1.88, 1.46, 0.85), -0.35, [t["crate2"]] * 6),
            box((0.36, 0.95, 1.65), (LEFT + 0.2, 0.85, 0.825), 0.0, [t["wood"], t["books"]] + [t["wood"]] * 4),
            *self._lamp(),
            turned([(0.11, 0), (0.2, 0.12), (0.21, 0.25), (0.1, 0.42), (0.09, 0.5), (0.13, 0.55)],
                   (-0.95, 1.55, 0), 20, t["vase"]),
            turned([(0.17, 0), (0.235, 0.27), (0.265, 0.27), (0.27, 0.34), (0.2, 0.34)],
                   (*CACTUS_PLACE[:2], 0), 24, t["pot"]),
            turned([(0.225, 0.0), (0.001, 0.012)], (*CACTUS_PLACE[:2], 0.3), 24, t["soil"]),
        ]  # fmt: skip
        block = box((0.46, 0.46, 0.46), (0, 0, 0.23), 0.0, [t[f"face{i}"] for i in range(6)]).of_part(BLOCK)
        parts = {0: join(static), BLOCK: block, CACTUS: self._cactus().of_part(CACTUS)}
        places, start = {}, 0
        for part, mesh in parts.items():
            places[part] = np.arange(start, start + len(mesh.vertices))
            start += len(mesh.vertices)
        return join(list(parts.values())), places

    def _lamp(self) -> list[Mesh]:
        place, t = (LAMP[0], LAMP[1], 0), self._ids
        return [
            turned([(0.2, 0), (0.2, 0.03), (0.03, 0.05), (0.018, 0.1), (0.018, 1.45)], place, 16, t["metal"]),
            turned([(0.26, 1.42), (0.15, 1.8), (0.001, 1.8)], place, 24, t["shade"]),
        ]

    def _cactus(self) -> Mesh:
        t, h = self._ids, CACTUS_HEIGHT
        along = np.linspace(0, 1, 22)
        radii = 0.175 * (0.86 + 0.3 * np.sin(np.pi * along**0.8) ** 1.2)
        radii *= np.sqrt(np.clip(1 - ((along - 0.78) / 0.22).clip(0) ** 2, 1e-4, 1))
        trunk = np.stack([0 * along, 0 * along, along * h], 1)
        parts = [tube(trunk, radii, 36, t["cactus"], ribs=9, depth=0.07)]
        for side, base, reach, rise in ((1.0, 0.42, 0.3, 0.3), (-1.0, 0.3, 0.27, 0.34)):
            s = np.linspace(0, 1, 16)
            corner = np.clip(s * 2, 0, 1), np.clip(s * 2 - 0.75, 0, None) / 1.25
            x = side * (0.1 + (reach - 0.02) * np.sin(corner[0] * np.pi / 2))
            z = base + rise * corner[1] + 0.05 * corner[0]
            width = 0.072 * np.sqrt(np.clip(1 - ((s - 0.85) / 0.15).clip(0) ** 2, 1e-3, 1))
            parts.append(tube(np.stack([x, 0 * s, z], 1), width, 18, t["arm"], ribs=6, depth=0.06))
        for k in range(6):
            angle = 2 * np.pi * k / 6
            s = np.linspace(0, 1, 6)
            petal = tube(np.stack([0.02 + 0.1 * s, 0 * s, 0.98 * h + 0.075 * np.sin(s * 2.0)], 1),
                         0.042 * np.sin(np.pi * (0.1 + 0.88 * s)), 8, t["flower"])  # fmt: skip
            parts.append(petal.moved(petal.vertices @ turn_z(angle).T))
        return join(parts)

    # -- motion -----------------------------------------------------------------------------------------------------

    def at(self, phase: float) -> Mesh:
        """The mesh at a moment of the video."""
        vertices = self.rest.vertices.copy()
        block, cactus = self.moving[BLOCK], self.moving[CACTUS]
        ease = phase - np.sin(2 * np.pi * phase) / (2 * np.pi) * 0.35
        place = np.array([-1.0 + 1.45 * ease, 0.3 - 0.75 * np.sin(np.pi * (0.15 + 0.7 * ease)), 0.0])
        vertices[block] = vertices[block] @ turn_z(0.5 - 2.6 * ease).T + place
        beat = 2 * np.pi * phase + self.sway
        moved = bend(
            vertices[cactus],
            angle=0.75 * np.sin(1.5 * beat),
            direction=0.5 * np.sin(beat),
            twist=0.5 * np.sin(1.5 * beat + 0.9),
            stretch=1.0 + 0.13 * np.cos(3 * beat),
            height=CACTUS_HEIGHT,
        )
        vertices[cactus] = moved + CACTUS_PLACE
        return self.rest.moved(vertices)

    # -- picture ----------------------------------------------------------------------------------------------------

    def surface(self, mesh: Mesh) -> Surface:
        """Everything the renderer needs to know about a mesh."""
        return Surface(
            mesh.vertices[mesh.triangles],
            mesh.corner_normals(),
            mesh.uv[mesh.triangles],
            mesh.texture,
            self.texels,
            self.layout,
            self.glow,
        )

    def picture(self, mesh: Mesh, camera: Camera, view: Views, samples: int) -> np.ndarray:
        """(H,W,3) uint8 sRGB."""
        surface = self.surface(mesh)
        w2c = camera.w2c.numpy()
        eye = -w2c[:3, :3].T @ w2c[:3, 3]
        lighting = np.concatenate([_key_positions(), [LAMP, LAMP_COLOR, KEY_COLOR, AMBIENT_COLOR]])
        room = np.array([LEFT, RIGHT, BACK, 0.0])
        linear = render_color(view, surface, self.lights(mesh), lighting, eye, room, samples)
        return _to_srgb(linear)

    def lights(self, mesh: Mesh) -> Views:
        """The mesh as the points of the area light see it."""
        target = np.array([0.0, 0.6, 0.4])
        w2cs = np.stack([look_at(p, target) for p in _key_positions()])
        return make_views(mesh.vertices[mesh.triangles], w2cs, 110.0, 384, 384)


def _key_positions() -> np.ndarray:
    """(L,3) points spread over the disc of the area light."""
    k = np.arange(KEY_POINTS)
    r, angle = KEY_RADIUS * np.sqrt((k + 0.5) / KEY_POINTS), k * 2.39996
    return KEY_PLACE + np.stack([r * np.cos(angle), r * np.sin(angle), 0 * r], 1)


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    """Gentle shoulder for highlights, then gamma."""
    shaped = np.where(linear < 0.6, linear, 0.6 + 0.4 * (1 - np.exp(-(linear - 0.6) / 0.4)))
    return np.round(255 * np.clip(shaped, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def training_camera(phase: float, width: int, height: int) -> Camera:
    """The hand-held camera that walks around the scene."""
    azimuth = np.deg2rad(-19 + 38 * phase)
    radius = 4.0 - 0.25 * np.sin(np.pi * phase)
    eye = np.array([0.1 + radius * np.sin(azimuth), 0.2 - radius * np.cos(azimuth), 1.32 + 0.14 * np.sin(4.2 * phase)])
    shake = 0.012 * np.array([np.sin(13 * phase), np.sin(17 * phase + 1), np.sin(23 * phase + 2)])
    return _camera(eye + shake, np.array([0.1, 0.2, 0.6]) + 2 * shake[[1, 2, 0]], width, height)


def held_out_camera(which: int, width: int, height: int) -> Camera:
    """One of two fixed cameras beside the training path."""
    eye = (np.array([-0.55, -3.15, 1.62]), np.array([1.05, -3.3, 1.12]))[which]
    return _camera(eye, np.array([0.1, 0.2, 0.6]), width, height)


def _camera(eye: np.ndarray, target: np.ndarray, width: int, height: int) -> Camera:
    focal = 0.5 * width / np.tan(np.deg2rad(27.0))
    K = [[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]]
    return Camera.from_arrays(K, look_at(eye, target), width, height, torch.float64)
