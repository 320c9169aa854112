import json
from dataclasses import fields

import cv2
import numpy as np
import pytest
import torch

from flow.compute import compute_video_flow
from flow.factory import make_estimator
from som.data.checks import DatasetError
from som.data.folder import read_flow, write_flow, write_native
from som.data.load import read_native
from som.errors import UserError


def assert_same(a, b, tolerance=1e-6):
    assert type(a) is type(b)
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, torch.Tensor):
            assert x.dtype == y.dtype, f.name
            assert x.shape == y.shape, f.name
            assert torch.allclose(x.double(), y.double(), atol=tolerance), f.name
        elif hasattr(x, "__dataclass_fields__"):
            assert_same(x, y, tolerance)
        else:
            assert x == y, f.name


def test_round_trip(toy_dataset, tmp_path):
    write_native(toy_dataset, tmp_path)
    assert_same(read_native(tmp_path), toy_dataset)


def test_round_trip_without_optional_parts(toy_dataset, tmp_path):
    toy_dataset.val = toy_dataset.tracks = toy_dataset.ground_truth_tracks = None
    toy_dataset.train.depths = toy_dataset.train.depth_confidence = None
    write_native(toy_dataset, tmp_path)
    back = read_native(tmp_path)
    assert back.val is None and back.tracks is None and back.train.depths is None
    assert any("no tracks" in note for note in back.source["notes"])


def test_static_scene_is_a_note_not_an_error(toy_dataset, tmp_path):
    toy_dataset.train.foreground[:] = False
    toy_dataset.tracks = None
    write_native(toy_dataset, tmp_path)
    assert "purely static" in read_native(tmp_path).source["notes"][0]


def test_known_point_projects_to_its_pixel(toy, toy_dataset, tmp_path):
    write_native(toy_dataset, tmp_path)
    toy.check(read_native(tmp_path).train)
    toy.check(read_native(tmp_path).val)


def test_poses_are_written_as_nerfstudio_has_them(toy_dataset, tmp_path):
    """OpenGL camera to world: a camera at the origin that looks along +z looks along -z of its own frame."""
    write_native(toy_dataset, tmp_path)
    first = json.loads((tmp_path / "transforms.json").read_text())["frames"][0]
    assert np.allclose(first["transform_matrix"], np.diag([1, -1, -1, 1]))


def test_max_side_scales_images_maps_intrinsics_and_tracks(toy, toy_dataset, tmp_path):
    write_native(toy_dataset, tmp_path)
    half = read_native(tmp_path, max_side=16)
    assert half.train.images.shape == (4, 12, 16, 3)
    assert half.train.depths.shape == half.train.foreground.shape == (4, 12, 16)
    toy.check(half.train, scale=0.5)
    assert torch.allclose(half.tracks.xy, toy_dataset.tracks.xy / 2)
    assert torch.allclose(half.ground_truth_tracks.xy, toy_dataset.ground_truth_tracks.xy / 2)
    assert set(np.unique(half.train.depths)) <= set(np.unique(toy_dataset.train.depths))


def test_plain_nerfstudio_file_with_global_intrinsics_and_png_depth(toy, tmp_path):
    frames = []
    for t in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{t}.png"), toy.images[t][..., ::-1])
        cv2.imwrite(str(tmp_path / f"{t}_depth.png"), np.round(toy.depths[t] * 10000).astype(np.uint16))
        c2w = np.linalg.inv(toy.w2cs[t]) @ np.diag([1, -1, -1, 1])
        frames.append({"file_path": f"images/{t}", "transform_matrix": c2w.tolist(), "time": t / 10,
                       "depth_file_path": f"{t}_depth.png"})  # fmt: skip
    header = {"fl_x": 30.0, "fl_y": 31.0, "cx": 15.5, "cy": 12.25, "w": 32, "h": 24, "fps": 10,
              "depth_unit_scale_factor": 1e-4, "frames": frames}  # fmt: skip
    (tmp_path / "transforms.json").write_text(json.dumps(header))
    dataset = read_native(tmp_path)
    assert dataset.train.times.tolist() == [0, 1, 2, 3]
    assert np.allclose(dataset.train.depths, toy.depths, atol=1e-4)
    toy.check(dataset.train)


def test_flow_round_trip(tmp_path):
    flow, mask = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32), np.eye(4, 5) > 0
    write_flow(tmp_path, 3, 1, flow, mask)
    back, back_mask = read_flow(tmp_path, 3, 1)
    assert np.abs(flow - back).max() <= 1 / 512 and np.array_equal(mask, back_mask)
    with pytest.raises(UserError, match=r"00000_00001\.npz does not exist"):
        read_flow(tmp_path, 0, 1)


def test_flow_beside_the_frames_is_opened_and_checked(toy_dataset, tmp_path):
    write_native(toy_dataset, tmp_path)
    T = toy_dataset.num_times
    frames = np.random.default_rng(0).integers(0, 255, (T, 24, 32, 3), dtype=np.uint8)
    made = compute_video_flow(frames, make_estimator("dis"), strides=(1,), folder=tmp_path / "flow")
    opened = read_native(tmp_path).flow
    assert opened.num_frames == T and torch.equal(opened.get(0, 1), made.get(0, 1))
    (tmp_path / "flow" / "00000_00001.npz").unlink()
    with pytest.raises(DatasetError, match="flow lacks 1 of"):
        read_native(tmp_path)
    compute_video_flow(frames[:-1], make_estimator("dis"), strides=(1,), folder=tmp_path / "flow")
    with pytest.raises(DatasetError, match=f"between {T - 1} frames but the video has {T} times"):
        read_native(tmp_path)
