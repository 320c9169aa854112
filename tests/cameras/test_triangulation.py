"""Triangulation, parallax and interpolated poses."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from som.cameras.geometry import interpolate_poses, max_parallax, triangulate


def camera(center, rotvec=(0, 0, 0)):
    w2c = np.eye(4)
    w2c[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    w2c[:3, 3] = -w2c[:3, :3] @ center
    return w2c


def test_triangulation_is_exact_also_at_infinity():
    cameras = np.stack([camera((0, 0, 0)), camera((1, 0, 0), (0, 0.1, 0)), camera((0, 0.5, 0.2), (0.1, 0, 0.3))])
    X = np.array([[0.3, -0.2, 4.0, 1.0], [0.1, 0.2, 1.0, 0.0]])
    point, frame = np.repeat([0, 1], 3), np.tile(np.arange(3), 2)
    rays = np.einsum("mij,mj->mi", cameras[frame, :3], X[point])
    found = triangulate(rays, cameras[frame], point, 2)
    np.testing.assert_allclose(found[0, :3] / found[0, 3], X[0, :3], atol=1e-9)
    assert abs(found[1, 3]) < 1e-9
    np.testing.assert_allclose(found[1, :3], X[1, :3] / np.linalg.norm(X[1, :3]), atol=1e-9)


def test_parallax_of_a_right_angle_and_of_no_motion():
    centers = np.array([[0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]])
    points = np.array([[0.5, 0, 0.5], [0, 0, 7.0]])
    frame, point = np.array([0, 1, 2, 0, 0]), np.array([0, 0, 0, 1, 1])
    np.testing.assert_allclose(max_parallax(points, centers, frame, point), [90, 0], atol=1e-9)


def test_poses_between_known_frames_move_evenly_and_stand_still_beyond():
    w2c = np.stack([camera((9, 9, 9))] * 6)
    w2c[1], w2c[4] = camera((0, 0, 0)), camera((3, 0, 0), (0, 0, 0.3))
    filled = interpolate_poses(w2c, np.array([False, True, False, False, True, False]))
    np.testing.assert_allclose(filled[2], camera((1, 0, 0), (0, 0, 0.1)), atol=1e-12)
    np.testing.assert_allclose(filled[3], camera((2, 0, 0), (0, 0, 0.2)), atol=1e-12)
    np.testing.assert_allclose(filled[[0, 5]], w2c[[1, 4]], atol=1e-12)
    np.testing.assert_array_equal(filled[[1, 4]], w2c[[1, 4]])


def test_one_known_pose_is_everyones_and_none_is_an_error():
    w2c = np.stack([camera((i, 0, 0)) for i in range(3)])
    np.testing.assert_allclose(interpolate_poses(w2c, np.array([False, True, False])), w2c[[1, 1, 1]])
    with pytest.raises(ValueError, match="known"):
        interpolate_poses(w2c, np.zeros(3, bool))
