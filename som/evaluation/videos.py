"""The videos of a scene: beside the input, from new viewpoints, as depth, and with the motion drawn in."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flow.progress import Progress
from som.cameras import Camera
from som.cameras.geometry import in_image, sample_depth
from som.data.dataset import VideoDataset
from som.evaluation.config import EvaluationConfig
from som.evaluation.panels import scene_depth_range
from som.evaluation.tracks import evenly_spread
from som.rendering.camera_paths import make_path, travels
from som.rendering.video import VideoWriter, colorize_depth, draw_trails, rainbow, render_path_video, side_by_side
from som.scene import DynamicScene

logger = logging.getLogger(__name__)


@torch.no_grad()
def render_videos(
    scene: DynamicScene,
    dataset: VideoDataset,
    out_dir: Path,
    config: EvaluationConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Writes the videos named in ``config.videos.kinds`` and returns their files.

    ``train_view.mp4``: render beside the input image; ``novel_view.mp4`` and ``novel_view_depth.mp4``: time plays while
    the camera flies along a path; ``tracks.mp4``: trails of moving points, seen by the training cameras.

    Args:
        dataset: in world units.
        progress: called with what is being done and the share of it that is done.
    """
    config = config or EvaluationConfig()
    kinds: set[str] = set(config.videos.kinds)
    if "tracks" in kinds and scene.foreground is None:
        logger.warning("tracks.mp4 is left out: nothing moves in this scene.")
        kinds.discard("tracks")
    paths: dict[str, Path] = {kind: Path(out_dir) / f"{kind}.mp4" for kind in config.videos.kinds if kind in kinds}
    if kinds & {"train_view", "tracks"}:
        _write_training_camera(scene, dataset, paths, config, progress)
    if kinds & {"novel_view", "novel_view_depth"}:
        _write_novel_view(scene, dataset, paths, config, progress)
    return paths


def _frame_indices(dataset: VideoDataset, config: EvaluationConfig) -> Int[Tensor, "n"]:
    """The training view that each frame of a video belongs to."""
    count = config.videos.num_frames or len(dataset.train)
    return torch.linspace(0, len(dataset.train) - 1, count).round().long()


def _open(stack: ExitStack, paths: dict[str, Path], kinds: tuple[str, ...], fps: float) -> dict[str, VideoWriter]:
    return {k: stack.enter_context(VideoWriter(paths[k], fps)) for k in kinds if k in paths}


def _write_training_camera(
    scene: DynamicScene,
    dataset: VideoDataset,
    paths: dict[str, Path],
    config: EvaluationConfig,
    progress: Progress | None,
) -> None:
    train, indices = dataset.train, _frame_indices(dataset, config)
    cameras, times = scene.normalization.cameras_to_scene(train.cameras[indices]), train.times[indices]
    trails = Trails.of_scene(scene, config) if "tracks" in paths else None
    frames = render_path_video(
        scene,
        cameras,
        times,
        batch_size=config.batch_size,
        background_color=config.background_color,
    )
    with ExitStack() as stack:
        writers = _open(stack, paths, ("train_view", "tracks"), config.videos.fps or dataset.fps)
        for i, frame in enumerate(frames):
            if "train_view" in writers:
                writers["train_view"].append(side_by_side(frame.rgb, train.images[indices[i]].numpy()))
            if trails is not None:
                image = trails.draw(frame.rgb, frame.depth, cameras[i], int(times[i]), config.videos.trail_length)
                writers["tracks"].append(image)
            if progress is not None:
                progress("training camera", (i + 1) / len(indices))


def _write_novel_view(
    scene: DynamicScene,
    dataset: VideoDataset,
    paths: dict[str, Path],
    config: EvaluationConfig,
    progress: Progress | None,
) -> None:
    train, indices = dataset.train, _frame_indices(dataset, config)
    cameras = novel_view_cameras(scene, dataset, config, len(indices))
    near, far = (d / scene.normalization.scale for d in scene_depth_range(scene, train))
    frames = render_path_video(
        scene,
        cameras,
        train.times[indices],
        batch_size=config.batch_size,
        background_color=config.background_color,
    )
    with ExitStack() as stack:
        writers = _open(stack, paths, ("novel_view", "novel_view_depth"), config.videos.fps or dataset.fps)
        for i, frame in enumerate(frames):
            if "novel_view" in writers:
                writers["novel_view"].append(frame.rgb)
            if "novel_view_depth" in writers:
                writers["novel_view_depth"].append(colorize_depth(frame.depth, near, far, frame.alpha))
            if progress is not None:
                progress("novel views", (i + 1) / len(indices))


def novel_view_cameras(
    scene: DynamicScene, dataset: VideoDataset, config: EvaluationConfig, num_frames: int
) -> Camera:
    """The path of the novel-view videos, in scene coordinates, sized by the distance to what moves."""
    options = config.videos
    cameras = scene.normalization.cameras_to_scene(dataset.train.cameras)
    depth = subject_depth(scene, dataset)
    follow = travels(cameras.w2c, depth) if options.follow == "auto" else options.follow == "yes"
    return make_path(options.path, cameras, num_frames, depth, options.degrees, options.turns, follow)


@torch.no_grad()
def subject_depth(scene: DynamicScene, dataset: VideoDataset, num_views: int = 8) -> float:
    """Median rendered depth, in scene units, of the moving objects, or of everything where nothing moving is seen."""
    train = dataset.train
    chosen = evenly_spread(len(train), num_views)
    cameras = scene.normalization.cameras_to_scene(train.cameras[chosen])
    frames = render_path_video(scene, cameras, train.times[chosen], batch_size=1)
    moving, seen = [], []
    for frame in frames:
        moving.append(frame.depth[frame.foreground > 0.5])
        seen.append(frame.depth[frame.alpha > 0.5])
    for depths in (np.concatenate(moving), np.concatenate(seen)):
        if len(depths) > 0:
            return float(np.median(depths))
    return 1.0


@dataclass
class Trails:
    """Where some foreground points are at every time."""

    positions: Float[Tensor, "t n 3"]
    """Scene coordinates, on the CPU."""
    colors: np.ndarray
    """(N, 3) uint8, by the points' order from left to right at the middle time."""

    @staticmethod
    @torch.no_grad()
    def of_scene(scene: DynamicScene, config: EvaluationConfig) -> Trails:
        """Random, mostly opaque Gaussians of the foreground."""
        if scene.moving is None:
            raise ValueError("Trails.of_scene: nothing moves in this scene.")
        fg, bases = scene.moving
        opaque = (fg.opacities > 0.5).nonzero()[:, 0].cpu()
        candidates = opaque if len(opaque) > 0 else torch.arange(len(fg))
        generator = torch.Generator().manual_seed(config.seed)
        order = torch.randperm(len(candidates), generator=generator)[: config.videos.num_trails]
        chosen = candidates[order].to(scene.device)
        times = torch.arange(scene.num_times, device=scene.device)
        R, transl = bases.poses(fg.motion_weights[chosen], times)
        positions = ((R @ fg.means[chosen][:, :, None])[..., 0] + transl).cpu()
        return Trails(positions, rainbow(positions[len(positions) // 2, :, 0].numpy()))

    def draw(
        self,
        rgb: Float[np.ndarray, "h w 3"],
        depth: Float[np.ndarray, "h w"],
        camera: Camera,
        time: int,
        length: int,
        tolerance: float = 0.1,
    ) -> np.ndarray:
        """The dimmed frame with the last ``length`` steps of every point that is not hidden behind the scene now."""
        positions = self.positions[max(0, time - length) : time + 1]
        xy, z = camera.project(positions)
        surface = sample_depth(torch.from_numpy(depth)[None], xy[-1:])[0]
        visible = in_image(xy[-1], *depth.shape) & (z[-1] > 0) & (z[-1] < surface * (1 + tolerance))
        return draw_trails(0.7 * rgb, xy.numpy(), self.colors, visible.numpy(), (z > 0).numpy())
