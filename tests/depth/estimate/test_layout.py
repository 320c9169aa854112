"""The guess for clips without parallax: level ground, a wall around the camera, objects that stand on the ground."""

import math

import pytest
import torch

from som.cameras.geometry import axis_angle_to_se3, pixel_centers, unproject
from som.depth.errors import DepthError
from som.depth.estimate import guess_layout
from som.depth.estimate.layout import fit_layout

H, W, F = 60, 80, 70.0
K = torch.tensor([[F, 0, W / 2], [0, F, H / 2], [0, 0, 1.0]])


def frames(count=2):
    return torch.full((count, 3, H, W), 0.5)


def turned(*degrees):
    """Cameras in one place that are turned about the vertical."""
    angles = torch.tensor([[0.0, math.radians(d), 0.0] for d in degrees])
    return axis_angle_to_se3(angles, torch.zeros_like(angles))


def points(prior):
    """(T,H*W,3) in camera axes."""
    xy = pixel_centers(H, W).view(1, -1, 2)
    return unproject(xy, prior.depth.flatten(1), prior.K)


def test_a_level_camera_sees_ground_below_the_horizon_and_a_wall_above():
    prior = guess_layout(frames(), K, pitch=0.0, wall=4.0)
    rows = torch.arange(H) + 0.5 - H / 2
    # z = h f / (y - cy) on the ground; the wall is 4 heights away, straight ahead at depth 4
    assert prior.depth[0, -1, 3] == pytest.approx(F / float(rows[-1]))
    middle = prior.depth[0, : H // 2, W // 2 - 1 : W // 2 + 1]
    assert torch.allclose(middle, torch.tensor(4.0), rtol=1e-3)
    X = points(prior)[0]
    ground = (X[:, 1] - 1).abs() < 1e-4
    wall = (X[:, [0, 2]].norm(dim=-1) - 4).abs() < 1e-4
    assert bool((ground | wall).all()) and 0 < int(ground.sum()) < int(wall.sum())


def test_the_pitch_moves_the_horizon():
    pitch = math.radians(10.0)
    prior = guess_layout(frames(), K, pitch=10.0, wall=1e6)
    # with the wall gone, depth beyond 1000 heights begins at the horizon y = cy - f tan(pitch)
    far = prior.depth[0, :, W // 2] > 1000
    horizon = H / 2 - F * math.tan(pitch)
    assert int(far.sum()) == round(horizon)
    X = points(prior)[0, -W:]
    assert torch.allclose(X @ torch.tensor([0.0, math.cos(pitch), math.sin(pitch)]), torch.ones(W), rtol=1e-4)


def test_a_camera_that_turns_sees_one_room():
    poses = turned(-15.0, 0.0, 15.0)
    prior = guess_layout(frames(3), K, w2c=poses, pitch=8.0)
    assert torch.equal(prior.w2c[:, :3, :3], poses[:, :3, :3]) and bool((prior.w2c[:, :3, 3] == 0).all())
    world = points(prior) @ prior.w2c[:, :3, :3]
    down = torch.tensor([0.0, math.cos(math.radians(8.0)), math.sin(math.radians(8.0))])
    # the mean of the cameras' own downs, over the 30 degrees that they turn
    own = torch.nn.functional.normalize((poses[:, :3, :3].transpose(1, 2) @ down).mean(0), dim=0)
    level = (world - (world @ own)[..., None] * own).norm(dim=-1)
    assert torch.allclose(torch.maximum(world @ own, level / 5.0), torch.ones(3, H * W), atol=1e-4)


def test_where_the_camera_is_said_to_be_does_not_matter():
    poses = turned(0.0, 5.0)
    moved = poses.clone()
    moved[1, :3, 3] = 0.3
    assert torch.equal(guess_layout(frames(), K, w2c=poses).depth, guess_layout(frames(), K, w2c=moved).depth)


def test_moving_things_stand_on_the_ground_also_where_the_border_cuts_them():
    moving = torch.zeros(2, H, W, dtype=torch.bool)
    moving[:, 20:50, 10:20] = True
    moving[:, 10:H, 50:60] = True
    prior = guess_layout(frames(), K, moving, pitch=0.0, wall=4.0)
    foot, border = F / (50.5 - H / 2), F / (H + 0.5 - H / 2)
    assert torch.allclose(prior.depth[:, 20:40, 10:20], torch.tensor(foot))
    assert torch.allclose(prior.depth[:, 10:50, 50:60], torch.tensor(border))
    empty = guess_layout(frames(), K, pitch=0.0, wall=4.0)
    assert bool((prior.depth <= empty.depth).all()) and torch.equal(prior.depth[~moving], empty.depth[~moving])


def test_it_says_how_little_it_knows():
    moving, valid = torch.zeros(2, 2, H, W, dtype=torch.bool)
    moving[0, 20:40, 20:40] = True
    valid[:, :, 1:] = True
    prior = guess_layout(frames(), K, moving, valid=valid)
    assert prior.units == "relative" and prior.scale_log["method"] == "layout guess"
    assert float(prior.confidence.max()) == pytest.approx(0.2) and bool((prior.confidence[:, :, 0] == 0).all())
    assert float(prior.confidence[0, 30, 30]) > float(prior.confidence[1, 30, 30]) > 0
    assert bool(prior.depth.isfinite().all()) and float(prior.depth.min()) > 0


@pytest.mark.parametrize("wrong", [dict(pitch=95.0), dict(wall=0.0), dict(wall=math.nan)])
def test_impossible_rooms_are_refused(wrong):
    with pytest.raises(DepthError, match=r"pitch in .* and a wall > 0"):
        guess_layout(frames(), K, **wrong)
    with pytest.raises(DepthError, match=r"moving must be \(2,60,80\)"):
        guess_layout(frames(), K, torch.zeros(2, 3, 3, dtype=torch.bool))


def known_here_and_there(depth, share=0.02):
    """Depth at a random share of the pixels, 0 elsewhere."""
    chosen = torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)) < share
    return depth * chosen


@pytest.mark.parametrize(("pitch", "wall"), [(15.0, 8.0), (-5.0, 3.0), (5.0, 5.0)])
def test_fitting_recovers_the_room_from_a_few_points(pitch, wall):
    w2c = turned(-20, 0, 20)
    room = guess_layout(frames(3), K, w2c=w2c, pitch=pitch, wall=wall).depth * 2.5
    sparse = known_here_and_there(room)
    fitted, log = fit_layout(sparse, (sparse > 0).float(), K.expand(3, 3, 3), w2c)
    assert (log["layout_pitch"], log["layout_wall"]) == (pitch, wall)
    assert torch.allclose(fitted, room, rtol=1e-3)


def test_frames_that_know_nothing_take_the_height_of_the_others():
    w2c = turned(0, 10)
    room = guess_layout(frames(2), K, w2c=w2c).depth * 3
    sparse = known_here_and_there(room)
    sparse[1] = 0
    fitted, _ = fit_layout(sparse, (sparse > 0).float(), K.expand(2, 3, 3), w2c)
    assert torch.allclose(fitted, room, rtol=1e-3)
    with pytest.raises(DepthError, match="no depth is known"):
        fit_layout(torch.zeros_like(sparse), torch.ones_like(sparse), K.expand(2, 3, 3), w2c)


def test_points_keep_the_poses_and_shape_the_layout_around_them():
    w2c = turned(0, 5)
    w2c[1, 0, 3] = 0.02
    room = guess_layout(frames(2), K, w2c=w2c).depth * 3
    bump = room.clone()
    bump[:, 20:40, 30:50] *= 0.6  # something that stands in the room
    prior = guess_layout(frames(2), K, w2c=w2c, sparse=known_here_and_there(bump, 0.1))
    assert prior.units == "scene" and torch.equal(prior.w2c, w2c) and prior.confidence.max() <= 0.2
    inside, outside = prior.depth[:, 25:35, 35:45] / room[:, 25:35, 35:45], prior.depth[:, :10] / room[:, :10]
    assert float(inside.median()) < 0.85 and float((outside - 1).abs().median()) < 0.1


def test_too_few_points_change_nothing():
    w2c = turned(0, 5)
    plain, sparse = guess_layout(frames(2), K, w2c=w2c), torch.zeros(2, H, W)
    sparse[0, 5, :20] = 7.0
    assert torch.equal(guess_layout(frames(2), K, w2c=w2c, sparse=sparse).depth, plain.depth)
