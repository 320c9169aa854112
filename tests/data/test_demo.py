"""The demo scene is deterministic and its ground truth is exact: everything agrees with everything else."""

import dataclasses
import os

import numpy as np
import pytest
import torch

from som.cameras.geometry import in_image, pixel_centers, project_from_world, sample_image, unproject_to_world
from som.data.config import DemoData
from som.data.demo import cache_folder, generate_demo, load_demo
from som.data.folder import read_flow
from som.errors import UserError


def at_pixels(maps: torch.Tensor, xy: torch.Tensor) -> torch.Tensor:
    """Values (T,Q) of maps (T,H,W) at the pixels that hold image coordinates (T,Q,2)."""
    column = xy[..., 0].long().clamp(0, maps.shape[2] - 1)
    row = xy[..., 1].long().clamp(0, maps.shape[1] - 1)
    return torch.stack([m[r, c] for m, r, c in zip(maps, row, column, strict=True)])


def test_contents(demo):
    assert len(demo.train) == demo.num_times == 6 and len(demo.val) == 4
    assert demo.train.times.tolist() == list(range(6))
    assert demo.depth_kind == demo.world_scale == "metric"
    share = demo.train.foreground.float().mean((1, 2))
    assert ((share > 0.04) & (share < 0.3)).all()
    assert (demo.train.depths > 0).all()
    assert demo.val.covisible.float().mean() > 0.5
    assert len(demo.tracks.query_times) > 100 and 0.5 < demo.tracks.visible.float().mean() < 1
    moving = demo.ground_truth_tracks.moving
    assert moving.any() and not moving.all()


def test_the_pictures_have_detail_and_use_the_range(demo):
    images = demo.train.images.float()
    assert 80 < images.mean() < 170
    assert images.std() > 30
    assert (images > 250).float().mean() < 0.05 and (images < 5).float().mean() < 0.05


def test_same_options_same_data(demo, demo_config, tmp_path):
    generate_demo(demo_config, tmp_path)
    again = load_demo(dataclasses.replace(demo_config, cache_dir=tmp_path / "other"))
    root = cache_folder(demo_config)
    for path in (root / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "images" / path.name).read_bytes()
    assert torch.equal(again.tracks.xy, demo.tracks.xy)
    assert torch.equal(again.val.depths, demo.val.depths)


def test_another_seed_gives_another_scene(demo, demo_config, tmp_path):
    other = load_demo(dataclasses.replace(demo_config, cache_dir=tmp_path, seed=3))
    assert not torch.equal(other.train.images, demo.train.images)
    assert not torch.equal(other.tracks.xy[0], demo.tracks.xy[0])


def test_the_cache_is_used_and_complete(demo, demo_config):
    root = cache_folder(demo_config)
    before = os.stat(root / "transforms.json").st_mtime_ns
    load_demo(demo_config)
    assert os.stat(root / "transforms.json").st_mtime_ns == before
    assert [p.name for p in root.parent.iterdir()] == [root.name]  # no temporary folder is left


def test_cache_depends_on_what_changes_the_scene_only(tmp_path):
    base = DemoData(cache_dir=tmp_path)
    assert cache_folder(base) == cache_folder(dataclasses.replace(base, max_side=10, is_train=False))
    assert cache_folder(base) != cache_folder(dataclasses.replace(base, seed=1))


@pytest.mark.parametrize("change", [{"num_times": 1}, {"width": 0}, {"samples": 0}, {"held_out_times": 99}])
def test_options_out_of_range(change):
    with pytest.raises(UserError, match="must lie in"):
        load_demo(DemoData(**change))


def test_unwritable_cache_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"`data\.cache_dir`"):
        load_demo(DemoData(cache_dir=tmp_path / "file"))


def test_static_pixels_move_as_depth_and_poses_say(demo, demo_config):
    views, root = demo.train, cache_folder(demo_config)
    xy = pixel_centers(views.height, views.width).reshape(-1, 2)
    for t in range(5):
        points = unproject_to_world(xy, views.depths[t].reshape(-1), views.cameras.K[t], views.cameras.w2c[t])
        there, _ = project_from_world(points, views.cameras.K[t + 1], views.cameras.w2c[t + 1])
        flow, consistent = read_flow(root, t, t + 1)
        static = ~views.foreground[t].reshape(-1)
        error = (there - xy - torch.from_numpy(flow).reshape(-1, 2)).norm(dim=-1)[static]
        assert error.max() < 4e-3  # stored in steps of 1/256 px
        seen = torch.from_numpy(consistent).reshape(-1) & static
        assert in_image(there, views.height, views.width)[seen].all()
        colors = sample_image(views.images[t + 1][None].float(), there[None])[0]
        difference = (colors - views.images[t].reshape(-1, 3).float()).abs().mean(-1)
        assert difference[seen].median() < 8


def test_forward_and_backward_flow_cancel(demo, demo_config):
    root = cache_folder(demo_config)
    forward, seen = read_flow(root, 2, 3)
    backward, _ = read_flow(root, 3, 2)
    xy = pixel_centers(*forward.shape[:2])
    there = xy + torch.from_numpy(forward)
    back = sample_image(torch.from_numpy(backward)[None], there.reshape(1, -1, 2))[0].reshape(forward.shape)
    assert (torch.from_numpy(forward) + back).norm(dim=-1)[torch.from_numpy(seen)].median() < 0.02


def test_ground_truth_tracks_reproject_and_lie_on_the_depth(demo):
    truth, views = demo.ground_truth_tracks, demo.train
    xy, z = project_from_world(truth.xyz.permute(1, 0, 2), views.cameras.K, views.cameras.w2c)  # (T,Q,2)
    visible = truth.visible.T
    assert (xy - truth.xy.permute(1, 0, 2))[visible].abs().max() < 1e-3
    relative = (at_pixels(views.depths, xy) / z - 1).abs()[visible]
    assert relative.median() < 0.01 and (relative < 0.05).float().mean() > 0.97
    hidden = ~visible & in_image(xy, views.height, views.width)
    assert (at_pixels(views.depths, xy)[hidden] < z[hidden]).float().mean() > 0.9
    static = truth.xyz[~truth.moving]
    assert (static - static[:, :1]).abs().max() < 1e-6
    assert (truth.xyz[truth.moving] - truth.xyz[truth.moving][:, :1]).norm(dim=-1).amax(1).median() > 0.05
    assert truth.visible[torch.arange(len(truth.query_times)), truth.query_times].all()


def test_tracks_start_on_foreground_and_follow_the_flow(demo, demo_config):
    tracks, views = demo.tracks, demo.train
    xy = tracks.xy.permute(1, 0, 2)
    on_foreground = at_pixels(views.foreground, xy)
    index = torch.arange(len(tracks.query_times))
    assert on_foreground[tracks.query_times, index].all()
    assert tracks.visible[index, tracks.query_times].all()
    assert on_foreground[tracks.visible.T].float().mean() > 0.9
    flow, consistent = read_flow(cache_folder(demo_config), 0, 1)
    start = tracks.query_times == 0
    column, row = tracks.xy[start, 0].long().unbind(-1)
    assert torch.allclose(tracks.xy[start, 1] - tracks.xy[start, 0], torch.from_numpy(flow[row, column]), atol=1 / 256)
    assert np.array_equal(tracks.visible[start, 1].numpy(), consistent[row, column])


def test_one_thing_is_rigid_and_one_deforms(demo):
    """Distances within the block stay, those within the cactus do not."""
    truth = demo.ground_truth_tracks
    points = truth.xyz[truth.moving]
    block, cactus = points[:60], points[60:]
    for things, rigid in ((block, True), (cactus, False)):
        things = things.permute(1, 0, 2).double()
        distances = torch.cdist(things, things)
        change = (distances - distances[:1]).abs().max()
        assert (change < 1e-4) == rigid
