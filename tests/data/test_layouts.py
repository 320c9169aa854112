"""Every layout that brings cameras can be loaded as a scene and opened for depth; the others say what they lack."""

import cv2
import numpy as np
import pytest
import torch

from som.data.checks import DatasetError
from som.data.config import CustomData
from som.data.folder import write_native
from som.data.layouts import LAYOUTS, recognise
from som.data.load import load_dataset, open_sequence
from som.data.recording import FrameRecord


def write_plain(root, toy, poses=True):
    (root / "images").mkdir(parents=True)
    (root / "depth").mkdir()
    for t, (image, depth) in enumerate(zip(toy.images, toy.depths, strict=True)):
        cv2.imwrite(str(root / f"images/{t:05d}.png"), image[..., ::-1])
        np.save(root / f"depth/{t:05d}.npy", depth)
    np.savetxt(root / "K.txt", toy.K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    if poses:
        np.savetxt(root / "poses_cam_to_world.txt", np.linalg.inv(toy.w2cs).reshape(-1, 16))


def test_a_plain_folder_is_a_scene_too(toy, tmp_path):
    write_plain(tmp_path / "walk", toy)
    dataset = load_dataset(CustomData(root_dir=tmp_path / "walk"))
    toy.check(dataset.train)
    assert dataset.num_times == 4 and dataset.world_scale == "metric"
    assert np.allclose(dataset.train.depths, toy.depths)
    assert any("no foreground" in note for note in dataset.source["notes"])


def test_a_scene_needs_cameras(toy, tmp_path):
    write_plain(tmp_path / "walk", toy, poses=False)
    with pytest.raises(DatasetError, match="4 of 4 frames have no camera"):
        load_dataset(CustomData(root_dir=tmp_path / "walk"))
    assert open_sequence(tmp_path / "walk").w2cs is None
    (tmp_path / "walk" / "K.txt").unlink()
    with pytest.raises(DatasetError, match="has images but no cameras"):
        load_dataset(CustomData(root_dir=tmp_path / "walk"))
    assert recognise(tmp_path / "walk").name == "folder"


def test_broken_files_of_any_layout_are_listed_together(toy, tmp_path):
    write_plain(tmp_path / "walk", toy)
    (tmp_path / "walk/images/00001.png").write_bytes(b"")
    np.save(tmp_path / "walk/depth/00002.npy", np.zeros(3))
    with pytest.raises(DatasetError) as caught:
        load_dataset(CustomData(root_dir=tmp_path / "walk"))
    assert len(caught.value.problems) == 2


def test_depth_reads_the_layouts_of_scenes(still_toy, tmp_path):
    for i in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{i:05d}.png"), still_toy.images[i][..., ::-1])
    rows = [[*np.concatenate([np.eye(4)[:3], [[24], [32], [30.0]]], 1).reshape(-1), 0, 120]] * 3
    np.save(tmp_path / "poses_bounds.npy", np.array(rows))
    sequence, dataset = open_sequence(tmp_path), load_dataset(CustomData(root_dir=tmp_path))
    assert sequence.layout == "endonerf" and sequence.names == dataset.train.names == ["00000", "00002"]
    cameras = dataset.train.cameras
    assert torch.equal(sequence.Ks, cameras.K) and torch.equal(sequence.w2cs, cameras.w2c)
    assert sequence.moving(0).all() and open_sequence(tmp_path, split="val").names == ["00001"]


def test_layouts_have_names_and_markers():
    assert next(iter(LAYOUTS)) == "native"
    for name, layout in LAYOUTS.items():
        assert layout.name == name and layout.title and layout.marker and layout.read.__doc__


def test_the_camera_of_a_frame_is_that_of_the_stored_image(toy, toy_dataset, tmp_path):
    write_native(toy_dataset, tmp_path)
    frame = open_sequence(tmp_path, max_side=16).recording.frames[0]
    assert torch.allclose(frame.camera.K, torch.from_numpy(toy.K), atol=1e-5) and not frame.is_distorted
    half = FrameRecord("a", lambda: None, "a", (12, 16), toy.K, (24, 32), toy.w2cs[0])
    half.model, half.distortion = "opencv", (0.1, 0.0, 0.0, 0.0, 0.0)
    assert half.camera.K[0, 0] == toy.K[0, 0] / 2 and half.is_distorted and half.camera.is_distorted
