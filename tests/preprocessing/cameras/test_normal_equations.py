"""The elimination of points against the whole system, written out and solved at once."""

import numpy as np
import pytest

from som.preprocessing.cameras.normal_equations import Normal, PointElimination
from som.preprocessing.cameras.observations import Observations

CAMERAS, POINTS, DAMPING = 7, 150, 1e-3


@pytest.fixture(scope="module")
def problem():
    """Random Jacobians of points that 3 to 5 successive cameras see, in no order of their first camera."""
    rng = np.random.default_rng(0)
    first, length = rng.integers(0, CAMERAS - 2, POINTS), rng.integers(3, 6, POINTS)
    frames = [np.arange(a, min(a + n, CAMERAS)) for a, n in zip(first, length, strict=True)]
    point = np.repeat(np.arange(POINTS), [len(f) for f in frames])
    seen = Observations(np.concatenate(frames), point, np.zeros((len(point), 2)), first)
    M = len(point)
    parts = [rng.normal(size=(M, 2, n)) for n in (6, 3, 1, 1)]
    return seen, parts, rng.uniform(0.1, 1, M)


def whole_system(problem):
    """JᵀwJ and Jᵀw r of all cameras, log f and all points, from one dense J."""
    seen, (camera, point, log_focal, residual), weight = problem
    M, size = len(weight), 6 * CAMERAS + 1
    J = np.zeros((M, 2, size + 3 * POINTS))
    for m in range(M):
        J[m, :, 6 * seen.frame[m] : 6 * seen.frame[m] + 6] = camera[m]
        J[m, :, size + 3 * seen.point[m] : size + 3 * seen.point[m] + 3] = point[m]
    J[:, :, size - 1] = log_focal[:, :, 0]
    J, w = J.reshape(2 * M, -1), np.repeat(weight, 2)[:, None]
    return J.T @ (w * J), (J.T @ (w * residual.reshape(-1, 1)))[:, 0]


def reduced(problem) -> tuple[PointElimination, Normal]:
    seen, (camera, point, log_focal, residual), weight = problem
    system = PointElimination(CAMERAS, POINTS, seen)
    return system, system.normal_equations(camera, point, log_focal[:, :, 0], residual[:, :, 0], weight)


def test_blocks_are_those_of_the_whole_system(problem):
    H, g = whole_system(problem)
    _, normal = reduced(problem)
    size = 6 * CAMERAS + 1
    np.testing.assert_allclose(normal.A, H[:size, :size], atol=1e-12)
    np.testing.assert_allclose(np.concatenate([normal.a, normal.v.ravel()]), g, atol=1e-12)
    np.testing.assert_allclose(normal.F.ravel(), H[size - 1, size:], atol=1e-12)
    for i in range(POINTS):
        here = slice(size + 3 * i, size + 3 * i + 3)
        np.testing.assert_allclose(normal.V[i], H[here, here], atol=1e-12)


@pytest.mark.parametrize("held", [(), (0,), (0, 3, 4)])
def test_steps_solve_the_whole_damped_system(problem, held):
    H, g = whole_system(problem)
    system, normal = reduced(problem)
    size = 6 * CAMERAS + 1
    free = np.ones((CAMERAS, 6), bool)
    free[list(held)] = False
    free = np.append(free.ravel(), True)
    step, point_step = system.solve(normal, DAMPING, free)
    every = np.append(free, np.ones(3 * POINTS, bool))
    expected = np.zeros(len(g))
    damped = H + DAMPING * np.diag(np.diag(H))
    expected[every] = np.linalg.solve(damped[np.ix_(every, every)], g[every])
    np.testing.assert_allclose(step, expected[:size], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(point_step.ravel(), expected[size:], rtol=1e-8, atol=1e-10)


def test_a_system_without_a_minimum_is_refused(problem):
    system, normal = reduced(problem)
    with pytest.raises(np.linalg.LinAlgError):
        system.solve(Normal(-normal.A, normal.a, normal.V, normal.v, normal.W, normal.F), DAMPING, np.full(43, True))
