"""Each way in which a usable data set can be wrong raises its own doubt, and a right one raises none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flow.video_flow import VideoFlow
from som.data.dataset import VideoDataset
from som.preprocessing.links import link_background, link_by_flow, link_by_tracks
from som.preprocessing.plausibility import find_doubts
from tests.preprocessing.check.scenes import H, T, W, lift, pixel_grid, poses, project, wall_dataset


def exact_flow(stride: int = 4) -> VideoFlow:
    flow, w2cs, grid = VideoFlow(T, (H, W)), poses(), pixel_grid()
    for t in range(T - stride):
        for a, b in ((t, t + stride), (t + stride, t)):
            flow.put(a, b, torch.from_numpy(project(w2cs[b], lift(w2cs[a], grid)[0]) - grid).float())
    return flow


def doubts(dataset: VideoDataset, flow: VideoFlow | None = None) -> list[str]:
    return find_doubts(dataset, link_background(dataset, flow))


def changed(**changes) -> VideoDataset:
    wall = wall_dataset()
    return replace(wall, train=replace(wall.train, **{k: v(wall.train) for k, v in changes.items()}))


def test_links_know_depth_parallax_and_error():
    wall = wall_dataset()
    for links in (link_by_tracks(wall), link_by_flow(wall, exact_flow())):
        assert len(links.error) >= 100
        assert np.percentile(links.error, 90) < 0.02
        assert np.percentile(np.abs(links.depth / links.prior - 1), 90) < 0.02
    # by hand: the same point at distance z shifts by f |b| / z for a camera that moves by b across its view
    flat = replace(wall, train=wall.train.select([0, 1]), num_times=2, tracks=None)
    flat.train.cameras.w2c[:] = torch.eye(4)
    flat.train.cameras.w2c[1, 0, 3] = -0.5
    flow = VideoFlow(2, (H, W))
    for pair, shift in (((0, 1), -6.0), ((1, 0), 6.0)):
        flow.put(*pair, torch.tensor([shift, 0.0]).expand(H, W, 2))
    links = link_by_flow(flat, flow)
    assert links.depth == pytest.approx(60 * 0.5 / 6) and links.parallax == pytest.approx(6)


def test_flow_of_another_size_is_scaled():
    wall = wall_dataset()
    small = VideoFlow(T, (H // 2, W // 2), (H, W))
    big = exact_flow()
    for pair in big.pairs():
        small.put(*pair, big.get(*pair)[::2, ::2] / 2)
    assert link_by_flow(wall, small).median_error < 0.5


def test_a_right_data_set_raises_no_doubt():
    wall = wall_dataset()
    assert doubts(wall) == [] and doubts(wall, exact_flow()) == []
    assert doubts(replace(wall, tracks=None)) == []


def jump(train):
    w2cs = train.cameras.w2c.clone()
    w2cs[6:, 0, 3] -= 4
    return replace(train.cameras, w2c=w2cs)


def wrong_focal(train):
    Ks = train.cameras.K.clone()
    Ks[:, :2, :2] *= 10
    return replace(train.cameras, K=Ks)


def noise(train):
    return 1 + 4 * torch.rand(train.depths.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("linked_by", ["tracks", "flow"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": lambda v: replace(v.cameras, w2c=v.cameras.c2w)}, "cameras miss standing points"),
        ({"cameras": wrong_focal}, "cameras miss standing points"),
        ({"depths": lambda v: 1 / v.depths}, "look like disparity"),
        ({"depths": noise}, "does not agree"),
        ({"depths": lambda v: 2.5 * v.depths}, "2.5 times"),
    ],
)
def test_cameras_and_depth_are_held_against_what_is_seen(linked_by, changes, words):
    found = doubts(changed(**changes), exact_flow() if linked_by == "flow" else None)
    assert words in found[0]


def test_the_unknown_scale_of_depth_is_no_fault():
    wall = changed(depths=lambda v: 2.5 * v.depths)
    assert doubts(replace(wall, depth_kind="scale")) == []
    assert doubts(replace(wall, world_scale="arbitrary")) == []


def short_tracks(wall):
    visible = wall.tracks.visible & (torch.arange(T) < 2)
    return replace(wall, tracks=replace(wall.tracks, visible=visible))


def few_tracks(wall):
    keep = slice(0, 260)
    return replace(wall, tracks=replace(wall.tracks, **{k: v[keep] for k, v in vars(wall.tracks).items()}))


def unseen_late(wall):
    visible = wall.tracks.visible.clone()
    visible[200:, 8:10] = False
    return replace(wall, tracks=replace(wall.tracks, visible=visible))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: replace(w, train=replace(w.train, foreground=w.train.foreground | True)), "100% of the pixels"),
        (few_tracks, "tracks start on moving objects"),
        (short_tracks, "frames only on average"),
        (unseen_late, "at times 8, 9"),
    ],
)
def test_masks_and_tracks(change, words):
    assert any(words in text for text in doubts(change(wall_dataset())))


def flicker(train):
    mask = train.foreground.clone()
    mask[5] = False
    mask[5, 16:20, 24:30] = True
    return mask


def speck(train):
    return train.foreground & (torch.arange(W) == 30) & (torch.arange(H) < 20)[:, None]


def lost(train):
    mask = train.foreground.clone()
    mask[7] = False
    return mask


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"foreground": flicker}, "size jumps at times 5, 6"),
        ({"foreground": lost}, "nothing is marked as moving at times 7"),
        (
            {"foreground": lambda v: v.foreground & (torch.arange(W) == 30) & (torch.arange(H) < 20)[:, None]},
            "only 0.13%",
        ),
        ({"depths": lambda v: torch.zeros_like(v.depths)}, "no pixel has a known depth"),
        ({"depths": lambda v: v.depths * (torch.arange(W) < 10)}, "known at 16%"),
        ({"depths": lambda v: torch.full_like(v.depths, 3.0)}, "nearly the same all over"),
        ({"cameras": jump}, "jumps at times 6"),
        ({"cameras": wrong_focal}, "few cameras do"),
        ({"valid": lambda v: torch.zeros_like(v.valid)}, "only 0% of the pixels are valid"),
    ],
)
def test_maps_and_cameras(changes, words):
    found = doubts(replace(changed(**changes), tracks=None))
    assert any(words in text for text in found), found


def test_times_without_an_image_and_short_clips():
    wall = replace(wall_dataset(), tracks=None)
    gaps = replace(wall, train=wall.train.select([0, 1, 2, 3, 4, 6, 7, 8, 9, 11]))
    assert any("times 5, 10 have no view" in text for text in doubts(gaps))
    held = replace(gaps, val=wall.train.select([5, 10]))
    assert doubts(held) == []
    assert any(
        "only 5 training views" in text for text in doubts(replace(wall, train=wall.train.select([0, 1, 2, 3, 4])))
    )
