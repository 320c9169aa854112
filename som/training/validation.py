"""A quick look at the held-out views while training; ``som4d val`` does the full scoring."""

from __future__ import annotations

import torch

from som.data.dataset import Views
from som.scene import DynamicScene


@torch.no_grad()
def quick_scores(
    scene: DynamicScene, views: Views, device: torch.device, has_background: bool = True, batch_size: int = 4
) -> dict[str, float]:
    """Mean PSNR in dB over views: ``all`` valid pixels, and ``foreground`` where masks are known.

    Args:
        views: in scene coordinates.
        has_background: False counts foreground pixels only, since the rest of the image is not part of the scene.
    """
    scores: dict[str, list[float]] = {"all": [], "foreground": []}
    for start in range(0, len(views), batch_size):
        chunk = views.select(list(range(start, min(start + batch_size, len(views)))))
        render = scene.rasterize_views(
            chunk.cameras.w2c.to(device),
            chunk.cameras.K.to(device),
            chunk.times.to(device),
            views.width,
            views.height,
        )
        error = ((render.rgb.cpu().clamp(0, 1) - chunk.images.float() / 255) ** 2).mean(-1)
        regions = {"all": chunk.valid}
        if chunk.foreground is not None:
            regions["foreground"] = chunk.valid & chunk.foreground
            if not has_background:
                regions["all"] = regions["foreground"]
        for name, region in regions.items():
            for e, inside in zip(error, region, strict=True):
                if inside.any():
                    scores[name].append(float(-10 * torch.log10(e[inside].mean().clamp(min=1e-10))))
    return {name: sum(values) / len(values) for name, values in scores.items() if values}
