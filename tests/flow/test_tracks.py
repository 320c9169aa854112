"""Long point tracks on flow fields that are known exactly."""

import dataclasses
import math

import pytest
import torch

from flow.errors import FlowError
from flow.sampling import pixel_centers
from flow.tracks import (
    PointTracks,
    TrackingOptions,
    confidence_from_variance,
    track_points,
    variance_from_confidence,
)
from flow.video_flow import VideoFlow

H, W = 48, 96


def flow_of(motion, num_frames, strides=(1, 2, 4, 8, 16), size=(H, W), folder=None):
    """Fields of ``motion(xy, u, t)``, which takes the pixels (H,W,2) of frame u to frame t."""
    flow, grid = VideoFlow(num_frames, size, folder=folder), pixel_centers(*size)
    for u in range(num_frames):
        for t in range(num_frames):
            if abs(u - t) in strides:
                flow.put(u, t, motion(grid, u, t) - grid)
    return flow


def translation(velocity):
    return lambda xy, u, t: xy + (t - u) * torch.tensor(velocity)


def rotation(angle, center=(W / 2, H / 2)):
    def move(xy, u, t):
        a = (t - u) * angle
        turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        return (xy - torch.tensor(center)) @ turn.T + torch.tensor(center)

    return move


def occluded(width=24, speed=6, start=0):
    """A static background, before which a bar runs to the right: it covers x in [start, start + width) + speed t."""

    def move(xy, u, t):
        left = start + speed * u
        bar = (xy[..., :1] >= left) & (xy[..., :1] < left + width)
        return xy + bar * torch.tensor([float(speed * (t - u)), 0.0])

    return move


def covered(x, num_frames, width=24, speed=6, start=0):
    return torch.tensor([start + speed * t <= x < start + speed * t + width for t in range(num_frames)])


@pytest.mark.parametrize("move", [translation((1.3, -0.4)), rotation(0.05)], ids=["translation", "rotation"])
def test_smooth_motion_is_followed_both_ways_from_every_query_frame(move):
    T = 13
    frames = torch.tensor([0, 6, 12, 3])
    queries = torch.tensor([[30.2, 30.0], [40.7, 22.1], [52.0, 20.5], [44.4, 30.9]])
    tracks = track_points(flow_of(move, T), queries, frames)
    starts = zip(queries, frames.tolist(), strict=True)
    truth = torch.stack([torch.stack([move(xy, start, t) for t in range(T)]) for xy, start in starts])
    assert tracks.visible.all()
    assert (tracks.xy - truth).abs().max() < 1e-2


def test_query_itself_is_sure():
    frames = torch.tensor([2, 0])
    queries = torch.tensor([[30.25, 20.75], [50.0, 10.0]])
    tracks = track_points(flow_of(translation((1.0, 0.0)), 5), queries, frames)
    index = torch.arange(2)
    assert torch.equal(tracks.xy[index, frames], queries)
    assert tracks.visible[index, frames].all()
    assert (tracks.variance[index, frames] == 0).all() and (tracks.confidence[index, frames] == 1).all()
    others = torch.ones(2, 5, dtype=torch.bool)
    others[index, frames] = False
    assert (tracks.variance[others] > 0).all() and (tracks.confidence[others] < 1).all()


def test_point_is_lost_behind_an_occluder_and_found_again():
    T, x = 20, 40.5
    tracks = track_points(flow_of(occluded(), T), torch.tensor([[x, 20.5]]), torch.tensor([0]))
    hidden = covered(x, T)
    assert hidden.sum() == 4
    assert torch.equal(tracks.visible[0], ~hidden)
    assert torch.equal(tracks.variance[0].isinf(), hidden)
    assert (tracks.confidence[0, hidden] == 0).all()
    # Hidden positions are guessed from both sides, not dragged along with the occluder.
    assert (tracks.xy[0] - torch.tensor([x, 20.5])).abs().max() < 1e-2


def test_without_reappearance_tracks_end_where_they_are_lost():
    T, x = 20, 40.5
    first, last = covered(x, T).nonzero()[[0, -1], 0].tolist()
    options = TrackingOptions(reappear=False)
    queries = torch.tensor([[x, 20.5], [x, 20.5]])
    tracks = track_points(flow_of(occluded(), T), queries, torch.tensor([0, T - 1]), options)
    assert torch.equal(tracks.visible[0], torch.arange(T) < first)
    assert torch.equal(tracks.visible[1], torch.arange(T) > last)


def test_one_weak_candidate_is_not_enough_to_reappear_but_two_that_agree_are():
    # A step's variance of 0.03 is above the bound, two agreeing candidates of 0.03 have 0.015 together.
    T, x, bound = 20, 40.5, 0.02
    flow = flow_of(occluded(width=12), T)
    hidden = covered(x, T, width=12)
    last = hidden.nonzero()[-1, 0]
    query = torch.tensor([[x, 20.5]]), torch.tensor([0])
    one = track_points(flow, *query, TrackingOptions(strides=(1, 4), reappear_variance=bound))
    assert not one.visible[0, last + 1 :].any()
    two = track_points(flow, *query, TrackingOptions(strides=(1, 4, 8), reappear_variance=bound))
    assert two.visible[0, last + 4 :].all()


def test_candidates_that_disagree_do_not_support_each_other():
    T, x, bound = 20, 40.5, 0.02
    move = occluded(width=12)
    last = covered(x, T, width=12).nonzero()[-1, 0]

    def disagreeing(xy, u, t):
        return move(xy, u, t) + (torch.tensor([0.0, 4.0]) * (t - u) / 8 if abs(t - u) == 8 else 0)

    options = TrackingOptions(strides=(1, 4, 8), reappear_variance=bound)
    tracks = track_points(flow_of(disagreeing, T), torch.tensor([[x, 20.5]]), torch.tensor([0]), options)
    assert not tracks.visible[0, last + 1 :].any()


def test_backward_sweep_reaches_frames_just_behind_the_occluder():
    # From frame 0, stride 8 lands at frame 8; frames 7 and before are only reached by going back from there.
    T, x = 12, 40.5
    flow = flow_of(occluded(width=12, start=24), T)
    hidden = covered(x, T, width=12, start=24)
    tracks = track_points(flow, torch.tensor([[x, 20.5]]), torch.tensor([0]), TrackingOptions(strides=(1, 8), sweeps=2))
    assert not hidden[0] and 1 <= hidden.nonzero().max() < 7
    assert torch.equal(tracks.visible[0], ~hidden)


def test_surest_stride_wins():
    # Single steps drift by 0.2 px and do not return to where they came from; four frames at once are exact.
    def move(xy, u, t):
        return xy + (torch.tensor([0.2, 0.0]) if abs(t - u) == 1 else 0.0)

    flow = flow_of(move, 9, strides=(1, 4))
    query = torch.tensor([[40.0, 20.0]]), torch.tensor([0])
    tracks = track_points(flow, *query, TrackingOptions(strides=(1, 4)))
    chained = track_points(flow, *query, TrackingOptions(strides=(1,), max_variance=10))
    assert torch.allclose(tracks.xy[0, [4, 8]], query[0].expand(2, 2), atol=1e-2)
    assert chained.xy[0, 8, 0] - 40.0 == pytest.approx(1.6, abs=0.02)
    assert tracks.variance[0, 4] == pytest.approx(0.03, abs=1e-3)  # one step
    assert tracks.variance[0, 1] == pytest.approx(0.03 + 0.4**2, abs=5e-3)  # one step and its squared error


def test_match_that_is_consistent_by_luck_among_others_that_are_not_is_unsure():
    # Around the point the flow does not return by 0.6 px, but for the point's own pixel.
    def move(xy, u, t):
        far = (xy - torch.tensor([40.0, 20.0])).norm(dim=-1, keepdim=True)
        bad = (far < 8) & (far > 1)
        return xy + bad * torch.tensor([0.0, 0.3])

    query = torch.tensor([[40.0, 20.0]]), torch.tensor([0])
    flow = flow_of(move, 2)
    unsure = track_points(flow, *query)
    trusting = track_points(flow, *query, TrackingOptions(neighborhood=0.0))
    assert torch.equal(unsure.xy, trusting.xy)
    assert trusting.variance[0, 1] == pytest.approx(0.03, abs=1e-3)
    assert unsure.variance[0, 1] == pytest.approx(0.03 + 0.6**2, abs=1e-2)


def test_variance_bound_ends_plain_chains():
    flow = flow_of(translation((0.0, 0.0)), 9)
    options = TrackingOptions(strides=(1,), step_variance=0.19, max_variance=1.0)
    tracks = track_points(flow, torch.tensor([[40.0, 20.0]]), torch.tensor([0]), options)
    assert tracks.visible[0].tolist() == [True] * 6 + [False] * 3


def test_points_that_leave_the_image_are_invisible_and_stay_near():
    T = 12
    flow = flow_of(translation((11.0, 0.0)), T)
    tracks = track_points(flow, torch.tensor([[60.5, 20.5]]), torch.tensor([0]))
    assert tracks.visible[0].tolist() == [60.5 + 11 * t <= W for t in range(T)]
    assert (tracks.xy[0, :, 0] <= 1.5 * W).all() and (tracks.xy[0, 4:, 0] > W).all()


def test_order_of_queries_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    queries = torch.rand(50, 2, generator=generator) * torch.tensor([W - 1.0, H - 1.0])
    frames = torch.randint(0, 12, (50,), generator=generator)
    flow = flow_of(occluded(), 12)
    order = torch.randperm(50, generator=generator)
    tracks = track_points(flow, queries, frames)
    shuffled = track_points(flow, queries[order], frames[order])
    alone = track_points(flow, queries[7:8], frames[7:8])
    for name, value in vars(tracks).items():
        assert torch.equal(value[order], getattr(shuffled, name)), name
        assert torch.equal(value[7:8], getattr(alone, name)), name


def test_flow_in_a_folder_gives_the_same_tracks(tmp_path):
    queries, frames = torch.tensor([[40.5, 20.5], [10.0, 30.0]]), torch.tensor([0, 4])
    memory = track_points(flow_of(occluded(), 9), queries, frames)
    disk = track_points(flow_of(occluded(), 9, folder=tmp_path), queries, frames)
    assert torch.equal(memory.xy, disk.xy) and torch.equal(memory.variance, disk.variance)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
def test_videos_shorter_than_the_strides(num_frames):
    flow = flow_of(translation((1.0, 0.5)), num_frames)
    tracks = track_points(flow, torch.tensor([[20.0, 20.0]]), torch.tensor([num_frames - 1]))
    back = torch.arange(num_frames) - (num_frames - 1)
    truth = torch.tensor([20.0, 20.0]) + back[:, None] * torch.tensor([1.0, 0.5])
    assert tracks.visible.all() and torch.allclose(tracks.xy[0], truth, atol=1e-2)


def test_no_queries():
    tracks = track_points(flow_of(translation((1.0, 0.0)), 4), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert len(tracks) == 0 and tracks.xy.shape == (0, 4, 2)


def test_confidence_falls_with_variance_and_back():
    variance = torch.tensor([0.0, 0.1, 0.4, 1.0, math.inf])
    confidence = confidence_from_variance(variance)
    assert confidence[[0, 2, 4]].tolist() == [1.0, 0.5, 0.0]
    assert (confidence.diff() < 0).all()
    assert torch.allclose(variance_from_confidence(confidence), variance, rtol=1e-3)


def test_scaled_and_selected_tracks():
    tracks = track_points(flow_of(occluded(), 9), torch.tensor([[40.5, 20.5], [10.0, 30.0]]), torch.tensor([0, 4]))
    larger = tracks.scaled(2.0, 3.0)
    assert torch.equal(larger.xy, tracks.xy * torch.tensor([2.0, 3.0]))
    assert torch.equal(larger.variance, tracks.variance * 6)
    assert torch.equal(larger.visible, tracks.visible) and torch.equal(larger.confidence, tracks.confidence)
    second = tracks.select(torch.tensor([False, True]))
    assert len(second) == 1 and second.num_frames == 9
    assert torch.equal(second.xy[0], tracks.xy[1]) and second.query_frames.tolist() == [4]


@pytest.mark.parametrize(
    ("queries", "frames", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), "query_xy and query_frames"),
        (torch.zeros(2, 2), torch.zeros(3, dtype=torch.long), "query_xy and query_frames"),
        (torch.zeros(2, 2), torch.zeros(2), "integers"),
        (torch.zeros(1, 2), torch.tensor([4]), r"\[0, 4\)"),
        (torch.zeros(1, 2), torch.tensor([-1]), r"\[0, 4\)"),
        (torch.tensor([[97.0, 3.0]]), torch.tensor([0]), "96x48"),
        (torch.tensor([[math.nan, 3.0]]), torch.tensor([0]), "96x48"),
    ],
)
def test_bad_queries_are_refused(queries, frames, message):
    with pytest.raises(FlowError, match=message):
        track_points(flow_of(translation((0.0, 0.0)), 4), queries, frames)


def test_missing_flow_is_named():
    flow = flow_of(translation((0.0, 0.0)), 9, strides=(1, 2, 4))
    with pytest.raises(FlowError, match="stride 8"):
        track_points(flow, torch.zeros(1, 2), torch.tensor([0]))
    assert track_points(flow, torch.ones(1, 2), torch.tensor([0]), TrackingOptions(strides=(1, 2, 4))).visible.all()


@pytest.mark.parametrize(
    "options",
    [dict(strides=(2, 4)), dict(strides=(1, 1)), dict(strides=(0, 1)), dict(sweeps=1), dict(max_variance=0.0),
     dict(step_variance=-1.0), dict(agreement=math.nan)],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(FlowError, match=next(iter(options))):
        TrackingOptions(**options)


def test_tracks_of_unequal_shapes_are_refused():
    good = track_points(flow_of(translation((0.0, 0.0)), 4), torch.ones(2, 2), torch.tensor([0, 1]))
    with pytest.raises(FlowError, match="confidence"):
        dataclasses.replace(good, confidence=torch.ones(2, 5))
    with pytest.raises(FlowError, match="query_frames"):
        PointTracks(**{**vars(good), "query_frames": torch.zeros(3)})
