import math

import pytest
import roma
import torch

from som.scene.motion import (
    MotionBases,
    matrix_to_quat_wxyz,
    matrix_to_rotation_6d,
    quat_multiply_wxyz,
    rotation_6d_to_matrix,
)


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


def test_poses_blend_then_orthonormalise():
    R0, R1 = torch.eye(3), roma.rotvec_to_rotmat(torch.tensor([0, 0, 1.0]))
    rots = torch.stack([matrix_to_rotation_6d(R0).expand(2, 6), matrix_to_rotation_6d(R1).expand(2, 6)])
    transls = torch.tensor([[[0.0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 2, 0]]])
    bases = MotionBases(rots, transls)
    weights = torch.tensor([[1.0, 0], [0.5, 0.5]])
    R, t = bases.poses(weights, torch.tensor([1, 0, 1]))
    assert R.shape == (3, 2, 3, 3) and t.shape == (3, 2, 3)
    torch.testing.assert_close(R[0, 0], R0)
    # two rotations about one axis, equally weighted: the one half way
    torch.testing.assert_close(R[0, 1], roma.rotvec_to_rotmat(torch.tensor([0, 0, 0.5])), atol=1e-5, rtol=0)
    torch.testing.assert_close(t[0], torch.tensor([[1.0, 0, 0], [0.5, 1, 0]]))
    torch.testing.assert_close(t[1], torch.zeros(2, 3))
    torch.testing.assert_close(R[0], R[2])


def test_bases_reject_wrong_shapes():
    with pytest.raises(ValueError, match="must be"):
        MotionBases(torch.zeros(2, 5, 6), torch.zeros(2, 4, 3))
