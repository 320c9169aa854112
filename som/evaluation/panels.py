"""Images that an evaluation leaves behind: render, ground truth, and both next to error and depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from som.data.dataset import Views
from som.evaluation.config import EvaluationConfig
from som.evaluation.tracks import evenly_spread
from som.files import write_image
from som.rendering.video import colorize_depth, colorize_error, depth_range, side_by_side, to_uint8
from som.scene import DynamicScene, Picture

NUM_RANGE_VIEWS = 8


class ViewPanels:
    """Writes the images of one view after the other; depth colours mean the same in all of them."""

    def __init__(self, out_dir: Path, scene: DynamicScene, views: Views, config: EvaluationConfig):
        self._folders = {name: out_dir / name for name in ("renders", "ground_truth", "side_by_side")}
        for folder in self._folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        self._near, self._far = scene_depth_range(scene, views)

    def write(self, view: Views, picture: Picture) -> None:
        """Args: one view, and what the scene shows there."""
        name = f"{view.names[0]}.png"
        rgb, truth = to_uint8(picture.rgb), view.images[0].numpy()
        valid = view.valid[0].numpy()
        error = np.abs(picture.rgb.cpu().numpy() - truth / 255).mean(-1)
        error_map = np.where(valid[..., None], colorize_error(error), 0).astype(np.uint8)
        depth = colorize_depth(picture.depth.cpu().numpy(), self._near, self._far, picture.alpha.cpu().numpy())
        write_image(self._folders["renders"] / name, rgb)
        write_image(self._folders["ground_truth"] / name, truth)
        write_image(self._folders["side_by_side"] / name, side_by_side(rgb, truth, error_map, depth))


@torch.no_grad()
def scene_depth_range(scene: DynamicScene, views: Views) -> tuple[float, float]:
    """Near and far depth in world units over a few evenly spread views, one range for a whole video."""
    device, depths = scene.device, []
    for i in evenly_spread(len(views), NUM_RANGE_VIEWS):
        camera = scene.normalization.cameras_to_scene(views.cameras[i : i + 1]).to(device)
        out = scene.rasterize_views(camera.w2c, camera.K, views.times[i : i + 1].to(device), views.width, views.height)
        depths.append((torch.where(out.alpha > 0.5, out.depth, 0.0)[0] * scene.normalization.scale).cpu().numpy())
    return depth_range(depths)
