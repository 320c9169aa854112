"""Depth scores: hand-computed values, an independent evaluation of KITTI's protocol, and the bookkeeping."""

import json
import math

import cv2
import numpy as np
import pytest
import torch

from som.depth.errors import DepthError
from som.depth.evaluation import DepthEvaluation, markdown_table
from som.depth.metrics import METRICS, Protocol, average_flipped, depth_metrics, garg_crop, resize_by_disparity
from som.depth.records import write_scores


def score(pred, target, **options):
    options = {"protocol": "plain", "scale": "none", **options}
    return depth_metrics(torch.tensor([pred]), torch.tensor([target]), **options)


def test_errors_by_hand():
    result = score([2.0, 3.0], [1.0, 4.0])
    assert result["abs_rel"] == pytest.approx((1 / 1 + 1 / 4) / 2)
    assert result["sq_rel"] == pytest.approx((1 / 1 + 1 / 4) / 2)
    assert result["rmse"] == pytest.approx(1.0)
    assert result["mae"] == pytest.approx(1.0)
    logs = math.log(2), math.log(3 / 4)
    assert result["rmse_log"] == pytest.approx(math.sqrt((logs[0] ** 2 + logs[1] ** 2) / 2))
    assert result["silog"] == pytest.approx(100 * abs(logs[0] - logs[1]) / 2)
    # ratios 2 and 4/3 against 1.25, 1.5625, 1.953
    assert (result["a1"], result["a2"], result["a3"]) == (0.0, 0.5, 0.5)
    assert result["ratio"] == pytest.approx(1.0) and result["coverage"] == 1 and result["pixels"] == 2


def test_a_perfect_prediction_has_no_error():
    depth = torch.rand(5, 7) + 1
    result = depth_metrics(depth, depth, protocol="plain", scale="none")
    assert all(result[name] == 0 for name in METRICS if not name.startswith("a") or name == "abs_rel")
    assert result["a1"] == result["a2"] == result["a3"] == 1


def test_a_ratio_of_exactly_the_threshold_is_outside():
    assert score([1.25], [1.0])["a1"] == 0
    assert score([1.0], [1.25])["a1"] == 0


def test_silog_and_median_scaling_are_blind_to_scale():
    g = torch.Generator().manual_seed(0)
    target, pred = torch.rand(2, 9, 11, generator=g) + 0.5
    one, seven = (depth_metrics(pred * s, target, protocol="plain", scale="median") for s in (1, 7))
    assert seven["abs_rel"] == pytest.approx(one["abs_rel"], rel=1e-5)
    assert seven["ratio"] == pytest.approx(one["ratio"] / 7, rel=1e-5)
    silog = [depth_metrics(pred * s, target, protocol="plain", scale="none")["silog"] for s in (1, 7)]
    assert silog[0] == pytest.approx(silog[1], rel=1e-5)


def test_median_of_an_even_number_is_between_the_middle_two():
    assert score([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 4.0, 9.0], scale="median")["ratio"] == 3.0


def test_affine_alignment_undoes_scale_and_shift_of_disparity_and_nothing_else():
    target = torch.linspace(1, 9, 60).reshape(6, 10)
    relative = 1 / (0.3 / target + 0.2)
    assert depth_metrics(relative, target, protocol="plain", scale="affine")["abs_rel"] < 1e-5
    assert depth_metrics(relative, target, protocol="plain", scale="median")["abs_rel"] > 0.1
    assert depth_metrics(relative**2, target, protocol="plain", scale="affine")["abs_rel"] > 0.01


def test_affine_alignment_of_a_flat_prediction_is_the_mean_disparity():
    result = score([3.0, 3.0], [1.0, 2.0], scale="affine")
    assert result["mae"] == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_affine_alignment_never_goes_behind_infinity():
    # the fit of these disparities is negative at the second pixel
    result = score([0.1, 10.0, 1.0, 1.05], [1.0, 1.0, 50.0, 70.0], scale="affine", protocol="eigen_improved")
    assert all(math.isfinite(result[name]) for name in METRICS)


def test_clipping_comes_after_scaling():
    rules = Protocol(0, math.inf, (1.0, 10.0))
    # clipped before, the 40 would be 10 and the scaled 4 wrong
    assert score([4.0, 12.0, 40.0], [1.0, 3.0, 10.0], protocol=rules, scale=0.25)["mae"] == pytest.approx(0)
    assert score([40.0], [20.0], protocol=rules)["mae"] == pytest.approx(10)


def test_garg_crop_of_kitti_images():
    assert garg_crop(375, 1242) == (153, 371, 44, 1197)
    assert garg_crop(370, 1226) == (151, 366, 44, 1181)  # 151.0000007 and 366.9999993, cut off


def test_only_pixels_inside_crop_and_range_count():
    target, pred = torch.zeros(375, 1242), torch.full((375, 1242), 5.0)
    target[153, 44] = target[370, 1196] = 5.0
    target[152, 44] = target[153, 43] = target[371, 1196] = target[370, 1197] = 70.0  # outside the crop
    target[200, 200], target[200, 201], target[200, 202] = 80.0, 1e-3, 79.0
    result = depth_metrics(pred, target, protocol="eigen", scale="none")
    assert result["pixels"] == 3
    assert result["mae"] == pytest.approx(74 / 3, rel=1e-6)
    assert depth_metrics(pred, target, protocol="eigen_improved", scale="none")["pixels"] == 9
    valid = torch.zeros(375, 1242, dtype=torch.bool)
    valid[153, 44] = True
    assert depth_metrics(pred, target, valid, protocol="eigen", scale="none")["pixels"] == 1


def test_indoor_protocol_scores_tenths_of_metres_to_ten_metres():
    result = score([3.0] * 4, [0.05, 0.2, 9.9, 10.5], protocol="rgbd")
    assert result["pixels"] == 2


def reference_eigen(disparity, gt):
    """KITTI's protocol written once more with numpy and OpenCV, in the order of the literature's programs."""
    height, width = gt.shape
    pred = 1 / cv2.resize(disparity, (width, height))
    mask = np.logical_and(gt > 1e-3, gt < 80)
    share = np.array([0.40810811 * height, 0.99189189 * height, 0.03594771 * width, 0.96405229 * width])
    top, bottom, left, right = share.astype(np.int32)
    inside = np.zeros(mask.shape, bool)
    inside[top:bottom, left:right] = True
    mask &= inside
    pred, gt = pred[mask].astype(np.float64), gt[mask].astype(np.float64)
    ratio = np.median(gt) / np.median(pred)
    pred = np.clip(pred * ratio, 1e-3, 80)
    thresh = np.maximum(gt / pred, pred / gt)
    return {
        "abs_rel": np.mean(np.abs(gt - pred) / gt),
        "sq_rel": np.mean((gt - pred) ** 2 / gt),
        "rmse": np.sqrt(np.mean((gt - pred) ** 2)),
        "rmse_log": np.sqrt(np.mean((np.log(gt) - np.log(pred)) ** 2)),
        "a1": (thresh < 1.25).mean(),
        "a2": (thresh < 1.25**2).mean(),
        "a3": (thresh < 1.25**3).mean(),
        "ratio": ratio,
    }


def test_eigen_protocol_equals_an_independent_evaluation():
    rng = np.random.default_rng(0)
    evaluation, expected = DepthEvaluation("eigen", "median"), []
    for height, width in ((375, 1242), (370, 1226)):
        smooth = cv2.resize(
            rng.uniform(0.02, 0.6, (6, 20)).astype(np.float32), (640, 192), interpolation=cv2.INTER_CUBIC
        )
        disparity = np.clip(smooth, 0.01, 10)
        gt = 1 / cv2.resize(disparity, (width, height)) * rng.lognormal(0.7, 0.3, (height, width)).astype(np.float32)
        gt[rng.random(gt.shape) > 0.04] = 0
        evaluation.add(1 / disparity, gt)
        expected.append(reference_eigen(disparity, gt))
    report = evaluation.report()
    for name in ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3"):
        assert report.metrics[name] == pytest.approx(np.mean([e[name] for e in expected]), rel=2e-5), name
    ratios = np.array([e["ratio"] for e in expected])
    assert report.ratio_median == pytest.approx(np.median(ratios), rel=1e-5)
    assert report.ratio_spread == pytest.approx(np.std(ratios / np.median(ratios)), rel=1e-3)


def test_resizing_interpolates_disparity_with_half_pixel_centres():
    depth = torch.tensor([[1.0, 4.0]])
    disparity = 1 / resize_by_disparity(depth, 1, 4)[0]
    torch.testing.assert_close(disparity, torch.tensor([1.0, 0.75 * 1 + 0.25 * 0.25, 0.25 * 1 + 0.75 * 0.25, 0.25]))


def test_unknown_depth_spreads_and_never_mixes():
    depth = torch.tensor([[1.0, 1.0, 0.0, math.inf, 2.0, 2.0]])
    resized = resize_by_disparity(depth, 1, 12)[0]
    # known only where neither of the two interpolated pixels is unknown
    assert resized.tolist() == pytest.approx([1.0] * 3 + [0] * 6 + [2.0] * 3)
    assert resize_by_disparity(depth, 1, 6)[0].tolist() == [1, 1, 0, 0, 2, 2]


def test_missing_predictions_raise_or_show_as_coverage():
    with pytest.raises(DepthError, match="1 of 4 pixels"):
        score([1.0, 1.0, 0.0, 1.0], [1.0, 2.0, 3.0, 1.0])
    result = score([1.0, 1.0, 0.0, math.nan], [1.0, 2.0, 3.0, 0.0], missing="skip")
    assert result["coverage"] == pytest.approx(2 / 3) and result["pixels"] == 2


def test_sequence_scaling_uses_one_factor():
    evaluation = DepthEvaluation("plain", "sequence")
    target = torch.full((2, 3), 6.0)
    for pred in (1.0, 2.0, 3.0):
        assert evaluation.add(torch.full((2, 3), pred), target, name=f"d{pred}") is None
    report = evaluation.report()
    # ratios 6, 3, 2: the factor is 3
    assert [image["mae"] for image in report.images] == pytest.approx([3.0, 0.0, 3.0])
    assert report.ratio_median == 3 and report.ratio_spread == pytest.approx(np.std([2, 1, 2 / 3]))
    assert [image["name"] for image in report.images] == ["d1.0", "d2.0", "d3.0"]


def test_images_count_alike_whatever_their_number_of_pixels():
    evaluation = DepthEvaluation("plain", "none")
    evaluation.add(torch.full((1, 1), 2.0), torch.ones(1, 1))
    evaluation.add(torch.ones(10, 10), torch.ones(10, 10))
    assert evaluation.report().metrics["abs_rel"] == 0.5


def test_images_without_truth_are_named_and_lost_predictions_lower_the_coverage():
    evaluation = DepthEvaluation("plain", "none", missing="skip")
    evaluation.add(torch.ones(2, 2), torch.zeros(2, 2), name="dark")
    evaluation.add(torch.zeros(2, 2), torch.ones(2, 2), name="lost")
    evaluation.add(torch.ones(2, 2), torch.ones(2, 2), name="good")
    report = evaluation.report()
    assert report.skipped == ["dark", "lost"] and len(report.images) == 1
    assert report.coverage == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: depth_metrics(d, d, protocol="nyu"), "unknown protocol"),
        (lambda d: depth_metrics(d, d, scale="mean"), "scale must be"),
        (lambda d: depth_metrics(d, d, scale=-1.0), "scale must be"),
        (lambda d: depth_metrics(d, d, scale="sequence"), "DepthEvaluation"),
        (lambda d: depth_metrics(d, 0 * d, protocol="plain"), "nothing to score"),
        (lambda d: depth_metrics(d[None], d, protocol="plain"), r"\(H,W\)"),
        (lambda d: depth_metrics(d, d, torch.ones(2, 2), protocol="plain"), "differ in shape"),
        (lambda d: DepthEvaluation(missing="ignore"), "missing must be"),
        (lambda d: DepthEvaluation("plain").report(), "nothing to score"),
        (lambda d: DepthEvaluation("plain").add(0 * d, d, name="0007"), "image 0007"),
        (lambda d: average_flipped(d, d[:2]), "one shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(4, 6))


def test_flip_processing_blends_at_the_borders():
    width = 201
    plain, flipped = torch.ones(1, 2, width), torch.full((1, 2, width), 3.0)
    blended = average_flipped(plain, flipped)[0, 0]
    assert blended[:11].tolist() == pytest.approx([3.0] * 11)  # the first 5 %
    assert blended[-11:].tolist() == pytest.approx([1.0] * 11)
    assert blended[15] == pytest.approx(0.5 * 3 + 0.5 * 2)  # halfway down the ramp
    assert blended[100] == pytest.approx(2.0)


def test_flip_processing_mirrors_the_second_prediction_back():
    disparity = torch.rand(3, 5, 40)
    torch.testing.assert_close(average_flipped(disparity, disparity.flip(-1)), disparity)


def test_reports_are_written_as_table_and_json(tmp_path):
    evaluation = DepthEvaluation("plain", "none")
    evaluation.add(torch.full((2, 2), 2.0), torch.ones(2, 2), name="a")
    reports = {"constant": evaluation.report()}
    rows = markdown_table(reports).splitlines()
    assert len(rows) == 3 and rows[2].startswith("| constant | plain | none | 1.000 |")
    assert len({row.count("|") for row in rows}) == 1
    write_scores(tmp_path / "scores.json", reports)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["constant"]["metrics"]["abs_rel"] == 1 and written["constant"]["images"][0]["name"] == "a"
    write_scores(tmp_path / "scores.md", reports)
    assert (tmp_path / "scores.md").read_text() == markdown_table(reports)
    with pytest.raises(DepthError, match=r"\.json or \.md"):
        write_scores(tmp_path / "scores.csv", reports)
