"""KITTI raw, odometry and split files: calibration, projected scans, navigation, lists of frames."""

import shutil

import numpy as np
import pytest
import torch

from som.data.layouts import recognise
from som.data.layouts.eigen import SplitLine, drives_of_split, read_split
from som.data.layouts.kitti_calibration import RigCamera, project_scan, read_oxts
from som.data.load import open_sequence
from som.errors import UserError


def test_raw_drive(make, drive):
    assert recognise(drive).name == "kitti_raw"
    sequence = open_sequence(drive)
    assert sequence.names[3] == "0000000003" and sequence.size == (24, 40) and sequence.world_scale == "metric"
    assert sequence.Ks[0].tolist() == [[50, 0, 20], [0, 50, 12], [0, 0, 1]]  # 19.5 + 0.5, 11.5 + 0.5
    assert sequence.speeds.tolist() == pytest.approx([1.2] * 4)
    assert sequence.timestamps.tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert sequence.has_depth == [True, True, False, True]
    assert sequence.notes == ["1 of 4 frames have no laser scan"]
    assert (sequence.image_bytes(2) == make.picture(2)).all()


def test_poses_follow_the_vehicle(drive):
    w2cs = open_sequence(drive).w2cs.double()
    # level and facing east, it moves 0.12 m a frame: along the camera's z axis, whatever lies between IMU and camera
    T = w2cs[3] @ torch.linalg.inv(w2cs[0])
    expected = torch.eye(4, dtype=torch.float64)
    expected[2, 3] = -3 * 0.12
    torch.testing.assert_close(T, expected, atol=1e-5, rtol=0)
    # at the start the scanner is the world's origin, and camera 2 sees it where calibration says
    origin = w2cs[0][:3, 3]
    offset = np.linalg.solve([[50.0, 0, 19.5], [0, 50, 11.5], [0, 0, 1]], [3.0, 0.5, 0.01])
    torch.testing.assert_close(origin, torch.from_numpy(np.array([0.02, -0.06, -0.3]) + offset), atol=1e-5, rtol=0)


def test_scans_are_projected_and_the_nearest_point_wins(drive):
    sequence = open_sequence(drive)
    depth, K = sequence.depth(0)
    assert depth.shape == (24, 40) and K.tolist() == sequence.Ks[0].tolist()
    # x forward 5.3 is z = 5.3 - 0.3 + 0.01 in camera 2
    points = np.array([[5.3, 0.2, 0.1], [8.3, -2.0, 0.4]])
    camera_0 = np.stack([-points[:, 1] + 0.02, -points[:, 2] - 0.06, points[:, 0] - 0.3], -1)
    z = camera_0[:, 2] + 0.01
    u = (50 * camera_0[:, 0] + 19.5 * camera_0[:, 2] + 3.0) / z
    v = (50 * camera_0[:, 1] + 11.5 * camera_0[:, 2] + 0.5) / z
    for i in range(2):
        assert depth[round(v[i]), round(u[i])] == pytest.approx(z[i], rel=1e-6)
    assert (depth > 0).sum() == 3  # with the far point beside the first; the one behind the scanner is none


def test_of_two_points_in_a_pixel_the_nearest_is_kept():
    camera = RigCamera(np.array([[10.0, 0, 5, 0], [0, 10, 5, 0], [0, 0, 1, 0]]), (10, 10), np.eye(4)[[1, 2, 0, 3]])
    scan = np.array([[8.0, 0, 0, 1], [2.0, 0, 0, 1], [4.0, 0, 0, 1]], np.float32)  # forward is z here
    depth = project_scan(scan, camera, (10, 10))
    assert depth[5, 5] == 2.0 and (depth > 0).sum() == 1
    assert project_scan(scan[::-1], camera, (10, 10))[5, 5] == 2.0


def test_the_literatures_ground_truth_is_one_pixel_and_the_scanners_offset_away(drive):
    exact = open_sequence(drive).depth(0)[0]
    eigen = open_sequence(drive, truth="eigen").depth(0)[0]
    rows, columns = torch.nonzero(exact, as_tuple=True)
    moved = eigen[rows - 1, columns - 1]
    torch.testing.assert_close(moved, exact[rows, columns] + 0.29, atol=1e-5, rtol=0)
    assert (eigen > 0).sum() == len(rows)


def test_resized_drives_keep_their_cameras(make, drive):
    """Images stored at half size: K follows the images, the truth stays at the calibration's size."""
    for i in range(4):
        make.write(drive / "image_02" / "data" / f"{i:010d}.png", make.picture(i, 12, 20))
    sequence = open_sequence(drive)
    assert sequence.size == (12, 20)
    assert sequence.Ks[0].tolist() == [[25, 0, 10], [0, 25, 6], [0, 0, 1]]
    depth, K = sequence.depth(0)
    assert depth.shape == (24, 40) and K[0].tolist() == [50, 0, 20]


def test_an_excerpt_of_a_drive_keeps_its_times(drive):
    (drive / "image_02" / "data" / "0000000000.png").unlink()
    assert open_sequence(drive).timestamps.tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_drives_work_without_navigation_and_scans(drive):
    shutil.rmtree(drive / "oxts")
    shutil.rmtree(drive / "velodyne_points")
    (drive.parent / "calib_velo_to_cam.txt").unlink()
    sequence = open_sequence(drive)
    assert sequence.w2cs is None and sequence.speeds is None and not any(sequence.has_depth)


def remove(name):
    return lambda make, drive: (drive / name).unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("../calib_cam_to_cam.txt"), r"calib_cam_to_cam.txt: the camera calibration is missing"),
        (remove("oxts/data/0000000001.txt"), r"oxts/data/0000000001.txt: the navigation record is missing"),
        (
            lambda make, drive: make.text(drive.parent / "calib_velo_to_cam.txt", "R: 1 2 3\nT: 0 0 0\n"),
            r"calib_velo_to_cam.txt: the entry R with 9 numbers",
        ),
        (
            lambda make, drive: make.text(drive / "image_02" / "timestamps.txt", "2011-09-26 13:02:25.1\n"),
            r"timestamps.txt: has no line for frame 0000000001",
        ),
        (
            lambda make, drive: make.text(drive / "image_02" / "timestamps.txt", "yesterday\n"),
            r"timestamps.txt: every line must be a date",
        ),
        (lambda make, drive: make.text(drive / "oxts/data/0000000001.txt", "49.0 8.0"), "at least 11 numbers"),
    ],
)
def test_broken_drives_are_named(make, drive, change, message):
    change(make, drive)
    with pytest.raises(UserError, match=message):
        open_sequence(drive)


def test_a_broken_scan_is_named_when_read(drive):
    (drive / "velodyne_points/data/0000000001.bin").write_bytes(b"123456789012")
    sequence = open_sequence(drive)
    with pytest.raises(UserError, match=r"0000000001.bin: a laser scan holds 4 float32"):
        sequence.depth(1)


def test_navigation_turns_are_yaw_pitch_roll(make, tmp_path):
    for i, angles in enumerate(([0, 0, 0], [0, 0, np.pi / 2], [0, -0.1, 0])):
        record = [0.0, 0.0, float(i), *angles, 0, 0, 3.0, 4.0, 0.0]
        make.text(tmp_path / f"{i}.txt", make.row(record))
    poses, speeds = read_oxts([tmp_path / f"{i}.txt" for i in range(3)])
    assert speeds.tolist() == [5.0] * 3
    assert poses[1][:3, 0].round(9).tolist() == [0, 1, 0]  # forward points north after a left turn
    assert poses[2][2, 0] == pytest.approx(np.sin(0.1))  # nose up with negative pitch
    assert poses[2][:3, 3].tolist() == [0, 0, 2]


@pytest.fixture
def odometry(make, tmp_path):
    root = tmp_path / "odometry"
    sequence = root / "sequences" / "06"
    for i in range(3):
        make.write(sequence / "image_2" / f"{i:06d}.png", make.picture(i))
    P0 = [50.0, 0, 19.5, 0, 0, 50, 11.5, 0, 0, 0, 1, 0]
    P2 = [50.0, 0, 19.5, 10.0, 0, 50, 11.5, 0, 0, 0, 1, 0]
    velo = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]])
    make.text(sequence / "calib.txt", f"P0: {make.row(P0)}\nP2: {make.row(P2)}\nTr: {make.row(velo)}\n")
    make.text(sequence / "times.txt", "0.0e+00\n1.0e-01\n2.1e-01\n")
    make.text(root / "poses" / "06.txt", "\n".join(make.row(pose[:3]) for pose in make.poses(3)))
    (sequence / "velodyne").mkdir()
    np.array([[4.0, 0, 0, 1]], np.float32).tofile(sequence / "velodyne" / "000001.bin")
    return sequence


def test_odometry(make, odometry):
    assert recognise(odometry).name == "kitti_odometry"
    sequence = open_sequence(odometry)
    assert sequence.Ks[0].tolist() == [[50, 0, 20], [0, 50, 12], [0, 0, 1]]
    assert sequence.timestamps.tolist() == pytest.approx([0, 0.1, 0.21])
    # camera 2 sits at x = -10 / 50 of camera 0
    c2w = torch.linalg.inv(sequence.w2cs.double())
    centers = make.poses(3) @ [-0.2, 0, 0, 1]
    torch.testing.assert_close(c2w[:, :, 3], torch.from_numpy(centers), atol=1e-6, rtol=0)
    torch.testing.assert_close(c2w[:, :3, :3], torch.from_numpy(make.poses(3)[:, :3, :3]), atol=1e-6, rtol=0)
    depth, _ = sequence.depth(1)
    assert sequence.has_depth == [False, True, False]
    assert depth[12, 22] == 4.0 and (depth > 0).sum() == 1  # u = 19.5 + 10 / 4 = 22, v = 11.5, which rounds to even


def test_odometry_problems_are_named(make, odometry):
    make.text(odometry / "times.txt", "0.0\n")
    with pytest.raises(UserError, match=r"times.txt: has 1 rows, none for frame 000001"):
        open_sequence(odometry)
    with pytest.raises(UserError, match=r"calib.txt: the entry P3 with 12 numbers"):
        open_sequence(odometry, camera=3)
    with pytest.raises(UserError, match="0 to 3"):
        open_sequence(odometry, camera=4)


DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


@pytest.fixture
def split(make, tmp_path):
    path = tmp_path / "test_files.txt"
    make.text(path, f"{DRIVE} 0000000003 l\n{DRIVE} 0 r\n\n{DRIVE} 1\n")
    return path


def test_split_files(make, split, kitti_root):
    assert read_split(split) == [SplitLine(DRIVE, 3, 2), SplitLine(DRIVE, 0, 3), SplitLine(DRIVE, 1, 2)]
    assert drives_of_split(read_split(split)) == {(DRIVE, 2): [3, 1], (DRIVE, 3): [0]}
    sequence = open_sequence(split, root=kitti_root)
    assert sequence.layout == "eigen" and sequence.names[1] == f"{DRIVE} 0000000000 r"
    assert (sequence.image_bytes(0) == make.picture(3)).all()
    expected = open_sequence(kitti_root / DRIVE, truth="eigen").depth(0)[0]
    assert torch.equal(sequence.depth(1)[0], expected) and (expected > 0).any()
    assert sequence.w2cs is None


def test_improved_ground_truth(make, split, kitti_root, tmp_path):
    parts = "2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02"
    truth = np.zeros((24, 40), np.uint16)
    truth[5, 6] = 2560
    make.write(tmp_path / "annotated" / "val" / parts / "0000000003.png", truth)
    sequence = open_sequence(split, root=kitti_root, improved=tmp_path / "annotated")
    assert len(sequence) == 1 and sequence.notes == ["2 of 3 frames have no improved ground truth"]
    depth, _ = sequence.depth(0)
    assert depth[5, 6] == 10.0 and (depth > 0).sum() == 1


def test_split_problems_are_named(make, split, kitti_root):
    with pytest.raises(UserError, match="pass root"):
        open_sequence(split)
    make.text(split, f"{DRIVE} 2 l\n")
    with pytest.raises(UserError, match=r"0000000002.bin: the laser scan is missing"):
        open_sequence(split, root=kitti_root)
    make.text(split, f"{DRIVE} 7 l\n")
    with pytest.raises(UserError, match=r"0000000007.png: this image is missing \(or as .jpg\)"):
        open_sequence(split, root=kitti_root)
    make.text(split, f"{DRIVE} 2 l\n{DRIVE} l\n")
    with pytest.raises(UserError, match=r"line 2 must be"):
        open_sequence(split, root=kitti_root)
    make.text(split, "\n")
    with pytest.raises(UserError, match="names no frame"):
        open_sequence(split, root=kitti_root)
