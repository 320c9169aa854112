"""Tracks and depth to 3D, neighbourhoods, thinning."""

import torch

from som.data.dataset import Tracks
from som.initialization import InitializationConfig
from som.initialization.clustering import kmeans, middle_times, track_neighbors
from som.initialization.lifting import LiftedTracks, depth_edges, draw_tracks, lift_tracks
from som.initialization.thinning import spacing, thin_points


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_lifted_positions_are_exact(scenes):
    dataset = scenes.sliding_square()
    lifted = lift_tracks(dataset, InitializationConfig(), gen())
    assert len(lifted) == 49
    assert lifted.observed.all()
    steps = lifted.points.diff(dim=1)
    assert torch.allclose(steps, torch.tensor([0.1, 0, 0]).expand_as(steps), atol=1e-5)
    assert torch.allclose(lifted.points[..., 2], torch.tensor(2.0))


def test_positions_off_the_mask_without_depth_or_on_edges_do_not_count(scenes):
    dataset = scenes.sliding_square()
    dataset.tracks.xy[0, 1] = torch.tensor([1.5, 1.5])  # on the wall
    dataset.tracks.xy[1, 1] = torch.tensor([-5.0, 20.0])  # outside
    dataset.tracks.visible[2, 1] = False
    dataset.tracks.confidence[3, 1] = 0
    column, row = dataset.tracks.xy[4, 1].floor().long().tolist()
    dataset.train.depths[1, row, column] = 0
    corner = dataset.train.foreground[1].nonzero()[0].flip(0) + 0.5
    dataset.tracks.xy[10, 1] = corner
    lifted = lift_tracks(dataset, InitializationConfig(), gen())
    assert not lifted.observed[[0, 1, 2, 3, 4, 10], 1].any()
    assert (lifted.points[~lifted.observed] == 0).all()
    assert (lifted.weights[~lifted.observed] == 0).all()


def test_unseen_tracks_are_dropped_not_filled(scenes):
    dataset = scenes.sliding_square()
    dataset.tracks.visible[:40] = False
    lifted = lift_tracks(dataset, InitializationConfig(), gen())
    assert len(lifted) == 9
    assert lifted.observed.all()


def test_no_tracks_are_no_tracks(scenes):
    dataset = scenes.sliding_square(with_tracks=False)
    assert len(lift_tracks(dataset, InitializationConfig(), gen())) == 0
    empty = torch.zeros(0, 6)
    dataset.tracks = Tracks(torch.zeros(0).long(), torch.zeros(0, 6, 2), empty.bool(), empty)
    assert lift_tracks(dataset, InitializationConfig(), gen()).points.shape == (0, 6, 3)


def test_drawn_tracks_spread_over_query_times():
    times = torch.tensor([0] * 90 + [1] * 5 + [2] * 50)
    usable = torch.ones(145, dtype=torch.bool)
    usable[95:100] = False
    drawn = draw_tracks(times, usable, 25, gen())
    assert torch.bincount(times[drawn]).tolist() == [10, 5, 10]
    assert usable[drawn].all()
    assert len(draw_tracks(times, usable, 1000, gen())) == 140


def test_depth_edges_ignore_unknown_depth():
    depth = torch.ones(1, 5, 6)
    depth[:, :, 3:] = 2.0
    depth[0, 0, 0] = 0
    edges = depth_edges(depth, 1.1)[0]
    assert edges.any(0).tolist() == [False, False, True, True, False, False]


def test_middle_times():
    observed = torch.tensor([[0, 1, 1, 1, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 1]]).bool()
    assert middle_times(LiftedTracks(torch.zeros(3, 5, 3), observed, observed.float())).tolist() == [2, 0, 4]


def test_neighbors_are_observed_together(scenes):
    tracks, _ = scenes.rigid_tracks([scenes.turning((0, 0, 1), 5, (0.1, 0, 0), (0, 0, 0), 12)], life=5)
    neighbors = track_neighbors(tracks, 6)
    middle = middle_times(tracks)
    assert (neighbors[:, 0] == torch.arange(len(tracks))).all()
    assert tracks.observed[neighbors, middle[:, None]].all()


def test_kmeans_finds_separate_blobs_and_repeats():
    middles = torch.tensor([[0.0, 0], [5, 0], [0, 5]]).repeat_interleave(30, 0)
    blobs = middles + 0.1 * torch.randn(90, 2, generator=gen())
    labels, centers = kmeans(blobs, 3, gen(1))
    assert all(len(labels[i : i + 30].unique()) == 1 for i in (0, 30, 60))
    assert len(centers) == 3
    assert torch.equal(labels, kmeans(blobs, 3, gen(1))[0])
    assert len(kmeans(torch.zeros(5, 2), 3, gen())[1]) == 1


def test_thinning_keeps_at_most_the_wanted_number_spread_evenly():
    points = torch.rand(5000, 3, generator=gen())
    kept = thin_points(points, torch.full((5000,), 1e-3), 200)
    assert 100 < len(kept) <= 200
    assert torch.cdist(points, points[kept]).amin(1).max() < 0.4
    assert len(thin_points(points, torch.full((5000,), 1e-3), 0)) == 0
    assert len(thin_points(points[:50], torch.full((50,), 1e-6), 200)) == 50


def test_thinning_merges_what_one_pixel_shows_and_separates_groups():
    points = torch.full((10, 3), 0.5)
    footprints = torch.ones(10)
    assert thin_points(points, footprints, 100).tolist() == [0]
    assert thin_points(points, footprints, 100, torch.arange(10) % 2).tolist() == [0, 1]


def test_spacing_of_coincident_and_single_points_is_positive():
    assert (spacing(torch.zeros(4, 3), torch.ones(4)) > 0).all()
    assert spacing(torch.zeros(1, 3), torch.ones(1)).tolist() == [1.0]
