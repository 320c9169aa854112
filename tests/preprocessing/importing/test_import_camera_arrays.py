"""Cameras in arrays and text, written by hand from known poses: all must come back the same."""

from pathlib import Path

import numpy as np
import pytest

from som.errors import UserError
from tests.preprocessing.importing.known_cameras import QUAT_C2W_WXYZ, SIZE, K, check, make_c2w, read


def write_megasam(path: Path, source: tuple[int, int], **changes) -> Path:
    """As MegaSaM does: images resized to 384·512 pixels in all, cropped to multiples of 8, K of the resizing."""
    factor = np.sqrt(384 * 512 / (source[0] * source[1]))
    h1, w1 = int(source[0] * factor), int(source[1] * factor)
    h, w = h1 - h1 % 8, w1 - w1 % 8
    reduced = K.copy()
    reduced[0] *= w1 / 320
    reduced[1] *= h1 / 180
    # the depth of every pixel is its distance from the left border as a share of the whole width
    depths = np.tile((np.arange(w) + 0.5) / w1, (4, h, 1)).astype(np.float16)
    arrays = dict(images=np.zeros((4, h, w, 3), np.uint8), depths=depths, intrinsic=reduced, cam_c2w=make_c2w())
    np.savez(path, **{**arrays, **changes})
    return path


@pytest.mark.parametrize("source", [(180, 320), (1080, 1920)])
def test_megasam(tmp_path, source):
    path = write_megasam(tmp_path / "walk_sgd_cvd_hr.npz", source)
    cameras = read(path, source_size=source)
    check(cameras)
    assert cameras.source["program"] == "MegaSaM" and cameras.depth.shape == (4, *SIZE)
    width = int(source[1] * np.sqrt(384 * 512 / (source[0] * source[1])))
    kept = (width - width % 8) / width
    expected = (np.arange(320) + 0.5) / 320
    inside = expected < kept
    assert np.abs(cameras.depth[:, :160, inside] - expected[inside]).max() < 0.6 / width + 5e-4
    assert (cameras.depth[:, :, ~inside] == 0).all() and (~inside).any()
    seen = cameras.observations
    assert np.abs(seen.depth - seen.xy[:, 0] / 320).max() < 0.6 / width + 5e-4 and seen.xy[:, 0].max() < 320 * kept
    assert set(seen.frame) == {0, 1, 2, 3} and np.allclose(seen.xy % 1, 0.5)


def test_megasam_wrong_count_and_nan_poses(tmp_path):
    with pytest.raises(UserError, match="3 cameras for 4 frames"):
        read(write_megasam(tmp_path / "a.npz", SIZE, cam_c2w=make_c2w(3)))
    poses = make_c2w()
    poses[2] = np.nan
    cameras = read(write_megasam(tmp_path / "b.npz", SIZE, cam_c2w=poses))
    assert cameras.registered.tolist() == [True, True, False, True]
    assert np.allclose(np.linalg.inv(cameras.w2c[2])[:3, 3], (3, 2, 3))  # half way between frames 1 and 3


@pytest.mark.parametrize("rows", [3, 4])
def test_depth_anything_3(tmp_path, rows):
    """World to camera; K of the network's input, whose sides are multiples of 14."""
    h, w = 280, 504
    scaled = np.tile(np.diag([w / 320, h / 180, 1]) @ K, (4, 1, 1)).astype(np.float32)
    folder = tmp_path / "exports/mini_npz"
    folder.mkdir(parents=True)
    w2c = np.linalg.inv(make_c2w())[:, :rows].astype(np.float32)
    depth = np.full((4, h, w), 2.5, np.float32)
    depth[1] = np.inf
    np.savez(folder / "results.npz", depth=depth, conf=np.ones((4, h, w)), extrinsics=w2c, intrinsics=scaled)
    cameras = read(tmp_path)
    check(cameras)
    assert (cameras.depth[0] == 2.5).all() and (cameras.depth[1] == 0).all() and cameras.depth.dtype == np.float32


def test_vggt(tmp_path):
    h, w = 294, 518
    scaled = np.tile(np.diag([w / 320, h / 180, 1]) @ K, (4, 1, 1))
    np.savez(tmp_path / "predictions.npz", depth=np.ones((4, h, w, 1)), extrinsic=np.linalg.inv(make_c2w())[:, :3],
             intrinsic=scaled, images=np.zeros((4, 3, h, w)))  # fmt: skip
    check(read(tmp_path / "predictions.npz"))
    with pytest.raises(UserError, match="aspect ratio"):
        read(tmp_path / "predictions.npz", size=(320, 180))


def droid_rows() -> np.ndarray:
    w, x, y, z = QUAT_C2W_WXYZ
    return np.array([(1 + i, 2, 3, x, y, z, w) for i in range(4)], np.float32)


def test_droid_array(tmp_path):
    np.save(tmp_path / "traj.npy", droid_rows())
    cameras = read(tmp_path / "traj.npy", focal=300)
    assert np.allclose(np.linalg.inv(cameras.w2c), make_c2w(), atol=1e-6)
    assert np.allclose(cameras.K, [[300, 0, 160], [0, 300, 90], [0, 0, 1]])
    with pytest.raises(UserError, match=r"`cameras\.focal`"):
        read(tmp_path / "traj.npy")


def test_droid_dict_only_where_pickles_are_allowed(tmp_path):
    # 320x180 becomes 591x332, cropped to 584x328; the intrinsics are those of 591x332
    scale = np.array([591 / 320, 332 / 180])
    numbers = np.array([300 * scale[0], 290 * scale[1], 155 * scale[0], 95 * scale[1]])
    cameras = {"traj_c2w": make_c2w(), "intrinsics": numbers, "img_shape": (328, 584), "tstamps": np.arange(4)}
    np.save(tmp_path / "walk.npy", cameras, allow_pickle=True)
    with pytest.raises(UserError, match="allow_pickle"):
        read(tmp_path / "walk.npy")
    check(read(tmp_path / "walk.npy", allow_pickle=True))
    np.save(tmp_path / "evil.npy", {"traj_c2w": Path("x")}, allow_pickle=True)
    with pytest.raises(UserError, match="not an array"):
        read(tmp_path / "evil.npy", allow_pickle=True)


def write_tum(path: Path, stamps: list[float]) -> Path:
    w, x, y, z = QUAT_C2W_WXYZ
    lines = [f"{stamp} {1 + i} 2 3 {x} {y} {z} {w}" for i, stamp in enumerate(stamps)]
    path.write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(lines))
    return path


def test_tum_by_order_and_by_number(tmp_path):
    cameras = read(write_tum(tmp_path / "a.txt", [1305.1, 1305.2, 1305.3, 1305.4]), fov=2 * np.degrees(np.arctan(0.5)))
    assert np.allclose(np.linalg.inv(cameras.w2c), make_c2w(), atol=1e-6)
    assert np.allclose(cameras.K, [[320, 0, 160], [0, 320, 90], [0, 0, 1]])
    cameras = read(write_tum(tmp_path / "b.txt", [0, 3]), focal=300)
    assert cameras.registered.tolist() == [True, False, False, True]
    assert np.allclose(np.linalg.inv(cameras.w2c)[3, :3, 3], (2, 2, 3))
    assert cameras.source["matched_by"] == "frame number"
    for stamps in ([0.5, 1.5], [0, 0], [0, 4], [0, 1, 2, 3, 4]):
        with pytest.raises(UserError, match=f"{len(stamps)} poses for 4 frames"):
            read(write_tum(tmp_path / "c.txt", stamps), focal=300)


def test_tum_intrinsics_must_be_given_once(tmp_path):
    path = write_tum(tmp_path / "a.txt", [0, 1, 2, 3])
    for options in ({}, {"focal": 300, "fov": 60}, {"focal": -1}, {"fov": 180}):
        with pytest.raises(UserError, match="cameras"):
            read(path, **options)


def write_monst3r(folder: Path, K_cropped: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    quat = " ".join(map(str, QUAT_C2W_WXYZ))  # real part first
    (folder / "pred_traj.txt").write_text("".join(f"{float(i)} {1 + i} 2 3 {quat}\n" for i in range(4)))
    (folder / "pred_intrinsics.txt").write_text((" ".join(f"{v:.6f}" for v in K_cropped.flat) + "\n") * 4)
    return folder


def test_monst3r_crops_the_centre(tmp_path):
    # 320x200 -> 512x320, no crop; 320x180 -> 512x288; 320x190 -> 512x304: none is cropped; 320x195 -> 512x312 -> 304
    cropped = np.array([[480.0, 0, 256], [0, 480, 152], [0, 0, 1]])
    cameras = read(write_monst3r(tmp_path, cropped), size=(195, 320))
    assert np.allclose(np.linalg.inv(cameras.w2c), make_c2w(), atol=1e-6)
    # the 304 rows are the middle of 312, so that the centre stays the centre; 512/320 is the scale
    assert np.allclose(cameras.K, [[300, 0, 160], [0, 300, 97.5], [0, 0, 1]])
    with pytest.raises(UserError, match="given-size"):
        read(tmp_path, size=(240, 320), source_size=(240, 320))


def test_mirrored_or_scaled_poses_are_refused(tmp_path):
    for factor in ([1, 1, -1, 1], [2, 2, 2, 1]):
        poses = make_c2w() * factor
        with pytest.raises(UserError, match="frame 00000: the pose is not rigid"):
            read(write_megasam(tmp_path / "a.npz", SIZE, cam_c2w=poses))
