
import pytest
import roma
import torch

from som.cameras.rotations import matrix_to_rotation_6d
from som.scene.motion import MotionBases


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
