"""The project's data set folder: read as the scene's reader reads it, and depth priors that this reader accepts."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from som.data.layouts import recognise
from som.data.load import open_sequence, read_native
from som.depth.records import write_depth_folder, write_depth_prior
from som.errors import UserError
from som.files import read_map, read_mask

SIZE = (24, 40)


@pytest.fixture
def folder(make, tmp_path):
    """Four training frames, out of order in the file, and a held-out one with true depth."""
    root = tmp_path / "walk"
    frames = []
    for i in (2, 0, 1, 3):
        make.write(root / "images" / f"{i:05d}.png", make.picture(i, *SIZE))
        mask = np.zeros(SIZE, np.uint8)
        mask[:, : 5 * (i + 1)] = 255
        make.write(root / "foreground" / f"{i:05d}.png", mask)
        c2w = make.poses(4)[i] @ np.diag([1.0, -1, -1, 1])
        entry = {"file_path": f"images/{i:05d}", "transform_matrix": c2w.tolist(), "time": i}
        frames.append({**entry, "foreground_path": f"foreground/{i:05d}.png"})
    make.write(root / "images" / "val_00001.png", make.picture(9, *SIZE))
    (root / "depth").mkdir()
    np.save(root / "depth" / "val_00001.npy", np.full(SIZE, 4.0, np.float32))
    c2w = np.diag([1.0, -1, -1, 1]).tolist()
    held = {"file_path": "images/val_00001.png", "transform_matrix": c2w, "time": 1, "split": "val", "name": "00001"}
    frames.append({**held, "depth_file_path": "depth/val_00001.npy"})
    header = {
        "fl_x": 30.0,
        "fl_y": 33.0,
        "w": 40,
        "h": 24,
        "fps": 10,
        "world_scale": "metric",
        "source": {"images": "x"},
    }
    (root / "transforms.json").write_text(json.dumps({**header, "frames": frames}))
    return root


@pytest.fixture
def depth():
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(4, *SIZE, generator=generator) * 5 + 0.5
    depth[:, :3] = 0
    return depth


def test_reads_what_the_scene_reads(folder):
    assert recognise(folder).name == "native"
    sequence, scene = open_sequence(folder), read_native(folder).train
    assert sequence.names == scene.names == ["00000", "00001", "00002", "00003"]
    torch.testing.assert_close(sequence.Ks, scene.cameras.K)
    torch.testing.assert_close(sequence.w2cs, scene.cameras.w2c)
    assert torch.equal((sequence.images() * 255).round().byte().permute(0, 2, 3, 1), scene.images)
    assert torch.equal(torch.stack([sequence.moving(t) for t in range(4)]), scene.foreground)
    assert sequence.timestamps.tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert sequence.has_moving and not sequence.has_valid and not any(sequence.has_depth)
    held = open_sequence(folder, split="val")
    assert held.names == ["00001"] and held.depth(0)[0].unique().tolist() == [4.0]


def test_transparency_and_masks_say_what_is_valid(make, folder):
    image = np.dstack([make.picture(0, *SIZE), np.full(SIZE, 255, np.uint8)])
    image[:4, :, 3] = 0
    cv2.imwrite(str(folder / "images" / "00000.png"), image[..., [2, 1, 0, 3]])
    valid = np.full(SIZE, 255, np.uint8)
    valid[:, :7] = 0
    make.write(folder / "valid" / "00000.png", valid)
    header = json.loads((folder / "transforms.json").read_text())
    header["frames"][1]["mask_path"] = "valid/00000.png"
    (folder / "transforms.json").write_text(json.dumps(header))
    sequence, scene = open_sequence(folder), read_native(folder).train
    assert sequence.has_valid and sequence.valid(1) is None
    assert torch.equal(sequence.valid(0), scene.valid[0]) and not sequence.valid(0).all()
    assert (sequence.image_bytes(0) == make.picture(0, *SIZE)).all()


def test_the_scene_reads_a_written_prior(folder, depth):
    confidence = torch.linspace(0, 1, 4)[:, None, None].expand(4, *SIZE)
    files = write_depth_prior(folder, depth, confidence, "metric", {"method": "sweep", "views": 4})
    assert [f.name for f in files] == [f"0000{i}.npy" for i in range(4)] and all(f.is_file() for f in files)
    dataset = read_native(folder)
    assert torch.equal(dataset.train.depths, depth) and dataset.depth_kind == "metric"
    torch.testing.assert_close(dataset.train.depth_confidence, confidence, atol=0.5 / 255, rtol=0)
    assert dataset.source["depth"] == {"method": "sweep", "views": 4} and dataset.source["images"] == "x"
    assert dataset.val.depths.unique().tolist() == [4.0]  # untouched
    sequence = open_sequence(folder)
    assert torch.equal(sequence.depth(2)[0], depth[2])
    torch.testing.assert_close(sequence.confidence(2), confidence[2], atol=0.5 / 255, rtol=0)


def test_png_priors_keep_known_pixels_known(folder, depth):
    depth[0, 10, 10] = 1e-5
    write_depth_prior(folder, depth, None, "metric", "sweep", png_unit=1e-3)
    read = read_native(folder).train.depths
    assert torch.equal(read > 0, depth > 0)
    torch.testing.assert_close(read, depth, atol=1.0e-3, rtol=0)
    assert open_sequence(folder).depth(0)[0][10, 10] == pytest.approx(1e-3)


def test_maps_of_another_size_are_resized_in_disparity(folder):
    ramp = 1 / torch.linspace(0.2, 1.0, 20)
    depth = ramp.expand(4, 12, 20).clone()
    depth[:, 0] = 0
    write_depth_prior(folder, depth, torch.full((4, 12, 20), 0.5), "metric", "net")
    read = read_native(folder).train.depths
    step = 0.8 / 19
    expected = 0.2 + (torch.arange(1, 39) / 2 - 0.25) * step
    torch.testing.assert_close(1 / read[0, 12, 1:-1], expected)
    # rows that draw on the unknown row are unknown
    assert (read[:, :3] == 0).all() and (read[:, 3:] > 0).all()


def test_some_frames_by_name(folder, depth):
    write_depth_prior(folder, depth[:2], None, "metric", "sweep", names=["00003", "00001"])
    sequence = open_sequence(folder)
    assert sequence.has_depth == [False, True, False, True]
    assert torch.equal(sequence.depth(3)[0], depth[0]) and torch.equal(sequence.depth(1)[0], depth[1])


def test_existing_depth_is_not_lost_by_accident(folder, depth):
    write_depth_prior(folder, depth, torch.ones_like(depth), "metric", "first")
    with pytest.raises(UserError, match="have depth already; pass overwrite"):
        write_depth_prior(folder, depth + 1, None, "metric", "second")
    assert torch.equal(open_sequence(folder).depth(0)[0], depth[0])
    write_depth_prior(folder, depth + 1, None, "metric", "second", overwrite=True)
    dataset = read_native(folder)
    assert torch.equal(dataset.train.depths, depth + 1) and dataset.source["depth"] == "second"
    assert dataset.train.depth_confidence is None


def test_files_that_other_frames_use_or_nobody_named_are_kept(folder, depth):
    np.save(folder / "depth" / "00002.npy", np.ones(SIZE, np.float32))
    with pytest.raises(UserError, match=r"00002.npy: exists"):
        write_depth_prior(folder, depth, None, "metric", "x")
    header = json.loads((folder / "transforms.json").read_text())
    header["frames"][-1]["depth_file_path"] = "depth/00002.npy"
    (folder / "transforms.json").write_text(json.dumps(header))
    with pytest.raises(UserError, match=r"00002.npy: exists"):
        write_depth_prior(folder, depth, None, "metric", "x", overwrite=True)
    assert np.load(folder / "depth" / "00002.npy").max() == 1


def test_depth_of_two_kinds_cannot_share_a_folder(folder, depth):
    before = (folder / "transforms.json").read_bytes()
    with pytest.raises(UserError, match="frame 00001 keeps depth of kind metric, the new depth is relative"):
        write_depth_prior(folder, depth, None, "relative", "net")
    assert (folder / "transforms.json").read_bytes() == before and not (folder / "depth" / "00000.npy").exists()
    write_depth_prior(folder, depth, None, "relative", "net", drop_other_depth=True)
    dataset = read_native(folder)
    assert dataset.depth_kind == "relative" and dataset.val.depths is None
    assert (folder / "depth" / "val_00001.npy").is_file()


def test_an_interruption_leaves_the_folder_as_it_was(folder, depth, monkeypatch):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    written = []

    def fail(self, data):
        if written:
            raise OSError("disk full")
        written.append(data)
        self.touch()

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_depth_prior(folder, depth, None, "metric", "sweep")
    monkeypatch.undo()
    assert written and {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, d: write_depth_prior(f, d[:3], None, "metric", "x"), r"depth must be \(4,H,W\)"),
        (lambda f, d: write_depth_prior(f, -d, None, "metric", "x"), "not negative"),
        (lambda f, d: write_depth_prior(f, d / 0, None, "metric", "x"), "finite"),
        (lambda f, d: write_depth_prior(f, d, None, "absolute", "x"), "depth kind must be one of metric"),
        (lambda f, d: write_depth_prior(f, d, d, "metric", "x"), r"confidence must lie in \[0, 1\]"),
        (lambda f, d: write_depth_prior(f, d, d[:, 1:], "metric", "x"), "as large as depth"),
        (lambda f, d: write_depth_prior(f, d, None, "metric", "x", png_unit=1e-5), "does not fit 16 bits"),
        (lambda f, d: write_depth_prior(f, d, None, "metric", "x", png_unit=0), "png_unit must be"),
        (lambda f, d: write_depth_prior(f, d[:1], None, "metric", "x", names=["7"]), "no frame 7 in the split train"),
        (lambda f, d: write_depth_prior(f, d, None, "metric", {"net": {1, 2}}), "cannot be written as JSON"),
        (lambda f, d: write_depth_prior(f / "images", d, None, "metric", "x"), r"transforms.json: .* is missing"),
    ],
)
def test_bad_priors_are_named_and_change_nothing(folder, depth, call, message):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message):
        call(folder, depth)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def edit(key, value, frame=None):
    def change(folder):
        header = json.loads((folder / "transforms.json").read_text())
        (header if frame is None else header["frames"][frame])[key] = value
        (folder / "transforms.json").write_text(json.dumps(header))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "transforms.json").write_text("{"), r"transforms.json: .* no valid JSON"),
        (edit("frames", [{}]), "file_path"),
        (edit("k1", 0.1), r"00000\.png: .* lens distortion"),
        (edit("w", 41), "00000.png: this image is 40x24, its w and h say 41x24"),
        (edit("fl_x", "wide"), "its camera in transforms.json is missing or not a number"),
        (edit("transform_matrix", [[1]], 0), "transform_matrix must be 4x4"),
        (edit("depth_kind", "absolute"), "depth_kind must be one of"),
        (edit("fps", 0), "fps must be a positive number"),
        (edit("time", None, 0), '"time" must be a number below'),
        (edit("frames", []), "no frame of the split train"),
    ],
)
def test_a_broken_folder_is_named(folder, change, message):
    change(folder)
    with pytest.raises(UserError, match=message):
        open_sequence(folder)


def test_foreground_in_some_frames_only_is_refused(folder):
    header = json.loads((folder / "transforms.json").read_text())
    del header["frames"][0]["foreground_path"]
    (folder / "transforms.json").write_text(json.dumps(header))
    with pytest.raises(UserError, match=r"00002\.png: has no foreground map"):
        open_sequence(folder)


def test_a_lone_depth_folder(tmp_path, depth):
    write_depth_folder(tmp_path, ["a", "b", "c", "d"], depth, depth / 6, "scale", "net", png_unit=1e-3)
    about = json.loads((tmp_path / "depth.json").read_text())
    assert about == {"depth_kind": "scale", "depth_unit_scale_factor": 1e-3, "source": "net", "names": list("abcd")}
    read = read_map(tmp_path / "depth" / "c.png", about["depth_unit_scale_factor"])
    np.testing.assert_allclose(read, depth[2], atol=1e-3)
    confidence = read_map(tmp_path / "depth_confidence" / "c.png", 1 / 255)
    np.testing.assert_allclose(confidence, depth[2] / 6, atol=0.5 / 255 + 1e-6)
    with pytest.raises(UserError, match="without slashes"):
        write_depth_folder(tmp_path, ["a", "b", "c", "../d"], depth, None, "scale", "net")


def test_masks_read_any_channel_above_the_middle(make, tmp_path):
    mask = np.zeros((2, 2, 3), np.uint8)
    mask[0, 0, 2], mask[1, 1, 0] = 128, 127
    make.write(tmp_path / "m.png", mask)
    assert read_mask(tmp_path / "m.png").tolist() == [[True, False], [False, False]]
