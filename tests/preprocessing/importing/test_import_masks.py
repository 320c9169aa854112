"""Masks as DAVIS, SAM 2, Track-Anything and MonST3R write them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from som.errors import UserError
from som.preprocessing.frames.names import FrameNames
from som.preprocessing.importing.masks import import_masks

SIZE = (6, 8)
NAMES = ["00000", "00001", "00002"]


def truth() -> np.ndarray:
    """(T,H,W): object 1 walks right, object 2 stands."""
    labels = np.zeros((3, *SIZE), np.uint8)
    for t in range(3):
        labels[t, 1:3, t : t + 2] = 1
    labels[:, 4:, 6:] = 2
    return labels


def save_palette(path: Path, labels: np.ndarray) -> None:
    image = Image.fromarray(labels, mode="L").convert("P")
    image.putdata(labels.ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def save_folder(folder: Path, labels: np.ndarray, names=NAMES, save=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, label in zip(names, labels, strict=True):
        (save or (lambda p, v: Image.fromarray(v).save(p)))(folder / f"{name}.png", label)
    return folder


def read(path: Path, **options) -> np.ndarray:
    masks = import_masks(path, **{"frames": FrameNames(NAMES), "size": SIZE, **options}).foreground
    assert masks.dtype == torch.bool and masks.shape == (3, *options.get("size", SIZE))
    return masks.numpy()


def test_grey_png(tmp_path):
    soft = np.where(truth() > 0, 255, 0).astype(np.uint8)
    soft[:, 0, 0] = 100  # the soft rim of a mask
    assert np.array_equal(read(save_folder(tmp_path, soft)), truth() > 0)


def test_numbers_of_objects_in_grey_png(tmp_path):
    save_folder(tmp_path, truth())
    assert np.array_equal(read(tmp_path), truth() > 0)
    assert np.array_equal(read(tmp_path, object_ids=(2,)), truth() == 2)
    with pytest.raises(UserError, match="only 1, 2"):
        read(tmp_path, object_ids=(7,))


def test_davis_palette(tmp_path):
    save_folder(tmp_path, truth(), save=save_palette)
    assert np.array_equal(read(tmp_path), truth() > 0)
    assert np.array_equal(read(tmp_path, object_ids=(1,)), truth() == 1)


def test_colours_and_bits(tmp_path):
    palette = np.array([(0, 0, 0), (128, 0, 0), (0, 64, 0)], np.uint8)
    assert np.array_equal(read(save_folder(tmp_path / "a", palette[truth()])), truth() > 0)
    bits = lambda p, v: Image.fromarray(v > 0).save(p)  # noqa: E731
    assert np.array_equal(read(save_folder(tmp_path / "b", truth(), save=bits)), truth() > 0)


def test_sam2_one_folder_per_object(tmp_path):
    for number in (1, 2):
        save_folder(tmp_path / f"{number:03d}", (truth() == number).astype(np.uint8), save=save_palette)
    assert np.array_equal(read(tmp_path), truth() > 0)
    assert np.array_equal(read(tmp_path, object_ids=(2,)), truth() == 2)
    with pytest.raises(UserError, match="only 001, 002"):
        read(tmp_path, object_ids=(3,))


def test_track_anything_arrays(tmp_path):
    for name, labels in zip(NAMES, truth(), strict=True):
        np.save(tmp_path / f"{name}.npy", labels)
    assert np.array_equal(read(tmp_path), truth() > 0)


@pytest.mark.parametrize("make", [lambda v: v, lambda v: (v > 0)[..., None], lambda v: np.stack([v == 1, v == 2], 1),
                                  lambda v: (v > 0).astype(np.float32)])  # fmt: skip
def test_single_arrays(tmp_path, make):
    np.save(tmp_path / "a.npy", make(truth()))
    np.savez(tmp_path / "b.npz", masks=make(truth()), frame_ids=np.arange(3))
    for name in ("a.npy", "b.npz"):
        assert np.array_equal(read(tmp_path / name), truth() > 0)


def test_objects_of_a_single_array_are_numbered_from_zero(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([truth() == 1, truth() == 2], 1))
    assert np.array_equal(read(tmp_path / "a.npy", object_ids=(1,)), truth() == 2)
    with pytest.raises(UserError, match="objects 0 to 1"):
        read(tmp_path / "a.npy", object_ids=(2,))


def test_soft_scores_are_cut_at_one_half(tmp_path):
    np.save(tmp_path / "a.npy", np.where(truth() > 0, 0.6, 0.4))
    assert np.array_equal(read(tmp_path / "a.npy"), truth() > 0)


def test_resized_to_the_nearest_pixel(tmp_path):
    save_folder(tmp_path, truth())
    assert np.array_equal(read(tmp_path, size=(12, 16)), (truth() > 0).repeat(2, 1).repeat(2, 2))


def test_monst3r(tmp_path):
    """Rows 4 to 308 of 312 are kept of a 640x390 image; its masks are numbered without zeros."""
    for name in ("pred_traj.txt", "pred_intrinsics.txt"):
        (tmp_path / name).write_text("")
    Image.fromarray(np.zeros((304, 512), np.uint8)).save(tmp_path / "frame_0000.png")
    masks = np.zeros((12, 304, 512), np.uint8)
    for t in range(12):
        masks[t, 0, 10 * t : 10 * t + 10] = 255
        Image.fromarray(masks[t]).save(tmp_path / f"dynamic_mask_{t}.png")
    frames = FrameNames([f"{t:05d}" for t in range(12)])
    read = import_masks(tmp_path, frames=frames, size=(312, 512)).foreground.numpy()
    assert not read[:, :4].any() and not read[:, 308:].any()
    assert np.array_equal(read[:, 4:308], masks > 0)


def test_missing_and_unfitting(tmp_path):
    save_folder(tmp_path / "a", truth()[:2], NAMES[:2])
    with pytest.raises(UserError, match=r"1 of 3 frames have no masks \(00002\)"):
        read(tmp_path / "a")
    with pytest.raises(UserError, match="name one of its folders"):
        read(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "b")
    with pytest.raises(UserError, match="aspect ratio"):
        read(save_folder(tmp_path / "a", truth()), size=(8, 6))
    (tmp_path / "a/00001.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"00001\.png: this mask cannot be decoded"):
        read(tmp_path / "a")
    np.save(tmp_path / "c.npy", truth()[:2])
    with pytest.raises(UserError, match="2 masks for 3 frames"):
        read(tmp_path / "c.npy")
    np.savez(tmp_path / "d.npz", one=truth(), two=truth())
    with pytest.raises(UserError, match="found one, two"):
        read(tmp_path / "d.npz")
