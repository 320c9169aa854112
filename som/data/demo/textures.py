"""Procedural textures of the demo scene: sRGB colours in [0, 1] with detail that a few thousand splats can show."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

Color = tuple[float, float, float]


def rgb(hex_code: str) -> np.ndarray:
    """(3,) colour of ``rrggbb``."""
    return np.array([int(hex_code[i : i + 2], 16) for i in (0, 2, 4)]) / 255


def noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int], octaves: int = 3) -> np.ndarray:
    """(height,width) smooth noise in about [-1, 1]; ``cells`` (rows, columns) of the coarsest octave."""
    total = np.zeros((height, width))
    for octave in range(octaves):
        rows, columns = (max(min(c * 2**octave, n), 2) for c, n in zip(cells, (height, width), strict=True))
        grid = rng.uniform(-1, 1, (rows, columns))
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    return total / 1.6


def tint(color: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """(H,W,3) a colour made lighter or darker by 1 + amount (H,W)."""
    return np.clip(color * (1 + amount[..., None]), 0, 1)


def _planks(
    rng: np.random.Generator, height: int, width: int, rows: int, length: float, color: np.ndarray
) -> np.ndarray:
    """Boards along the rows, each with its own tone and grain; ``length`` of a board relative to the width."""
    out = np.zeros((height, width, 3))
    edges = np.linspace(0, height, rows + 1).astype(int).tolist()
    for top, bottom in pairwise(edges):
        cuts = (np.arange(-1, np.ceil(1 / length) + 2) - rng.uniform()) * length * width
        for left, right in pairwise(cuts.astype(int).tolist()):
            a, b = max(left, 0), min(right, width)
            if b <= a:
                continue
            tone = rng.uniform(-0.2, 0.2)
            grain = 0.16 * noise(rng, bottom - top, b - a, (5, 2), 2)
            grain += 0.07 * noise(rng, bottom - top, b - a, (2, 9), 2)
            warm = color * (1 + np.array([0.08, 0.0, -0.1]) * rng.uniform(-1, 1))
            out[top:bottom, a:b] = tint(warm, tone + grain)
            out[top:bottom, a : a + 2] *= 0.6
        out[top : top + 2] *= 0.55
    return out


def floor(rng: np.random.Generator, pixels_per_metre: float, size: tuple[float, float], rug: tuple) -> np.ndarray:
    """Oak boards with an oval rug; ``size`` (x, y) in metres, ``rug`` (x, y, radius x, radius y) from the corner."""
    width, height = (round(s * pixels_per_metre) for s in size)
    out = _planks(rng, height, width, round(size[1] / 0.26), 1.9 / size[0], rgb("b98350"))
    y, x = np.mgrid[:height, :width] / pixels_per_metre
    u, v = (x - rug[0]) / rug[2], (y - rug[1]) / rug[3]
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    rings = [(1.0, "27496d"), (0.93, "f1e3c6"), (0.87, "27496d"), (0.72, "c8553d"), (0.5, "f1e3c6"), (0.44, "e0a73a")]
    for radius, code in rings:
        wave = 0.035 * np.cos(14 * angle) if radius in (0.5, 0.44) else 0.0
        out[r < radius + wave] = rgb(code)
    scallop = (np.abs(r - 0.795) < 0.045) & (np.cos(28 * angle) > 0.0)
    out[scallop] = rgb("e0a73a")
    petals = (np.abs(r - 0.61) < 0.06 * np.abs(np.cos(7 * angle)))
    out[petals] = rgb("f1e3c6")
    flower = r < 0.3 + 0.07 * np.cos(8 * angle)
    out[flower] = rgb("27496d")
    out[r < 0.14] = rgb("c8553d")
    weave = 0.08 * noise(rng, height, width, (40, 40), 3)
    inside = r < 1.0
    out[inside] = tint(out, weave)[inside]
    return out


def bricks(rng: np.random.Generator, pixels_per_metre: float, size: tuple[float, float]) -> np.ndarray:
    """Large painted bricks in running bond."""
    width, height = (round(s * pixels_per_metre) for s in size)
    out = tint(np.broadcast_to(rgb("cfc3b2"), (height, width, 3)), 0.06 * noise(rng, height, width, (20, 20)))
    brick_w, brick_h = 0.44 * pixels_per_metre, 0.185 * pixels_per_metre
    joint = max(0.018 * pixels_per_metre, 1)
    palette = [rgb(c) for c in ("a4553f", "b3654a", "94503e", "bb7657", "a86249")]
    for row in range(int(height / brick_h) + 1):
        for column in range(-1, int(width / brick_w) + 1):
            left = (column + 0.5 * (row % 2)) * brick_w
            box = [row * brick_h + joint, (row + 1) * brick_h - joint, left + joint, left + brick_w - joint]
            top, bottom, a, b = (round(v) for v in box)
            top, bottom, a, b = max(top, 0), min(bottom, height), max(a, 0), min(b, width)
            if bottom <= top or b <= a:
                continue
            color = palette[rng.integers(len(palette))]
            grain = rng.uniform(-0.14, 0.14) + 0.13 * noise(rng, bottom - top, b - a, (3, 5), 2)
            out[top:bottom, a:b] = tint(color, grain)
    return out


def wall(rng: np.random.Generator, pixels_per_metre: float, size: tuple[float, float], color: str) -> np.ndarray:
    """Plaster above a panelled wooden dado with a rail and a skirting board."""
    width, height = (round(s * pixels_per_metre) for s in size)
    mottling = 0.07 * noise(rng, height, width, (5, 8), 4) + 0.04 * noise(rng, height, width, (24, 30), 2)
    out = tint(np.broadcast_to(rgb(color), (height, width, 3)), mottling)
    dado = round(height - 0.78 * pixels_per_metre)
    out[dado:] = tint(rgb("e8dcc4"), 0.05 * noise(rng, height - dado, width, (6, 30), 2))
    panel, gap = 0.46 * pixels_per_metre, 0.07 * pixels_per_metre
    top, bottom = round(dado + 0.12 * pixels_per_metre), round(height - 0.2 * pixels_per_metre)
    for k in range(int(width / panel) + 1):
        a, b = round(k * panel + gap), min(round((k + 1) * panel), width)
        out[top:bottom, a:b] *= 0.9
        out[top : top + 2, a:b] *= 0.75
        out[top:bottom, a : a + 2] *= 0.8
    out[dado : dado + max(round(0.05 * pixels_per_metre), 2)] = rgb("8a5a35")
    out[height - max(round(0.12 * pixels_per_metre), 2) :] = rgb("8a5a35")
    return out


def poster(rng: np.random.Generator, height: int = 150, width: int = 220) -> np.ndarray:
    """A framed landscape: sun, three ranges of hills and a lake."""
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    sky = rgb("f6b26b") * y[..., None] * 1.3 + rgb("3f7cac") * (1 - y[..., None] * 1.3)
    out = np.clip(sky, 0, 1)
    out[np.hypot((x - 0.66) * 1.45, y - 0.4) < 0.17] = rgb("fff0c2")
    for base, amplitude, code in ((0.5, 0.16, "8c7aa9"), (0.62, 0.14, "4f6d8f"), (0.74, 0.1, "2f4858")):
        ridge = base + amplitude * noise(rng, 1, width, (2, 6), 3)[0]
        out[y > ridge[None]] = rgb(code)
    lake = y > 0.84
    out[lake] = (rgb("77b5c9") + 0.12 * np.sin(60 * y + 9 * np.sin(7 * x))[..., None])[lake]
    frame, mat = 9, 17
    out[:mat], out[-mat:], out[:, :mat], out[:, -mat:] = (rgb("f3efe6"),) * 4
    out[:frame], out[-frame:], out[:, :frame], out[:, -frame:] = (rgb("3b2a20"),) * 4
    return np.clip(out, 0, 1)


def crate(rng: np.random.Generator, size: int = 96) -> np.ndarray:
    """Boards in a frame with a diagonal brace."""
    out = _planks(rng, size, size, 5, 3.0, rgb("c69a62"))
    y, x = np.mgrid[:size, :size] / size
    grain = 0.12 * noise(rng, size, size, (20, 3), 2)
    brace = np.abs(x - y) < 0.09
    out[brace] = tint(rgb("a97a45"), grain)[brace]
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    out[edge < 0.13] = tint(rgb("a97a45"), grain)[edge < 0.13]
    out[np.abs(edge - 0.13) < 0.012] *= 0.6
    out[np.abs(np.abs(x - y) - 0.09) < 0.012] *= 0.75
    return out


def books(rng: np.random.Generator, height: int = 260, width: int = 150, shelves: int = 4) -> np.ndarray:
    """The front of a bookcase."""
    wood = rgb("7a4a2b")
    out = np.broadcast_to(wood * 0.4, (height, width, 3)).copy()
    codes = ("c8553d", "27496d", "e0a73a", "588157", "f1e3c6", "6d597a", "2a9d8f", "b56576", "e9c46a")
    palette = [rgb(code) for code in codes]
    step = height / shelves
    for shelf in range(shelves):
        bottom, x = round((shelf + 1) * step) - 7, 8
        while x < width - 12:
            thick = int(rng.integers(8, 16))
            tall = round(step * rng.uniform(0.58, 0.82))
            right = min(x + thick, width - 8)
            color = palette[rng.integers(len(palette))] * rng.uniform(0.8, 1.05)
            out[bottom - tall : bottom, x:right] = color
            out[bottom - tall : bottom, right - 1 : right] *= 0.6
            band = bottom - round(tall * rng.uniform(0.6, 0.8))
            out[band : band + 4, x + 1 : right - 1] = np.clip(color * 1.5 + 0.1, 0, 1)
            x = right + (int(rng.integers(6, 18)) if rng.uniform() < 0.12 else 0)
        out[bottom : bottom + 7] = wood
    out[:7], out[:, :7], out[:, -7:] = wood, wood, wood
    return np.clip(out, 0, 1)


def toy_face(rng: np.random.Generator, which: int, size: int = 72) -> np.ndarray:
    """One of six faces of the painted toy block."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    ground, shape = [("d1495b", "fff3d6"), ("2e6f95", "ffd166"), ("edae49", "7b2d26"), ("3c887e", "fff3d6"),
                     ("6a4c93", "ffca3a"), ("f4ead5", "d1495b")][which]  # fmt: skip
    shapes = [
        r < 0.42 + 0.2 * np.cos(5 * (angle + np.pi / 2)),
        (r < 0.68) & ((r > 0.46) | (r < 0.25)),
        np.sin(x * 8 + y * 8) > 0.1,
        (np.hypot((x + 1.1) % 0.74 - 0.37, (y + 1.1) % 0.74 - 0.37) < 0.22),
        (y > -0.5) & (y < 0.62) & (np.abs(x) < (0.62 - y) * 0.6),
        (np.abs(x) < 0.2) | (np.abs(y) < 0.2),
    ]
    out = np.where(shapes[which][..., None], rgb(shape), rgb(ground))
    edge = np.maximum(np.abs(x), np.abs(y)) > 0.82
    out[edge] = rgb("f7e7c6") if which != 5 else rgb("2e6f95")
    return tint(out, 0.07 * noise(rng, size, size, (4, 4), 3))


def cactus(rng: np.random.Generator, ribs: int, height: int = 160, width: int = 180) -> np.ndarray:
    """Green skin, lighter ribs, and rows of cream spines; u around, v from the tip down."""
    v, u = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    phase = (u * ribs) % 1.0
    ridge = np.cos(2 * np.pi * phase)
    out = tint(rgb("3f8f4f"), 0.28 * ridge + 0.18 * noise(rng, height, width, (7, 9), 3) - 0.25 * (v - 0.4))
    stagger = ((u * ribs + 0.5).astype(int) % 2) * 0.5
    row = (v * 11 + stagger) % 1.0
    spine = (np.minimum(phase, 1 - phase) < 0.16) & (np.abs(row - 0.5) < 0.17)
    out[spine] = rgb("fff1c9")
    return out


def bands(rng: np.random.Generator, ground: str, motif: str, height: int = 64, width: int = 160) -> np.ndarray:
    """Glazed clay with a zigzag between two stripes."""
    v, u = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    out = tint(rgb(ground), 0.12 * noise(rng, height, width, (4, 8), 3))
    zigzag = np.abs(v - 0.5 - 0.13 * (np.abs((u * 9) % 1.0 - 0.5) * 4 - 1)) < 0.07
    stripes = (np.abs(v - 0.22) < 0.035) | (np.abs(v - 0.78) < 0.035)
    out[zigzag | stripes] = rgb(motif)
    return out


def plain(rng: np.random.Generator, color: str, variation: float = 0.06, size: int = 32) -> np.ndarray:
    """One colour with soft variation."""
    return tint(np.broadcast_to(rgb(color), (size, size, 3)), variation * noise(rng, size, size, (3, 3), 3))
