import pytest
import torch

from som.data.normalization import Normalization
from som.rendering import rasterize
from som.scene import DynamicScene, Gaussians, MotionBases


def test_render_shapes_and_ranges(scene, cameras):
    w2cs, Ks, (width, height) = cameras
    track_times = torch.tensor([[1, 2, 4]] * 2)
    out = scene.rasterize_views(w2cs, Ks, torch.tensor([0, 3]), width, height, track_times=track_times)
    assert out.rgb.shape == (2, height, width, 3)
    assert out.alpha.shape == out.foreground.shape == out.depth.shape == (2, height, width)
    assert out.tracks.shape == (2, 3, height, width, 3)
    assert (out.foreground <= out.alpha + 1e-5).all() and (out.alpha <= 1 + 1e-5).all()
    assert out.info["means2d"].shape == (2, 1, 100, 2)


def test_batched_render_equals_single_views(scene, cameras):
    w2cs, Ks, size = cameras
    times = torch.tensor([1, 4])
    both = scene.rasterize_views(w2cs, Ks, times, *size)
    for b in range(2):
        one = scene.rasterize_views(w2cs[b : b + 1], Ks[b : b + 1], times[b : b + 1], *size)
        torch.testing.assert_close(one.rgb[0], both.rgb[b], atol=1e-5, rtol=0)
        torch.testing.assert_close(one.depth[0], both.depth[b], atol=1e-4, rtol=0)


def test_foreground_moves_and_background_stays(scene, cameras):
    w2cs, Ks, size = cameras
    view = w2cs[:1].expand(2, 4, 4), Ks[:1].expand(2, 3, 3), torch.tensor([0, 4])
    still = scene.rasterize_views(*view, *size, parts=("background",))
    torch.testing.assert_close(still.rgb[0], still.rgb[1])
    assert still.foreground.max().item() == 0
    moving = scene.rasterize_views(*view, *size, parts=("foreground",))
    assert (moving.rgb[0] - moving.rgb[1]).abs().max() > 0.01
    torch.testing.assert_close(moving.foreground, moving.alpha)


def test_gaussian_is_carried_to_its_pose(scene):
    times = torch.tensor([2])
    R, x, _ = scene.foreground_poses(times)
    weights = scene.foreground.params["motion_coefs"].softmax(-1)
    _, transl = scene.motion_bases.poses(weights, times)
    torch.testing.assert_close(x[0, 7], R[0, 7] @ scene.foreground.means[7] + transl[0, 7])


def test_moving_a_gaussian_equals_moving_the_camera():
    """A rigidly moving scene seen by a fixed camera equals a still scene seen by the inversely moving camera."""
    g = torch.Generator().manual_seed(3)
    import roma

    gaussians = {
        "means": torch.rand(50, 3, generator=g) - 0.5,
        "quats": torch.randn(50, 4, generator=g),
        "scales": 0.02 + 0.1 * torch.rand(50, 3, generator=g),
        "opacities": torch.full((50,), 0.7),
        "colors": torch.rand(50, 3, generator=g),
    }
    R, t = roma.rotvec_to_rotmat(torch.tensor([0.2, -0.5, 0.3])), torch.tensor([0.1, 0.2, -0.1])
    bases = MotionBases(torch.cat([R[:, 0], R[:, 1]])[None, None], t[None, None])
    fg = Gaussians.from_values(**gaussians, motion_coefs=torch.zeros(50, 1))
    scene = DynamicScene(fg, bases, None, Normalization(torch.zeros(3), 1.0))
    w2c, K = torch.eye(4), torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]])
    w2c[2, 3] = 3
    moved = scene.rasterize_views(w2c[None], K[None], torch.tensor([0]), 40, 30, background_color=0.0)
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = R, t
    still, _, _ = rasterize(
        fg.means, fg.quats_wxyz, fg.scales, fg.opacities, fg.colors, (w2c @ T)[None], K[None], 40, 30
    )
    torch.testing.assert_close(moved.rgb[0], still[0], atol=1e-4, rtol=0)


def test_tracks_are_positions_of_the_seen_surface():
    """One opaque moving blob: wherever it is seen, its track is its own position at the other time."""
    fg = Gaussians.from_values(
        means=torch.zeros(1, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 0.1),
        opacities=torch.tensor([0.99]),
        colors=torch.rand(1, 3),
        motion_coefs=torch.zeros(1, 1),
    )
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(1, 3, 1)
    path = torch.tensor([[[0.0, 0, 0], [0.2, 0, 0], [0.2, 0.3, 0.5]]])
    scene = DynamicScene(fg, MotionBases(identity, path), None, Normalization(torch.zeros(3), 1.0))
    w2c = torch.eye(4)
    w2c[2, 3] = 2
    K = torch.tensor([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]])
    out = scene.rasterize_views(w2c[None], K[None], torch.tensor([0]), 16, 16, track_times=torch.tensor([[1, 2]]))
    seen = out.alpha[0] > 0.1
    assert seen.any()
    for n, time in enumerate((1, 2)):
        torch.testing.assert_close(out.tracks[0, n][seen], path[0, time].expand(int(seen.sum()), 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.depth[0][seen], torch.full((int(seen.sum()),), 2.0), atol=1e-4, rtol=0)


def test_gradients_reach_every_parameter(scene, cameras):
    w2cs, Ks, size = cameras
    out = scene.rasterize_views(w2cs, Ks, torch.tensor([0, 3]), *size, track_times=torch.tensor([[1], [2]]))
    (out.rgb.sum() + out.depth.sum() + out.tracks.sum() + out.foreground.square().sum()).backward()
    for name, parameter in scene.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_scene_without_background_or_foreground(scene, cameras):
    w2cs, Ks, size = cameras
    only_bg = DynamicScene(None, None, scene.background, scene.normalization, num_times=5)
    out = only_bg.rasterize_views(w2cs, Ks, torch.tensor([0, 1]), *size, track_times=torch.tensor([[1], [2]]))
    assert out.tracks.isfinite().all() and out.foreground.max().item() == 0
    only_fg = DynamicScene(scene.foreground, scene.motion_bases, None, scene.normalization)
    torch.testing.assert_close(
        only_fg.rasterize_views(w2cs, Ks, torch.tensor([0, 1]), *size).rgb,
        scene.rasterize_views(w2cs, Ks, torch.tensor([0, 1]), *size, parts=("foreground",)).rgb,
    )


def test_inconsistent_parts_are_refused(scene):
    norm = scene.normalization
    with pytest.raises(ValueError, match="come together"):
        DynamicScene(scene.foreground, None, None, norm)
    with pytest.raises(ValueError, match="neither"):
        DynamicScene(None, None, None, norm)
    with pytest.raises(ValueError, match="motion_coefs"):
        DynamicScene(scene.background, scene.motion_bases, None, norm)
    with pytest.raises(ValueError, match="num_times"):
        DynamicScene(None, None, scene.background, norm)
    with pytest.raises(ValueError, match="scales has shape"):
        Gaussians(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 2), torch.zeros(2), torch.zeros(2, 3))


def test_extreme_values_stay_finite():
    g = Gaussians.from_values(
        means=torch.zeros(2, 3),
        quats=torch.zeros(2, 4),
        scales=torch.zeros(2, 3),
        opacities=torch.tensor([0.0, 1.0]),
        colors=torch.tensor([[0.0] * 3, [1.0] * 3]),
    )
    assert all(p.isfinite().all() for p in g.params.values())
    torch.testing.assert_close(g.colors, torch.tensor([[0.0] * 3, [1.0] * 3]), atol=1e-3, rtol=0)
