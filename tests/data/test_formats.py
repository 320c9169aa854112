"""Foreign formats: a tiny folder of each is written and read back to the cameras, depths and masks that went in."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from flow.track_files import visibility_from_logits
from som.data.checks import DatasetError, Problems
from som.data.colmap_model import find_model, read_model
from som.data.config import CustomData, DavisData, IphoneData
from som.data.layouts.shape_of_motion import droid_scale, load_dict
from som.data.load import load_dataset
from som.errors import UserError

NAMES = ["00000", "00001", "00002", "00003"]


def png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    assert cv2.imwrite(str(path), image)


def save(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def quaternion(R: np.ndarray) -> np.ndarray:
    w = np.sqrt(1 + np.trace(R)) / 2
    return np.array([w, *(np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (4 * w))])


def write_pair_tracks(folder: Path, names: list[str], points: int = 3) -> np.ndarray:
    """(Q,T,2) integer-centre coordinates that were written, all confidently visible but those at the last frame."""
    rng = np.random.default_rng(1)
    rows = []
    for q in names:
        xy = rng.uniform(0, 20, (points, len(names), 2))
        for k, t in enumerate(names):
            occlusion = 9.0 if k == len(names) - 1 else -9.0
            logits = np.stack([np.full(points, occlusion), np.full(points, -9.0)], 1)
            save(folder / f"{q}_{t}.npy", np.concatenate([xy[:, k], logits], 1).astype(np.float32))
        rows.append(xy)
    return np.concatenate(rows)


# -- Shape-of-Motion and DAVIS --------------------------------------------------------------------------------


def write_shape_of_motion(root: Path, toy, images="images", masks="masks", res="", seq="walk") -> np.ndarray:
    for t, name in enumerate(NAMES):
        png(root / images / res / seq / f"{name}.png", toy.images[t])
        png(root / masks / res / seq / f"{name}.png", toy.foreground[t])
        disparity = 1 / toy.depths[t]
        disparity[0, 0] = 0
        save(root / "aligned_depth_anything" / res / seq / f"{name}.npy", disparity)
    h, w = toy.images.shape[1:3]
    K = toy.K
    cameras = {
        "traj_c2w": np.linalg.inv(toy.w2cs),
        "intrinsics": np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]) / 2,
        "img_shape": (h / 2, w / 2),
        "tstamps": np.arange(4),
    }
    save(root / "droid_recon" / f"{seq}.npy", cameras)
    return write_pair_tracks(root / "bootstapir" / res / seq, NAMES)


def check_shape_of_motion(dataset, toy, tracks):
    toy.check(dataset.train)
    assert dataset.train.foreground.numpy().tolist() == toy.foreground.tolist()
    assert (dataset.train.depths[:, 0, 0] == 0).all()  # disparity 0 is unknown, not infinitely far
    assert np.allclose(dataset.train.depths[:, 1:], toy.depths[:, 1:], rtol=1e-5)
    assert np.allclose(dataset.tracks.xy, tracks + 0.5, atol=1e-4)
    assert dataset.tracks.query_times.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert dataset.tracks.visible[:, :3].all() and not dataset.tracks.visible[:, 3].any()
    assert (dataset.tracks.confidence > 0.99).all()
    assert dataset.depth_kind == "scale"


def test_shape_of_motion(toy, tmp_path):
    tracks = write_shape_of_motion(tmp_path, toy)
    dataset = load_dataset(CustomData(seq_name="walk", root_dir=tmp_path))
    check_shape_of_motion(dataset, toy, tracks)
    assert not dataset.train.valid.all()  # the band at the masks' border
    assert load_dataset(CustomData(seq_name="walk", root_dir=tmp_path, mask_erosion=0)).train.valid.all()


def test_davis(toy, tmp_path):
    tracks = write_shape_of_motion(tmp_path, toy, "JPEGImages", "Annotations", "480p")
    dataset = load_dataset(DavisData(seq_name="walk", root_dir=tmp_path))
    check_shape_of_motion(dataset, toy, tracks)
    with pytest.raises(UserError, match=r"`data\.seq_name`"):
        load_dataset(DavisData(root_dir=tmp_path))
    with pytest.raises(DatasetError, match="holds no image"):
        load_dataset(DavisData(seq_name="run", root_dir=tmp_path))


def test_shape_of_motion_reduced(toy, tmp_path):
    tracks = write_shape_of_motion(tmp_path, toy)
    dataset = load_dataset(CustomData(seq_name="walk", root_dir=tmp_path, max_side=16))
    toy.check(dataset.train, scale=0.5)
    assert np.allclose(dataset.tracks.xy, (tracks + 0.5) / 2, atol=1e-4)


def test_shape_of_motion_reports_what_is_missing(toy, tmp_path):
    write_shape_of_motion(tmp_path, toy)
    (tmp_path / "masks/walk/00002.png").unlink()
    (tmp_path / "aligned_depth_anything/walk/00001.npy").unlink()
    (tmp_path / "bootstapir/walk/00000_00003.npy").unlink()
    with pytest.raises(DatasetError) as caught:
        load_dataset(CustomData(seq_name="walk", root_dir=tmp_path))
    for part in ("masks/walk/00002.png", "00001.npy", "1 of 16 pairwise track files", "00000_00003.npy"):
        assert part in str(caught.value)


def test_droid_cameras_of_another_length(toy, tmp_path):
    write_shape_of_motion(tmp_path, toy)
    png(tmp_path / "images/walk/00004.png", toy.images[0])
    with pytest.raises(DatasetError, match=r"traj_c2w must have shape \(5, 4, 4\)"):
        load_dataset(CustomData(seq_name="walk", root_dir=tmp_path))


@pytest.mark.parametrize(("size", "cropped"), [((480, 854), (328, 584)), ((720, 960), (384, 512))])
def test_droid_crop_does_not_change_the_focal_length(size, cropped):
    """854x480 is reduced to 591x332 and then cropped to 584x328; the factor is that of the reduction."""
    height, width = size
    factor = np.sqrt(384 * 512 / (height * width))
    x, y = droid_scale(np.array(cropped), height, width)
    assert np.isclose(x, width / int(width * factor)) and np.isclose(y, height / int(height * factor))


def test_pickled_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("code ran",)

    save(tmp_path / "cameras.npy", {"traj_c2w": Evil()})
    with pytest.raises(ValueError, match="not an array"):
        load_dict(tmp_path / "cameras.npy")


def test_visibility_from_logits():
    occlusion, distance = np.array([-9.0, 9.0, -9.0, 0.0]), np.array([-9.0, -9.0, 9.0, 0.0])
    visible, confidence = visibility_from_logits(occlusion, distance)
    assert visible.tolist() == [True, False, False, False]
    assert confidence[0] > 0.99 and confidence[1] > 0.99  # surely hidden is sure as well
    assert confidence[2] == confidence[3] == 0


# -- EndoNeRF -------------------------------------------------------------------------------------------------


def write_endonerf(root: Path, toy, count: int = 11) -> None:
    rows = []
    for i in range(count):
        t = i % 4
        png(root / "images" / f"frame-{i:06d}.color.png", toy.images[t])
        png(root / "depth" / f"frame-{i:06d}.depth.png", np.round(toy.depths[t] * 20).astype(np.uint8))
        png(root / "masks" / f"frame-{i:06d}.mask.png", toy.foreground[t])  # the tool
        matrix = np.concatenate([np.eye(4)[:3], np.array([[24], [32], [30.0]])], 1)
        rows.append([*matrix.reshape(-1), 0, 120])
    save(root / "poses_bounds.npy", np.array(rows))


def test_endonerf(still_toy, tmp_path):
    toy = still_toy
    write_endonerf(tmp_path, toy)
    dataset = load_dataset(CustomData(seq_name="pulling", root_dir=tmp_path))
    assert dataset.val.times.tolist() == [1, 9] and dataset.num_times == 11 and len(dataset.train) == 9
    assert not dataset.has_background and dataset.depth_kind == "scale"
    assert torch.equal(dataset.train.cameras.w2c, torch.eye(4).expand(9, 4, 4))
    assert dataset.train.cameras.K[0].tolist() == [[30, 0, 16], [0, 30, 12], [0, 0, 1]]
    tool = torch.from_numpy(toy.foreground[0])
    assert torch.equal(dataset.train.valid[0], ~tool) and torch.equal(dataset.train.foreground[0], ~tool)
    assert torch.equal(dataset.train.depths[0], torch.from_numpy(np.round(toy.depths[0] * 20)))
    assert dataset.tracks is None and "no tracks" in dataset.source["notes"][0]


def test_endonerf_tracks_know_nothing_of_held_out_frames(still_toy, tmp_path):
    write_endonerf(tmp_path, still_toy)
    ones = np.ones((3, 11))
    np.savez(tmp_path / "tracks.npz", query_frame=[0, 1, 2], xy=np.ones((3, 11, 2)), visible=ones > 0, confidence=ones)
    dataset = load_dataset(CustomData(root_dir=tmp_path))
    assert dataset.tracks.query_times.tolist() == [0, 2]
    assert not dataset.tracks.visible[:, [1, 9]].any()


def test_endonerf_files_that_do_not_pair_up(still_toy, tmp_path):
    write_endonerf(tmp_path, still_toy)
    next((tmp_path / "depth").iterdir()).unlink()
    save(tmp_path / "poses_bounds.npy", np.zeros((3, 17)))
    with pytest.raises(DatasetError) as caught:
        load_dataset(CustomData(root_dir=tmp_path))
    assert len(caught.value.problems) >= 2


# -- COLMAP ---------------------------------------------------------------------------------------------------


def write_colmap(folder: Path, toy, names: list[str], binary: bool) -> None:
    folder.mkdir(parents=True)
    h, w = toy.images.shape[1:3]
    params = [toy.K[0, 0], toy.K[1, 1], toy.K[0, 2], toy.K[1, 2]]
    poses = [(*quaternion(w2c[:3, :3]), *w2c[:3, 3]) for w2c in toy.w2cs]
    if binary:
        cameras = struct.pack("<QiiQQ4d", 1, 7, 1, w, h, *params)
        images = struct.pack("<Q", len(names))
        for i, (name, pose) in enumerate(zip(names, poses, strict=True)):
            images += struct.pack("<i7di", i + 1, *pose, 7) + name.encode() + b"\0"
            images += struct.pack("<Q", 2) + struct.pack("<ddqddq", 1, 2, -1, 3, 4, 5)
        (folder / "cameras.bin").write_bytes(cameras)
        (folder / "images.bin").write_bytes(images)
        return
    (folder / "cameras.txt").write_text(f"# Camera list\n7 PINHOLE {w} {h} {' '.join(map(repr, map(float, params)))}\n")
    lines = ["# Image list"]
    for i, (name, pose) in enumerate(zip(names, poses, strict=True)):
        points = "" if i == 1 else "1.5 2.5 -1"  # an image without points has an empty line
        lines += [f"{i + 1} {' '.join(repr(float(v)) for v in pose)} 7 {name}", points]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("binary", [False, True])
def test_colmap(toy, tmp_path, binary):
    names = [f"{n}.png" for n in NAMES]
    write_colmap(tmp_path / "sparse" / "0", toy, names, binary)
    for t, name in enumerate(NAMES):
        png(tmp_path / "images" / f"{name}.png", toy.images[t])
        png(tmp_path / "masks" / f"{name}.png", toy.foreground[t])
        save(tmp_path / "depth" / f"{name}.npy", toy.depths[t])
    png(tmp_path / "images" / "unregistered.png", toy.images[0])
    dataset = load_dataset(CustomData(root_dir=tmp_path))
    toy.check(dataset.train)
    assert len(dataset.train) == 4 and dataset.depth_kind == "scale"
    assert np.array_equal(dataset.train.foreground, toy.foreground)


def test_colmap_takes_the_largest_model(toy, tmp_path):
    write_colmap(tmp_path / "sparse" / "0", toy, ["a.png"] * 4, False)
    (tmp_path / "sparse/0/images.txt").write_text("")
    write_colmap(tmp_path / "sparse" / "1", toy, NAMES, False)
    assert find_model(tmp_path).name == "1"


@pytest.mark.parametrize("binary", [False, True])
def test_broken_colmap_model(toy, tmp_path, binary):
    write_colmap(tmp_path / "sparse", toy, NAMES, binary)
    path = tmp_path / "sparse" / ("images.bin" if binary else "images.txt")
    path.write_bytes(path.read_bytes()[: 130 if binary else 40])
    problems = Problems("x")
    read_model(tmp_path / "sparse", problems)
    assert "cannot be read" in problems.found[0]


# -- DyCheck --------------------------------------------------------------------------------------------------


def write_iphone(root: Path, toy) -> np.ndarray:
    train, val = [f"0_{n}" for n in NAMES[:3]], ["1_00003"]
    (root / "splits").mkdir(parents=True)
    (root / "splits/train.json").write_text(json.dumps({"frame_names": train, "time_ids": [0, 1, 2]}))
    (root / "splits/val.json").write_text(json.dumps({"frame_names": val, "time_ids": [3]}))
    (root / "extra.json").write_text(json.dumps({"fps": 30}))
    priors = root / "flow3d_preprocessed"
    (root / "camera").mkdir()
    for t, name in enumerate(train + val):
        alpha = np.full((24, 32, 1), 255, np.uint8)
        alpha[0, 0] = 0
        png(root / "rgb/1x" / f"{name}.png", np.concatenate([toy.images[t], alpha], -1))
        R, center = toy.w2cs[t, :3, :3], -toy.w2cs[t, :3, :3].T @ toy.w2cs[t, :3, 3]
        camera = {"orientation": R.tolist(), "position": center.tolist(), "focal_length": 60.0,
                  "principal_point": [31.0, 24.5], "image_size": [64, 48]}  # fmt: skip
        (root / "camera" / f"{name}.json").write_text(json.dumps(camera))
        save(root / "depth/1x" / f"{name}.npy", toy.depths[t][..., None])
        save(priors / "aligned_depth_anything_colmap/1x" / f"{name}.npy", 1 / toy.depths[t])
        png(priors / "track_anything/1x" / f"{name}.png", toy.foreground[t])
    png(priors / "covisible/1x/val" / f"{val[0]}.png", toy.foreground[3])
    write_colmap(priors / "colmap/sparse", toy, [f"{n}.png" for n in train + val], True)
    return write_pair_tracks(priors / "2d_tracks/1x", train)


def test_iphone_refined(toy, tmp_path):
    tracks = write_iphone(tmp_path, toy)
    dataset = load_dataset(IphoneData(seq_name="block", root_dir=tmp_path))
    toy.check(dataset.train)
    toy.check(dataset.val)
    assert dataset.num_times == 4 and dataset.fps == 30
    assert not dataset.train.valid[:, 0, 0].any() and dataset.train.valid[:, 1:].all()
    assert np.array_equal(dataset.train.foreground, toy.foreground[:3])
    assert dataset.val.foreground is None and np.array_equal(dataset.val.covisible[0], toy.foreground[3])
    assert np.allclose(dataset.tracks.xy[:, :3], tracks + 0.5, atol=1e-4)
    assert not dataset.tracks.confidence[:, 3].any()


def test_iphone_original_cameras_and_lidar(toy, tmp_path):
    write_iphone(tmp_path, toy)
    dataset = load_dataset(IphoneData(root_dir=tmp_path, cameras="original", depth_folder="lidar"))
    assert torch.allclose(dataset.train.cameras.w2c, torch.from_numpy(toy.w2cs[:3]).float(), atol=1e-6)
    assert dataset.train.cameras.K[0].tolist() == [[30, 0, 15.5], [0, 30, 12.25], [0, 0, 1]]
    assert np.allclose(dataset.train.depths, toy.depths[:3])
    assert dataset.depth_kind == dataset.world_scale == "metric"


def test_iphone_reports_what_is_missing(toy, tmp_path):
    write_iphone(tmp_path, toy)
    (tmp_path / "camera/0_00001.json").write_text("{}")
    (tmp_path / "splits/val.json").unlink()
    with pytest.raises(DatasetError) as caught:
        load_dataset(IphoneData(root_dir=tmp_path, cameras="original"))
    assert "0_00001.json" in str(caught.value) and "val.json" in str(caught.value)
    with pytest.raises(UserError, match=r"`data\.cameras`"):
        load_dataset(IphoneData(root_dir=tmp_path, cameras="best"))
