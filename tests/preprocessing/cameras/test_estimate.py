"""Cameras of whole videos whose flow is known exactly: inside a box, which hides nothing from any place in it."""

import dataclasses
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flow.video_flow import VideoFlow
from som.errors import UserError
from som.preprocessing.cameras import search
from som.preprocessing.cameras.alignment import camera_centers, focal_error, trajectory_error
from som.preprocessing.cameras.diagnosis import explain
from som.preprocessing.cameras.estimate import estimate_cameras
from som.preprocessing.cameras.global_mapping import GlobalMappingError
from som.preprocessing.cameras.options import CameraOptions, IncrementalOptions, SearchOptions
from som.preprocessing.cameras.result import CameraEstimate

T, H, W, FOCAL = 14, 60, 96, 84.0
K = np.array([[FOCAL, 0, W / 2], [0, FOCAL, H / 2], [0, 0, 1]])
BOX = np.array([[-2.5, -1.5, -1.0], [3.0, 1.2, 5.0]])
FAST = dict(points_per_query=60, search_points=40, focal_starts=(0.7, 1.2))


def path(step=(0.11, 0.01, 0.06), turn=(0.005, -0.02, 0.004)):
    times = np.arange(T)[:, None]
    w2c = np.tile(np.eye(4), (T, 1, 1))
    w2c[:, :3, :3] = Rotation.from_rotvec(times * np.array(turn) + 0.01 * np.sin(2.0 * times)).as_matrix()
    centers = times * np.array(step) + 0.5 * np.array(step) * np.cos(1.3 * times)
    w2c[:, :3, 3] = -np.einsum("tij,tj->ti", w2c[:, :3, :3], centers)
    return w2c


def walls(xy, w2c):
    """Where the rays through pixels leave the box."""
    rays = np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], -1) @ np.linalg.inv(K).T @ w2c[:3, :3]
    center = -w2c[:3, :3].T @ w2c[:3, 3]
    with np.errstate(divide="ignore"):
        distance = np.where(rays > 0, (BOX[1] - center) / rays, (BOX[0] - center) / rays).min(-1)
    return center + distance[..., None] * rays


def flow_of(w2c, image_size=None, mover=None, strides=(1, 2, 4, 8)):
    """Exact flow; ``mover`` (T,H,W) bool marks pixels that move up by 2 px a frame in the picture instead."""
    flow = VideoFlow(len(w2c), (H, W), image_size)
    grid = np.stack(np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5), -1)
    for a, b in itertools.permutations(range(len(w2c)), 2):
        if abs(a - b) in strides:
            x = walls(grid, w2c[a]) @ w2c[b][:3, :3].T + w2c[b][:3, 3]
            u = x @ K.T
            field = u[..., :2] / np.maximum(u[..., 2:], 1e-3) - grid
            if mover is not None:
                field[mover[a]] = [0, -2.0 * (b - a)]
            flow.put(a, b, torch.from_numpy(np.clip(field, -500, 500)).float())
    return flow


@pytest.fixture(scope="module")
def moving_flow():
    return flow_of(path())


@pytest.fixture(scope="module")
def estimate(moving_flow):
    return estimate_cameras(moving_flow, method="bundle_adjustment", options=CameraOptions(**FAST))


def test_cameras_of_a_room_are_found_without_any_knowledge(estimate):
    error = trajectory_error(estimate.w2c, path())
    assert error.ate_share < 0.01 and error.rotation_deg < 0.1
    assert abs(focal_error(estimate.K, K)) < 0.02
    assert estimate.registered.all() and not estimate.static
    assert estimate.method == "bundle_adjustment"


def test_world_is_the_first_camera_at_a_median_depth_of_one(estimate):
    np.testing.assert_allclose(estimate.w2c[0], np.eye(4), atol=1e-9)
    assert np.median(estimate.observation_depths()) == pytest.approx(1, abs=0.05)


def test_findings_are_plain_json_that_tells_what_was_tried(estimate):
    found = json.loads(json.dumps(estimate.findings, allow_nan=False))
    assert found["registered_share"] == 1
    assert found["median_reprojection_px"] < 0.2 and found["inlier_share"] > 0.95
    assert found["median_parallax_deg"] > 3
    assert 0.03 <= found["loss_scale_px"] <= 0.2
    assert [s["start"] for s in found["starts"]] == [0.7, 1.2]
    assert not found["focal_known"]


def test_sparse_depth_agrees_with_the_walls(estimate):
    depth = estimate.sparse_depth()
    assert depth.shape == (T, H, W) and depth.dtype == np.float32
    truth = path()
    grid = np.stack(np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5), -1)
    true_depth = np.stack([walls(grid, w) @ w[2, :3] + w[2, 3] for w in truth])
    known = depth > 0
    assert known.sum() > 500
    ratio = true_depth[known] / depth[known]
    assert np.percentile(np.abs(ratio / np.median(ratio) - 1), 90) < 0.05


def test_round_trip_on_disk_is_exact(estimate, tmp_path):
    estimate.save(tmp_path / "cameras.npz")
    again = CameraEstimate.load(tmp_path / "cameras.npz")
    for name, value in vars(estimate).items():
        other = getattr(again, name)
        assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other
        assert getattr(value, "dtype", None) == getattr(other, "dtype", None)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        CameraEstimate.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(UserError, match=r"other\.npz is not a readable"):
        CameraEstimate.load(tmp_path / "other.npz")


def test_same_seed_same_cameras(moving_flow):
    options = CameraOptions(focal=FOCAL, points_per_query=40)
    first, second = (estimate_cameras(moving_flow, method="bundle_adjustment", options=options) for _ in range(2))
    np.testing.assert_array_equal(first.w2c, second.w2c)


def test_known_focal_length_is_held_in_pixels_of_larger_images():
    flow = flow_of(path(), image_size=(3 * H, 3 * W))
    found = estimate_cameras(
        flow, method="bundle_adjustment", options=CameraOptions(focal=3 * FOCAL, points_per_query=40)
    )
    np.testing.assert_allclose(found.K, np.diag([3, 3, 1]) @ K)
    assert trajectory_error(found.w2c, path()).ate_share < 0.01
    assert found.size == (3 * H, 3 * W)
    assert found.obs_xy[:, 0].max() > 2 * W
    assert found.findings["focal_known"]


def test_field_of_view_is_another_way_to_say_it():
    fov = np.degrees(2 * np.arctan(W / 2 / FOCAL))
    assert CameraOptions(fov=float(fov)).known_focal(W) == pytest.approx(FOCAL)


def test_masks_keep_a_large_mover_out():
    mover = np.zeros((T, H, W), bool)
    mover[:, 5:55, 30:80] = True
    flow = flow_of(path(), mover=mover)
    options = CameraOptions(focal=FOCAL, points_per_query=80)
    found = estimate_cameras(flow, moving=mover, method="bundle_adjustment", options=options)
    assert trajectory_error(found.w2c, path()).ate_share < 0.01
    inside = mover[found.obs_frame, found.obs_xy[:, 1].astype(int), found.obs_xy[:, 0].astype(int)]
    assert not inside.any()


def test_static_camera_is_recognised_and_its_lens_assumed_aloud():
    mover = np.zeros((T, H, W), bool)
    mover[:, 20:50, 30:70] = True
    found = estimate_cameras(flow_of(np.tile(np.eye(4), (T, 1, 1)), mover=mover))
    assert found.static and found.method == "static"
    np.testing.assert_array_equal(found.w2c, np.tile(np.eye(4), (T, 1, 1)))
    assert found.K[0, 0] == pytest.approx(0.85 * W)
    assert len(found.warnings) == 1 and "`cameras.fov`" in found.warnings[0]
    assert (found.sparse_depth() == 0).all()


def test_static_camera_with_a_known_lens_has_nothing_to_warn_of():
    still = flow_of(np.tile(np.eye(4), (T, 1, 1)))
    assert estimate_cameras(still, options=CameraOptions(focal=FOCAL)).warnings == []


def test_camera_that_moves_and_returns_is_not_static(moving_flow):
    there_and_back = path()[np.r_[0:7, 6:-1:-1]]
    options = CameraOptions(focal=FOCAL, points_per_query=40)
    assert not estimate_cameras(flow_of(there_and_back), options=options).static
    with_force = estimate_cameras(moving_flow, method="static", options=CameraOptions(focal=FOCAL))
    assert with_force.static and "said to be static" in with_force.warnings[0]


def test_camera_that_only_turns_is_told_to_have_no_parallax():
    turning = flow_of(path(step=(0, 0, 0)))
    options = CameraOptions(focal=FOCAL, points_per_query=60)
    found = estimate_cameras(turning, method="bundle_adjustment", options=options)
    assert any("hardly changes its place" in warning for warning in found.warnings)
    assert np.linalg.norm(np.ptp(camera_centers(found.w2c), axis=0)) < 0.05


def test_frames_that_nothing_links_get_interpolated_cameras_and_a_warning():
    flow = flow_of(path())
    nonsense = torch.from_numpy(np.random.default_rng(0).uniform(-20, 20, (H, W, 2))).float()
    for a, b in list(flow.pairs()):
        if 6 in (a, b):
            flow.put(a, b, nonsense)
    found = estimate_cameras(flow, method="bundle_adjustment", options=CameraOptions(focal=FOCAL, points_per_query=60))
    assert np.flatnonzero(~found.registered).tolist() == [6]
    centers = camera_centers(found.w2c)
    np.testing.assert_allclose(centers[6], (centers[5] + centers[7]) / 2, atol=1e-9)
    assert "frame 6" in " ".join(found.warnings)


def test_everything_moving_is_an_error_that_says_so(moving_flow):
    with pytest.raises(UserError, match="masks"):
        estimate_cameras(moving_flow, moving=np.ones((T, H, W), bool))


def test_inputs_of_other_sizes_are_refused(moving_flow):
    with pytest.raises(UserError, match="moving must be"):
        estimate_cameras(moving_flow, moving=np.zeros((T, H, W - 1), bool))
    with pytest.raises(UserError, match="frames must be"):
        estimate_cameras(moving_flow, frames=np.zeros((T - 1, H, W, 3), np.uint8))


@pytest.mark.parametrize(
    "wrong, word",
    [
        (dict(focal=100.0, fov=60.0), "only one"),
        (dict(focal=-1.0), "`cameras.focal`"),
        (dict(fov=200.0), "`cameras.fov`"),
        (dict(focal_starts=()), "`cameras.focal_starts`"),
        (dict(query_stride=0), "`cameras.query_stride`"),
        (dict(match_strides=(0, 1)), "`cameras.match_strides`"),
    ],
)
def test_wrong_options_are_one_sentence(wrong, word):
    with pytest.raises(UserError, match=word):
        CameraOptions(**wrong)


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: SearchOptions(max_cost_ratio=0.9), "`cameras.search.max_cost_ratio`"),
        (lambda: SearchOptions(loss_scales=()), "`cameras.search.loss_scales`"),
        (lambda: IncrementalOptions(min_observations=0), "`cameras.incremental.min_observations`"),
        (lambda: IncrementalOptions(window_frames=5), "`cameras.incremental.window_frames`"),
    ],
)
def test_wrong_thresholds_are_one_sentence(make, word):
    with pytest.raises(UserError, match=word):
        make()


def test_options_load_without_heavy_imports():
    names = "('torch', 'cv2', 'pycolmap')"
    code = f"import sys, som.preprocessing.cameras.options; print([m for m in {names} if m in sys.modules])"
    root = Path(__file__).parents[3]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.skipif(importlib.util.find_spec("pycolmap") is None, reason="needs pycolmap")
def test_global_mapping_finds_the_same_cameras(moving_flow):
    options = CameraOptions(points_per_query=60, focal_starts=(0.8,), num_threads=1)
    found = estimate_cameras(moving_flow, method="global_mapping", options=options)
    assert found.method == "global_mapping"
    assert trajectory_error(found.w2c, path()).ate_share < 0.01
    assert abs(focal_error(found.K, K)) < 0.02


def test_global_mapping_without_pycolmap_says_how_to_get_it(moving_flow, monkeypatch):
    monkeypatch.setattr("som.preprocessing.cameras.search.is_available", lambda: False)
    with pytest.raises(UserError, match=r"som4d\[cameras\]"):
        estimate_cameras(moving_flow, method="global_mapping")


def test_failing_global_mapping_gives_its_reason(moving_flow, monkeypatch):
    def fail(*args, **kwargs):
        raise GlobalMappingError("no tie points")

    monkeypatch.setattr(search, "is_available", lambda: True)
    monkeypatch.setattr(search, "map_cameras", fail)
    with pytest.raises(UserError, match="no tie points"):
        estimate_cameras(moving_flow, method="global_mapping", options=CameraOptions(focal=FOCAL, points_per_query=40))
    # auto asks it only for a second opinion, and lives without
    always = SearchOptions(min_inlier_share=1.1)
    found = estimate_cameras(moving_flow, options=CameraOptions(focal=FOCAL, points_per_query=40, search=always))
    assert found.method == "bundle_adjustment"
    assert "no tie points" in found.findings["failures"][0]


@pytest.mark.parametrize(
    "findings, words",
    [
        (dict(), []),
        (dict(focal_spread=0.4), ["40%"]),
        (dict(focal_spread=0.4, focal_known=True), []),
        (dict(focal_cost_rise=0.001), ["hardly determines the focal length"]),
        (dict(focal_px=30.0), ["few cameras have"]),
        (dict(median_reprojection_px=9.0), ["fit the cameras"]),
        (dict(inlier_share=0.3), ["30%"]),
        (dict(median_parallax_deg=0.2, focal_px=10000.0), ["hardly changes its place", "few cameras have"]),
    ],
)
def test_each_finding_that_is_bad_makes_one_warning(estimate, findings, words):
    said = explain(dataclasses.replace(estimate, findings=estimate.findings | findings))
    assert len(said) == len(words)
    assert all(word in warning for word, warning in zip(words, said, strict=True))
