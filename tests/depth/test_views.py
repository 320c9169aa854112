"""Choice of source views."""

import math

import pytest
import torch

from som.cameras.geometry import axis_angle_to_se3, invert_se3
from som.depth.errors import DepthError
from som.depth.views import SourceConfig, choose_sources, overlap_and_parallax, relative_baselines

F64 = torch.float64
K = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]], dtype=F64)
SIZE = (80, 100)


def row(*positions, turns=None):
    """Cameras on the x axis that look along z, each turned around y by some degrees."""
    turns = [0.0] * len(positions) if turns is None else turns
    centers = torch.tensor([[x, 0.0, 0.0] for x in positions], dtype=F64)
    return invert_se3(axis_angle_to_se3(torch.tensor([[0.0, math.radians(a), 0.0] for a in turns], dtype=F64), centers))


def ring(count=12, radius=4.0):
    """Cameras on a circle around the origin that look at it."""
    poses = []
    for k in range(count):
        angle = 2 * math.pi * k / count
        c2w = axis_angle_to_se3(torch.tensor([0.0, angle, 0.0], dtype=F64), torch.zeros(3, dtype=F64))
        c2w[:3, 3] = -radius * c2w[:3, 2]
        poses.append(invert_se3(c2w))
    return torch.stack(poses)


def test_index_takes_neighbours_in_time():
    assert choose_sources(SourceConfig(), 4).tolist() == [[-1, 1], [0, 2], [1, 3], [2, -1]]
    wide = choose_sources(SourceConfig(offsets=(-2, 3, 1)), 4)
    assert wide.tolist() == [[-1, 3, 1], [-1, -1, 2], [0, -1, 3], [1, -1, -1]]
    assert wide.dtype == torch.int64


def test_relative_baselines_by_hand():
    w2c = row(0.0, 0.3, 1.0, turns=[0, 10, -20])
    expected = torch.tensor([[0, 0.1, 1 / 3], [0.05, 0, 0.7 / 6], [1, 0.7, 0]], dtype=F64)
    torch.testing.assert_close(relative_baselines(w2c, torch.tensor([3.0, 6.0, 1.0])), expected)
    maps = torch.zeros(3, 2, 3)
    maps[0, 0] = torch.tensor([1.0, 3.0, 100.0])
    maps[1], maps[2, 0, 0] = 6.0, 1.0
    torch.testing.assert_close(relative_baselines(w2c, maps), expected)
    torch.testing.assert_close(relative_baselines(w2c, 2.0)[0], torch.tensor([0, 0.15, 0.5], dtype=F64))


def test_baseline_takes_the_middle_of_the_range_first_then_the_other_side():
    w2c = row(0.0, 0.01, 0.5, 0.4, -0.6, -9.0, 0.0001)
    config = SourceConfig(rule="baseline", baseline=(0.05, 0.2))
    chosen = choose_sources(config, 7, w2c=w2c, depth=4.0)
    assert chosen[0].tolist() == [3, 4]  # 0.1 is the geometric middle; 0.125 is better than 0.15 but on the same side
    assert choose_sources(config, 7, w2c=w2c[[0, 1, 2, 3, 5, 5, 6]], depth=4.0)[0].tolist() == [3, 2]
    assert chosen[5].tolist() == [-1, -1]
    assert choose_sources(config, 7, w2c=w2c, depth=40.0)[0].tolist() == [-1, -1]
    near = choose_sources(SourceConfig(rule="baseline", count=9), 7, w2c=w2c, depth=4.0)
    assert near.shape == (7, 9) and sorted(near[0].tolist()) == [-1] * 6 + [2, 3, 4]


def test_cameras_that_look_elsewhere_are_no_sources():
    config = SourceConfig(rule="baseline", baseline=(0.05, 0.2), count=1)
    for turn, expected in ((39.0, 1), (41.0, -1), (180.0, -1)):
        assert choose_sources(config, 2, w2c=row(0.0, 0.4, turns=[0, turn]), depth=4.0)[0].tolist() == [expected]


def test_overlap_and_parallax_by_hand():
    share, angle = overlap_and_parallax(row(0.0, 1.0, -2.5), K, 5.0, SIZE, grid=20)
    # at z = 5 the image is 5 wide: 20 px and 50 px of 100 leave it
    torch.testing.assert_close(share[0], torch.tensor([1, 0.8, 0.5], dtype=F64))
    torch.testing.assert_close(share, share.T)
    assert angle[0, 0] == 0
    assert angle[0, 1] == pytest.approx(math.degrees(math.atan(1 / 5)), rel=0.1)
    assert angle[0, 2] > 2 * angle[0, 1]
    behind = overlap_and_parallax(row(0.0, 1.0, turns=[0, 180]), K, 5.0, SIZE)
    assert behind[0][0, 1] == 0 and behind[1][0, 1] == 0


def test_overlap_looks_at_the_depth_maps():
    w2c = row(0.0, 1.0)
    maps = torch.full((2, *SIZE), 5.0)
    maps[0, :, :50] = 50.0  # far on the left: nothing leaves the image there
    maps[0, :40, 50:] = 0.0  # unknown
    share, _ = overlap_and_parallax(w2c, K, maps, grid=20)
    # known: 200 + 100 grid points. On the left 2 px of 50 leave, less than a grid cell; on the right none
    assert share[0, 1] == pytest.approx(1.0)
    assert share[1, 0] == pytest.approx(0.8)
    maps[0] = 0.0
    assert overlap_and_parallax(w2c, K, maps)[0].tolist()[0] == [0, 0]
    half = overlap_and_parallax(w2c, K, torch.full((2, 40, 50), 5.0), size=SIZE, grid=20)[0]  # coarser maps
    assert half[0, 1] == pytest.approx(0.8)


def test_overlap_rule_stays_in_its_range():
    w2c = row(0.0, 0.05, 1.0, -1.5, 4.0)
    chosen = choose_sources(SourceConfig(rule="overlap", overlap=(0.5, 0.95)), 5, w2c=w2c, K=K, depth=5.0, size=SIZE)
    assert chosen[0].tolist() == [3, 2]  # 0.7 is nearer to the middle than 0.8
    assert chosen[4].tolist() == [-1, -1]  # 3 away at depth 5: 40 % are left


def test_two_view_takes_the_widest_pair_that_still_sees_the_same():
    w2c = ring(24)  # 15 degrees apart
    config = SourceConfig(rule="two_view", parallax=(5.0, 35.0), overlap=(0.4, 1.0))
    chosen = choose_sources(config, 24, w2c=w2c, K=K, depth=4.0, size=SIZE)
    for target in range(24):
        steps = sorted((s - target + 12) % 24 - 12 for s in chosen[target].tolist())
        assert steps == [-2, 2]  # about 30 degrees to either side
    narrow = SourceConfig(rule="two_view", parallax=(5.0, 20.0), overlap=(0.4, 1.0))
    steps = (choose_sources(narrow, 24, w2c=w2c, K=K, depth=4.0, size=SIZE)[5] - 5).tolist()
    assert sorted(steps) == [-1, 1]
    none = SourceConfig(rule="two_view", parallax=(5.0, 10.0))
    assert (choose_sources(none, 24, w2c=w2c, K=K, depth=4.0, size=SIZE) == -1).all()


@pytest.mark.parametrize("rule", ["baseline", "overlap", "two_view"])
def test_a_generator_draws_other_sources_of_the_same_range(rule):
    g = torch.Generator().manual_seed(0)
    w2c = row(*(2 * torch.rand(20, generator=g)).tolist())
    inputs = dict(w2c=w2c, K=K, depth=5.0, size=SIZE)
    every = choose_sources(SourceConfig(rule=rule, count=19), 20, **inputs)
    draw = lambda seed: choose_sources(  # noqa: E731
        SourceConfig(rule=rule), 20, **inputs, generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    plain = choose_sources(SourceConfig(rule=rule), 20, **inputs)
    assert torch.equal(plain, choose_sources(SourceConfig(rule=rule), 20, **inputs))
    for target in range(20):
        allowed = set(every[target].tolist()) - {-1}
        for chosen in (draw(0)[target].tolist(), plain[target].tolist()):
            real = [s for s in chosen if s >= 0]
            assert set(real) <= allowed and target not in real
            assert len(set(real)) == len(real) == min(2, len(allowed))


def test_a_change_of_world_frame_and_scale_changes_nothing():
    w2c = ring(10)
    to_world = axis_angle_to_se3(torch.tensor([0.3, -1.0, 0.4], dtype=F64), torch.tensor([5.0, -2, 1], dtype=F64))
    other = w2c @ invert_se3(to_world)
    other[:, :3, 3] *= 7
    config = SourceConfig(rule="two_view", parallax=(5.0, 60.0), overlap=(0.3, 1.0))
    plain = choose_sources(config, 10, w2c=w2c, K=K, depth=4.0, size=SIZE)
    assert (plain >= 0).all()
    moved = choose_sources(config, 10, w2c=other.float(), K=K, depth=28.0, size=SIZE)
    assert torch.equal(plain.sort(1).values, moved.sort(1).values)


def test_missing_or_wrong_input_raises():
    w2c = row(0.0, 1.0, 2.0)
    by = lambda rule: SourceConfig(rule=rule)  # noqa: E731
    for message, call in {
        "two frames": lambda: choose_sources(by("index"), 1),
        "poses": lambda: choose_sources(by("baseline"), 3, depth=1.0),
        "poses w2c": lambda: choose_sources(by("baseline"), 4, w2c=w2c, depth=1.0),
        "depth": lambda: choose_sources(by("overlap"), 3, w2c=w2c, K=K, size=SIZE),
        "intrinsics": lambda: choose_sources(by("two_view"), 3, w2c=w2c, depth=1.0),
        "image size": lambda: choose_sources(by("two_view"), 3, w2c=w2c, K=K, depth=1.0),
        "depth must be": lambda: relative_baselines(w2c, torch.ones(2)),
        "K must be": lambda: overlap_and_parallax(w2c, K.expand(2, 3, 3), 1.0, SIZE),
        "unknown rule": lambda: SourceConfig(rule="nearest"),
        "not 0": lambda: SourceConfig(offsets=(0, 1)),
        "at least 1": lambda: SourceConfig(count=0),
        "range": lambda: SourceConfig(baseline=(0.2, 0.1)),
    }.items():
        with pytest.raises(DepthError, match=message):
            call()
