import math

import pytest
import torch

from som.cameras import Camera
from som.cameras.geometry import camera_centers
from som.rendering import camera_paths
from som.rendering.camera_paths import (
    PATHS,
    average_camera,
    blend_cameras,
    camera_from,
    look_at,
    look_at_point,
    travels,
    up_direction,
)

UP = torch.tensor([0.0, -1.0, 0.0])


def make_path(kind, w2cs, *arguments, **options):
    """Poses of the path of cameras with these poses."""
    K = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]])
    path = camera_paths.make_path(kind, Camera(K, w2cs, 16, 12), *arguments, **options)
    torch.testing.assert_close(path.K, K.expand(len(path), 3, 3))
    return path.w2c


def ring(count=9, radius=4.0, degrees=60.0):
    """Cameras on an arc around (1, 2, 3), all looking at it."""
    target = torch.tensor([1.0, 2.0, 3.0])
    angles = torch.linspace(-degrees / 2, degrees / 2, count).deg2rad()
    centers = target + radius * torch.stack([angles.sin(), torch.zeros(count), -angles.cos()], -1)
    return look_at(centers, target, UP), target


def static(count):
    return look_at(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([5.0, 6.0, 17.0]), UP).expand(count, 4, 4).clone()


def assert_proper(w2cs, count):
    assert w2cs.shape == (count, 4, 4)
    R = w2cs[:, :3, :3]
    torch.testing.assert_close(R @ R.transpose(1, 2), torch.eye(3).expand(count, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.det(R), torch.ones(count), atol=1e-5, rtol=0)
    torch.testing.assert_close(w2cs[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(count, 4))


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("cameras", ["ring", "one", "static"])
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("frames", [1, 10])
def test_every_path_has_proper_cameras(kind, cameras, follow, frames):
    w2cs = {"ring": ring()[0], "one": static(1), "static": static(6)}[cameras]
    assert_proper(make_path(kind, w2cs, frames, depth=10.0, follow=follow), frames)


@pytest.mark.parametrize("kind", ["arc", "lemniscate", "spiral", "wander"])
def test_static_camera_still_moves_in_proportion_to_depth(kind):
    near, far = (
        (camera_centers(make_path(kind, static(6), 40, depth=d)) - camera_centers(static(1))).norm(dim=-1).max()
        for d in (1.0, 10.0)
    )
    assert float(near) == pytest.approx(math.tan(math.radians(6.0)), rel=0.6)
    assert float(far) == pytest.approx(10 * float(near), rel=1e-3)


@pytest.mark.parametrize("kind", ["arc", "lemniscate", "spiral"])
def test_paths_around_a_target_look_at_it(kind):
    w2cs, target = ring()
    path = make_path(kind, w2cs, 12, depth=4.0)
    in_camera = (path[:, :3, :3] @ target) + path[:, :3, 3]
    torch.testing.assert_close(in_camera[:, :2], torch.zeros(12, 2), atol=1e-4, rtol=0)
    assert bool((in_camera[:, 2] > 0).all())


def test_arc_stays_on_the_circle_around_the_target():
    w2cs = static(3)
    path = make_path("arc", w2cs, 40, depth=10.0, degrees=30.0)
    target = torch.tensor([5.0, 6.0, 17.0])
    arms = camera_centers(path) - target
    torch.testing.assert_close(arms.norm(dim=-1), torch.full((40,), 10.0))
    angles = torch.atan2(arms[:, 0], -arms[:, 2]).rad2deg()
    assert float(angles.max()) == pytest.approx(15.0, abs=0.1) and float(angles.min()) == pytest.approx(-15, abs=0.1)
    torch.testing.assert_close(arms[:, 1], torch.zeros(40), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["arc", "lemniscate", "wander"])
def test_paths_start_at_the_average_camera(kind):
    torch.testing.assert_close(make_path(kind, static(3), 8, depth=2.0)[0], static(1)[0], atol=1e-5, rtol=0)


def test_fixed_has_as_many_frames_as_asked_for():
    path = make_path("fixed", ring()[0], 7, depth=1.0)
    torch.testing.assert_close(path, average_camera(ring()[0]).expand(7, 4, 4))


def test_look_at_point():
    w2cs, target = ring()
    torch.testing.assert_close(look_at_point(w2cs, 4.0), target, atol=1e-4, rtol=0)
    # axes that do not pin down a point: static, one, sideways with parallel axes
    ahead = torch.tensor([5.0, 6.0, 9.0])
    for w2cs in (static(1), static(4)):
        torch.testing.assert_close(look_at_point(w2cs, 2.0), ahead)
    sideways = static(5)
    sideways[:, 0, 3] += torch.linspace(-1, 1, 5)
    torch.testing.assert_close(look_at_point(sideways, 2.0), ahead)


def test_look_at_point_behind_or_out_of_proportion():
    w2cs, _ = ring()
    turned = w2cs[:, :3, :3] * torch.tensor([-1.0, 1.0, -1.0])[:, None]  # by 180 degrees: the axes meet behind
    outward = camera_from(turned, camera_centers(w2cs))
    point = look_at_point(outward, 2.0)
    assert float(outward[4, 2, :3] @ (point - camera_centers(outward)[4])) > 0
    far = look_at_point(w2cs, 0.1)
    assert float((far - camera_centers(average_camera(w2cs))).norm()) == pytest.approx(0.1, abs=1e-4)


def test_look_along_up_and_at_itself():
    for center in ([0.0, 5.0, 0.0], [0.0, -5.0, 0.0], [0.0, 0.0, 0.0]):
        assert_proper(look_at(torch.tensor([center]), torch.zeros(3), UP), 1)
    assert_proper(look_at(torch.tensor([[0.0, 0, -1]]), torch.zeros(3), torch.zeros(3)), 1)


def test_look_at_axes():
    camera = look_at(torch.tensor([0.0, 0.0, -2.0]), torch.zeros(3), UP)
    torch.testing.assert_close(camera[:3, :3], torch.eye(3))
    torch.testing.assert_close(camera[:3, 3], torch.tensor([0.0, 0.0, 2.0]))


def test_average_of_opposite_cameras_is_a_camera():
    a = static(1)
    b = a.clone()
    b[:, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0])) @ a[:, :3, :3]
    assert_proper(average_camera(torch.cat([a, b]))[None], 1)
    flipped = a.clone()
    flipped[:, :3, :3] = torch.diag(torch.tensor([-1.0, -1.0, 1.0])) @ a[:, :3, :3]
    assert float(up_direction(torch.cat([a, flipped])).norm()) == pytest.approx(1.0)


def test_training_path_passes_through_its_cameras():
    w2cs, _ = ring(5)
    torch.testing.assert_close(make_path("train", w2cs, 5, 1.0), w2cs, atol=1e-5, rtol=0)
    torch.testing.assert_close(make_path("train", w2cs, 9, 1.0)[::2], w2cs, atol=1e-5, rtol=0)


def test_interpolated_rotation_is_half_way():
    w2cs, _ = ring(2, degrees=40.0)
    middle = blend_cameras(w2cs, torch.tensor([[0.5, 0.5]]))[0]
    torch.testing.assert_close(middle[:3, :3], torch.eye(3), atol=1e-5, rtol=0)


def test_stabilised_path_is_smoother():
    w2cs, _ = ring(30)
    shaken = w2cs.clone()
    shaken[:, :3, 3] += 0.05 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))

    def roughness(path):
        return float(camera_centers(path).diff(n=2, dim=0).norm(dim=-1).mean())

    assert roughness(make_path("stabilised", shaken, 30, 4.0)) < 0.1 * roughness(shaken)


def test_following_stays_near_a_travelling_camera():
    w2cs = static(20)
    w2cs[:, 2, 3] -= torch.linspace(0, 100, 20)  # moves 100 forward through a scene 5 deep
    assert travels(w2cs, 5.0) and not travels(static(5), 5.0)
    path = make_path("lemniscate", w2cs, 20, depth=5.0, follow=True)
    assert float((camera_centers(path) - camera_centers(w2cs)).norm(dim=-1).max()) < 20
    around_mean = make_path("lemniscate", w2cs, 20, depth=5.0)
    assert float((camera_centers(around_mean) - camera_centers(w2cs)).norm(dim=-1).max()) > 40


def test_bad_arguments():
    with pytest.raises(ValueError, match="lemniscate"):
        make_path("loop", static(1), 3, 1.0)
    with pytest.raises(ValueError, match="depth"):
        make_path("arc", static(1), 3, 0.0)
    for kind in PATHS:
        with pytest.raises(ValueError, match="frame"):
            make_path(kind, static(1), 0, 1.0)
