"""Folders, videos, the plain layout and 7-Scenes: what is read is what was written; what is wrong is named."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from som.data.layouts import recognise
from som.data.load import open_sequence
from som.data.recording import FrameRecord, Recording
from som.data.sequence import DepthSequence, resize_depth, target_size
from som.errors import UserError
from som.files import list_images, read_image


def test_plain_folder_reads_as_written(make, plain_folder):
    sequence = open_sequence(plain_folder, depth_unit=1e-3, fps=10)
    assert recognise(plain_folder).name == sequence.layout == "plain"
    assert len(sequence) == 3 and sequence.size == (24, 40) and sequence.names == ["00000", "00001", "00002"]
    assert sequence.Ks[2].tolist() == [[50, 0, 20], [0, 60, 12], [0, 0, 1]]  # integer centres shifted once
    torch.testing.assert_close(sequence.w2cs, torch.from_numpy(np.linalg.inv(make.poses(3))).float())
    assert (sequence.image_bytes(1) == make.picture(1)).all()
    assert sequence.image(1).shape == (3, 24, 40) and float(sequence.image(1).max()) <= 1
    assert sequence.timestamps.tolist() == pytest.approx([0, 0.1, 0.2])
    assert sequence.has_depth == [True, False, True] and not sequence.has_moving
    assert sequence.notes == ["1 of 3 images have no depth map"]
    assert (sequence.depth_kind, sequence.world_scale) == ("metric", "metric")


def test_depth_keeps_its_size_and_has_its_own_intrinsics(plain_folder):
    sequence = open_sequence(plain_folder, depth_unit=1e-3)
    depth, K = sequence.depth(2)
    assert depth.shape == (48, 80) and depth.unique().tolist() == pytest.approx([1.502])
    assert K.tolist() == [[100, 0, 40], [0, 120, 24], [0, 0, 1]]
    assert sequence.depth_at_image_size(2).shape == (24, 40)
    with pytest.raises(UserError, match="00001 has no depth"):
        sequence.depth(1)


def test_intrinsics_follow_the_size(make, plain_folder):
    small = open_sequence(plain_folder, depth_unit=1e-3, size=(12, 10), center_offset=0)
    assert small.image(0).shape == (3, 12, 10)
    assert small.Ks[0].tolist() == [[12.5, 0, 19.5 / 4], [0, 30, 11.5 / 2], [0, 0, 1]]
    # a reduction by whole factors is the mean over the block
    expected = make.picture(0).reshape(12, 2, 10, 4, 3).mean((1, 3))
    assert np.abs(small.image_bytes(0) - expected).max() <= 0.5
    again = small.resized(max_side=40)
    assert again.size == (24, 40) and again.Ks[0, 0, 0] == 50


def test_three_by_four_poses_and_offsets_per_axis(make, plain_folder):
    rows = [make.row(pose[:3]) for pose in make.poses(3)]
    make.text(plain_folder / "poses_cam_to_world.txt", "# camera to world\n" + "\n\n".join(rows))
    sequence = open_sequence(plain_folder, depth_unit=1e-3, center_offset=(0.25, 0.1))
    torch.testing.assert_close(sequence.w2cs, torch.from_numpy(np.linalg.inv(make.poses(3))).float())
    assert sequence.Ks[0, :2, 2].tolist() == pytest.approx([19.75, 11.6])


def test_rounded_rotations_become_rigid(make, plain_folder):
    rounded = [" ".join(f"{v:.3f}" for v in pose.flatten()) for pose in make.poses(3)]
    make.text(plain_folder / "poses_cam_to_world.txt", "\n".join(rounded))
    R = open_sequence(plain_folder, depth_unit=1e-3).w2cs[:, :3, :3].double()
    torch.testing.assert_close(
        R @ R.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(3, 3, 3), atol=1e-6, rtol=0
    )


def test_npy_depth_needs_no_unit(plain_folder):
    shutil.rmtree(plain_folder / "depth")
    (plain_folder / "depth").mkdir()
    values = np.array([[1.5, 0], [np.nan, np.inf]], np.float32)
    np.save(plain_folder / "depth" / "00001.npy", values)
    assert open_sequence(plain_folder).depth(1)[0].tolist() == [[1.5, 0], [0, 0]]
    np.save(plain_folder / "depth" / "00001.npy", -values)
    with pytest.raises(UserError, match=r"00001.npy: this depth map holds negative values"):
        open_sequence(plain_folder).depth(1)


def damage(name):
    def change(make, root):
        path = root / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda make, root: make.text(root / "K.txt", "50 0 19.5 0 60 11.5 0 0"),
            "K.txt: the intrinsics must hold 3x3",
        ),
        (lambda make, root: make.text(root / "K.txt", "50 0 19.5 0 60 eleven 0 0 1"), "K.txt: line 1"),
        (lambda make, root: make.text(root / "K.txt", "-50 0 19 0 60 11 0 0 1"), "positive focal"),
        (lambda make, root: make.text(root / "poses_cam_to_world.txt", make.row(np.eye(4))), "1 poses for 3 images"),
        (lambda make, root: make.text(root / "poses_cam_to_world.txt", "1 2 3"), "row 1 has 3 numbers"),
        (
            lambda make, root: make.text(root / "poses_cam_to_world.txt", make.row(2 * np.eye(4)[:3])),
            "row 1: the pose is not rigid",
        ),
        (
            lambda make, root: make.text(root / "poses_cam_to_world.txt", make.row(np.eye(4) * np.nan)),
            "row 1: the pose holds NaN",
        ),
        (damage("images/00000.png"), "00000.png: this image is cut off"),
    ],
)
def test_a_broken_plain_folder_is_named(make, plain_folder, change, message):
    change(make, plain_folder)
    with pytest.raises(UserError, match=message):
        open_sequence(plain_folder, depth_unit=1e-3)


def test_images_are_read_lazily_and_named_when_broken(make, plain_folder):
    damage("images/00001.png")(make, plain_folder)
    make.write(plain_folder / "images" / "00002.png", make.picture(0, 12, 40))
    damage("depth/00000.png")(make, plain_folder)
    sequence = open_sequence(plain_folder, depth_unit=1e-3)
    sequence.image(0)
    with pytest.raises(UserError, match=r"00001.png: this image is cut off"):
        sequence.image(1)
    with pytest.raises(UserError, match=r"00002.png: this image is 40x12, others of its sequence 40x24"):
        sequence.image(2)
    with pytest.raises(UserError, match=r"00000.png: this depth map is cut off"):
        sequence.depth(0)


def test_png_depth_without_a_unit_is_refused(plain_folder):
    with pytest.raises(UserError, match=r"00000.png: its unit is not known; pass depth_unit"):
        open_sequence(plain_folder)


def test_a_truncated_jpeg_is_not_half_read(make, tmp_path):
    path = tmp_path / "a.jpg"
    make.write(path, make.picture(0, 100, 100))
    assert read_image(path).shape == (100, 100, 3)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"a.jpg: this image is cut off"):
        read_image(path)


def test_folder_of_images_in_natural_order(make, tmp_path):
    for i in (10, 2, 1):
        make.write(tmp_path / f"frame_{i}.png", make.picture(i))
    sequence = open_sequence(tmp_path, K=np.array([[30.0, 0, 20], [0, 30, 12], [0, 0, 1]]))
    assert sequence.layout == "folder" and sequence.names == ["frame_1", "frame_2", "frame_10"]
    assert sequence.Ks[1, 0, 2] == 20  # given in code: this package's convention
    assert sequence.w2cs is None and open_sequence(tmp_path).Ks is None
    with pytest.raises(UserError, match=r"K must be \(3,3\) or \(3,3,3\)"):
        open_sequence(tmp_path, K=np.eye(4))


def test_ranges_and_masks(make, tmp_path):
    for i in range(7):
        make.write(tmp_path / "images" / f"{i}.jpg", make.picture(i))
        mask = np.zeros((48, 80), np.uint8)
        mask[:, : 10 * i] = 255
        make.write(tmp_path / "people" / f"{i}.png", mask)
    sequence = open_sequence(tmp_path, start=1, end=6, every=2, fps=30, moving=tmp_path / "people")
    assert sequence.names == ["1", "3", "5"] and sequence.fps == 15
    assert sequence.timestamps.tolist() == pytest.approx([1 / 30, 3 / 30, 5 / 30])
    assert sequence.has_moving and sequence.moving(1).shape == (24, 40)
    assert sequence.moving(1)[0].tolist() == [True] * 15 + [False] * 25
    assert sequence.select([2, 0]).names == ["5", "1"]
    with pytest.raises(UserError, match="none in 7:None"):
        open_sequence(tmp_path, start=7)
    (tmp_path / "people" / "3.png").unlink()
    with pytest.raises(UserError, match=r"3.png: this mask is missing"):
        open_sequence(tmp_path, moving=tmp_path / "people")


def test_what_is_not_recognised_lists_what_was_looked_for(make, tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match=r"transforms.json \(native\).*frame-\*.color.png.*K.txt beside images/"):
        open_sequence(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_sequence(tmp_path / "nothing")
    make.text(tmp_path / "a.pdf", "")
    with pytest.raises(UserError, match=r"a.pdf: is neither"):
        open_sequence(tmp_path / "a.pdf")


def test_options_and_layouts_are_checked(plain_folder):
    with pytest.raises(UserError, match=r"layout plain has no option 'unit'; it has depth_unit, center_offset"):
        open_sequence(plain_folder, unit=1)
    with pytest.raises(UserError, match="unknown layout 'spiral'"):
        open_sequence(plain_folder, "spiral")
    with pytest.raises(UserError, match="5:2"):
        open_sequence(plain_folder, start=5, end=2)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """30 frames at 10 fps whose grey is 8 times their number."""
    path = tmp_path_factory.mktemp("video") / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for i in range(30):
        writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
    writer.release()
    return path


def test_video_range_rate_and_size(video):
    K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    sequence = open_sequence(video, fps=4, start=10, end=21, max_side=32, K=K)
    assert sequence.layout == "video" and sequence.size == (24, 32)
    # 4 of 10 frames a second: multiples of 2.5 frames after the tenth
    assert sequence.names == ["00010", "00012", "00015", "00018", "00020"]
    grays = sequence.images().mean((1, 2, 3)) * 255 / 8
    assert grays.tolist() == pytest.approx([10, 12, 15, 18, 20], abs=0.3)
    assert sequence.timestamps.tolist() == pytest.approx([1.0, 1.2, 1.5, 1.8, 2.0])
    assert sequence.Ks[0].tolist() == [[30, 0, 16], [0, 30, 12], [0, 0, 1]]
    assert len(open_sequence(video)) == 30 and len(open_sequence(video, every=4)) == 8


def test_video_problems_are_named(make, video, tmp_path):
    with pytest.raises(UserError, match=r"at most the video's 10"):
        open_sequence(video, fps=25)
    with pytest.raises(UserError, match="no frame in 40:None"):
        open_sequence(video, start=40)
    make.text(tmp_path / "a.mp4", "nothing")
    with pytest.raises(UserError, match=r"a.mp4: no frame can be decoded"):
        open_sequence(tmp_path / "a.mp4")


def test_seven_scenes(make, tmp_path):
    root = tmp_path / "redkitchen" / "seq-01"
    for i, pose in enumerate(make.poses(2)):
        stem = root / f"frame-{i:06d}"
        make.write(stem.with_suffix(".color.png"), make.picture(i, 48, 64))
        depth = np.full((48, 64), 2000, np.uint16)
        depth[0], depth[1] = 65535, 0
        make.write(stem.with_suffix(".depth.png"), depth)
        make.text(stem.with_suffix(".pose.txt"), "\n".join("\t ".join(map(repr, map(float, r))) for r in pose))
    sequence = open_sequence(root)
    assert sequence.layout == "7scenes" and sequence.name == "redkitchen seq-01"
    assert sequence.names == ["frame-000000", "frame-000001"]
    # the nominal intrinsics belong to 640x480; a tenth of them, with 320 + 0.5 and 240 + 0.5
    assert sequence.Ks[0].flatten().tolist() == pytest.approx([58.5, 0, 32.05, 0, 58.5, 24.05, 0, 0, 1])
    depth, _ = sequence.depth(1)
    assert depth[0].sum() == depth[1].sum() == 0 and depth[2:].unique().tolist() == [2.0]
    torch.testing.assert_close(sequence.w2cs, torch.from_numpy(np.linalg.inv(make.poses(2))).float())
    (root / "frame-000001.pose.txt").unlink()
    with pytest.raises(UserError, match=r"frame-000001.pose.txt: the pose is missing"):
        open_sequence(root)


def test_target_sizes():
    assert target_size((375, 1242)) == (375, 1242)
    assert target_size((375, 1242), max_side=640) == (193, 640)
    assert target_size((375, 1242), max_side=640, multiple=32) == (192, 640)
    assert target_size((100, 60), max_side=400) == (100, 60)  # never enlarges
    assert target_size((10, 10), multiple=32) == (32, 32)
    assert target_size((10, 20), size=(33, 65), multiple=32) == (32, 64)
    for options in (dict(max_side=0), dict(size=(0, 3)), dict(multiple=0), dict(size=(2, 2), max_side=2)):
        with pytest.raises(UserError, match="size"):
            target_size((10, 10), **options)


def frame(make, name, seed, height=8, width=10):
    return FrameRecord(name, lambda: make.picture(seed, height, width), name, (height, width))


def test_sequences_need_frames_names_and_one_size(make):
    with pytest.raises(UserError, match="no frame"):
        DepthSequence(Recording("empty", "folder", []))
    with pytest.raises(UserError, match="several frames are named a"):
        DepthSequence(Recording("twice", "folder", [frame(make, "a", 0), frame(make, "a", 1)]))
    mixed = Recording("mixed", "eigen", [frame(make, "a", 0), frame(make, "b", 1, 9, 12)])
    with pytest.raises(UserError, match=r"several sizes \(10x8, 12x9\); give size"):
        DepthSequence(mixed)
    assert DepthSequence(mixed, size=(4, 6)).images().shape == (2, 3, 4, 6)


def test_cached_images_are_read_once(make):
    calls = []

    def read():
        calls.append(1)
        return make.picture(0, 8, 10)

    recording = Recording("one", "folder", [FrameRecord("a", read, "a", (8, 10))])
    sequence = DepthSequence(recording, size=(4, 5), cache_images=True)
    assert torch.equal(sequence.image(0), sequence.image(0)) and len(calls) == 1


def test_shrinking_depth_keeps_surfaces_apart_and_sparse_points_alive():
    depth = np.zeros((4, 8), np.float32)
    depth[1, 1] = 5.0  # the pixel under the new centre
    depth[0, 0] = 2.0
    depth[0, 2], depth[1, 2] = 7.0, 6.0  # only beside the new centre
    depth[2:, 4:] = 3.0
    resized = resize_depth(depth, (2, 4))
    assert resized.tolist() == [[5.0, 6.0, 0, 0], [0, 0, 3.0, 3.0]]
    assert resize_depth(depth, (8, 16))[2:4, 2:4].tolist() == [[5.0, 5.0], [5.0, 5.0]]


def test_images_of_other_kinds_are_not_listed(tmp_path):
    for name in ("b.PNG", "a.JPG", ".hidden.png", "c.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.PNG"]
