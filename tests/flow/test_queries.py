"""Where long point tracks begin."""

import pytest
import torch

from flow.errors import FlowError
from flow.queries import located_by_texture, query_points

T, H, W = 24, 60, 80


def disc():
    """A disc that moves to the right."""
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    return torch.stack([(x - 20 - t) ** 2 + (y - 30) ** 2 < 15**2 for t in range(T)])


def at(mask, xy, frames):
    column, row = xy.long().unbind(-1)
    return mask[frames, row, column]


def distance_to_other_side(mask, xy, frames):
    """Smallest distance (Chebyshev, in pixels) from each point's pixel to a pixel of the other class."""
    best = []
    for (x, y), t in zip(xy.long().tolist(), frames.tolist(), strict=True):
        rows, columns = (mask[t] != mask[t, y, x]).nonzero().unbind(-1)
        best.append(int(torch.maximum((rows - y).abs(), (columns - x).abs()).min()))
    return torch.tensor(best)


@pytest.mark.parametrize("number", [1, 37, 600])
def test_number_and_place_of_points(number):
    xy, frames = query_points(number, T, (H, W))
    assert len(xy) == len(frames) == number
    assert xy.dtype == torch.float32 and frames.dtype == torch.int64
    assert (xy >= 2).all() and (xy <= torch.tensor([W - 2, H - 2])).all()


def test_query_frames_are_the_middles_of_equal_parts():
    _, frames = query_points(300, T, (H, W), num_query_frames=3)
    assert frames.unique().tolist() == [4, 12, 20]
    assert frames.bincount()[[4, 12, 20]].tolist() == [100, 100, 100]
    assert query_points(300, T, (H, W))[1].unique().tolist() == [4, 12, 20]  # one in eight
    assert query_points(10, 1, (H, W))[1].unique().tolist() == [0]


def test_points_are_spread_evenly():
    xy, _ = query_points(192, T, (H, W), num_query_frames=1)
    quarters = (xy[:, 0] >= W / 2).long() * 2 + (xy[:, 1] >= H / 2)
    assert (quarters.bincount() - 48).abs().max() <= 12
    assert torch.pdist(xy).min() > 2  # the grid's spacing is 5 px


def test_foreground_gets_its_share_and_borders_are_kept():
    mask = disc()
    xy, frames = query_points(400, T, (H, W), foreground=mask, foreground_share=0.6, num_query_frames=4, margin=2)
    front = at(mask, xy, frames)
    assert len(xy) == 400 and front.sum() == 240
    assert (distance_to_other_side(mask, xy, frames) > 2).all()


def test_share_that_does_not_fit_goes_to_the_background():
    mask = torch.zeros(T, H, W, dtype=torch.bool)
    mask[:, 20:32, 20:32] = True  # room for some 16 points at 2 px inside a margin of 2
    xy, frames = query_points(100, T, (H, W), foreground=mask, num_query_frames=1)
    assert len(xy) == 100
    assert 9 <= at(mask, xy, frames).sum() <= 25
    empty = query_points(100, T, (H, W), foreground=torch.zeros_like(mask), num_query_frames=1)[0]
    assert len(empty) == 100


def test_foreground_points_follow_its_area():
    mask = torch.zeros(T, H, W, dtype=torch.bool)
    mask[:12, 10:50, 10:30] = True
    mask[12:, 10:50, 10:50] = True
    xy, frames = query_points(300, T, (H, W), foreground=mask, foreground_share=1.0, num_query_frames=2, margin=0)
    front = at(mask, xy, frames)
    assert front.all() and frames.bincount()[[6, 18]].tolist() == [100, 200]


def test_invalid_pixels_are_left_out():
    valid = torch.ones(T, H, W, dtype=torch.bool)
    valid[:, :, 40:] = False
    xy, _ = query_points(200, T, (H, W), valid=valid)
    assert len(xy) == 200 and (xy[:, 0] < 38).all()
    xy, frames = query_points(200, T, (H, W), valid=torch.zeros_like(valid))
    assert len(xy) == len(frames) == 0


def test_more_points_than_there_is_room_for():
    xy, _ = query_points(10**6, 2, (20, 20), num_query_frames=1)
    assert 50 < len(xy) <= 100  # every second pixel of 16 x 16 at most, with jitter


def test_low_texture_is_avoided():
    generator = torch.Generator().manual_seed(0)
    frames = torch.full((T, H, W, 3), 0.5)
    frames[:, :, 40:] = torch.rand(T, H, 40, 3, generator=generator)
    frames[:, 30:, :40] = (torch.arange(40) % 8 < 4).float()[:, None]  # stripes: pinned down in one direction only
    for images in (frames, (frames * 255).to(torch.uint8)):
        xy, _ = query_points(100, T, (H, W), frames=images)
        x, y = xy.unbind(-1)
        assert len(xy) == 100 and ((x > 36) | ((y > 26) & (y < 34))).all()  # stripes have corners at their ends
    textured = located_by_texture(frames[0])
    assert textured[:, 44:].all() and not textured[:26, :36].any() and not textured[34:, :36].any()


def test_seed_decides():
    mask = disc()
    a, b, c = (query_points(200, T, (H, W), foreground=mask, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_query_frames=0), "num_query_frames"),
        (dict(num_query_frames=25), "num_query_frames"),
        (dict(foreground_share=1.1), "foreground_share"),
        (dict(margin=-1), "margin"),
        (dict(foreground=torch.ones(T, H, 3, dtype=torch.bool)), "foreground must have shape"),
        (dict(valid=torch.ones(3, H, W, dtype=torch.bool)), "valid must have shape"),
        (dict(frames=torch.ones(T, H, W)), "frames must have shape"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(FlowError, match=message):
        query_points(10, T, (H, W), **options)
