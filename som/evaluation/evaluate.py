"""Scores a scene against a data set's views."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from flow.progress import Progress
from som.data.dataset import VideoDataset, Views
from som.errors import UserError
from som.evaluation.config import EvaluationConfig
from som.evaluation.metrics import (
    LPIPS,
    depth_discordance,
    depth_errors,
    disparity_correlation,
    load_lpips,
    mask_iou,
    masked_ssim,
    psnr,
    ssim,
)
from som.evaluation.metrics.image import WINDOW_PX
from som.evaluation.panels import ViewPanels
from som.evaluation.report import EvaluationReport, write_csv, write_json
from som.evaluation.tracks import evaluate_tracks, evenly_spread
from som.scene import DynamicScene, Picture, SceneRender

DEFINITIONS = {
    "psnr": "-10 log10 of the mean squared error, RGB in [0, 1]; null for identical images (infinite)",
    "ssim": "11-tap Gaussian windows, sigma 1.5; masked: windows see masked pixels only, mean over the mask's pixels",
    "ssim_covisible_dycheck": "DyCheck's mSSIM; windows without masked pixels count as 1, which inflates it",
    "lpips": "AlexNet, spatial; masked: both images black outside the mask, mean over the mask's pixels",
    "depth_abs_rel": "mean |d - d*| / d* where the data set's depth d* is known; nothing rendered counts as d = 0",
    "depth_rmse": "root mean squared depth error in world units",
    "depth_delta1": "fraction of pixels with max(d / d*, d* / d) < 1.25",
    "depth_abs_rel_scaled": "depth_abs_rel after scaling each view by median(d* / d)",
    "depth_rmse_scaled": "depth_rmse after the same scaling",
    "depth_delta1_scaled": "depth_delta1 after the same scaling",
    "depth_discordance": "share of random pixel pairs more than 5 % apart in depth that are in the wrong order",
    "depth_disparity_correlation": "Pearson correlation of inverse depths",
    "mask_iou": "intersection over union of the data set's foreground and rendered foreground > 0.5",
}
REGION_WORDS = {
    "foreground": "over valid pixels of moving objects",
    "background": "over valid pixels of static surfaces",
    "covisible": "over valid pixels that training views have seen (DyCheck)",
}


@torch.no_grad()
def evaluate(
    scene: DynamicScene,
    dataset: VideoDataset,
    *,
    output: str | Path | None = None,
    config: EvaluationConfig | None = None,
    device: torch.device | str | None = None,
    step: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> EvaluationReport:
    """Scores the held-out views, or the training views where there are none (the report says which).

    Every value is the mean over views of that view's value, leaving out views where it is undefined. Only valid pixels
    count. Cameras and depths go through the scene's normalisation, so all lengths are in world units.

    Args:
        dataset: in world units; the one that the scene was trained on, or one of the same frames.
        output: folder that receives ``metrics.json``, ``per_frame.csv`` and, if asked for, ``renders/``,
            ``ground_truth/`` and ``side_by_side/``; None writes nothing.
        config: settings; None takes the defaults.
        device: where to render; by default where the scene is. The scene is moved there.
        step: training step, for the report.
        progress: called with what is being done and the share of it that is done.
        options: fields of ``EvaluationConfig``, such as ``max_views=4``, in place of those of ``config``.

    Raises:
        UserError: the data set has another number of frames than the scene, or an option cannot be used.
    """
    if dataset.num_times != scene.num_times:
        raise UserError(
            f"{dataset.name}: has {dataset.num_times} frames but the scene {scene.num_times}; score a scene against "
            "the data set (and frame range) it was trained on."
        )
    config = replace(config or EvaluationConfig(), **options)
    if config.max_views < 0:
        raise UserError(f"`evaluation.max_views`: must be 0 (all) or positive, got {config.max_views}.")
    out_dir = None if output is None else Path(output)
    if out_dir is not None and out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"`output` {out_dir}: is a file; name a folder.")
    if device is not None:
        scene = scene.to(device)
    split, views = "train", dataset.train
    if dataset.val is not None and len(dataset.val) > 0:
        split, views = "val", dataset.val
    available = len(views)
    views = views.select(evenly_spread(available, config.max_views))
    if config.lpips == "off":
        lpips = LPIPS(None, "switched off")
    else:
        lpips = load_lpips(str(scene.device), config.lpips == "auto")
    rows = _score_views(scene, dataset, views, lpips, config, out_dir, progress)
    summary = nan_mean_by_key(rows)
    unavailable = {} if lpips.unavailable is None else {"lpips": lpips.unavailable}
    if dataset.depth_kind == "relative" and views.depths is not None:
        unavailable["depth errors"] = "the data set's depth has an unknown scale and shift in every frame"
    definitions = {name: _define(name) for name in summary}
    if dataset.ground_truth_tracks is not None:
        values, texts = evaluate_tracks(scene, dataset, dataset.ground_truth_tracks, config, progress)
        summary |= values
        definitions |= texts
    report = EvaluationReport(
        dataset=dataset.name,
        split=split,
        num_views=len(views),
        num_views_available=available,
        summary=summary,
        per_frame=rows,
        definitions=definitions,
        unavailable=unavailable,
        step=step,
    )
    if out_dir is not None:
        write_json(report, out_dir / "metrics.json")
        write_csv(report, out_dir / "per_frame.csv")
    return report


def _score_views(
    scene: DynamicScene,
    dataset: VideoDataset,
    views: Views,
    lpips: LPIPS,
    config: EvaluationConfig,
    out_dir: Path | None,
    progress: Progress | None,
) -> list[dict]:
    """One row of values per view; writes the images on the way."""
    rows = []
    panels = ViewPanels(out_dir, scene, views, config) if out_dir is not None and config.save_images else None
    for start in range(0, len(views), config.batch_size):
        part = views.select(list(range(start, min(start + config.batch_size, len(views)))))
        render = render_views(scene, part, config)
        for i in range(len(part)):
            view = part.select([i])
            single = view_of_render(render, i, scene.normalization.scale)
            scores = score_view(single, view, dataset, lpips, config)
            rows.append({"name": view.names[0], "time": int(view.times[0]), **scores})
            if panels is not None:
                panels.write(view, single)
            if progress is not None:
                progress("views", len(rows) / len(views))
    return rows


def render_views(scene: DynamicScene, views: Views, config: EvaluationConfig) -> SceneRender:
    """Renders views given in world units."""
    device = scene.device
    cameras = scene.normalization.cameras_to_scene(views.cameras).to(device)
    return scene.rasterize_views(
        cameras.w2c,
        cameras.K,
        views.times.to(device),
        views.width,
        views.height,
        background_color=config.background_color,
    )


def view_of_render(render: SceneRender, index: int, scale: float) -> Picture:
    """One view of a batch: colours in [0, 1], depth in world units."""
    return Picture(
        rgb=render.rgb[index].clamp(0, 1),
        alpha=render.alpha[index],
        depth=render.depth[index] * scale,
        foreground=render.foreground[index],
        tracks=None,
    )


def score_view(
    picture: Picture, view: Views, dataset: VideoDataset, lpips: LPIPS, config: EvaluationConfig
) -> dict[str, float]:
    """All values of one view.

    Args:
        picture: from :func:`view_of_render`.
        view: one view, in world units.
    """
    device = picture.rgb.device
    target = view.images[0].to(device).float() / 255
    valid = view.valid[0].to(device)
    foreground = None if view.foreground is None else view.foreground[0].to(device)
    if foreground is not None and not dataset.has_background:
        valid = valid & foreground  # nothing else is modelled
    regions = {"": valid}
    if foreground is not None and dataset.has_background:
        regions |= {"_foreground": valid & foreground, "_background": valid & ~foreground}
    if view.covisible is not None:
        regions["_covisible"] = valid & view.covisible[0].to(device)
    values: dict[str, float] = {}
    for suffix, mask in regions.items():
        values |= {k + suffix: v for k, v in _image_scores(picture.rgb, target, mask, lpips).items()}
    if view.covisible is not None and min(valid.shape) >= WINDOW_PX:
        values["ssim_covisible_dycheck"] = float(masked_ssim(picture.rgb, target, regions["_covisible"]))
    if view.depths is not None:
        values |= _depth_scores(picture.depth, view.depths[0].to(device), valid, dataset, config)
    if foreground is not None:
        values["mask_iou"] = float(mask_iou(picture.foreground > 0.5, foreground, view.valid[0].to(device)))
    return values


def _image_scores(pred: Tensor, target: Tensor, mask: Bool[Tensor, "h w"], lpips: LPIPS) -> dict[str, float]:
    small = min(mask.shape) <= WINDOW_PX // 2
    return {
        "psnr": float(psnr(pred, target, mask)),
        "ssim": math.nan if small else float(ssim(pred, target, mask)),
        "lpips": lpips(pred, target, None if bool(mask.all()) else mask),
    }


def _depth_scores(
    pred: Tensor, target: Tensor, valid: Tensor, dataset: VideoDataset, config: EvaluationConfig
) -> dict[str, float]:
    values: dict[str, float] = {}
    if dataset.depth_kind != "relative":
        values |= {f"depth_{k}": v for k, v in depth_errors(pred, target, valid).items()}
        scaled = depth_errors(pred, target, valid, scaling="median")
        values |= {f"depth_{k}_scaled": v for k, v in scaled.items()}
    generator = torch.Generator().manual_seed(config.seed)
    values["depth_discordance"] = depth_discordance(
        pred, target, valid, num_pairs=config.order_pairs, generator=generator
    )
    values["depth_disparity_correlation"] = disparity_correlation(pred, target, valid)
    return values


def nan_mean_by_key(rows: list[dict]) -> dict[str, float]:
    """Mean of each value over the rows in which it is not nan; nan where it never is."""
    names = dict.fromkeys(k for row in rows for k in row if k not in ("name", "time"))
    means = {}
    for name in names:
        known = [row[name] for row in rows if name in row and not math.isnan(row[name])]
        means[name] = sum(known) / len(known) if known else math.nan
    return means


def _define(name: str) -> str:
    if name in DEFINITIONS:
        return DEFINITIONS[name]
    base, _, region = name.partition("_")
    return f"{DEFINITIONS[base]}; {REGION_WORDS[region]}"
