"""Point clouds as binary little-endian PLY files with the property names that viewers know."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from som.depth.errors import DepthError
from som.depth.fusion.cloud import PointCloud
from som.files import write_bytes

LAYOUT = (
    ("x", "<f4"),
    ("y", "<f4"),
    ("z", "<f4"),
    ("red", "u1"),
    ("green", "u1"),
    ("blue", "u1"),
    ("confidence", "<f4"),
    ("views", "<i4"),
)
PLY_NAMES = {"<f4": "float", "u1": "uchar", "<i4": "int"}
TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "<i2",
    "int16": "<i2",
    "ushort": "<u2",
    "uint16": "<u2",
    "int": "<i4",
    "int32": "<i4",
    "uint": "<u4",
    "uint32": "<u4",
    "float": "<f4",
    "float32": "<f4",
    "double": "<f8",
    "float64": "<f8",
}
FORMAT = "format binary_little_endian 1.0"


def write_ply(path: str | Path, cloud: PointCloud) -> None:
    """Writes x, y, z, red, green, blue (bytes), confidence and views of every point; the file appears whole or not."""
    path = Path(path)
    rows = np.empty(len(cloud), dtype=list(LAYOUT))
    for k, name in enumerate("xyz"):
        rows[name] = cloud.points[:, k]
    for k, name in enumerate(("red", "green", "blue")):
        rows[name] = np.clip(np.rint(cloud.colors[:, k] * 255), 0, 255)
    rows["confidence"], rows["views"] = cloud.confidence, cloud.views
    header = ["ply", FORMAT, f"element vertex {len(cloud)}"]
    header += [f"property {PLY_NAMES[kind]} {name}" for name, kind in LAYOUT]
    write_bytes(path, "\n".join([*header, "end_header\n"]).encode() + rows.tobytes())


def read_ply(path: str | Path) -> PointCloud:
    """Reads the vertices of a binary little-endian PLY file; properties that a ``PointCloud`` has not are left out.

    Colours that are missing are grey, confidence is then 1 and views 0.

    Raises:
        DepthError: no such file, another format, no vertices with x, y and z, or a file that ends too early.
    """
    path = Path(path)
    if not path.is_file():
        raise DepthError(f"{path}: no such file.")
    data = path.read_bytes()
    end = data.find(b"end_header")
    start = data.find(b"\n", end) + 1
    if not data.startswith(b"ply") or end < 0 or start == 0:
        raise DepthError(f"{path}: not a PLY file; expected a header from 'ply' to 'end_header'.")
    count, layout = _vertex_layout(path, data[:end].decode("ascii", "replace").splitlines())
    if len(data) - start < count * layout.itemsize:
        raise DepthError(f"{path}: ends before its {count} vertices do; write it again.")
    rows, present = np.frombuffer(data, layout, count, start), layout.names or ()
    points = np.stack([rows[name] for name in "xyz"], axis=1).astype(np.float32)
    names = ("red", "green", "blue")
    colors = np.full((count, 3), 0.5, np.float32)
    if all(name in present for name in names):
        scale = 255.0 if layout["red"].kind == "u" else 1.0
        colors = (np.stack([rows[name] for name in names], axis=1) / scale).astype(np.float32)
    confidence = rows["confidence"] if "confidence" in present else np.ones(count)
    views = rows["views"] if "views" in present else np.zeros(count)
    return PointCloud(points, colors, confidence.astype(np.float32), views.astype(np.int32))


def _vertex_layout(path: Path, lines: list[str]) -> tuple[int, np.dtype]:
    """Number of vertices and the type of one; they must be the first element."""
    if FORMAT not in (line.strip() for line in lines):
        raise DepthError(f"{path}: only '{FORMAT}' is read; convert the file.")
    count, properties, inside = None, [], False
    for words in (line.split() for line in lines):
        if words[:1] == ["element"]:
            if count is None and words[1] != "vertex":
                raise DepthError(f"{path}: the first element must be 'vertex', not {words[1]!r}.")
            inside = count is None
            count = int(words[2]) if inside else count
        elif words[:1] == ["property"] and inside:
            if words[1] not in TYPES:
                raise DepthError(f"{path}: vertices with properties of type {words[1]!r} are not read.")
            properties.append((words[2], TYPES[words[1]]))
    layout = np.dtype(properties)
    if count is None or not {"x", "y", "z"} <= set(layout.names or ()):
        raise DepthError(f"{path}: holds no vertices with x, y and z.")
    return count, layout
