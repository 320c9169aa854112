"""Scores a scene's motion against exact tracks: points are followed from their query pixels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flow.progress import Progress
from flow.tap import tap_vid
from som.cameras.geometry import in_image, sample_depth, sample_image
from som.data.dataset import GroundTruthTracks, VideoDataset
from som.evaluation.config import EvaluationConfig
from som.evaluation.metrics import pck, track_errors_3d
from som.scene import DynamicScene

DEFINITIONS = {
    "tracks_3d_epe": "mean distance in world units over truly visible (track, time) pairs, query time left out",
    "tracks_3d_epe_median": "median of the same distances",
    "tracks_3d_within_0.05": "fraction of them below 0.05 world units (5 cm in metric data sets)",
    "tracks_3d_within_0.1": "fraction of them below 0.1 world units (10 cm in metric data sets)",
    "tracks_3d_epe_occluded": "mean distance over truly occluded pairs",
    "tracks_2d_pck": "fraction of truly visible pairs within 5 % of the longer image side (PCK-T)",
    "tracks_2d_aj": "TAP-Vid average Jaccard, thresholds 1, 2, 4, 8, 16 pixels of a 256 x 256 image",
    "tracks_2d_delta_avg": "TAP-Vid fraction of visible points within those thresholds, averaged",
    "tracks_2d_oa": "TAP-Vid occlusion accuracy; a point is predicted visible where its depth is the rendered depth",
}


def evenly_spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of ``range(count)``, evenly spread and with both ends; all for limit 0."""
    if limit <= 0 or limit >= count:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)})


def sample_positions(
    positions: Float[Tensor, "n h w 3"], depth: Float[Tensor, "h w"], xy: Float[Tensor, "q 2"]
) -> Float[Tensor, "q n 3"]:
    """Values of position maps at continuous image coordinates, never mixing two surfaces.

    Bilinear where the depth map is smooth (as ``som.cameras.geometry.sample_depth`` decides), else the nearest pixel.
    """
    maps = torch.cat([positions.permute(1, 2, 0, 3).flatten(2), depth[..., None]], -1)[None]  # (1, H, W, 3N + 1)
    bilinear, nearest = (sample_image(maps, xy[None], mode)[0] for mode in ("bilinear", "nearest"))
    guarded = sample_depth(depth[None], xy[None])[0]
    smooth = (guarded - bilinear[:, -1]).abs() <= 1e-4 * guarded.abs()
    return torch.where(smooth[:, None], bilinear, nearest)[:, :-1].unflatten(-1, (-1, 3))


@torch.no_grad()
def predict_tracks(
    scene: DynamicScene,
    dataset: VideoDataset,
    truth: GroundTruthTracks,
    query_times: list[int],
    config: EvaluationConfig,
    progress: Progress | None = None,
) -> Float[Tensor, "q t 3"]:
    """World positions at all T times of the surface seen at each query pixel; nan for other query times.

    A query pixel where the scene draws nothing predicts the scene's centre.
    """
    device, size = scene.device, (dataset.train.width, dataset.train.height)
    cameras = scene.normalization.cameras_to_scene(dataset.train.cameras.to(device))
    view_of_time = dataset.train_index_of_time
    out = torch.full(truth.xyz.shape, math.nan)
    all_times = torch.arange(dataset.num_times, device=device)
    for done, time in enumerate(query_times):
        queries = (truth.query_times == time).nonzero()[:, 0]
        view = int(view_of_time[time])
        camera = cameras[view : view + 1]
        xy = truth.xy[queries, time].to(device)
        for chunk in all_times.split(config.track_chunk):
            render = scene.rasterize_views(
                camera.w2c, camera.K, torch.tensor([time], device=device), *size, track_times=chunk[None]
            )
            assert render.tracks is not None  # asked for
            seen = sample_positions(render.tracks[0], render.depth[0], xy)
            out[queries[:, None], chunk.cpu()] = scene.normalization.points_to_world(seen).cpu()
        if progress is not None:
            progress("tracks", (done + 1) / len(query_times))
    return out


@torch.no_grad()
def project_tracks(
    scene: DynamicScene, dataset: VideoDataset, xyz: Float[Tensor, "q t 3"], config: EvaluationConfig
) -> tuple[Float[Tensor, "q t 2"], Bool[Tensor, "q t"]]:
    """Image coordinates in the training view of each time and whether the point is seen there, by rendered depth.

    Every point gets a prediction at every time that has a training view, whatever the truth there.
    """
    device, train = scene.device, dataset.train
    xy = torch.zeros(*xyz.shape[:2], 2)
    visible = torch.zeros(xyz.shape[:2], dtype=torch.bool)
    in_scene = scene.normalization.cameras_to_scene(train.cameras).to(device)
    for start in range(0, len(train), config.batch_size):
        part = slice(start, start + config.batch_size)
        times = train.times[part]
        render = scene.rasterize_views(
            in_scene.w2c[part], in_scene.K[part], times.to(device), train.width, train.height
        )
        depth = render.depth.cpu() * scene.normalization.scale
        points = xyz[:, times].transpose(0, 1)  # (B, Q, 3)
        at, z = train.cameras[part].project(points)
        tolerance = config.visible_depth_tolerance * z
        seen = (z > 0) & in_image(at, train.height, train.width) & ((sample_depth(depth, at) - z).abs() < tolerance)
        xy[:, times] = at.transpose(0, 1)
        visible[:, times] = seen.transpose(0, 1)
    return xy, visible


def evaluate_tracks(
    scene: DynamicScene,
    dataset: VideoDataset,
    truth: GroundTruthTracks,
    config: EvaluationConfig,
    progress: Progress | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """All track metrics, and again over moving points only (suffix ``_moving``), with their definitions."""
    has_view = dataset.train_index_of_time >= 0
    asked = truth.query_times.unique()
    asked = asked[has_view[asked]].tolist()
    query_times = [asked[i] for i in evenly_spread(len(asked), config.max_query_times)]
    xyz = predict_tracks(scene, dataset, truth, query_times, config, progress)
    chosen = torch.isin(truth.query_times, torch.tensor(query_times, dtype=truth.query_times.dtype))
    picked = GroundTruthTracks(**{name: value[chosen] for name, value in vars(truth).items()})
    xy, visible = project_tracks(scene, dataset, xyz[chosen], config)
    values = score_tracks(dataset, picked, xyz[chosen], xy, visible, has_view)
    definitions = dict(DEFINITIONS)
    if bool(picked.moving.any()) and not bool(picked.moving.all()):
        moving = picked.moving
        subset = GroundTruthTracks(**{name: value[moving] for name, value in vars(picked).items()})
        scores = score_tracks(dataset, subset, xyz[chosen][moving], xy[moving], visible[moving], has_view)
        values |= {f"{name}_moving": value for name, value in scores.items()}
        definitions |= {f"{name}_moving": f"{text}; moving points only" for name, text in DEFINITIONS.items()}
    return values, definitions


def score_tracks(
    dataset: VideoDataset,
    truth: GroundTruthTracks,
    xyz: Float[Tensor, "q t 3"],
    xy: Float[Tensor, "q t 2"],
    visible: Bool[Tensor, "q t"],
    has_view: Bool[Tensor, "t"],
) -> dict[str, float]:
    """Metrics of predicted tracks. Scored are all times but the query time; in 2D, those with a training view."""
    times: Int[Tensor, "t"] = torch.arange(dataset.num_times)
    others = times[None] != truth.query_times[:, None]
    known_3d = others & truth.xyz.isfinite().all(-1)
    # Where a point is occluded only its flag is scored, so its position need not be known.
    known_2d = others & has_view & (truth.xy.isfinite().all(-1) | ~truth.visible)
    size = (dataset.train.width, dataset.train.height)
    values = {f"tracks_3d_{k}": v for k, v in track_errors_3d(xyz, truth.xyz, known_3d & truth.visible).items()}
    values["tracks_3d_epe_occluded"] = track_errors_3d(xyz, truth.xyz, known_3d & ~truth.visible)["epe"]
    values["tracks_2d_pck"] = pck(xy, truth.xy, known_2d & truth.visible, *size)
    tap = tap_vid(xy, visible, truth.xy, truth.visible, known_2d, *size)
    return values | {f"tracks_2d_{k}": v for k, v in tap.items()}
