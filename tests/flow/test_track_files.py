"""Track files: round trips, and the formats of other trackers written by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flow.errors import FlowError, UserError
from flow.track_files import pair_names, read_pair_tracks, read_tracks, visibility_from_logits, write_tracks
from flow.tracks import PointTracks, confidence_from_variance

Q, T = 5, 4


def make_tracks() -> PointTracks:
    generator = torch.Generator().manual_seed(0)
    visible = torch.rand(Q, T, generator=generator) < 0.7
    variance = torch.where(visible, torch.rand(Q, T, generator=generator), torch.inf)
    return PointTracks(
        query_frames=torch.tensor([0, 1, 2, 3, 0]),
        xy=100 * torch.rand(Q, T, 2, generator=generator),
        visible=visible,
        confidence=confidence_from_variance(variance),
        variance=variance,
    )


def foreign_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Positions (T,N,2) and visibility (T,N)."""
    generator = np.random.default_rng(0)
    visible = generator.random((T, Q)) < 0.6
    visible[2, 0], visible[:2, 0] = True, False
    return generator.uniform(0, 100, (T, Q, 2)).astype(np.float32), visible


def write_pairs(folder: Path, names: list[str], counts: list[int]) -> dict[tuple[int, int], np.ndarray]:
    folder.mkdir(exist_ok=True)
    generator, values = np.random.default_rng(1), {}
    for q, count in enumerate(counts):
        for t in range(len(names)):
            values[q, t] = np.concatenate([generator.uniform(0, 60, (count, 2)), generator.normal(0, 4, (count, 2))], 1)
            np.save(folder / f"{names[q]}_{names[t]}.npy", values[q, t].astype(np.float32))
    return values


def test_round_trip(tmp_path):
    tracks = make_tracks()
    write_tracks(tmp_path / "new/tracks.npz", tracks)
    read = read_tracks(tmp_path / "new/tracks.npz", T)
    for name, value in vars(tracks).items():
        assert torch.equal(getattr(read, name), value), name
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tracks.npz"]


def test_own_file_without_variance_and_confidence(tmp_path):
    tracks = make_tracks()
    arrays = dict(query_frame=tracks.query_frames.numpy(), xy=tracks.xy.numpy(), visible=tracks.visible.numpy())
    np.savez(tmp_path / "a.npz", **arrays)
    assert torch.equal(read_tracks(tmp_path / "a.npz").confidence, tracks.visible.float())
    np.savez(tmp_path / "b.npz", **arrays, confidence=tracks.confidence.numpy())
    read = read_tracks(tmp_path / "b.npz")
    assert torch.allclose(read.variance, tracks.variance, rtol=1e-3)


@pytest.mark.parametrize("extra", [0, 1], ids=["xy", "xyz"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("names", [("pred_tracks", "pred_visibility"), ("tracks", "visibility")])
def test_cotracker_and_mosca_files(tmp_path, names, batch, extra):
    xy, visible = foreign_arrays()
    stored = np.concatenate([xy, np.zeros((T, Q, extra), np.float32)], -1)
    stored, seen = (stored[None], visible[None, ..., None]) if batch else (stored, visible)
    path = tmp_path / "dynamic_dep=sensor_cotracker_tap.npz"
    np.savez(path, **{names[0]: stored, names[1]: seen}, K=np.array(None, dtype=object))
    tracks = read_tracks(path, T, scale=(0.5, 2.0))
    expected = (torch.from_numpy(xy) + 0.5) * torch.tensor([0.5, 2.0])  # their centres are at integers
    assert torch.allclose(tracks.xy, expected.transpose(0, 1))
    assert torch.equal(tracks.visible, torch.from_numpy(visible).T)
    assert torch.equal(tracks.confidence, tracks.visible.float())
    assert torch.equal(tracks.variance == 0, tracks.visible) and torch.equal(tracks.variance.isinf(), ~tracks.visible)
    assert tracks.query_frames[0] == 2  # the first visible frame


def test_queries_give_the_frame_where_they_match(tmp_path):
    xy, visible = foreign_arrays()
    frames = np.array([3, 1, 0, 2, 2])
    queries = np.stack([frames, np.zeros(Q), np.zeros(Q)], -1)
    path = tmp_path / "a.npz"
    np.savez(path, tracks=xy, visibility=visible, queries=queries[None])
    assert read_tracks(path).query_frames.tolist() == frames.tolist()
    np.savez(path, tracks=xy, visibility=visible, queries=queries[:3])  # of the last chunk only
    assert read_tracks(path).query_frames.tolist() == visible.argmax(0).tolist()


def test_bootstapir_counts_from_the_corner(tmp_path):
    xy, visible = foreign_arrays()
    np.savez(tmp_path / "uniform_bootstapir_tap.npz", tracks=xy, visibility=visible)
    tracks = read_tracks(tmp_path / "uniform_bootstapir_tap.npz")
    assert torch.equal(tracks.xy, torch.from_numpy(xy).transpose(0, 1))
    overruled = read_tracks(tmp_path / "uniform_bootstapir_tap.npz", center=0.0)
    assert torch.allclose(overruled.xy, tracks.xy + 0.5)


def test_visibility_as_probability(tmp_path):
    xy, _ = foreign_arrays()
    certainty = np.linspace(0, 1, T * Q).reshape(T, Q)
    np.savez(tmp_path / "a.npz", tracks=xy, visibility=certainty)
    tracks = read_tracks(tmp_path / "a.npz")
    expected = torch.from_numpy(certainty).T.float()
    assert torch.equal(tracks.visible, expected > 0.5)
    assert torch.equal(tracks.confidence, expected * (expected > 0.5))
    assert torch.allclose(confidence_from_variance(tracks.variance), tracks.confidence, atol=1e-5)


def test_unseen_positions_may_be_nan_but_seen_ones_not(tmp_path):
    xy, visible = foreign_arrays()
    xy[~visible] = np.nan
    np.savez(tmp_path / "a.npz", tracks=xy, visibility=visible)
    assert read_tracks(tmp_path / "a.npz").xy.isfinite().all()
    np.savez(tmp_path / "a.npz", tracks=xy, visibility=np.ones_like(visible))
    with pytest.raises(FlowError, match="nan"):
        read_tracks(tmp_path / "a.npz")


def test_thinning_out_is_seeded(tmp_path):
    xy, visible = np.zeros((T, 100, 2), np.float32), np.ones((T, 100), bool)
    xy[..., 0] = np.arange(100)
    np.savez(tmp_path / "a.npz", tracks=xy, visibility=visible)
    a, b, c = (read_tracks(tmp_path / "a.npz", max_tracks=20, seed=seed) for seed in (0, 0, 1))
    assert len(a) == 20 and len(a.xy[:, 0, 0].unique()) == 20
    assert torch.equal(a.xy, b.xy) and not torch.equal(a.xy, c.xy)


@pytest.mark.parametrize("names", [["00000", "00001", "00002"], ["0_00010", "0_00020", "0_00030"]])
def test_pairwise_files(tmp_path, names):
    counts = [3, 0, 2]
    values = write_pairs(tmp_path, names, counts)
    tracks = read_tracks(tmp_path, 3, scale=(2.0, 0.5))
    assert pair_names(tmp_path) == names
    assert tracks.query_frames.tolist() == [0, 0, 0, 2, 2]
    for t in range(3):
        stacked = np.concatenate([values[q, t] for q in range(3)])
        expected = (stacked[:, :2] + 0.5) * [2.0, 0.5]
        assert torch.allclose(tracks.xy[:, t].double(), torch.from_numpy(expected), atol=1e-4)
        visible, confidence = visibility_from_logits(stacked[:, 2], stacked[:, 3])
        assert tracks.visible[:, t].tolist() == visible.tolist()
        assert np.allclose(tracks.confidence[:, t], confidence, atol=1e-5)
    assert torch.equal(tracks.variance.isfinite(), tracks.visible)


def test_tapir_logits_by_hand():
    # sigma(log 9) = 0.9. Sure and visible; sure and hidden; unsure of the place; undecided between the two.
    nine = np.log(9.0)
    visible, confidence = visibility_from_logits(
        np.array([-nine, nine, -nine, 0.0]), np.array([-nine, -nine, nine, -nine])
    )
    assert visible.tolist() == [True, False, False, False]
    assert confidence == pytest.approx([0.9, 0.9, 0.0, 0.0])


def test_true_place_of_shape_of_motion_points(tmp_path):
    # The last of 100 pixels was asked for at 255 of 256, which is at 99.609375 of 100.
    (tmp_path / "a_a.npy").parent.mkdir(exist_ok=True)
    np.save(tmp_path / "a_a.npy", np.array([[99.0, 0.0, -5, -5], [0.0, 49.0, -5, -5]]))
    tracks = read_pair_tracks(tmp_path, ["a"], image_size=(50, 100))
    expected = torch.tensor([[255 / 256 * 100, 0.0], [0.0, 255 / 256 * 50]])
    assert torch.allclose(tracks.xy[:, 0], expected)


def test_pairwise_files_are_thinned_out_over_all_queries(tmp_path):
    names = ["000", "001", "002"]
    write_pairs(tmp_path, names, [40, 30, 30])
    full = read_pair_tracks(tmp_path, names)
    few, again = (read_pair_tracks(tmp_path, names, max_tracks=20, seed=3) for _ in range(2))
    assert len(few) == 20 and few.query_frames.unique().tolist() == [0, 1, 2]
    for frame, xy in zip(few.query_frames, few.xy, strict=True):
        assert (full.xy[full.query_frames == frame] == xy).all(-1).all(-1).any()
    assert torch.equal(few.xy, again.xy)
    assert len(read_pair_tracks(tmp_path, names, max_tracks=1000)) == len(full) == 100


def test_broken_pairwise_folders_are_named(tmp_path):
    names = ["a", "b"]
    with pytest.raises(FlowError, match="holds no pairwise"):
        read_tracks(tmp_path)
    write_pairs(tmp_path, names, [3, 2])
    with pytest.raises(FlowError, match="2 frames, expected 5"):
        read_tracks(tmp_path, 5)
    np.save(tmp_path / "a_b.npy", np.zeros((4, 4)))
    with pytest.raises(FlowError, match=r"a_b\.npy holds 4 points"):
        read_tracks(tmp_path)
    np.save(tmp_path / "a_b.npy", np.zeros((3, 5)))
    with pytest.raises(FlowError, match=r"a_b\.npy must have shape \(points, 4\)"):
        read_tracks(tmp_path)
    np.save(tmp_path / "a_b.npy", np.full((3, 4), np.nan))
    with pytest.raises(FlowError, match="nan"):
        read_tracks(tmp_path)
    (tmp_path / "a_b.npy").write_bytes(b"broken")
    with pytest.raises(FlowError, match="not a readable track file"):
        read_tracks(tmp_path)
    (tmp_path / "a_b.npy").unlink()
    with pytest.raises(FlowError, match=r"1 of 4 .* first is a_b\.npy"):
        read_tracks(tmp_path)


def test_broken_files_are_named(tmp_path):
    path, (xy, visible) = tmp_path / "a.npz", foreign_arrays()
    with pytest.raises(UserError, match="this file of tracks is missing"):
        read_tracks(path)
    path.write_bytes(b"not a zip file")
    with pytest.raises(UserError, match="this file of tracks cannot be read"):
        read_tracks(path)
    for arrays, message in (
        (dict(tracks=xy), "found tracks"),
        (dict(tracks=xy, visibility=visible.T), "of one video"),
        (dict(tracks=xy[None].repeat(2, 0), visibility=visible[None].repeat(2, 0)), "of one video"),
        (dict(tracks=xy, visibility=3.0 * visible), "probability"),
        (dict(tracks=xy.astype(str), visibility=visible), "numbers"),
        (dict(query_frame=np.zeros(Q), xy=xy, visible=visible.T), "xy of 5 tracks over 4 frames"),
        (dict(query_frame=np.full(Q, 7), xy=xy.swapaxes(0, 1), visible=visible.T), "query_frame"),
        (dict(query_frame=np.zeros(Q), xy=xy.swapaxes(0, 1), visible=visible[0]), "visible"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=message):
            read_tracks(path)
    np.savez(path, tracks=xy, visibility=visible)
    with pytest.raises(FlowError, match="4 frames, expected 9"):
        read_tracks(path, 9)
    np.save(tmp_path / "a.npy", xy)
    with pytest.raises(UserError, match="this file of tracks cannot be read"):
        read_tracks(tmp_path / "a.npy")
