"""Images beside a COLMAP model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from som.cameras import Camera
from som.data.checks import Problems
from som.data.colmap_model import find_model, read_model
from som.data.folder.tracks import read_tracks
from som.data.layouts.layout import Layout
from som.data.layouts.native import set_valid
from som.data.recording import FrameRecord, Recording
from som.files import find_file, list_images, read_image

DEPTH_UNIT = 1e-3
"""Of depth/*.png, in the model's unit."""


def read(root: Path, problems: Problems) -> Recording:
    """Reads images/ with the largest COLMAP model; registered images in name order are the times 0, 1, 2, ...

    Optional beside them, one file per image with the same stem: masks/ or foreground/ (png, not 0 = moving), depth/
    (.npy, or png in thousandths) in the model's unit, and tracks.npz as in the native format.
    """
    model = find_model(root)
    if model is None:
        problems.add(root, "holds no COLMAP model (images.txt or images.bin, as in sparse/0); run COLMAP first.")
        problems.give_up()
    registered = read_model(model, problems)
    paths = [p for p in list_images(root / "images") if p.name in registered]
    if not paths and not problems.found:
        problems.add(root / "images", f"none of its files is registered in {model}; the names must be the same.")
    recording = Recording(
        name=root.resolve().name,
        layout="colmap",
        frames=[_frame(root, path, time, registered[path.name].camera) for time, path in enumerate(paths)],
        depth_kind="scale",
        source={"images": "images/", "cameras": f"COLMAP model {model.name}"},
        root=root,
    )
    if (root / "tracks.npz").exists():
        recording.tracks = partial(read_tracks, root / "tracks.npz")
    return recording


def _frame(root: Path, path: Path, time: int, camera: Camera) -> FrameRecord:
    frame = FrameRecord(path.stem, partial(read_image, path), str(path), (camera.height, camera.width))
    frame.time, frame.size_from = time, "its COLMAP camera says"
    frame.set_camera(camera)
    set_valid(frame, path)
    folder = next((root / f for f in ("foreground", "masks") if (root / f).is_dir()), None)
    if folder is not None:
        frame.set_mask("moving", find_file(folder, path.stem, (".png", ".png.png", path.suffix)), threshold=0)
    if (root / "depth").is_dir():
        frame.set_depth(find_file(root / "depth", path.stem, (".npy", ".png")), DEPTH_UNIT)
    return frame


def is_colmap(root: Path) -> bool:
    """Whether a folder holds images beside a COLMAP model."""
    return (root / "images").is_dir() and find_model(root) is not None


LAYOUT = Layout("colmap", "COLMAP", "a COLMAP model in sparse/ beside images/", is_colmap, read)
