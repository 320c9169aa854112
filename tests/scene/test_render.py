"""``scene.render``: pictures in world units, of one view or many, at any time."""

import pytest
import torch

from som.cameras import Camera
from som.errors import UserError
from som.scene import DynamicScene


@pytest.fixture
def camera(scene, cameras) -> Camera:
    """The first camera of the fixture, in world units."""
    w2cs, Ks, size = cameras
    w2c = w2cs[0].clone()
    w2c[:3, 3] = w2cs[0, :3, 3] * scene.normalization.scale - w2cs[0, :3, :3] @ scene.normalization.center
    return Camera(Ks[0], w2c, *size)


def test_a_single_view_in_world_units(scene, cameras, camera):
    w2cs, Ks, size = cameras
    track_times = torch.tensor([[0, 4, 2]])
    expected = scene.rasterize_views(w2cs[:1], Ks[:1], torch.tensor([3]), *size, track_times=track_times)
    picture = scene.render(camera, 3, track_times=[0, 4, 2])
    assert picture.rgb.shape == (24, 32, 3)
    assert picture.alpha.shape == picture.depth.shape == picture.foreground.shape == (24, 32)
    assert picture.tracks.shape == (3, 24, 32, 3)
    torch.testing.assert_close(picture.rgb, expected.rgb[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(picture.depth, expected.depth[0] * 2.5, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        picture.tracks, scene.normalization.points_to_world(expected.tracks[0]), atol=1e-3, rtol=0
    )
    assert scene.render(camera, 3).tracks is None


def test_camera_and_time_broadcast(scene, camera):
    times = torch.tensor([[0.0, 1.5, 4.0], [1.0, 2.0, 3.0]])
    film = scene.render(camera, times, track_times=[1, 3])
    assert film.rgb.shape == (2, 3, 24, 32, 3) and film.tracks.shape == (2, 3, 2, 24, 32, 3)
    one = scene.render(camera, 1.5)
    torch.testing.assert_close(film.rgb[0, 1], one.rgb, atol=1e-5, rtol=0)
    many = Camera.stack([camera, camera, camera])
    assert scene.render(many, 2).depth.shape == (3, 24, 32)
    assert scene.render(many, [0, 1, 2]).depth.shape == (3, 24, 32)
    assert scene.render(many[:, None], [0, 1]).depth.shape == (3, 2, 24, 32)
    own = scene.render(camera, [0, 1], track_times=torch.tensor([[2], [3]]))
    torch.testing.assert_close(own.tracks[1], scene.render(camera, 1, track_times=[3]).tracks, atol=1e-5, rtol=0)


def test_many_views_are_drawn_a_few_at_once(scene, camera, monkeypatch):
    import som.scene.dynamic_scene as module

    times = torch.linspace(0, 4, 7)
    together = scene.render(camera, times, track_times=[1])
    monkeypatch.setattr(module, "VIEWS_AT_ONCE", 3)
    apart = scene.render(camera, times, track_times=[1])
    for name in ("rgb", "alpha", "depth", "foreground", "tracks"):
        torch.testing.assert_close(getattr(together, name), getattr(apart, name), atol=1e-4, rtol=0)


def test_time_between_frames_interpolates(scene, camera):
    whole = [scene.render(camera, t) for t in (2, 2.0, torch.tensor(2.0, dtype=torch.float64))]
    assert torch.equal(whole[0].rgb, whole[1].rgb) and torch.equal(whole[0].rgb, whole[2].rgb)
    last = scene.render(camera, scene.num_times - 1.0)
    assert torch.equal(last.rgb, scene.render(camera, scene.num_times - 1).rgb)
    a, b = (scene.foreground_poses(torch.tensor([t])).positions for t in (2.25, 2.2501))
    assert 0 < (a - b).abs().max() < 1e-3
    near = scene.render(camera, 2.0001)
    torch.testing.assert_close(near.rgb, whole[0].rgb, atol=1e-3, rtol=0)
    assert (scene.render(camera, 2.5).rgb - whole[0].rgb).abs().max() > 1e-3


def test_background_colour_and_parts(scene, camera):
    black, red = scene.render(camera, 0, background_color=0.0), scene.render(camera, 0, background_color=(1, 0, 0))
    expected = black.rgb + (1 - black.alpha[..., None]) * torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(red.rgb, expected, atol=1e-5, rtol=0)
    two = scene.render(camera, 0, background_color=torch.tensor([[0.0, 0, 0], [1, 0, 0]]))
    torch.testing.assert_close(two.rgb, torch.stack([black.rgb, red.rgb]), atol=1e-5, rtol=0)
    moving = scene.render(camera, 0, parts="foreground")
    torch.testing.assert_close(moving.foreground, moving.alpha)
    static = DynamicScene(None, None, scene.background, scene.normalization, num_times=5)
    assert static.render(camera, 2.5).foreground.max() == 0
    with pytest.raises(UserError, match="which this scene has"):
        static.render(camera, 0, parts="foreground")


def test_gradients_go_through_times_between_frames(scene, camera):
    scene.render(camera, 1.5).rgb.sum().backward()
    for parameter in scene.motion_bases.parameters():
        at = parameter.grad.abs().sum((0, 2)) > 0
        assert at.tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("time", [-1, -0.01, 4.01, 5, float("nan"), [0, 9]])
def test_times_outside_of_the_scene(scene, camera, time):
    with pytest.raises(UserError, match=r"`time` must lie between 0 and 4, in frames; got"):
        scene.render(camera, time)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(time="now"), "`time` must be a number"),
        (dict(time=True), "`time` must be a number"),
        (dict(time=torch.zeros(3), camera=2), "must broadcast"),
        (dict(time=torch.zeros(0)), "at least one view"),
        (dict(track_times=[]), "at least one time"),
        (dict(track_times=[7]), "`track_times` must lie"),
        (dict(background_color=(0, 0)), "RGB"),
        (dict(parts=("floor",)), "got floor"),
        (dict(parts=()), "which this scene has"),
        (dict(camera=torch.eye(4)), "som.Camera"),
        (dict(camera="distorted"), "undistorted"),
        (dict(camera="huge"), "at most"),
        (dict(camera="nan"), "finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(scene, camera, change, message):
    views = {
        2: Camera.stack([camera, camera]),
        "distorted": Camera(camera.K, camera.w2c, 32, 24, "opencv", torch.tensor([0.1, 0, 0, 0])),
        "huge": camera.resized(20000, 20000),
        "nan": Camera(camera.K * float("nan"), camera.w2c, 32, 24),
    }
    options = {"camera": camera, "time": 0, **change}
    if isinstance(options["camera"], int | str):
        options["camera"] = views[options["camera"]]
    with pytest.raises(UserError, match=message) as error:
        scene.render(**options)
    assert "\n" not in str(error.value)
