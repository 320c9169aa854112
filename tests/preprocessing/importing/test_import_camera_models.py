"""COLMAP models and transforms.json, written by hand from known poses: all must come back the same."""

import json
from pathlib import Path

import numpy as np
import pytest

from som.errors import UserError
from tests.preprocessing.importing.known_cameras import (
    NAMES,
    QUAT_W2C_WXYZ,
    check,
    make_c2w,
    read,
    seen_by_hand,
    translation_w2c,
)


def write_colmap(folder: Path, names: list[str], camera: str = "1 PINHOLE 320 180 300 290 155 95", order=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"# cameras\n{camera}\n")
    lines = ["# images"]
    for i in order or range(len(names)):
        q, t = " ".join(map(str, QUAT_W2C_WXYZ)), " ".join(map(str, translation_w2c(i)))
        x, y = seen_by_hand(i)
        lines += [f"{i + 1} {q} {t} 1 {names[i]}", f"10.5 20.5 -1 {x} {y} 1"]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("# points\n1 6 1.5 3.25 10 20 30 0.5 1 1 2 1\n2 7 8 9 0 0 0 1 1 1\n")
    return folder


def test_colmap_text(tmp_path):
    cameras = read(write_colmap(tmp_path / "sparse/0", [f"{n}.png" for n in NAMES], order=[2, 0, 3, 1]).parents[1])
    check(cameras)
    assert np.allclose(cameras.points, [[6, 1.5, 3.25], [7, 8, 9]])
    seen = cameras.observations
    assert seen.frame.tolist() == [0, 1, 2, 3] and np.allclose(seen.depth, [5, 4, 3, 2])
    assert np.allclose(seen.xy, [seen_by_hand(i) for i in range(4)])
    assert cameras.source["matched_by"] == "name" and cameras.world_scale == "arbitrary" and not cameras.warnings


def test_colmap_scales_intrinsics_with_the_image(tmp_path):
    """Twice the size has twice the coordinates; a pixel centre at +0.5 needs no other shift."""
    write_colmap(tmp_path, [f"{n}.png" for n in NAMES])
    cameras = read(tmp_path, size=(360, 640))
    check(cameras, scale=(2, 2))
    assert np.allclose(cameras.observations.xy[1], 2 * seen_by_hand(1))


@pytest.mark.parametrize("model", ["SIMPLE_PINHOLE 320 180 300 155 95", "SIMPLE_RADIAL 320 180 300 155 95 0"])
def test_colmap_models_that_are_pinholes(tmp_path, model):
    write_colmap(tmp_path, [f"{n}.png" for n in NAMES], camera=f"1 {model}")
    assert np.allclose(read(tmp_path).K, [[300, 0, 155], [0, 300, 95], [0, 0, 1]])


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL 320 180 300 155 95 .1", "OPENCV 320 180 300 300 155 95 0 .1 0 0",
                                   "OPENCV_FISHEYE 320 180 300 300 155 95 0 0 0 0"])  # fmt: skip
def test_colmap_distortion_is_refused_with_the_remedy(tmp_path, model):
    write_colmap(tmp_path, [f"{n}.png" for n in NAMES], camera=f"1 {model}")
    with pytest.raises(UserError, match="image_undistorter"):
        read(tmp_path)


def test_colmap_frames_without_camera_lie_between_their_neighbours(tmp_path):
    write_colmap(tmp_path, ["00001.png", "x.png", "00003.png"], order=[0, 2])
    cameras = read(tmp_path)
    assert cameras.registered.tolist() == [False, True, False, True]
    centers = np.linalg.inv(cameras.w2c)[:, :3, 3]
    assert np.allclose(centers, [(1, 2, 3), (1, 2, 3), (2, 2, 3), (3, 2, 3)])
    assert np.allclose(cameras.w2c[:, :3, :3], np.linalg.inv(make_c2w())[:, :3, :3])
    assert "00000, 00002" in cameras.warnings[0] and cameras.source["registered"] == 2


def test_colmap_names_that_start_at_one_are_not_taken_for_the_next_frame(tmp_path):
    """The same four frames, numbered from 1: three of the names are those of other frames."""
    write_colmap(tmp_path, [f"{i:05d}.png" for i in range(1, 5)])
    cameras = read(tmp_path)
    check(cameras)
    assert cameras.source["matched_by"] == "order" and "order" in cameras.warnings[0]


def test_colmap_takes_the_model_with_most_images(tmp_path):
    write_colmap(tmp_path / "sparse/0", ["00000.png"])
    write_colmap(tmp_path / "sparse/1", [f"{n}.png" for n in NAMES])
    for folder in (tmp_path, tmp_path / "sparse"):
        cameras = read(folder)
        check(cameras)
        assert "2 models" in cameras.warnings[0] and cameras.source["model"].endswith("1")


def test_colmap_wrong_images(tmp_path):
    write_colmap(tmp_path, ["a.png", "b.png"])
    with pytest.raises(UserError, match=r"2 registered images for 4 frames, and a, b .*00000, 00001"):
        read(tmp_path)
    write_colmap(tmp_path, [f"left/{NAMES[0]}.png", f"right/{NAMES[0]}.png"])
    with pytest.raises(UserError, match="several registered images are called 00000"):
        read(tmp_path)
    write_colmap(tmp_path, [f"{n}.png" for n in NAMES])
    with pytest.raises(UserError, match="another aspect ratio"):
        read(tmp_path, size=(320, 180))


def test_colmap_binary_of_pycolmap(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    write_colmap(tmp_path / "text", [f"{n}.png" for n in NAMES])
    tracks = " ".join(f"{i + 1} 1" for i in range(4))
    (tmp_path / "text/points3D.txt").write_text(f"1 6 1.5 3.25 10 20 30 0.5 {tracks}\n2 7 8 9 0 0 0 1\n")
    (tmp_path / "binary").mkdir()
    pycolmap.Reconstruction(str(tmp_path / "text")).write_binary(str(tmp_path / "binary"))
    cameras = read(tmp_path / "binary")
    check(cameras)
    assert np.allclose(np.sort(cameras.points, axis=0), [[6, 1.5, 3.25], [7, 8, 9]])
    seen = cameras.observations
    assert np.allclose(seen.depth, 5 - seen.frame) and np.allclose(seen.xy, [seen_by_hand(i) for i in seen.frame])


def nerfstudio(c2w: np.ndarray, **header) -> dict:
    """OpenGL axes: right, up and backward are the columns."""
    frames = []
    for i, pose in enumerate(c2w):
        gl = np.stack([pose[:, 0], -pose[:, 1], -pose[:, 2], pose[:, 3]], axis=1)
        frames.append({"file_path": f"images/{NAMES[i]}.png", "transform_matrix": gl.tolist()})
    camera = {"fl_x": 300, "fl_y": 290, "cx": 155, "cy": 95, "w": 320, "h": 180, "camera_model": "OPENCV"}
    return {**camera, **header, "frames": frames}


def test_nerfstudio(tmp_path):
    (tmp_path / "transforms.json").write_text(json.dumps(nerfstudio(make_c2w())))
    check(read(tmp_path))
    check(read(tmp_path / "transforms.json", size=(90, 160)), scale=(0.5, 0.5))


def test_nerfstudio_undoes_the_applied_transform(tmp_path):
    applied = np.array([[1.0, 0, 0, 4], [0, 0, 1, 5], [0, -1, 0, 6]])  # what ns-process-data does to COLMAP's world
    turned = np.vstack([applied, [0, 0, 0, 1]]) @ make_c2w()
    (tmp_path / "transforms.json").write_text(json.dumps(nerfstudio(turned, applied_transform=applied.tolist())))
    check(read(tmp_path))


def test_nerfstudio_field_of_view_and_held_out_frames(tmp_path):
    data = nerfstudio(make_c2w(), camera_angle_x=2 * np.arctan(160 / 300))
    for key in ("fl_x", "fl_y", "cx", "cy"):
        del data[key]
    data["frames"].append({**data["frames"][0], "file_path": "images/val_00000.png", "split": "val"})
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    assert np.allclose(read(tmp_path).K, [[300, 0, 160], [0, 300, 90], [0, 0, 1]])


@pytest.mark.parametrize(("change", "message"), [({"k1": 0.1}, "lens distortion"), ({"h": 320}, "aspect ratio"),
                                                 ({"camera_model": "OPENCV_FISHEYE"}, "no pinhole"),
                                                 ({"fl_x": "wide"}, "not a number")])  # fmt: skip
def test_nerfstudio_refused(tmp_path, change, message):
    (tmp_path / "transforms.json").write_text(json.dumps(nerfstudio(make_c2w(), **change)))
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_given_focal_beside_known_intrinsics_is_refused(tmp_path):
    write_colmap(tmp_path, [f"{n}.png" for n in NAMES])
    with pytest.raises(UserError, match="intrinsics of its own"):
        read(tmp_path, focal=300)


def test_unknown_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nothing")
    with pytest.raises(UserError, match="none of these"):
        read(tmp_path)
    np.savez(tmp_path / "a.npz", poses=np.eye(4))
    with pytest.raises(UserError, match="found poses"):
        read(tmp_path)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "b.npz")
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="no known format"):
        read(tmp_path / "clip.mp4")
