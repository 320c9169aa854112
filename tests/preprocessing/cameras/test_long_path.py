"""Cameras of a long walk whose beginning and end see nothing in common."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from som.preprocessing.cameras import incremental
from som.preprocessing.cameras.alignment import trajectory_error
from som.preprocessing.cameras.bundle_adjustment import FocalPrior, adjust
from som.preprocessing.cameras.incremental import build_scene, refine_scene
from som.preprocessing.cameras.observations import Observations

CENTER, FOCAL = np.array([192.0, 108.0]), 330.0


def walk(num_frames):
    """A curve that a hand-held camera walks, looking left and right."""
    rng, s = np.random.default_rng(0), np.arange(num_frames)[:, None] / 300
    shake = gaussian_filter1d(rng.normal(size=(2, num_frames, 3)), 3, axis=1)
    centers = np.concatenate([4 * np.sin(2.2 * s), 0.25 * np.sin(7 * s), 5 * s], 1) + 0.1 * shake[0]
    turns = np.concatenate([-np.sin(3.5 * s), 0.1 * np.sin(5 * s)], 1)
    w2c = np.tile(np.eye(4), (num_frames, 1, 1))
    w2c[:, :3, :3] = (Rotation.from_rotvec(0.04 * shake[1]) * Rotation.from_euler("yx", turns)).as_matrix()
    w2c[:, :3, 3] = -np.einsum("tij,tj->ti", w2c[:, :3, :3], centers)
    return w2c


def follow(w2c, per_query, noise=0.2, wild=0.05):
    """Tracks of some 25 frames both ways from every fifth frame, with noise in pixels; a few drift away."""
    rng, frames, places, queries = np.random.default_rng(1), [], [], []
    for query in range(0, len(w2c), 5):
        uv, depth = rng.uniform(0, 1, (per_query, 2)) * 2 * CENTER, np.exp(rng.uniform(0.7, 2.5, per_query))
        rays = np.concatenate([(uv - CENTER) / FOCAL, np.ones((per_query, 1))], 1) * depth[:, None]
        for X in (rays - w2c[query, :3, 3]) @ w2c[query, :3, :3]:
            before, after = rng.geometric(1 / 25, 2) + 2
            times = np.arange(max(0, query - before), min(len(w2c), query + after))
            y = w2c[times, :3, :3] @ X + w2c[times, :3, 3]
            xy = FOCAL * y[:, :2] / np.maximum(y[:, 2:], 1e-3) + CENTER
            gone = times[(y[:, 2] < 0.3) | (xy < 0).any(1) | (xy > 2 * CENTER).any(1)]
            kept = (times > max(gone[gone < query], default=-1)) & (times < min(gone[gone > query], default=len(w2c)))
            if kept.sum() < 3 or query in gone:
                continue
            drift = (rng.random() < wild) * 0.4 * np.abs(times - query)[:, None] * rng.normal(size=2)
            frames.append(times[kept])
            places.append((xy + drift + noise * rng.normal(size=xy.shape))[kept])
            queries.append(query)
    point = np.repeat(np.arange(len(frames)), [len(f) for f in frames])
    return Observations(np.concatenate(frames), point, np.concatenate(places), np.array(queries))


def test_cameras_of_300_frames_are_found_from_tracks_alone():
    truth = walk(300)
    seen, start = follow(truth, per_query=12), 1.15 * FOCAL
    scene = build_scene(seen, 300, CENTER, start, scale=1.0)
    found = refine_scene(scene, seen, CENTER, scales=(1.0, 0.4), prior=FocalPrior(start)).scene
    error = trajectory_error(found.w2c(), truth)
    assert error.ate_share < 0.005
    assert error.rotation_deg < 0.05
    assert found.focal == pytest.approx(FOCAL, rel=0.003)


def test_growth_at_the_true_focal_length_drifts_little():
    truth = walk(150)
    scene = build_scene(follow(truth, per_query=20), 150, CENTER, FOCAL, scale=1.0)
    assert trajectory_error(scene.w2c(), truth).ate_share < 0.005


@pytest.mark.parametrize("factor", [1.0, 1.15])
def test_growth_that_begins_reversed_turns_round(factor):
    # From equal depths, adjustment of the first frames of this walk ends in the scene reversed in depth.
    truth = walk(60)
    scene = build_scene(follow(truth, per_query=20), 60, CENTER, factor * FOCAL, scale=1.0)
    assert trajectory_error(scene.w2c(), truth).orientation_deg < 15


def test_work_grows_with_the_frames_and_not_with_their_square(monkeypatch):
    def sightings_adjusted(num_frames):
        done = []

        def counted(scene, seen, *args, **kwargs):
            done.append(len(seen.xy))
            return adjust(scene, seen, *args, **(kwargs | {"iterations": 1}))

        monkeypatch.setattr(incremental, "adjust", counted)
        seen = follow(walk(num_frames), per_query=6)
        build_scene(seen, num_frames, CENTER, FOCAL, scale=1.0)
        return sum(done) / len(seen.xy)

    # An observation is in 20 / 5 windows and in the full adjustments of 1, 1 / 1.5, 1 / 1.5², … of the frames.
    short, long = sightings_adjusted(80), sightings_adjusted(320)
    assert short < 4 + 3 and long < 4 + 3


def test_a_window_leaves_its_anchors_and_what_it_does_not_see():
    truth = walk(60)
    seen = follow(truth, per_query=10)
    scene = build_scene(seen, 60, CENTER, FOCAL, scale=1.0)
    before = replace(scene, R=scene.R.copy(), t=scene.t.copy(), X=scene.X.copy())
    scene.t[50:] += 0.02
    incremental._adjust_frames(scene, seen, np.ones(seen.num_points, bool), 40, 60, CENTER, 1.0, incremental.DEFAULT)
    last_fixed = 40 + incremental.DEFAULT.fixed_frames
    np.testing.assert_array_equal(scene.R[:last_fixed], before.R[:last_fixed])
    np.testing.assert_array_equal(scene.t[:last_fixed], before.t[:last_fixed])
    unseen = np.setdiff1d(np.arange(seen.num_points), seen.point[seen.frame >= 40])
    np.testing.assert_array_equal(scene.X[unseen], before.X[unseen])
    assert np.abs(scene.t[50:] - before.t[50:]).max() < 0.005
