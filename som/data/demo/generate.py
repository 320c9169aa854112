"""The demo data set: renders the demo scene with exact ground truth into a native folder, once, and reads it back."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from som.cameras import Camera
from som.data.config import DemoData
from som.data.dataset import GroundTruthTracks, Tracks, VideoDataset, Views
from som.data.demo.mesh import Mesh
from som.data.demo.render import Views as RenderViews
from som.data.demo.render import cast, make_views, see
from som.data.demo.scene import DemoScene, held_out_camera, training_camera
from som.data.folder import write_flow, write_native
from som.data.load import read_native
from som.errors import UserError

logger = logging.getLogger(__name__)

FPS = 24.0
MIN_COVISIBLE_FRAMES = 5
"""A held-out pixel counts as co-visible if this many training frames see its surface."""
QUERY_FRAMES = 6
"""Training frames at which 2D tracks start, evenly spread."""
QUERY_SPACING_PX = 3
"""Pixels between the queries of one frame."""
TRUTH_POINTS = {0: 60, 1: 60, 2: 80}
"""Ground-truth 3D tracks of each part: static, block, cactus."""


def load_demo(config: DemoData) -> VideoDataset:
    """The demo data set, generated at its first use (some seconds) and then read from the cache.

    Raises:
        UserError: an option out of range, or the cache folder cannot be written.
        DatasetError: the cached files are damaged; delete the folder that the message names.
    """
    _check(config)
    root = cache_folder(config)
    if not (root / "transforms.json").is_file():
        logger.info("making the demo data set in %s (some seconds, once)", root)
        try:
            _generate_into(root, config)
        except OSError as error:
            raise UserError(
                f"{root}: the demo data set cannot be written ({error}); give a writable folder with `data.cache_dir`."
            ) from None
    return read_native(root, config.max_side)


def cache_folder(config: DemoData) -> Path:
    """Where the demo data set of these options is kept."""
    if config.cache_dir is not None:
        base = config.cache_dir
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "som4d"
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("cache_dir", "is_train", "max_side")}
    # of the sources, too: another version of this program makes another picture
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    key = hashlib.sha256(sources + str(sorted(options.items())).encode()).hexdigest()[:10]
    return base / f"demo-{key}"


def _check(config: DemoData) -> None:
    limits = {"width": (16, 4096), "height": (16, 4096), "num_times": (2, 1000), "samples": (1, 8)}
    limits["held_out_times"] = (0, config.num_times)
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise UserError(f"`data.{name}`: must lie in [{low}, {high}], got {value}.")


def _generate_into(root: Path, config: DemoData) -> None:
    """Writes the data set beside ``root`` and moves it there in one step, so that nobody sees half of it."""
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        generate_demo(config, temporary)
        temporary.chmod(0o755)
        try:
            temporary.rename(root)
        except OSError:
            if not (root / "transforms.json").is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def generate_demo(config: DemoData, root: Path) -> None:
    """Renders the demo scene and writes it, with flow and ground truth, as a native data set folder."""
    film = _Film(config)
    times = list(range(config.num_times))
    train_cameras = [training_camera(film.phase(t), config.width, config.height) for t in times]
    names = [f"{t:05d}" for t in times]
    train = film.shoot(names, times, train_cameras)
    held_out = np.linspace(1, config.num_times - 2, config.held_out_times).round().astype(int)
    val = None
    if config.held_out_times:
        shots = [(which, int(t)) for which in range(2) for t in dict.fromkeys(held_out)]
        cameras = [held_out_camera(which, config.width, config.height) for which, _ in shots]
        val = film.shoot([f"camera{which}_{t:05d}" for which, t in shots], [t for _, t in shots], cameras)
        val.covisible = film.covisible(val, cameras)
    dataset = VideoDataset(
        name="demo",
        num_times=config.num_times,
        train=train,
        val=val,
        tracks=film.tracks(),
        ground_truth_tracks=film.truth(config.seed),
        fps=FPS,
        depth_kind="metric",
        world_scale="metric",
        source={"images": "generated demo scene", "cameras, depth, masks, tracks, flow": "exact"},
    )
    write_native(dataset, root)
    for t in times[:-1]:
        write_flow(root, t, t + 1, *film.flow(t, t + 1))
        write_flow(root, t + 1, t, *film.flow(t + 1, t))


class _Film:
    """The scene at every time with the training cameras' views of it."""

    def __init__(self, config: DemoData):
        self.config = config
        self.scene = DemoScene(config.seed)
        self.meshes = [self.scene.at(self.phase(t)) for t in range(config.num_times)]
        self.parts = self.meshes[0].part
        y, x = np.mgrid[: config.height, : config.width] + 0.5
        self.pixels = np.stack([x, y], -1).reshape(-1, 2)
        cameras = [training_camera(self.phase(t), config.width, config.height) for t in range(config.num_times)]
        self.views = [self._view(m, c) for m, c in zip(self.meshes, cameras, strict=True)]

    def phase(self, time: int) -> float:
        """Position of a time in the video, in [0, 1]."""
        return time / (self.config.num_times - 1)

    @staticmethod
    def _view(mesh: Mesh, camera: Camera) -> RenderViews:
        corners = mesh.vertices[mesh.triangles]
        return make_views(corners, camera.w2c[None].numpy(), float(camera.K[0, 0]), camera.width, camera.height)

    def _points(self, time: int, triangle: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N,3) where surface points (triangle, barycentric coordinates) are at a time."""
        mesh = self.meshes[time]
        return (mesh.vertices[mesh.triangles[triangle]] * weights[..., None]).sum(1)

    def shoot(self, names: list[str], times: list[int], cameras: list[Camera]) -> Views:
        """Pictures with exact depth and masks. Frames are rendered in threads; the result does not depend on them."""

        def one(shot: tuple[int, Camera]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            mesh, camera = self.meshes[shot[0]], shot[1]
            view = self._view(mesh, camera)
            triangle, depth, _ = cast(view, 0, self.pixels)
            return self.scene.picture(mesh, camera, view, self.config.samples), depth, self.parts[triangle] > 0

        size = (self.config.height, self.config.width)
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
            images, depths, masks = zip(*pool.map(one, zip(times, cameras, strict=True)), strict=True)
        return Views(
            names=names,
            times=torch.tensor(times),
            images=torch.from_numpy(np.stack(images)),
            cameras=Camera.stack(cameras).to(torch.float32),
            valid=torch.ones((len(names), *size), dtype=torch.bool),
            foreground=torch.from_numpy(np.stack(masks)).view(-1, *size),
            depths=torch.from_numpy(np.stack(depths)).float().view(-1, *size),
        )

    def flow(self, source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Exact flow (H,W,2) between two training frames, and where (H,W) its end is seen too."""
        triangle, _, weights = cast(self.views[source], 0, self.pixels)
        xy, visible = see(self.views[target], 0, self._points(target, triangle, weights))
        size = (self.config.height, self.config.width)
        return (xy - self.pixels).reshape(*size, 2), visible.reshape(size)

    def covisible(self, val: Views, cameras: list[Camera]) -> torch.Tensor:
        """(N,H,W) pixels whose surface point at least ``MIN_COVISIBLE_FRAMES`` training frames see."""
        enough = min(MIN_COVISIBLE_FRAMES, self.config.num_times)
        masks = []
        for time, camera in zip(val.times.tolist(), cameras, strict=True):
            triangle, _, weights = cast(self._view(self.meshes[time], camera), 0, self.pixels)
            seen = np.zeros(len(self.pixels), int)
            for t in range(self.config.num_times):
                seen += see(self.views[t], 0, self._points(t, triangle, weights))[1]
            masks.append((seen >= enough).reshape(self.config.height, self.config.width))
        return torch.from_numpy(np.stack(masks))

    def _follow(self, triangle: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World positions (Q,T,3), image coordinates (Q,T,2) and visibility (Q,T) of surface points over all times."""
        xyz = np.stack([self._points(t, triangle, weights) for t in range(self.config.num_times)], 1)
        seen = [see(view, 0, np.ascontiguousarray(xyz[:, t])) for t, view in enumerate(self.views)]
        return xyz, np.stack([xy for xy, _ in seen], 1), np.stack([visible for _, visible in seen], 1)

    def tracks(self) -> Tracks:
        """What an ideal tracker gives for a grid of foreground pixels: exact positions and visibility."""
        frames = np.unique(np.linspace(0, self.config.num_times - 1, QUERY_FRAMES).round().astype(int))
        times, xys, visibles = [], [], []
        y, x = np.mgrid[1 : self.config.height : QUERY_SPACING_PX, 1 : self.config.width : QUERY_SPACING_PX]
        grid = np.stack([x, y], -1).reshape(-1, 2) + 0.5
        for frame in frames:
            triangle, _, weights = cast(self.views[frame], 0, grid)
            moving = self.parts[triangle] > 0
            _, xy, visible = self._follow(triangle[moving], weights[moving])
            times.append(np.full(len(xy), frame))
            xys.append(xy)
            visibles.append(visible)
        visible = np.concatenate(visibles)
        return Tracks(
            query_times=torch.from_numpy(np.concatenate(times)),
            xy=torch.from_numpy(np.concatenate(xys)).float(),
            visible=torch.from_numpy(visible),
            confidence=torch.ones(visible.shape),
        )

    def truth(self, seed: int) -> GroundTruthTracks:
        """3D tracks of random visible surface points of every part, queried at random frames."""
        rng = np.random.default_rng(seed + 1)
        triangles, weights, times = [], [], []
        seen = [cast(view, 0, self.pixels) for view in self.views]
        for part, count in TRUTH_POINTS.items():
            frame = rng.integers(self.config.num_times, size=count)
            for t in frame:
                candidates = np.nonzero(self.parts[seen[t][0]] == part)[0]
                if len(candidates) == 0:
                    continue
                pick = rng.choice(candidates)
                triangles.append(seen[t][0][pick])
                weights.append(seen[t][2][pick])
                times.append(t)
        triangle = np.array(triangles)
        xyz, xy, visible = self._follow(triangle, np.array(weights))
        return GroundTruthTracks(
            query_times=torch.tensor(np.array(times)),
            xyz=torch.from_numpy(xyz).float(),
            xy=torch.from_numpy(xy).float(),
            visible=torch.from_numpy(visible),
            moving=torch.from_numpy(self.parts[triangle] > 0),
        )
