"""Depth and disparity as the networks' own scripts write them."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from som.errors import UserError
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.depth import import_depth

SIZE = (6, 8)
NAMES = ["00000", "00001", "00002"]


def truth() -> np.ndarray:
    """(T,H,W) float32 metres; one pixel unknown."""
    depth = 1 + np.random.default_rng(0).uniform(0, 9, (3, *SIZE)).astype(np.float32)
    depth[1, 2, 3] = 0
    return depth


def save_folder(folder: Path, maps: np.ndarray, pattern: str = "{}.npy") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(NAMES, maps, strict=True):
        path = folder / pattern.format(name)
        if path.suffix == ".npy":
            np.save(path, values)
        else:
            assert cv2.imwrite(str(path), values)
    return folder


def read(path: Path, **options):
    found = import_depth(path, **{"frames": FrameNames(NAMES), "size": SIZE, **options})
    assert found.depth.dtype == torch.float32 and found.depth.shape == (3, *options.get("size", SIZE))
    return found


def test_depth_arrays_need_to_be_told_from_disparity(tmp_path):
    save_folder(tmp_path, truth())
    with pytest.raises(UserError, match=r"`depth\.given_values`"):
        read(tmp_path)
    found = read(tmp_path, values="depth", kind="metric")
    assert np.array_equal(found.depth.numpy(), truth())
    assert found.kind == "metric" and found.confidence is None and not found.warnings


@pytest.mark.parametrize("shape", [(1, 1, *SIZE), (*SIZE, 1)])
def test_batch_and_channel_of_one(tmp_path, shape):
    """As UniDepth's predictions and DyCheck's depth are."""
    found = read(save_folder(tmp_path, truth().reshape(3, *shape)), values="depth")
    assert np.array_equal(found.depth.numpy(), truth())


def test_unknown_kind_is_relative_and_said(tmp_path):
    found = read(save_folder(tmp_path, truth()), values="depth")
    assert found.kind == "relative" and "`depth.given_kind`" in found.warnings[0]


def test_not_finite_and_not_positive_depth_is_unknown(tmp_path):
    depth = truth()
    depth[0, 0, :3] = np.nan, np.inf, -1
    found = read(save_folder(tmp_path, depth), values="depth").depth
    assert (found[0, 0, :3] == 0).all() and found[0, 0, 3] == depth[0, 0, 3]


@pytest.mark.parametrize("suffix", [".pfm", ".tiff"])
def test_float_images(tmp_path, suffix):
    found = read(save_folder(tmp_path, truth(), "{}" + suffix), values="depth")
    assert np.array_equal(found.depth.numpy(), truth())


def test_png_in_millimetres(tmp_path):
    steps = np.round(1000 * truth()).astype(np.uint16)
    save_folder(tmp_path, steps, "{}.png")
    found = read(tmp_path, values="depth", kind="metric", unit=0.001)
    assert np.allclose(found.depth.numpy(), truth(), atol=6e-4)
    with pytest.raises(UserError, match=r"`depth\.given_unit`"):
        read(tmp_path, values="depth")


def test_8_bit_pictures_are_refused(tmp_path):
    save_folder(tmp_path, (25 * truth()).astype(np.uint8), "{}.png")
    with pytest.raises(UserError, match="8-bit picture"):
        read(tmp_path, values="depth", unit=0.04)


def test_relative_disparity_keeps_order_and_differences(tmp_path):
    disparity = np.random.default_rng(1).uniform(0.5, 20, (3, *SIZE)).astype(np.float32)
    disparity[0, 0, :2], disparity[0, 0, 2] = 0, np.nan  # the sky, and an unknown pixel
    found = read(save_folder(tmp_path, disparity), values="disparity")
    depth = found.depth.numpy()
    assert found.kind == "relative" and depth[0, 0, 2] == 0
    assert np.allclose(1 / depth[0, 0, :2], 1e-3 * np.nanmax(disparity[0]))
    known = disparity >= 0.5
    assert np.allclose(1 / depth[known], disparity[known], rtol=1e-5)


def test_negative_relative_disparity_is_raised_alike_in_all_frames(tmp_path):
    disparity = np.random.default_rng(1).uniform(-1, 1, (3, *SIZE)).astype(np.float32)
    found = read(save_folder(tmp_path, disparity), values="disparity")
    back, expected = 1 / found.depth.numpy(), disparity - disparity.min()
    assert np.allclose(back, np.maximum(expected, 1e-3 * expected.max((1, 2), keepdims=True)), rtol=1e-4)


def test_metric_disparity_has_no_floor(tmp_path):
    disparity = np.where(truth() > 0, 1 / np.maximum(truth(), 1), 0)
    found = read(save_folder(tmp_path, disparity), values="disparity", kind="scale")
    assert found.kind == "scale" and np.allclose(found.depth.numpy(), truth(), rtol=1e-5)


def test_16_bit_disparity(tmp_path):
    disparity = np.random.default_rng(1).integers(100, 65535, (3, *SIZE)).astype(np.uint16)
    found = read(save_folder(tmp_path, disparity, "{}.png"), values="disparity")
    assert np.allclose(1 / found.depth.numpy(), disparity, rtol=1e-5)


def test_depth_anything_v2_metric(tmp_path):
    save_folder(tmp_path, truth(), "{}_raw_depth_meter.npy")
    save_folder(tmp_path, np.zeros((3, *SIZE), np.uint8), "{}.png")  # the picture beside it
    found = read(tmp_path)
    assert found.kind == "metric" and np.array_equal(found.depth.numpy(), truth())


def test_video_depth_anything(tmp_path):
    np.savez(tmp_path / "walk_depths.npz", depths=1 / np.maximum(truth(), 1))
    with pytest.raises(UserError, match=r"may be depth .* or disparity"):
        read(tmp_path / "walk_depths.npz")
    found = read(tmp_path / "walk_depths.npz", values="disparity")
    assert np.allclose(found.depth[0].numpy(), truth()[0], rtol=1e-5)


def test_array_called_disparity(tmp_path):
    np.savez(tmp_path / "a.npz", disp=1 / np.maximum(truth(), 1))
    assert np.allclose(read(tmp_path / "a.npz").depth[0].numpy(), truth()[0], rtol=1e-5)
    with pytest.raises(UserError, match="holds disparity"):
        read(tmp_path / "a.npz", values="depth")


def test_unidepth_of_megasam(tmp_path):
    for name, depth in zip(NAMES, truth(), strict=True):
        np.savez(tmp_path / f"{name}.npz", depth=depth, fov=np.float32(60))
    found = read(tmp_path)
    assert found.kind == "metric" and np.array_equal(found.depth.numpy(), truth())


def test_megasam(tmp_path):
    # 640x360 becomes 591x332 there, of which 584x328 are kept
    depths = np.ones((3, 328, 584), np.float16)
    np.savez(tmp_path / "a.npz", depths=depths, intrinsic=np.eye(3), cam_c2w=np.tile(np.eye(4), (3, 1, 1)))
    found = read(tmp_path / "a.npz", size=(360, 640))
    last_row, last_column = int(328 * 360 / 332), int(584 * 640 / 591)
    assert found.kind == "scale" and (found.depth[:, : last_row - 1, : last_column - 1] == 1).all()
    assert (found.depth[:, last_row + 1 :] == 0).all() and (found.depth[:, :, last_column + 1 :] == 0).all()


def test_depth_anything_3_confidence(tmp_path):
    poses, K = np.tile(np.eye(4), (3, 1, 1)), np.tile(np.eye(3), (3, 1, 1))
    confidence = np.array([1, 2, 5])[:, None, None] * np.ones((3, *SIZE))
    np.savez(tmp_path / "a.npz", depth=truth(), extrinsics=poses, intrinsics=K, conf=confidence)
    found = read(tmp_path / "a.npz")
    assert found.kind == "scale" and np.array_equal(found.depth.numpy(), truth())
    assert np.allclose(found.confidence[:, 0, 0], [0, 0.5, 0.8])


def test_monst3r(tmp_path):
    """Depth of the middle 304 of 312 rows; pictures and confidences lie beside it."""
    for name in ("pred_traj.txt", "pred_intrinsics.txt"):
        (tmp_path / name).write_text("")
    for i in range(3):
        np.save(tmp_path / f"frame_{i:04d}.npy", np.full((304, 512), 1.0 + i, np.float32))
        np.save(tmp_path / f"conf_{i}.npy", np.ones((304, 512), np.float32))
    found = read(tmp_path, size=(312, 512))
    assert found.kind == "scale" and (found.depth[:, :4] == 0).all() and (found.depth[:, 308:] == 0).all()
    assert (found.depth[:, 4:308] == torch.tensor([1.0, 2, 3])[:, None, None]).all()


def test_exr_of_moge_and_video_depth_anything(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    depth = truth()
    depth[0, 0, 0] = np.inf  # MoGe's sky
    for name, values in zip(NAMES, depth, strict=True):
        (tmp_path / "moge" / name).mkdir(parents=True)
        with OpenEXR.File(header, {"Y": values}) as file:
            file.write(str(tmp_path / "moge" / name / "depth.exr"))
        (tmp_path / "video").mkdir(exist_ok=True)
        with OpenEXR.File(header, {"Z": values}) as file:
            file.write(str(tmp_path / "video" / f"{name}.exr"))
    expected = np.where(np.isfinite(depth), depth, 0)
    found = read(tmp_path / "moge", kind="metric")
    assert np.array_equal(found.depth.numpy(), expected) and found.source["program"] == "MoGe"
    assert np.array_equal(read(tmp_path / "video", values="depth").depth.numpy(), expected)
    (tmp_path / "video/00001.exr").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"00001\.exr: this depth map cannot be read"):
        read(tmp_path / "video", values="depth")


def test_exr_without_its_package(tmp_path, monkeypatch):
    for name in NAMES:
        (tmp_path / f"{name}.exr").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(UserError, match="pip install OpenEXR"):
        read(tmp_path, values="depth")


def test_resizing_never_mixes_surfaces(tmp_path):
    found = read(save_folder(tmp_path, truth()), values="depth", size=(18, 24)).depth.numpy()
    assert np.array_equal(found, truth().repeat(3, 1).repeat(3, 2))


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pfm", ".npy"])
def test_files_that_were_cut_off(tmp_path, suffix):
    maps = truth() if suffix != ".png" else (1000 * truth()).astype(np.uint16)
    save_folder(tmp_path, maps, "{}" + suffix)
    path = tmp_path / f"00001{suffix}"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"00001.*(is cut off|cannot be)"):
        read(tmp_path, values="depth", unit=0.001 if suffix == ".png" else None)


def test_missing_and_unfitting(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "a")
    with pytest.raises(UserError, match="holds no depth map"):
        read(tmp_path)
    save_folder(tmp_path / "a", truth())
    with pytest.raises(UserError, match="name one of its folders"):
        read(tmp_path)
    with pytest.raises(UserError, match="aspect ratio"):
        read(tmp_path / "a", values="depth", size=(8, 6))
    with pytest.raises(UserError, match="have no unit"):
        read(tmp_path / "a", values="depth", unit=0.001)
    np.save(tmp_path / "a/00001.npy", np.zeros((3, *SIZE)))
    with pytest.raises(UserError, match=r"00001\.npy: a depth map must have shape \(height, width\)"):
        read(tmp_path / "a", values="depth")
    (tmp_path / "a/00001.npy").unlink()
    with pytest.raises(UserError, match=r"1 of 3 frames have no depth maps \(00001\)"):
        read(tmp_path / "a", values="depth")
    np.save(tmp_path / "b.npy", np.zeros((3, *SIZE)))
    with pytest.raises(UserError, match="no frame has any known depth"):
        read(tmp_path / "b.npy", values="depth")
    np.savez(tmp_path / "c.npz", a=truth(), b=truth())
    with pytest.raises(UserError, match="found a, b"):
        read(tmp_path / "c.npz", values="depth")
