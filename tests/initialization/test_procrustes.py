"""Rigid registration."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from som.initialization.procrustes import robust_procrustes, weighted_procrustes


def known(seed=0, n=20, batch=()):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, n, 3, generator=g, dtype=torch.float64)
    R = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    t = torch.randn(3, generator=g, dtype=torch.float64)
    return x, x @ R.T + t, R, t


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_recovers_any_rigid_motion(seed):
    x, y, R, t = known(seed)
    R_found, t_found = weighted_procrustes(x, y, torch.ones(20, dtype=torch.float64), R)
    assert torch.allclose(R_found, R, atol=1e-6)
    assert torch.allclose(t_found, t, atol=1e-6)


def test_the_prior_hardly_bends_a_well_determined_rotation():
    x, y, R, _ = known(3)
    R_found, _ = weighted_procrustes(x, y, torch.ones(20, dtype=torch.float64))
    angle = torch.rad2deg(torch.arccos(((R_found.T @ R).trace() - 1) / 2))
    assert angle < 0.5
    R_found, _ = weighted_procrustes(x, y, torch.ones(20, dtype=torch.float64), prior_strength=0.0)
    assert torch.allclose(R_found, R, atol=1e-9)


def test_batches_agree_with_single_calls():
    x, y, R, _ = known(1, batch=(2, 3))
    w = torch.rand(2, 3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    R_all, t_all = weighted_procrustes(x, y, w, R)
    R_one, t_one = weighted_procrustes(x[1, 2], y[1, 2], w[1, 2], R)
    assert torch.allclose(R_all[1, 2], R_one)
    assert torch.allclose(t_all[1, 2], t_one)


def test_points_of_weight_zero_may_be_nan():
    x, y, R, t = known()
    w = torch.ones(20, dtype=torch.float64)
    w[:5] = 0
    y[:5] = float("nan")
    R_found, t_found = weighted_procrustes(x, y, w, R)
    assert torch.allclose(R_found, R, atol=1e-6)
    assert torch.allclose(t_found, t, atol=1e-6)


def test_mirrored_points_still_give_a_rotation():
    x, _, _, _ = known()
    R, _ = weighted_procrustes(x, x * torch.tensor([-1.0, 1, 1], dtype=torch.float64), torch.ones(20).double())
    assert torch.linalg.det(R) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_points_take_the_prior_rotation(n):
    x, y, R, t = known(n=20)
    w = torch.zeros(20, dtype=torch.float64)
    w[:n] = 1
    R_found, t_found = weighted_procrustes(x, y, w, R)
    assert torch.allclose(R_found, R, atol=1e-6)
    assert torch.allclose(t_found, t if n else torch.zeros_like(t), atol=1e-6)


def test_robust_fit_ignores_a_third_of_wrong_points():
    x, y, R, t = known(n=60)
    y[:20] += 3 * torch.randn(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 4
    R_found, t_found = robust_procrustes(x, y, torch.ones(60, dtype=torch.float64), 0.01, R, iterations=20)
    assert torch.allclose(R_found, R, atol=1e-3)
    assert torch.allclose(t_found, t, atol=1e-2)


def test_shape_mismatch_raises():
    x, y, _, _ = known()
    for arguments in ((x, y[:-1], torch.ones(20)), (x, y, torch.ones(19)), (x[:, :2], y[:, :2], torch.ones(20))):
        with pytest.raises(ValueError, match="correspond"):
            weighted_procrustes(*arguments)
