"""Rigid parts and motion bases from trajectories with known motion."""

import pytest
import torch

from som.initialization import InitializationConfig
from som.initialization.lifting import LiftedTracks
from som.initialization.motion_bases import fill_gaps, fit_motion
from som.initialization.rigid_parts import RigidParts

T = 16


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def two_bodies(scenes, num_times=T):
    return [
        scenes.turning((0, 0, 1), 6, (0.05, 0, 0), (0, 0, 0), num_times),
        scenes.turning((0, 1, 0), -12, (0, -0.06, 0.02), (1, 0, 0), num_times),
    ]


def angle_between(R_a, R_b):
    cosine = ((R_a.transpose(-1, -2) @ R_b).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))


def check_motion(motion, labels, truth, degrees=1.0, share=0.01):
    """Motion between all pairs of times, for every track, against the truth."""
    times = torch.arange(motion.bases.num_times)
    with torch.no_grad():
        R, t = (x.double() for x in motion.bases.poses(motion.coefs.softmax(-1), times))
    for body, (R_true, t_true) in enumerate(truth):
        mine = labels == body
        relative = R[:, mine] @ R[:1, mine].transpose(-1, -2)
        expected = R_true @ R_true[:1].transpose(-1, -2)
        assert angle_between(relative, expected[:, None]).median() < degrees
        assert angle_between(relative, expected[:, None]).quantile(0.95) < 3 * degrees
        start = (R[0, mine] @ motion.positions[mine].double()[..., None])[..., 0] + t[0, mine]
        place = (R_true[0].T @ (start - t_true[0])[..., None])[..., 0]
        moved = (R[:, mine] @ motion.positions[mine].double()[..., None])[..., 0] + t[:, mine]
        error = moved - (torch.einsum("tij,qj->tqi", R_true, place) + t_true[:, None])
        path = torch.linalg.vector_norm(moved[-1] - moved[0], dim=-1).mean()
        assert torch.linalg.vector_norm(error, dim=-1).mean() < share * path


@pytest.mark.parametrize("steps", [0, 100])
def test_two_bodies_seen_all_the_time(scenes, steps):
    truth = two_bodies(scenes)
    tracks, labels = scenes.rigid_tracks(truth)
    motion = fit_motion(tracks, InitializationConfig(num_motion_bases=4, optimization_steps=steps), gen())
    check_motion(motion, labels, truth)
    parts = [motion.labels[labels == body].unique() for body in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 1
    assert parts[0] != parts[1]


def test_short_lives_chain_into_one_motion(scenes):
    truth = two_bodies(scenes)
    tracks, labels = scenes.rigid_tracks(truth, per_body=500, life=5)
    assert not (tracks.observed[:, 0] & tracks.observed[:, -1]).any()
    config = InitializationConfig(num_motion_bases=4, optimization_steps=50)
    check_motion(fit_motion(tracks, config, gen()), labels, truth)


def test_noise_is_averaged_out(scenes):
    truth = two_bodies(scenes)
    tracks, labels = scenes.rigid_tracks(truth, noise=0.005)
    check_motion(fit_motion(tracks, InitializationConfig(num_motion_bases=2), gen()), labels, truth, share=0.02)


def test_a_tenth_of_wild_tracks_does_no_harm(scenes):
    truth = two_bodies(scenes)
    tracks, labels = scenes.rigid_tracks(truth)
    wild = torch.randperm(len(tracks), generator=gen())[: len(tracks) // 10]
    tracks.points[wild] += 0.3 * torch.randn(len(wild), T, 3, generator=gen())
    labels[wild] = -1
    check_motion(fit_motion(tracks, InitializationConfig(num_motion_bases=4), gen()), labels, truth, share=0.02)


def test_two_times(scenes):
    truth = two_bodies(scenes, num_times=2)
    tracks, labels = scenes.rigid_tracks(truth)
    motion = fit_motion(tracks, InitializationConfig(num_motion_bases=3, optimization_steps=20), gen())
    assert motion.bases.num_times == 2
    check_motion(motion, labels, truth, degrees=3.0, share=0.1)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_hardly_any_tracks(scenes, count):
    tracks, _ = scenes.rigid_tracks(two_bodies(scenes)[:1])
    few = tracks.select(torch.arange(count))
    motion = fit_motion(few, InitializationConfig(optimization_steps=10), gen())
    R, t = motion.bases.poses(motion.coefs.softmax(-1), torch.arange(T))
    error = (R @ motion.positions[..., None])[..., 0] + t - few.points.transpose(0, 1)
    assert torch.linalg.vector_norm(error, dim=-1).mean() < 0.05


def test_a_body_hidden_in_the_middle_keeps_moving(scenes):
    truth = [scenes.turning((0, 0, 1), 0, (0.1, 0, 0), (0, 0, 0), T)]
    tracks, labels = scenes.rigid_tracks(truth)
    observed = tracks.observed.clone()
    observed[:, 6:9] = False
    observed[0] = True
    tracks.observed, tracks.weights = observed, observed.float()
    check_motion(fit_motion(tracks, InitializationConfig(num_motion_bases=1), gen()), labels, truth, share=0.02)


def test_a_bending_sheet_needs_several_bases(scenes):
    g = gen()
    p = torch.rand(800, 1, 2, generator=g) * 2 - 1
    phase = torch.arange(12)[:, None] * 0.3
    z = 0.15 * torch.sin(3 * p[..., 0] + phase[:, 0])
    points = torch.cat([p.expand(-1, 12, -1), z[..., None]], -1)
    observed = torch.ones(800, 12, dtype=torch.bool)
    tracks = type(scenes.rigid_tracks(two_bodies(scenes))[0])(points, observed, observed.float())
    errors = []
    for count in (1, 10):
        motion = fit_motion(tracks, InitializationConfig(num_motion_bases=count, optimization_steps=100), gen())
        R, t = motion.bases.poses(motion.coefs.softmax(-1), torch.arange(12))
        moved = ((R @ motion.positions[..., None])[..., 0] + t).transpose(0, 1)
        errors.append(float(torch.linalg.vector_norm(moved - points, dim=-1).mean().detach()))
    assert errors[1] < 0.35 * errors[0]
    assert errors[1] < 0.02


def test_same_seed_same_result(scenes):
    tracks, _ = scenes.rigid_tracks(two_bodies(scenes), per_body=80, life=6, noise=0.01)
    config = InitializationConfig(num_motion_bases=4, optimization_steps=5)
    first, second = (fit_motion(tracks, config, gen(7)) for _ in range(2))
    assert torch.equal(first.positions, second.positions)
    assert torch.equal(first.coefs, second.coefs)
    assert torch.equal(first.bases.params["rots"], second.bases.params["rots"])


def test_gaps_between_poses_are_interpolated_and_ends_held(scenes):
    R, t = scenes.turning((0, 0, 1), 10, (1, 0, 0), (0, 0, 0), 7)
    covered = torch.tensor([0, 1, 0, 0, 1, 1, 0]).bool()
    center = torch.tensor([0.0, 0, 0]).double()
    R_filled, t_filled = fill_gaps(R * covered[:, None, None], t * covered[:, None], covered, center)
    assert torch.allclose(R_filled[1:6], R[1:6])
    assert torch.allclose(t_filled[1:6], t[1:6])
    assert torch.allclose(R_filled[[0, 6]], R[[1, 5]])
    assert torch.allclose(t_filled[[0, 6]], t[[1, 5]])


def test_a_part_explains_nothing_of_tracks_that_are_never_seen_while_it_is():
    T, clip = 8, 0.3
    points = torch.rand(3, T, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[0] = points[0, :1]  # rests, as the part does
    observed = torch.ones(3, T, dtype=torch.bool)
    observed[2, 4:] = False  # gone before the part has a pose
    tracks = LiftedTracks(points, observed, observed.double())
    covered = (torch.arange(T) >= 4)[None]
    part = RigidParts(torch.eye(3, dtype=torch.float64).expand(1, T, 3, 3), torch.zeros(1, T, 3).double(), covered)
    residuals, _ = part.residuals(0, tracks, clip)
    half_covered = clip * (0.5 * 4 / 3) ** 0.5
    assert residuals[0] == pytest.approx(half_covered)  # unknown in four of eight frames, which count as clip
    assert residuals[1] > residuals[0]
    assert residuals[2] == pytest.approx(clip)
