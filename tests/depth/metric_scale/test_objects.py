"""Scale from boxes and silhouettes of known height at known depth, and the tests that refuse objects."""

import math
from dataclasses import replace

import pytest
import torch

from som.depth.errors import DepthError
from som.depth.metric_scale.objects import (
    FrameConfig,
    ObjectStatus,
    apply_horizon_test,
    height_per_depth_in_rows,
    horizon_outliers,
    measure_frames,
    metric_camera_heights,
)

H, W, F = 120, 160, 200.0
K = torch.tensor([[[F, 0, 80.0], [0, F, 40.0], [0, 0, 1]]])
EXACT = FrameConfig(refuse_cut=False, min_extent=1)
BOX = replace(EXACT, scale_from="box")


def level_scene(objects, camera_height=1.5, scale=1.0):
    """Road under a level camera with upright boards (depth, height, left, right, lift) facing it; depth / scale."""
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    below = y - 40.0
    depth = torch.where(below > 0, camera_height * F / below.clamp(min=1e-3), torch.zeros_like(below))
    road = (below > 3)[None].clone()
    ids = torch.zeros(1, H, W, dtype=torch.int32)
    for number, (z, height, left, right, lift) in enumerate(objects, start=1):
        foot, top = F * (camera_height - lift) / z, F * (camera_height - lift - height) / z
        board = (below > top) & (below < foot) & (x > left) & (x < right)
        depth[board], ids[0, board], road[0, board] = z, number, False
    return (depth / scale)[None, None], road, ids


@pytest.mark.parametrize("form", ["box", "horizon", "silhouette"])
def test_a_board_of_known_height_at_known_depth_gives_the_scale(form):
    # 1.6 m at 10 m is 32 rows exactly, from row 38 to row 70
    depth, road, ids = level_scene([(10.0, 1.6, 60, 90, 0.0)], scale=4.0)
    measured = measure_frames(depth, K, road, ids, torch.tensor([[1.6]]), replace(EXACT, scale_from=form))
    # the silhouette ends at the centre of the upper row, half a pixel of 200 / 10 per metre low
    expected = 4.0 if form != "silhouette" else 4.0 * 1.6 / (1.6 - 0.5 / 20)
    assert measured.scale.item() == pytest.approx(expected, rel=2e-5)
    assert measured.camera_height.item() == pytest.approx(1.5 / 4, rel=1e-5)
    assert measured.height_per_depth.item() == pytest.approx(32 / F, rel=1e-5)
    assert measured.height_ratio.item() == pytest.approx(1.6 / 1.5, rel=1e-5)
    assert metric_camera_heights(measured, measured.status).item() == pytest.approx(1.5 * expected / 4, rel=2e-5)


def test_both_camera_height_estimates_agree_on_a_plane():
    depth, road, ids = level_scene([])
    for source in ("plane", "normals"):
        config = replace(EXACT, height_from=source)
        measured = measure_frames(depth, K, road, ids, torch.zeros(1, 0), config)
        assert measured.camera_height.item() == pytest.approx(1.5, rel=1e-4)
        assert metric_camera_heights(measured, measured.status).isnan().all()


def test_the_frame_takes_the_median_of_its_objects():
    boards = [(10.0, 1.6, 20, 40, 0.0), (10.0, 1.6, 60, 80, 0.0), (10.0, 1.6, 100, 120, 0.0)]
    depth, road, ids = level_scene(boards)
    measured = measure_frames(depth, K, road, ids, torch.tensor([[1.6, 3.2, 1.76]]), EXACT)
    assert measured.scale[0].tolist() == pytest.approx([1, 2, 1.1], rel=1e-4)
    assert metric_camera_heights(measured, measured.status).item() == pytest.approx(1.65, rel=1e-4)
    status = measured.status.clone()
    status[0, 1] = ObjectStatus.HORIZON
    assert metric_camera_heights(measured, status).item() == pytest.approx(1.5 * 1.05, rel=1e-4)


def test_the_foot_is_not_fooled_by_background_behind_the_upper_part():
    depth, road, ids = level_scene([(10.0, 1.6, 60, 90, 0.0)])
    upper = (ids[0] == 1) & (torch.arange(H)[:, None] < 58)
    depth[0, 0, upper] = 30.0  # 20 of 32 rows show what is behind
    heights = torch.tensor([[1.6]])
    assert measure_frames(depth, K, road, ids, heights, BOX).scale.item() == pytest.approx(1, rel=1e-4)
    whole = measure_frames(depth, K, road, ids, heights, replace(BOX, foot_share=1.0))
    assert whole.scale.item() == pytest.approx(1 / 3, rel=1e-4)
    quartile = measure_frames(depth, K, road, ids, heights, replace(BOX, foot_share=1.0, depth_quantile=0.25))
    assert quartile.scale.item() == pytest.approx(1, rel=1e-4)


def rolled_board(phase, roll, height=1.0, z=10.0):
    """A board 4 m wide and ``height`` high, standing on the road 1.5 m under a camera rolled by ``roll`` degrees."""
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    r = math.radians(roll)
    a, b = (x - 80.0 - phase) / F, (y - 40.0 - phase) / F
    right, down = math.cos(r) * a - math.sin(r) * b, math.sin(r) * a + math.cos(r) * b
    depth = torch.where(down > 0, 1.5 / down.clamp(min=1e-4), torch.zeros_like(down))
    board = (down * z < 1.5) & (down * z > 1.5 - height) & (right.abs() * z < 2)
    road = (down > 0.02) & ~board
    K = torch.tensor([[[F, 0, 80.0 + phase], [0, F, 40.0 + phase], [0, 0, 1]]])
    return torch.where(board, torch.full_like(depth, z), depth)[None, None], K, road[None], board[None].int()


@pytest.mark.parametrize("roll", [0.0, 2.0, -6.0])
def test_extents_across_the_horizon_are_right_under_roll_on_average_over_pixel_phases(roll):
    upright, rows = [], []
    for phase in torch.linspace(0, 0.9, 10).tolist():
        scene = rolled_board(phase, roll)
        for config, out in ((BOX, upright), (replace(BOX, extent="rows"), rows)):
            out.append(measure_frames(*scene, torch.tensor([[1.0]]), config).scale.item())
    assert sum(upright) / 10 == pytest.approx(1, abs=0.015)
    if abs(roll) > 5:
        assert sum(rows) / 10 < 0.75  # a wide object spans more rows when it is rolled


def test_horizon_outliers_by_hand():
    # ratios of object to camera height under a camera of 1.5 m: 1.5, 1.86, 1.15 m and one that ends above the horizon
    ratio = torch.tensor([[1.0, 1.24, 0.7667, torch.inf]])
    heights = torch.full((1, 4), 1.5)
    assert horizon_outliers(ratio, heights, 1.5, 0.2).tolist() == [[False, True, True, True]]
    assert horizon_outliers(ratio, heights, 1.5, 0.25).tolist() == [[False, False, False, True]]


def test_the_horizon_refuses_other_classes_lifted_and_cut_objects():
    boards = [
        (10.0, 1.6, 5, 25, 0.0),
        (10.0, 2.4, 35, 55, 0.0),  # too tall
        (10.0, 1.6, 65, 85, 0.6),  # lifted off the road
        (12.0, 0.5, 95, 105, 2.0),  # above the horizon
        (10.0, 1.0, 115, 135, 0.0),
    ]
    depth, road, ids = level_scene(boards)
    ids[0, 60:][ids[0, 60:] == 5] = 0  # its lower half is hidden
    measured = measure_frames(depth, K, road, ids, torch.tensor([[1.6, 1.6, 1.6, 1.6, 1.0]]), EXACT)
    refused = ObjectStatus.HORIZON
    assert measured.status.tolist() == [[0, 0, 0, refused, 0]]
    status = apply_horizon_test(measured, 1.5, EXACT)
    assert status.tolist() == [[ObjectStatus.USED, refused, refused, refused, refused]]
    assert torch.equal(apply_horizon_test(measured, None, EXACT), measured.status)
    assert torch.equal(apply_horizon_test(measured, 1.5, replace(EXACT, max_height_error=None)), measured.status)


def test_every_object_that_cannot_be_measured_says_why():
    boards = [(10.0, 1.6, 5, 25, 0.0), (40.0, 1.6, 35, 55, 0.0), (10.0, 1.6, 65, 85, 0.0), (3.0, 1.5, 90, 110, 0.0)]
    depth, road, ids = level_scene(boards)
    depth[0, 0][ids[0] == 3] = 0
    heights = torch.tensor([[0.0, 1.6, 1.6, 1.5, 1.6]])
    measured = measure_frames(depth, K, road, ids, heights, FrameConfig(scale_from="box"))
    names = [ObjectStatus(v).name for v in measured.status[0].tolist()]
    assert names == ["NO_PRIOR", "SMALL", "NO_DEPTH", "CUT", "ABSENT"]
    assert measure_frames(depth, K, road, ids, heights).status[0, 2] == ObjectStatus.USED  # needs the road only
    bare = measure_frames(depth, K, torch.zeros_like(road), ids, torch.full((1, 4), 1.6))
    assert [ObjectStatus(v).name for v in bare.status[0].tolist()] == ["NO_ROAD"] * 4
    assert metric_camera_heights(bare, bare.status).isnan().all()


def test_rows_over_focal_length():
    ids = torch.zeros(2, 9, 8, dtype=torch.int32)
    ids[0, 2:7, 1] = 2
    ids[0, 4, 5] = 1
    ids[1, 0, 0] = ids[1, 8, 7] = 1
    got = height_per_depth_in_rows(ids, torch.diag(torch.tensor([9.0, 10.0, 1.0])).expand(2, 3, 3), 2)
    assert got[0].tolist() == pytest.approx([0.1, 0.5]) and got[1, 0] == pytest.approx(0.9) and got[1, 1].isnan()


def test_wrong_input_raises():
    depth, road, ids = level_scene([])
    with pytest.raises(ValueError, match="ids and heights"):
        measure_frames(depth, K, road, ids[:, 1:], torch.zeros(1, 1))
    for wrong in (
        dict(scale_from="length"),
        dict(depth_quantile=1.5),
        dict(max_height_error=0.0),
        dict(foot_share=0.0),
    ):
        with pytest.raises(DepthError, match=next(iter(wrong))):
            FrameConfig(**wrong)
