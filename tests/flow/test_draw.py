"""Pictures of tracks: what is drawn where."""

import numpy as np
import pytest
import torch

from flow.draw import draw_tracks, track_colors
from flow.errors import FlowError
from flow.tracks import PointTracks

BLACK = np.zeros((40, 60, 3), np.uint8)


def make_tracks(visible=((1, 1, 1),), row=20.5) -> PointTracks:
    """Points that move right by 10 px a frame from x = 10.5."""
    visible = torch.tensor(visible).bool()
    Q, T = visible.shape
    x = 10.5 + 10 * torch.arange(T, dtype=torch.float32).expand(Q, T)
    xy = torch.stack([x, row + 8 * torch.arange(Q)[:, None].expand(Q, T)], -1)
    return PointTracks(torch.zeros(Q, dtype=torch.long), xy, visible, visible.float(), torch.zeros(Q, T))


def test_dot_is_centred_on_the_point_and_the_trail_leads_to_it():
    tracks = make_tracks()
    image = draw_tracks(BLACK, tracks, 2)
    lit = image.any(-1)
    assert lit[20, 10] and lit[20, 20] and lit[20, 30] and not lit[20, 40]
    dot = draw_tracks(BLACK, tracks, 2, trail=0).max(-1).astype(float)
    rows, columns = np.indices(dot.shape)
    assert (dot * columns).sum() / dot.sum() == pytest.approx(30, abs=0.1)
    assert (dot * rows).sum() / dot.sum() == pytest.approx(20, abs=0.1)
    assert not draw_tracks(BLACK, tracks, 2, trail=1)[20, 10:19].any()


def test_unseen_points_are_left_out_or_hollow():
    tracks = make_tracks(visible=((1, 0, 0),))
    assert not draw_tracks(BLACK, tracks, 2).any()
    ring = draw_tracks(BLACK, tracks, 2, hidden=True, radius=4)
    assert ring[20, 34].any() and not ring[20, 30].any()


def test_colors_differ_and_the_frame_is_left_alone():
    tracks = make_tracks(visible=((1, 1, 1), (1, 1, 1)))
    tracks = tracks.select(torch.tensor([0, 1])).scaled(1.0, 1.0)
    assert track_colors(tracks).shape == (2, 3) and (track_colors(tracks)[0] != track_colors(tracks)[1]).any()
    frame = torch.full((40, 60, 3), 0.5)
    image = draw_tracks(frame, tracks, 0)
    assert (frame == 0.5).all() and image.dtype == np.uint8 and (image[0, 0] == 128).all()
    nobody = tracks.select(torch.tensor([], dtype=torch.long))
    assert (draw_tracks(frame, nobody, 0) == 128).all()


def test_points_far_away_do_no_harm():
    tracks = make_tracks()
    far = PointTracks(**{**vars(tracks), "xy": tracks.xy * 1e9})
    assert draw_tracks(BLACK, far, 0).shape == BLACK.shape


def test_bad_input_is_refused():
    with pytest.raises(FlowError, match=r"\[0, 3\)"):
        draw_tracks(BLACK, make_tracks(), 3)
    with pytest.raises(FlowError, match="RGB"):
        draw_tracks(BLACK[..., 0], make_tracks(), 0)
