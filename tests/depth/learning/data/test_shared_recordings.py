"""Real recordings in the plain layout, where they are at hand: they open, and simple baselines score as they should."""

from pathlib import Path

import pytest
import torch

from som.data.load import open_sequence
from som.depth.evaluation import DepthEvaluation

ROOT = Path(__file__).resolve().parents[5] / "shared" / "data"
SCALED = (0.5 * 640 / 1242, 0.5 * 192 / 375)
"""Half a pixel of KITTI's 1242x375, for K that was scaled to 640x192 with integer centres."""


def recording(name, **options):
    if not (ROOT / name).is_dir():
        pytest.skip(f"needs the recording {name}")
    return open_sequence(ROOT / name, **options)


def test_rgbd_kitchen():
    sequence = recording("rgbd_7scenes", depth_unit=1e-3)
    assert len(sequence) == 60 and sequence.size == (480, 640) and all(sequence.has_depth)
    assert sequence.Ks[0, :2, 2].tolist() == [320.5, 240.5]
    evaluation = DepthEvaluation("rgbd", "median")
    for i in range(0, 60, 20):
        evaluation.add(torch.ones(2, 2), sequence.depth(i)[0])
    assert 0.1 < evaluation.report().metrics["abs_rel"] < 0.5


def test_laser_scans_of_a_drive():
    sequence = recording("kitti_traffic_lidar", depth_unit=1 / 256, center_offset=SCALED)
    depth, K = sequence.depth(0)
    assert len(sequence) == 39 and sequence.size == (192, 640) and depth.shape == (375, 1242)
    # scaled back, the principal point is KITTI's plus half a pixel
    assert K[:2, 2].tolist() == pytest.approx([609.5593 + 0.5, 172.854 + 0.5], abs=1e-2)
    evaluation = DepthEvaluation("eigen", "median")
    for i in range(0, 39, 13):
        evaluation.add(torch.ones(2, 2), sequence.depth(i)[0])
    assert 0.3 < evaluation.report().metrics["abs_rel"] < 0.45


def test_drives_with_and_without_poses():
    posed, bare = recording("kitti_odom06_gray"), recording("kitti_raw_drive_color")
    assert (len(posed), posed.size) == (51, (192, 640)) and (len(bare), bare.size) == (91, (192, 640))
    steps = torch.linalg.inv(posed.w2cs.double())[:, :3, 3].diff(dim=0).norm(dim=1)
    assert float(steps.sum()) == pytest.approx(59.9, abs=0.2)
    assert bare.w2cs is None and not any(bare.has_depth)
