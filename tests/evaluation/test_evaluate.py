import json
import math
from dataclasses import replace

import imageio.v3 as iio
import pytest
import torch

from som.data.dataset import GroundTruthTracks, VideoDataset
from som.evaluation.config import EvaluationConfig
from som.evaluation.evaluate import evaluate, nan_mean_by_key
from som.evaluation.tracks import evenly_spread, sample_positions
from som.scene import DynamicScene

TIMES, HEIGHT, WIDTH = 5, 24, 32
CONFIG = EvaluationConfig(lpips="off", batch_size=2, order_pairs=2000)


def test_own_renders_score_perfectly(scene, dataset, tmp_path):
    report = evaluate(scene, dataset, output=tmp_path, config=CONFIG, device="cpu", step=7)
    values = report.summary
    assert report.split == "val" and report.num_views == TIMES
    assert values["psnr"] > 50 and values["psnr_foreground"] > 50 and values["ssim"] > 0.999
    assert values["mask_iou"] == 1.0
    assert values["depth_abs_rel"] < 1e-5 and values["depth_rmse"] < 1e-4 and values["depth_delta1"] == 1.0
    assert values["depth_discordance"] == 0.0
    assert "lpips" in report.unavailable and math.isnan(values["lpips"])
    assert set(report.definitions) == set(values)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["step"] == 7 and len(written["per_frame"]) == TIMES and written["summary"]["lpips"] is None
    assert (tmp_path / "per_frame.csv").read_text().count("\n") == TIMES + 1
    assert iio.imread(tmp_path / "renders" / "b_002.png").shape == (HEIGHT, WIDTH, 3)
    assert (iio.imread(tmp_path / "ground_truth" / "b_002.png") == dataset.val.images[2].numpy()).all()
    assert iio.imread(tmp_path / "side_by_side" / "b_002.png").shape == (HEIGHT, 4 * WIDTH + 6, 3)


def test_training_views_when_nothing_is_held_out(scene, dataset):
    calls = []
    config = replace(CONFIG, max_views=3)
    report = evaluate(
        scene, replace(dataset, val=None), config=config, progress=lambda *call: calls.append(call)
    )
    assert report.split == "train" and report.num_views == 3 and report.num_views_available == TIMES
    assert [row["name"] for row in report.per_frame] == ["a_000", "a_002", "a_004"]
    assert calls == [("views", (i + 1) / 3) for i in range(3)]


def test_invalid_pixels_are_left_out(scene, dataset):
    val = dataset.val
    valid = val.valid.clone()
    valid[:, :, :10] = False
    ruined = replace(val, images=torch.where(valid[..., None], val.images, 0), valid=valid, covisible=valid)
    ruined.depths[:, :, :10] = 99.0
    values = evaluate(scene, replace(dataset, val=ruined), config=CONFIG).summary
    assert values["psnr"] > 50 and values["psnr_covisible"] > 50 and values["ssim_covisible"] > 0.999
    assert values["ssim_covisible_dycheck"] > 0.999
    assert values["depth_abs_rel"] < 1e-5


def test_nothing_valid_is_undefined_not_zero(scene, dataset):
    val = replace(dataset.val, valid=torch.zeros_like(dataset.val.valid))
    values = evaluate(scene, replace(dataset, val=val), config=CONFIG).summary
    assert all(math.isnan(v) for v in values.values())


def test_relative_depth_has_order_only(scene, dataset):
    report = evaluate(scene, replace(dataset, depth_kind="relative"), config=CONFIG)
    assert "depth_abs_rel" not in report.summary and "depth errors" in report.unavailable
    assert report.summary["depth_discordance"] == 0.0


def test_scene_without_background(scene, dataset, render_views):
    alone = DynamicScene(scene.foreground, scene.motion_bases, None, scene.normalization)
    data = VideoDataset("fg", TIMES, render_views(alone, dataset.train.cameras.w2c, "a"), has_background=False)
    values = evaluate(alone, data, config=CONFIG).summary
    assert values["psnr"] > 50 and "psnr_background" not in values


def test_tracks_follow_the_ball(make_ball):
    scene, dataset = make_ball()
    values = evaluate(scene, dataset, config=replace(CONFIG, track_chunk=2)).summary
    assert values["tracks_3d_epe"] < 1e-3 and values["tracks_3d_within_0.05"] == 1.0
    assert values["tracks_3d_epe_occluded"] < 1e-3
    assert values["tracks_2d_pck"] == 1.0 and values["tracks_2d_delta_avg"] == 1.0
    assert values["tracks_2d_oa"] == 1.0 and values["tracks_2d_aj"] == 1.0


def test_track_errors_are_in_world_units(make_ball):
    scene, dataset = make_ball(offset_world=(0.0, 0.07, 0.0))
    values = evaluate(scene, dataset, config=CONFIG).summary
    assert values["tracks_3d_epe"] == pytest.approx(0.07, abs=1e-3)
    assert values["tracks_3d_within_0.05"] == 0.0 and values["tracks_3d_within_0.1"] == 1.0


def test_occluded_points_get_no_credit_for_free(make_ball):
    """Without the wall the scene still says the ball is seen where it is truly hidden: that has to cost."""
    scene, dataset = make_ball()
    no_wall = DynamicScene(scene.foreground, scene.motion_bases, None, scene.normalization)
    values = evaluate(no_wall, dataset, config=CONFIG).summary
    assert values["tracks_2d_pck"] == 1.0
    assert values["tracks_2d_oa"] == pytest.approx(2 / 4)  # times 0 and 2 right, 3 and 4 wrong
    assert values["tracks_2d_aj"] == pytest.approx(2 / (2 + 2))


def test_moving_points_are_also_scored_apart(make_ball):
    scene, dataset = make_ball()
    truth = dataset.ground_truth_tracks
    doubled = {k: torch.cat([v, v]) for k, v in vars(truth).items()} | {"moving": torch.tensor([True, False])}
    doubled["xyz"] = doubled["xyz"] + torch.tensor([0.0, 0.5])[:, None, None]
    report = evaluate(
        scene, replace(dataset, ground_truth_tracks=GroundTruthTracks(**doubled)), config=CONFIG
    )
    assert report.summary["tracks_3d_epe_moving"] < 1e-3
    assert report.summary["tracks_3d_epe"] > 0.3
    assert "moving points only" in report.definitions["tracks_3d_epe_moving"]


def test_sample_positions_never_mixes_surfaces():
    positions = torch.zeros(1, 2, 2, 3)
    positions[0, :, 1] = 10.0
    depth = torch.tensor([[1.0, 5.0], [1.0, 5.0]])
    xy = torch.tensor([[0.9, 1.0], [1.1, 1.0]])
    assert sample_positions(positions, depth, xy)[:, 0, 0].tolist() == [0.0, 10.0]
    smooth = sample_positions(positions, torch.ones(2, 2), xy)[:, 0, 0]
    torch.testing.assert_close(smooth, torch.tensor([4.0, 6.0]))


def test_evenly_spread():
    assert evenly_spread(5, 0) == [0, 1, 2, 3, 4]
    assert evenly_spread(9, 3) == [0, 4, 8]
    assert evenly_spread(9, 1) == [0]
    assert evenly_spread(2, 7) == [0, 1]


def test_nan_mean():
    rows = [{"name": "a", "time": 0, "x": 1.0, "y": math.nan}, {"name": "b", "time": 1, "x": math.nan, "y": math.nan}]
    means = nan_mean_by_key(rows)
    assert means["x"] == 1.0 and math.isnan(means["y"])


