"""Tracks of other programs, in pixels of the frames. The formats themselves are tested with flow.track_files."""

import numpy as np
import pytest
import torch

from flow.track_files import write_tracks
from flow.tracks import PointTracks
from som.errors import UserError
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.tracks import import_tracks

SIZE = (90, 160)
NAMES = [f"{i:05d}" for i in range(4)]


def positions() -> np.ndarray:
    """(T,N,2) in pixels of the frames, centres at +0.5."""
    return np.random.default_rng(0).uniform(1, (159, 89), (4, 5, 2)).astype(np.float32)


def read(path, **options) -> PointTracks:
    return import_tracks(path, **{"frames": FrameNames(NAMES), "size": SIZE, **options}).tracks


def test_cotracker_at_another_size(tmp_path):
    """It tracked images of three times the size, with pixel centres at integers."""
    np.savez(tmp_path / "a.npz", pred_tracks=3 * positions()[None] - 0.5, pred_visibility=np.ones((1, 4, 5), bool))
    tracks = read(tmp_path / "a.npz", source_size=(270, 480))
    assert np.allclose(tracks.xy.numpy(), positions().transpose(1, 0, 2), atol=1e-4)
    with pytest.raises(UserError, match=r"`tracks\.given_size`"):
        read(tmp_path / "a.npz")
    with pytest.raises(UserError, match="aspect ratio"):
        read(tmp_path / "a.npz", source_size=(480, 270))


def test_own_file(tmp_path):
    xy = torch.from_numpy(positions().transpose(1, 0, 2).copy())
    visible = torch.ones(5, 4, dtype=torch.bool)
    tracks = PointTracks(torch.zeros(5, dtype=torch.long), xy, visible, visible.float(), torch.zeros(5, 4))
    write_tracks(tmp_path / "tracks.npz", tracks)
    assert torch.equal(read(tmp_path / "tracks.npz").xy, xy)
    assert len(read(tmp_path / "tracks.npz", max_tracks=3)) == 3


def test_tapir_pairs(tmp_path):
    for q in range(4):
        for t in range(4):
            values = np.concatenate([positions()[t] - 0.5, np.full((5, 2), -10)], 1).astype(np.float32)
            np.save(tmp_path / f"{NAMES[q]}_{NAMES[t]}.npy", values)
    tracks = read(tmp_path)
    assert len(tracks) == 20 and bool(tracks.visible.all())
    assert np.allclose(tracks.xy[:5].numpy(), positions().transpose(1, 0, 2), atol=1e-5)


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", tracks=positions(), visibility=np.ones((4, 5), bool))
    with pytest.raises(UserError, match="4 tracked frames for 3 frames"):
        read(tmp_path / "a.npz", frames=FrameNames(NAMES[:3]))
    np.savez(tmp_path / "b.npz", tracks=positions(), visibility=np.zeros((4, 5), bool))
    with pytest.raises(UserError, match="no point is visible"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", tracks=positions() / 400, visibility=np.ones((4, 5), bool))
    with pytest.raises(UserError, match="between 0 and 1"):
        read(tmp_path / "c.npz")
