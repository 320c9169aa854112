"""Alignment of trajectories and their errors, against values made by hand."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from som.preprocessing.cameras.alignment import (
    align_points,
    camera_centers,
    focal_error,
    trajectory_error,
)


def w2c_from(R, centers):
    w2c = np.tile(np.eye(4), (len(R), 1, 1))
    w2c[:, :3, :3] = R
    w2c[:, :3, 3] = -np.einsum("tij,tj->ti", R, centers)
    return w2c


def some_cameras(number=8, seed=0):
    rng = np.random.default_rng(seed)
    return w2c_from(Rotation.from_rotvec(0.3 * rng.normal(size=(number, 3))).as_matrix(), rng.normal(size=(number, 3)))


def test_similarity_is_recovered_exactly():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(10, 3))
    R = Rotation.from_rotvec([0.4, -2.0, 0.7]).as_matrix()
    found = align_points(x, 2.5 * x @ R.T + [1.0, -2.0, 3.0])
    assert found.scale == pytest.approx(2.5)
    np.testing.assert_allclose(found.R, R, atol=1e-12)
    np.testing.assert_allclose(found.t, [1, -2, 3], atol=1e-12)


def test_a_mirror_image_is_not_turned_into_a_rotation():
    x = np.random.default_rng(2).normal(size=(20, 3))
    found = align_points(x, x * [1, 1, -1])
    assert np.linalg.det(found.R) == pytest.approx(1)
    assert np.abs(found.points(x) - x * [1, 1, -1]).max() > 0.1


def test_cameras_move_with_their_world():
    truth = some_cameras()
    similarity = align_points(np.eye(3), 3 * np.eye(3)[[1, 2, 0]] + 1)
    moved = similarity.cameras(truth)
    np.testing.assert_allclose(camera_centers(moved), similarity.points(camera_centers(truth)), atol=1e-12)
    # a point of the world keeps its direction from the camera, and its depth grows by the scale
    point = np.array([0.3, -0.2, 4.0])
    before = truth[:, :3, :3] @ point + truth[:, :3, 3]
    after = moved[:, :3, :3] @ similarity.points(point) + moved[:, :3, 3]
    np.testing.assert_allclose(after, similarity.scale * before, atol=1e-12)


def test_equal_trajectories_in_other_worlds_have_no_error():
    truth = some_cameras()
    other = align_points(np.eye(3), 0.2 * np.eye(3)[[2, 0, 1]] - 5).cameras(truth)
    error = trajectory_error(other, truth)
    assert error.ate < 1e-9 and error.rotation_deg < 1e-5 and error.translation_share < 1e-9
    assert error.orientation_deg < 1e-5


def test_errors_have_their_stated_units():
    # a square path of half-diagonal 1 with centres pushed along z, which no similarity undoes: +e, -e, +e, -e
    centers = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], float)
    truth = w2c_from(np.tile(np.eye(3), (4, 1, 1)), centers)
    bent = w2c_from(np.tile(np.eye(3), (4, 1, 1)), centers + 0.01 * np.array([[0, 0, s] for s in (1, -1, 1, -1)]))
    error = trajectory_error(bent, truth)
    assert error.extent == pytest.approx(1)
    assert error.ate == pytest.approx(0.01, rel=1e-3)
    assert error.ate_share == pytest.approx(0.01, rel=1e-3)
    assert error.translation_share == pytest.approx(0.02 / np.sqrt(2), rel=1e-3)

    turns = Rotation.from_euler("z", np.arange(4)[:, None], degrees=True).as_matrix()
    turned = trajectory_error(w2c_from(turns, centers), truth)
    assert turned.ate < 1e-9
    assert turned.rotation_deg == pytest.approx(1)
    assert turned.orientation_deg == pytest.approx(1.5)


def test_focal_error_is_signed_and_relative():
    K = np.diag([110.0, 110.0, 1.0])
    assert focal_error(K, np.diag([100.0, 100.0, 1.0])) == pytest.approx(0.1)


@pytest.mark.parametrize("points", [np.zeros((2, 3)), np.zeros((5, 2)), np.ones((5, 3))])
def test_unfit_points_are_refused(points):
    with pytest.raises(ValueError, match="align_points"):
        align_points(points, points)
