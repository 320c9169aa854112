"""Rotations against ``roma`` and scipy."""

import math

import numpy as np
import pytest
import roma
import torch

from som.cameras.rotations import (
    angles_degrees,
    axis_rotation,
    matrix_to_quat_wxyz,
    matrix_to_rotation_6d,
    mean_rotations,
    quat_multiply_wxyz,
    quat_wxyz_to_matrix,
    quat_xyzw_to_matrix,
    rotation_6d_to_matrix,
    rotation_of_quat_wxyz,
    rotvec_to_matrix,
    slerp,
)

F64 = torch.float64


def test_6d_columns_of_a_known_rotation():
    R = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # 90 degrees about z
    assert matrix_to_rotation_6d(R).tolist() == [0, 1, 0, -1, 0, 0]
    torch.testing.assert_close(rotation_6d_to_matrix(torch.tensor([0, 2.0, 0, -3, 5, 0])), R)


def test_6d_round_trip_gives_rotations():
    R = roma.random_rotmat(100)
    out = rotation_6d_to_matrix(matrix_to_rotation_6d(R))
    torch.testing.assert_close(out, R, atol=1e-5, rtol=0)
    noisy = rotation_6d_to_matrix(torch.randn(100, 6))
    torch.testing.assert_close(noisy @ noisy.transpose(-1, -2), torch.eye(3).expand(100, 3, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.linalg.det(noisy), torch.ones(100), atol=1e-4, rtol=0)


@pytest.mark.parametrize("r6", [[0.0] * 6, [1.0, 0, 0, 1, 0, 0], [1e-20] * 6])
def test_6d_degenerate_input_stays_finite(r6):
    r6 = torch.tensor(r6, requires_grad=True)
    R = rotation_6d_to_matrix(r6)
    R.square().sum().backward()
    assert R.isfinite().all() and r6.grad.isfinite().all()


def test_6d_gradient():
    r6 = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_6d_to_matrix, (r6,))


def test_quaternions_agree_with_roma_up_to_sign():
    # all four branches: small angles and half turns about each axis
    axes = torch.eye(3).repeat_interleave(2, 0)
    angles = torch.tensor([0.1, math.pi] * 3)
    R = torch.cat([roma.rotvec_to_rotmat(axes * angles[:, None]), roma.random_rotmat(200)])
    expected = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(R))
    ours = matrix_to_quat_wxyz(R)
    agreement = (ours * expected).sum(-1).abs()
    torch.testing.assert_close(agreement, torch.ones_like(agreement), atol=1e-5, rtol=0)


def test_quaternion_gradient_at_half_turns():
    R = roma.rotvec_to_rotmat(torch.tensor([[math.pi, 0, 0], [0, 0.3, 0]], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(matrix_to_quat_wxyz, (R,))


def test_quaternion_product_is_rotation_composition():
    A, B = roma.random_rotmat(50), roma.random_rotmat(50)
    product = quat_multiply_wxyz(matrix_to_quat_wxyz(A), matrix_to_quat_wxyz(B))
    agreement = (product * matrix_to_quat_wxyz(A @ B)).sum(-1).abs()
    torch.testing.assert_close(agreement, torch.ones(50), atol=1e-5, rtol=0)


def test_quaternions_become_romas_matrices():
    quats = torch.randn(50, 4, dtype=F64)
    wanted = roma.unitquat_to_rotmat(roma.quat_normalize(roma.quat_wxyz_to_xyzw(quats)))
    torch.testing.assert_close(quat_wxyz_to_matrix(quats), wanted)
    torch.testing.assert_close(torch.from_numpy(quat_xyzw_to_matrix(quats[:, [1, 2, 3, 0]].numpy())), wanted)
    np.testing.assert_allclose(rotation_of_quat_wxyz(quats[0].tolist()), wanted[0].numpy(), atol=1e-15)
    product = quat_multiply_wxyz(quats[:25], quats[25:])
    roma_product = roma.quat_product(roma.quat_wxyz_to_xyzw(quats[:25]), roma.quat_wxyz_to_xyzw(quats[25:]))
    torch.testing.assert_close(product, roma.quat_xyzw_to_wxyz(roma_product))


def test_rotation_vectors_are_romas():
    v = torch.randn(50, 3, dtype=F64) * torch.logspace(-9, 0.4, 50, dtype=F64)[:, None]
    torch.testing.assert_close(rotvec_to_matrix(v), roma.rotvec_to_rotmat(v))


@pytest.mark.parametrize("axis", range(3))
def test_rotations_about_an_axis(axis):
    angles = np.array([-2.0, 0.0, 0.4])
    vectors = torch.zeros(3, 3, dtype=F64)
    vectors[:, axis] = torch.from_numpy(angles)
    np.testing.assert_allclose(axis_rotation(axis, angles), roma.rotvec_to_rotmat(vectors).numpy(), atol=1e-15)
    assert axis_rotation(axis, 0.4).shape == (3, 3)
    np.testing.assert_allclose(angles_degrees(axis_rotation(axis, angles)), np.degrees(np.abs(angles)))


def test_interpolation_is_romas():
    R = roma.random_rotmat(2, dtype=F64)
    between = slerp(np.array([3.0, 7.0]), R.numpy(), np.array([3.0, 4.0, 6.5, 7.0]))
    wanted = roma.rotmat_slerp(R[0], R[1], torch.tensor([0.0, 0.25, 0.875, 1.0], dtype=F64))
    np.testing.assert_allclose(between, wanted.numpy(), atol=1e-12)


def test_means_of_rotations():
    turns = rotvec_to_matrix(torch.tensor([[0.0, 0, 0.3], [0, 0, -0.1], [0, 0, math.pi - 0.1]], dtype=F64))
    means, unique = mean_rotations(turns, torch.tensor([[1.0, 1, 0], [0, 1, 1]], dtype=F64))
    torch.testing.assert_close(means[0], rotvec_to_matrix(torch.tensor([0, 0, 0.1], dtype=F64)))
    assert unique.tolist() == [True, False], "opposite rotations have no mean"
    torch.testing.assert_close(torch.linalg.det(means), torch.ones(2, dtype=F64))
