"""Jacobians against finite differences, and recovery of synthetic cameras."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from som.preprocessing.cameras.alignment import trajectory_error
from som.preprocessing.cameras.bundle_adjustment import (
    FocalPrior,
    Scene,
    adjust,
    linearize,
    normalized,
    residual_scale,
    residuals,
    robust_cost,
    tangent_basis,
)
from som.preprocessing.cameras.incremental import build_scene, chain_rotations, refine_scene
from som.preprocessing.cameras.observations import Observations

CENTER = np.array([160.0, 90.0])


def make_scene(num_cameras=12, num_points=150, seed=0, step=(0.12, 0.02, 0.05), turn=(0.0, -0.01, 0.004)):
    """Cameras on an arc before points at depths of 3 to 8."""
    rng = np.random.default_rng(seed)
    times = np.arange(num_cameras)[:, None]
    R = Rotation.from_rotvec(times * np.array(turn)).as_matrix()
    wobble = 0.03 * rng.normal(size=(num_cameras, 3)) * (np.array(step) != 0).any()
    centers = times * np.array(step) + np.where(times > 0, wobble, 0)
    t = -np.einsum("cij,cj->ci", R, centers)
    z = rng.uniform(3, 8, num_points)
    rays = np.stack([rng.uniform(-0.6, 0.9, num_points), rng.uniform(-0.35, 0.4, num_points), np.ones(num_points)], 1)
    X = np.concatenate([rays * z[:, None], np.ones((num_points, 1))], 1)
    return Scene(R, t, X / np.linalg.norm(X, axis=1, keepdims=True), 280.0)


def look(scene, noise=0.0, seed=1):
    """What all cameras see of all points inside the image, with Gaussian noise in pixels."""
    C, P = len(scene.R), len(scene.X)
    point, frame = np.repeat(np.arange(P), C), np.tile(np.arange(C), P)
    everything = Observations(frame, point, np.zeros((C * P, 2)), np.zeros(P, int))
    xy = -residuals(scene, everything, np.zeros(2))[0] + CENTER
    inside = ((xy > 0) & (xy < 2 * CENTER)).all(1)
    inside &= np.isin(point, point[inside & (frame == 0)]) & (np.bincount(point[inside], minlength=P) >= 3)[point]
    xy = xy + noise * np.random.default_rng(seed).normal(size=xy.shape)
    return replace(everything, xy=xy).select(inside)


def visible(scene, noise=0.0):
    seen, points = look(scene, noise)
    return replace(scene, X=scene.X[points]), seen


def disturbed(scene, amount, seed=3):
    rng = np.random.default_rng(seed)
    free = (np.arange(len(scene.R)) > 0)[:, None]
    X = scene.X + amount * rng.normal(size=scene.X.shape)
    return replace(
        scene,
        R=Rotation.from_rotvec(amount * free * rng.normal(size=(len(scene.R), 3))).as_matrix() @ scene.R,
        t=scene.t + amount * free * rng.normal(size=scene.t.shape),
        X=X / np.linalg.norm(X, axis=1, keepdims=True),
    )


def test_tangent_basis_is_orthonormal_and_at_right_angles():
    X = np.random.default_rng(0).normal(size=(50, 4))
    X = np.concatenate([X / np.linalg.norm(X, axis=1, keepdims=True), np.eye(4), -np.eye(4)])
    N = tangent_basis(X)
    np.testing.assert_allclose(np.einsum("pij,pik->pjk", N, N), np.tile(np.eye(3), (len(X), 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.einsum("pi,pij->pj", X, N), 0, atol=1e-12)


@pytest.mark.parametrize("part", ["rotation", "translation", "point", "focal"])
def test_jacobians_agree_with_finite_differences(part):
    scene, seen = visible(disturbed(make_scene(4, 12), 0.02))
    lin, h = linearize(scene, seen, CENTER), 1e-6

    def moved(axis, amount):
        step = amount * np.eye(3)[axis]
        if part == "rotation":
            return replace(scene, R=Rotation.from_rotvec(step).as_matrix() @ scene.R)
        if part == "translation":
            return replace(scene, t=scene.t + step)
        if part == "point":
            X = scene.X + tangent_basis(scene.X) @ step
            return replace(scene, X=X / np.linalg.norm(X, axis=1, keepdims=True))
        return replace(scene, focal=scene.focal * np.exp(amount))

    analytic = {
        "rotation": lin.camera[:, :, :3],
        "translation": lin.camera[:, :, 3:],
        "point": lin.point,
        "focal": lin.log_focal[:, :, None],
    }[part]
    for axis in range(analytic.shape[2]):
        plus, minus = (residuals(moved(axis, a), seen, CENTER)[0] for a in (h, -h))
        # residual = xy - u, so that u grows where the residual falls
        np.testing.assert_allclose(analytic[:, :, axis], (minus - plus) / (2 * h), rtol=1e-5, atol=1e-4)


def test_cauchy_loss_by_hand():
    assert robust_cost(np.array([0.0, 4.0]), 2.0) == pytest.approx(4 * np.log(2))


def test_exact_observations_are_explained_exactly():
    truth, seen = visible(make_scene())
    found = adjust(
        disturbed(truth, 0.005), seen, CENTER, scale=1.0, prior=FocalPrior(280, weight=1e-9), tolerance=1e-12
    )
    assert found.cost < 1e-6
    assert trajectory_error(found.scene.w2c(), truth.w2c()).ate_share < 1e-5
    assert found.scene.focal == pytest.approx(280, rel=1e-5)


def test_no_independent_solver_improves_on_the_minimum():
    scene, seen = visible(make_scene(4, 14), noise=0.5)
    found = adjust(disturbed(scene, 0.002), seen, CENTER, scale=1.0, iterations=200, tolerance=1e-13)
    base = found.scene

    def root_costs(v):
        step, X = v[:18].reshape(3, 6), v[18:].reshape(-1, 4)
        R = np.concatenate([base.R[:1], Rotation.from_rotvec(step[:, :3]).as_matrix() @ base.R[1:]])
        t = np.concatenate([base.t[:1], base.t[1:] + step[:, 3:]])
        moved = replace(base, R=R, t=t, X=X / np.linalg.norm(X, axis=1, keepdims=True))
        return np.sqrt(np.log1p(residuals(moved, seen, CENTER)[1]))

    v = np.concatenate([np.zeros(18), base.X.ravel()])
    assert (root_costs(v) ** 2).sum() == pytest.approx(found.cost)
    reference = least_squares(root_costs, v, max_nfev=50)
    assert 2 * reference.cost > (1 - 1e-4) * found.cost


def test_outliers_hardly_matter():
    truth, seen = visible(make_scene(), noise=0.1)
    rng = np.random.default_rng(5)
    wild = rng.random(len(seen.xy)) < 0.15
    seen = replace(seen, xy=seen.xy + wild[:, None] * rng.uniform(-20, 20, seen.xy.shape))
    found = refine_scene(disturbed(truth, 0.003), seen, CENTER, scales=(1.0, 0.3), prior=FocalPrior(250))
    assert trajectory_error(found.scene.w2c(), truth.w2c()).ate_share < 0.005
    assert found.scene.focal == pytest.approx(280, rel=0.01)


def test_scale_of_cauchy_residuals_is_found():
    # A normal vector over the root of an independent chi-squared variable is Cauchy distributed in the plane.
    scene, seen = visible(make_scene(30, 400))
    rng = np.random.default_rng(0)
    errors = 0.2 * rng.normal(size=seen.xy.shape) / np.abs(rng.normal(size=(len(seen.xy), 1)))
    assert residual_scale(scene, replace(seen, xy=seen.xy + errors), CENTER) == pytest.approx(0.2, rel=0.05)


def test_held_focal_length_and_fixed_cameras_stay():
    scene, seen = visible(make_scene(6, 40), noise=0.3)
    start = replace(disturbed(scene, 0.01), focal=300.0)
    found = adjust(start, seen, CENTER, scale=1.0, fixed=(0, 3)).scene
    assert found.focal == 300
    for i in (0, 3):
        np.testing.assert_array_equal(found.R[i], start.R[i])
        np.testing.assert_array_equal(found.t[i], start.t[i])
    assert np.abs(found.t[1] - start.t[1]).max() > 1e-6


def test_normalization_changes_no_projection_and_puts_the_median_depth_at_one():
    scene, seen = visible(make_scene())
    flipped = replace(scene, t=-3 * scene.t, X=scene.X / [1, 1, 1, -3])
    result = normalized(replace(flipped, X=flipped.X / np.linalg.norm(flipped.X, axis=1, keepdims=True)), seen)
    assert residuals(result, seen, CENTER)[1].max() < 1e-12
    x = result.X[:, :3] / result.X[:, 3:]
    z = np.einsum("mj,mj->m", result.R[seen.frame, 2], x[seen.point]) + result.t[seen.frame, 2]
    assert np.median(z) == pytest.approx(1)


def test_rotations_of_a_turning_camera_are_exact():
    scene, seen = visible(make_scene(step=(0, 0, 0)))
    R = chain_rotations(seen, len(scene.R), CENTER, 280.0, 1.0)
    np.testing.assert_allclose(R, scene.R, atol=1e-9)


@pytest.mark.parametrize("start", [190.0, 400.0])
def test_cameras_and_focal_length_are_recovered_from_observations_alone(start):
    truth, seen = visible(make_scene(20, 250), noise=0.1)
    scene = build_scene(seen, 20, CENTER, start, scale=1.0)
    found = refine_scene(scene, seen, CENTER, scales=(1.0, 0.3), prior=FocalPrior(start)).scene
    error = trajectory_error(found.w2c(), truth.w2c())
    assert error.ate_share < 0.01
    assert error.rotation_deg < 0.05
    assert found.focal == pytest.approx(280, rel=0.02)


def test_a_camera_that_only_turns_is_no_trouble():
    truth, seen = visible(make_scene(10, 150, step=(0, 0, 0), turn=(0.0, -0.02, 0.01)), noise=0.05)
    found = build_scene(seen, 10, CENTER, 280.0, scale=1.0)
    relative = found.R @ truth.R.transpose(0, 2, 1)
    assert np.degrees(Rotation.from_matrix(relative).magnitude()).max() < 0.1
    assert np.isfinite(found.X).all() and np.isfinite(found.t).all()
