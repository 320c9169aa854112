import numpy as np
import pytest

from som.preprocessing.cameras.bundle_adjustment import Scene
from som.preprocessing.cameras.incremental import refine_scene
from som.preprocessing.cameras.observations import Observations
from som.preprocessing.cameras.reversal import nearness_below, prefer_reversed, reversed_scene

CENTER = np.array([160.0, 120.0])


def sloped_ground(travel: float, focal: float = 400.0, frames: int = 10, points: int = 150):
    """Points on level ground below a camera that turns and travels sideways, and where it sees them."""
    rng = np.random.default_rng(0)
    xy = rng.uniform([0, 40], [320, 240], (points, 2))
    rays = np.concatenate([(xy - CENTER) / focal, np.ones((points, 1))], 1)
    inverse_depth = 0.2 + 0.8 * xy[:, 1] / 240  # nearer below
    X = np.concatenate([rays, inverse_depth[:, None]], 1)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    turn = np.linspace(0, 0.1, frames)
    R = np.stack([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in turn])
    t = np.linspace(0, travel, frames)[:, None] * np.array([1.0, 0.1, 0.0])
    scene = Scene(R, t, X, focal)
    frame, point = np.repeat(np.arange(frames), points), np.tile(np.arange(points), frames)
    y = np.einsum("mij,mj->mi", R[frame], X[point, :3]) + X[point, 3:] * t[frame]
    seen = CENTER + focal * y[:, :2] / y[:, 2:]
    order = np.lexsort((frame, point))
    observations = Observations(
        frame=frame[order], point=point[order], xy=seen[order], query_frame=np.zeros(points, np.int64)
    )
    return scene, observations


def test_reversing_exchanges_near_and_far_and_the_way_the_camera_goes():
    scene, seen = sloped_ground(0.1)
    turned = reversed_scene(scene, seen)
    assert nearness_below(scene, seen) > 0.95 and nearness_below(turned, seen) < -0.95
    along = scene.t[1:] @ np.array([1.0, 0.1, 0.0]), turned.t[1:] @ np.array([1.0, 0.1, 0.0])
    assert (along[0] > 0).all() and (along[1] < 0).all()
    assert (turned.X[:, 3] / turned.X[:, 2] > 0).all()
    assert np.linalg.norm(turned.X, axis=1) == pytest.approx(1.0)


def test_reversing_a_wrong_scene_leads_back_to_the_right_one():
    """From the reversed scene adjustment stays reversed; reversed again, it finds the truth."""
    scene, seen = sloped_ground(0.1)
    wrong = refine_scene(reversed_scene(scene, seen), seen, CENTER, scales=(1.0,), prior=None)
    right = refine_scene(reversed_scene(wrong.scene, seen), seen, CENTER, scales=(1.0,), prior=None)
    assert nearness_below(right.scene, seen) > 0.95
    assert right.cost <= wrong.cost


def test_the_better_fit_wins_and_a_tie_goes_to_the_ground_in_front():
    assert prefer_reversed(2.0, 1.0, 0.9, -0.9) and not prefer_reversed(1.0, 2.0, -0.9, 0.9)
    assert prefer_reversed(1.0, 1.05, -0.5, 0.5) and not prefer_reversed(1.05, 1.0, 0.5, -0.5)


def test_points_at_one_depth_say_nothing_of_near_and_far():
    scene, seen = sloped_ground(0.1)
    flat = Scene(scene.R, scene.t, np.concatenate([scene.X[:, :3], scene.X[:, 2:3]], 1), scene.focal)
    assert abs(nearness_below(flat, seen)) < 0.5
