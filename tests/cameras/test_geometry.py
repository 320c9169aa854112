import pytest
import roma
import torch

from som.cameras import geometry as geo


@pytest.fixture
def camera():
    w2c = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    w2c[:, :3, :3] = roma.random_rotmat(3, dtype=torch.float64)
    w2c[:, :3, 3] = torch.randn(3, 3, dtype=torch.float64)
    K = torch.tensor([[50.0, 0, 20], [0, 55, 12], [0, 0, 1]], dtype=torch.float64).expand(3, 3, 3)
    return w2c, K


def test_pixel_centres_are_at_half():
    xy = geo.pixel_centers(2, 3)
    assert xy.shape == (2, 3, 2)
    assert xy[0, 0].tolist() == [0.5, 0.5] and xy[1, 2].tolist() == [2.5, 1.5]


def test_projection_of_a_known_point():
    K = torch.tensor([[10.0, 0, 4], [0, 20, 3], [0, 0, 1]])
    xy, z = geo.project(torch.tensor([[1.0, 2, 4], [0, 0, -1]]), K)
    assert xy[0].tolist() == [6.5, 13.0] and z.tolist() == [4, -1]
    assert xy.isfinite().all()


def test_unproject_inverts_project(camera):
    w2c, K = camera
    xy = torch.rand(3, 7, 2, dtype=torch.float64) * 40
    depth = 1 + torch.rand(3, 7, dtype=torch.float64)
    xy_back, z = geo.project_from_world(geo.unproject_to_world(xy, depth, K, w2c), K, w2c)
    torch.testing.assert_close(xy_back, xy)
    torch.testing.assert_close(z, depth)


def test_inverse(camera):
    T = camera[0]
    torch.testing.assert_close(geo.invert_se3(T) @ T, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))


def test_sampling_at_pixel_centres_is_exact_and_clamped_outside():
    image = torch.rand(2, 5, 7, 3)
    xy = geo.pixel_centers(5, 7).reshape(1, -1, 2).expand(2, -1, -1)
    torch.testing.assert_close(geo.sample_image(image, xy), image.reshape(2, -1, 3))
    outside = geo.sample_image(image, torch.tensor([[[-9.0, -9]], [[99, 99]]]))
    torch.testing.assert_close(outside[:, 0], torch.stack([image[0, 0, 0], image[1, -1, -1]]))


def test_depth_is_never_mixed_across_an_edge_or_with_unknown():
    depth = torch.tensor([[[1.0, 1.1, 5.0, 0.0]]]).expand(1, 2, 4)
    xy = torch.tensor([[[1.0, 1.0], [1.9, 1.0], [2.1, 1.0], [2.9, 1.0], [3.5, 1.0], [-0.1, 0.5]]])
    expected = torch.tensor([[1.05, 1.1, 5.0, 5.0, 0.0, 0.0]])
    torch.testing.assert_close(geo.sample_depth(depth, xy), expected)


def test_resized_intrinsics_project_to_resized_coordinates(camera):
    _, K = camera
    points = torch.rand(3, 5, 3, dtype=torch.float64) + 1
    xy, _ = geo.project(points, K)
    half, _ = geo.project(points, geo.resize_intrinsics(K, 0.5, 0.25))
    torch.testing.assert_close(half, xy * torch.tensor([0.5, 0.25], dtype=torch.float64))
