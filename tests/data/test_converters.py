"""The scripts that convert published data into native folders."""

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from som.cameras.geometry import pixel_centers, project_from_world, sample_depth, unproject_to_world
from som.data.folder import read_flow
from som.data.load import read_native

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def yard() -> ModuleType:
    return script("convert_blender_yard")


def sliding_square(times: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A 12x12 square that moves by (2.5, 0.5) pixels a frame over a still ground, and disappears behind x >= 26."""
    height, width = 30, 40
    flow, masks = np.zeros((times - 1, height, width, 2), np.float32), np.zeros((times, height, width), bool)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    occluded = np.zeros((times - 1, height, width), bool)
    for t in range(times):
        left, top = 6 + 2.5 * t, 8 + 0.5 * t
        masks[t] = (x >= left) & (x < left + 12) & (y >= top) & (y < top + 12) & (x < 26)
    for t in range(times - 1):
        flow[t][masks[t]] = 2.5, 0.5
        occluded[t] = masks[t] & (x + 2.5 >= 26)
        left, top = 6 + 2.5 * (t + 1), 8 + 0.5 * (t + 1)
        covered = (x >= left) & (x < left + 12) & (y >= top) & (y < top + 12) & ~masks[t] & (x < 26)
        occluded[t] |= covered
    return flow, occluded, masks


def test_chained_tracks_follow_the_square_until_it_is_hidden(yard):
    flow, occluded, masks = sliding_square()
    tracks = yard.chain_tracks(flow, occluded, masks, queries=2, step=3)
    assert set(tracks.query_times.tolist()) == {0, 4}
    index = torch.arange(len(tracks.query_times))
    start = tracks.xy[index, tracks.query_times]
    elapsed = torch.arange(5)[None] - tracks.query_times[:, None]
    expected = start[:, None] + elapsed[..., None] * torch.tensor([2.5, 0.5])
    error = (tracks.xy - expected).norm(dim=-1)
    assert tracks.visible[index, tracks.query_times].all()
    assert error[tracks.visible].max() < 0.75
    assert (error[tracks.visible] < 1e-3).float().mean() > 0.9
    hidden = (expected[..., 0] >= 26.01) & (elapsed > 0)
    assert not (tracks.visible & hidden).any()
    clearly_seen = (expected[..., 0] < 24) & (start[:, None, 0] < 24)
    assert tracks.visible[clearly_seen].float().mean() > 0.8
    assert torch.equal(tracks.confidence, tracks.visible.float())


@pytest.mark.skipif(not (SHARED / "blender_yard").is_dir(), reason="the Blender yard is not here")
def test_blender_yard(yard, tmp_path):
    yard.convert(SHARED / "blender_yard", tmp_path, queries=2, step=8)
    dataset = read_native(tmp_path)
    views, truth = dataset.train, dataset.ground_truth_tracks
    assert len(views) == dataset.num_times == 36 and len(dataset.val) == 8
    xy, z = project_from_world(truth.xyz.permute(1, 0, 2), views.cameras.K, views.cameras.w2c)
    assert (xy.permute(1, 0, 2) - truth.xy)[truth.visible].abs().max() < 1e-2
    relative = (sample_depth(views.depths, xy) / z - 1).abs()[truth.visible.T]
    assert relative.median() < 1e-3
    assert 0.5 < dataset.val.covisible.float().mean() < 1
    flow, consistent = read_flow(tmp_path, 10, 11)
    points = unproject_to_world(
        pixel_centers(180, 320).reshape(-1, 2), views.depths[10].reshape(-1), views.cameras.K[10], views.cameras.w2c[10]
    )
    there, _ = project_from_world(points, views.cameras.K[11], views.cameras.w2c[11])
    static = ~views.foreground[10].reshape(-1) & torch.from_numpy(consistent).reshape(-1)
    moved = pixel_centers(180, 320).reshape(-1, 2) + torch.from_numpy(flow).reshape(-1, 2)
    assert (there - moved)[static].norm(dim=-1).quantile(0.99) < 0.05


@pytest.mark.skipif(not (SHARED / "blender_yard").is_dir(), reason="the Blender yard is not here")
def test_chained_tracks_agree_with_exact_ones(yard):
    """Exact points of moving objects, carried by the steps that the chain takes, stay at their exact places."""
    with np.load(SHARED / "blender_yard" / "train" / "flow_fwd.npz") as archive:
        flow, occluded = archive["flow"], archive["occluded"]
    with np.load(SHARED / "blender_yard" / "tracks.npz") as points:
        uv, visible, moving = points["uv"] + 0.5, points["visible"], points["instance"] > 0
    for step, a, b in ((yard.step_forward, 10, 11), (yard.step_back, 11, 10)):
        chosen = visible[:, a] & visible[:, b] & moving
        moved, seen = step(uv[chosen, a], flow[10], occluded[10])
        error = np.linalg.norm(moved - uv[chosen, b], axis=1)[seen]
        assert seen.mean() > 0.9 and np.median(error) < 0.05 and np.quantile(error, 0.9) < 0.5


def write_rgbd(root: Path, toy) -> None:
    for kind in ("images", "depth"):
        (root / kind).mkdir()
    for t in range(4):
        cv2.imwrite(str(root / "images" / f"{t:05d}.png"), toy.images[t][..., ::-1])
        cv2.imwrite(str(root / "depth" / f"{t:05d}.png"), np.round(toy.depths[t] * 1000).astype(np.uint16))
    np.savetxt(root / "poses_cam_to_world.txt", np.linalg.inv(toy.w2cs).reshape(4, 16), fmt="%.6f")
    np.savetxt(root / "K.txt", toy.K)


def test_rgbd(toy, tmp_path):
    (tmp_path / "in").mkdir()
    write_rgbd(tmp_path / "in", toy)
    kitchen = script("convert_rgbd_7scenes")
    kitchen.convert(tmp_path / "in", tmp_path / "out", hold_out_every=4, max_side=None)
    dataset = read_native(tmp_path / "out")
    assert dataset.train.times.tolist() == [0, 1, 3] and dataset.val.times.tolist() == [2]
    assert np.allclose(dataset.train.depths, toy.depths[[0, 1, 3]], atol=6e-4)
    assert np.allclose(dataset.train.cameras.w2c, toy.w2cs[[0, 1, 3]], atol=1e-4)
    assert not dataset.train.foreground.any() and "purely static" in dataset.source["notes"][0]
    kitchen.convert(tmp_path / "in", tmp_path / "half", hold_out_every=0, max_side=16)
    toy.check(read_native(tmp_path / "half").train, scale=0.5)
    (tmp_path / "in/images/00003.png").unlink()
    with pytest.raises(ValueError, match="3 images but 4 poses"):
        kitchen.convert(tmp_path / "in", tmp_path / "bad")


def test_depth_is_carried_into_a_colour_camera_of_its_own():
    """A near square before a wall: both move by f * offset / z, and the near one hides the wall."""
    register = script("convert_rgbd_7scenes").register_depth
    depth = np.full((40, 60), 4.0, np.float32)
    depth[10:20, 20:30] = 2.0
    depth[0, 0] = 0
    K = np.array([[40.0, 0, 30], [0, 40, 20], [0, 0, 1]])
    T = np.eye(4)
    T[0, 3] = -0.2  # 4 pixels at 2 m, 2 pixels at 4 m, to the left
    out = register(depth, K, K, T)
    assert out.dtype == np.float32
    assert (out[10:20, 16:26] == 2).all() and (out[10:20, 26:28] == 0).all() and (out[10:20, 28:57] == 4).all()
    assert (out[25, :58] == 4).all() and (out[:, 58:] == 0).all()
    assert (register(depth, K, K, np.eye(4)) == depth).all()


@pytest.mark.skipif(not (SHARED / "rgbd_7scenes").is_dir(), reason="the 7-Scenes frames are not here")
def test_7scenes_depth_and_poses_agree(tmp_path):
    kitchen = script("convert_rgbd_7scenes")
    kitchen.convert(SHARED / "rgbd_7scenes", tmp_path, max_side=160, stride=6)
    views = read_native(tmp_path).train
    xy = pixel_centers(views.height, views.width).reshape(-1, 2)
    points = unproject_to_world(xy, views.depths[0].reshape(-1), views.cameras.K[0], views.cameras.w2c[0])
    there, z = project_from_world(points, views.cameras.K[1], views.cameras.w2c[1])
    known = sample_depth(views.depths[1][None], there[None])[0]
    both = (known > 0) & (views.depths[0].reshape(-1) > 0)
    relative = (known / z - 1).abs()[both]
    assert both.float().mean() > 0.5 and relative.median() < 0.03
