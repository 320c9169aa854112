"""Mirroring, scale-crops and colour jitter: cameras, poses, masks and boxes stay consistent."""

import colorsys

import pytest
import torch

from som.cameras.geometry import axis_angle_to_se3, invert_se3, pixel_centers, project, unproject, warp
from som.depth.errors import DepthError
from som.depth.learning.data.augmentation import AugmentationConfig, ColorJitter, FlipCrop, turn_hue

H, W = 32, 48
K = torch.tensor([[40.0, 0, 21.3], [0, 44.0, 14.9], [0, 0, 1]], dtype=torch.float64)
T_SRC_TGT = axis_angle_to_se3(
    torch.tensor([0.02, -0.05, 0.03], dtype=torch.float64), torch.tensor([0.2, -0.1, 0.15], dtype=torch.float64)
)
NORMAL, OFFSET = torch.tensor([0.2, 0.3, 1.0], dtype=torch.float64), 4.0
CHANGES = [
    FlipCrop(H, W),
    FlipCrop(H, W, flip=True),
    FlipCrop(H, W, zoomed=(36, 53), corner=(3, 1)),
    FlipCrop(H, W, flip=True, zoomed=(33, 55), corner=(0, 7)),
]


def texture(points):
    """Smooth colours on the plane, (n,3) points to (n,3)."""
    return torch.stack(
        [torch.sin(points @ torch.tensor(f, dtype=points.dtype)) for f in ((3, 1, 0), (0, 2, 1), (1, -2, 0))], -1
    )


def render(T_cam_tgt):
    """Image (3,H,W) and depth (1,H,W) of a textured plane n X = d, fixed in the target camera's frame."""
    xy = pixel_centers(H, W, dtype=torch.float64).reshape(-1, 2)
    T_tgt_cam = invert_se3(T_cam_tgt)
    rays = unproject(xy, torch.ones(len(xy), dtype=torch.float64), K) @ T_tgt_cam[:3, :3].T
    depth = (OFFSET - NORMAL @ T_tgt_cam[:3, 3]) / (rays @ NORMAL)
    points = rays * depth[:, None] + T_tgt_cam[:3, 3]
    return texture(points).T.reshape(3, H, W), depth.reshape(1, H, W)


def residual(change):
    """How far the source, warped by the true depth, is from the target; both changed. (3,H,W) where in view."""
    target, depth = render(torch.eye(4, dtype=torch.float64))
    source, _ = render(T_SRC_TGT)
    target, source, depth = change.image(target), change.image(source), change.image(depth)
    k = change.intrinsics(K)[None]
    warped = warp(source[None], depth[None], k, k, change.pose(T_SRC_TGT)[None])
    return torch.where(warped.in_view, (warped.values - target[None]).abs(), torch.zeros(()))[0], warped.in_view[0, 0]


def test_a_mirrored_pair_warps_exactly_as_the_plain_one():
    plain, seen = residual(CHANGES[0])
    mirrored, seen_mirrored = residual(CHANGES[1])
    assert seen.double().mean() > 0.7 and plain.mean() < 0.005  # bilinear interpolation of a smooth texture
    assert torch.equal(seen.flip(-1), seen_mirrored)
    torch.testing.assert_close(mirrored, plain.flip(-1), atol=1e-12, rtol=0)


def test_forgetting_the_pose_would_show():
    target, depth = render(torch.eye(4, dtype=torch.float64))
    source, _ = render(T_SRC_TGT)
    k = CHANGES[1].intrinsics(K)[None]
    warped = warp(source.flip(-1)[None], depth.flip(-1)[None], k, k, T_SRC_TGT[None])
    wrong = (warped.values[0] - target.flip(-1)).abs()[:, warped.in_view[0, 0]].mean()
    assert wrong > 20 * residual(CHANGES[1])[0].mean()


@pytest.mark.parametrize("change", CHANGES[2:])
def test_a_cropped_pair_still_warps(change):
    plain, _ = residual(CHANGES[0])
    cropped, seen = residual(change)
    assert seen.double().mean() > 0.7
    # nearest depth moves points by a fraction of a pixel, no more
    assert cropped.mean() < plain.mean() + 0.005


@pytest.mark.parametrize("change", CHANGES)
def test_cameras_boxes_and_pictures_agree(change):
    """A pixel's 3D point, mirrored with the world, projects to where the picture shows it and the box lies."""
    points = torch.tensor([[-0.3, 0.1, 3.0], [0.4, -0.2, 2.0]], dtype=torch.float64)
    xy, _ = project(points, K)
    mirrored = points * torch.tensor([-1.0 if change.flip else 1.0, 1, 1], dtype=torch.float64)
    moved, _ = project(mirrored, change.intrinsics(K))
    box = torch.cat([xy - 1.5, xy + 1.5], -1)
    torch.testing.assert_close(change.boxes(box).reshape(2, 2, 2).mean(1), moved)
    # an image of its own x and y coordinates shows the same
    grid = pixel_centers(H, W, dtype=torch.float64).permute(2, 0, 1)
    shown = change.image(grid)
    column, row = moved[0].floor().long().tolist()
    centre = torch.tensor([column + 0.5, row + 0.5], dtype=torch.float64)
    scale = torch.tensor([change.intrinsics(K)[0, 0] / K[0, 0], change.intrinsics(K)[1, 1] / K[1, 1]])
    sign = torch.tensor([-1.0 if change.flip else 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(shown[:, row, column], xy[0] + sign * (centre - moved[0]) / scale)


def test_boxes_keep_left_before_right():
    box = CHANGES[1].boxes(torch.tensor([2.0, 3.0, 10.0, 8.0]))
    assert box.tolist() == [38, 3, 46, 8]


def test_masks_and_labels_move_with_the_picture_and_keep_their_type():
    labels = torch.arange(H * W).reshape(1, H, W)
    assert torch.equal(CHANGES[1].map(labels), labels.flip(-1))
    mask = torch.zeros(2, H, W, dtype=torch.bool)
    mask[:, 8:20, 10:30] = True
    for change in CHANGES[2:]:
        moved = change.map(mask)
        assert moved.dtype == torch.bool and moved.shape == mask.shape
        box = change.boxes(torch.tensor([10.0, 8.0, 30.0, 20.0]))
        rows, columns = torch.nonzero(moved[0], as_tuple=True)
        edges = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (edges - box).abs().max() <= 0.5
    assert CHANGES[3].map(torch.zeros(0, H, W)).shape == (0, H, W)


def test_poses_stay_rigid_and_compose():
    T = CHANGES[1].pose(T_SRC_TGT)
    torch.testing.assert_close(T @ invert_se3(T), torch.eye(4, dtype=torch.float64))
    assert torch.linalg.det(T[:3, :3]) == pytest.approx(1)
    torch.testing.assert_close(CHANGES[1].pose(T_SRC_TGT @ T_SRC_TGT), T @ T)
    assert torch.equal(CHANGES[2].pose(T_SRC_TGT), T_SRC_TGT)


def test_what_is_drawn_stays_in_range_and_varies():
    generator = torch.Generator().manual_seed(0)
    config = AugmentationConfig(flip=0.5, max_zoom=1.15)
    drawn = [FlipCrop.draw(100, 200, config, generator) for _ in range(300)]
    zoomed = torch.tensor([d.zoomed for d in drawn if d.zoomed is not None])
    corners = torch.tensor([d.corner for d in drawn if d.zoomed is not None])
    assert 100 < sum(d.flip for d in drawn) < 200
    assert zoomed[:, 0].min() >= 100 and 112 <= zoomed[:, 0].max() <= 115 and 224 <= zoomed[:, 1].max() <= 230
    assert (corners >= 0).all() and (corners + torch.tensor([100, 200]) <= zoomed).all()
    assert (zoomed[:, 0] * 2 != zoomed[:, 1]).any()  # the axes vary by themselves


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"expected maps of size \(32, 48\)"):
        CHANGES[2].map(torch.zeros(3, 5, 5))


@pytest.mark.parametrize("options", [dict(flip=1.5), dict(max_zoom=0.9), dict(hue=0.6), dict(brightness=-0.1)])
def test_bad_settings_are_refused(options):
    with pytest.raises(DepthError, match="augmentation"):
        AugmentationConfig(**options)


def test_brightness_contrast_and_saturation_by_hand():
    image = torch.tensor([0.2, 0.4, 0.6])[:, None, None].repeat(1, 1, 2)
    image[:, 0, 1] = 0.9
    assert ColorJitter(brightness=1.5)(image)[:, 0, 0].tolist() == pytest.approx([0.3, 0.6, 0.9])
    assert ColorJitter(brightness=1.5)(image)[:, 0, 1].tolist() == [1, 1, 1]
    gray = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    expected = [gray + 0.5 * (c - gray) for c in (0.2, 0.4, 0.6)]
    assert ColorJitter(saturation=0.5)(image)[:, 0, 0].tolist() == pytest.approx(expected)
    mean = (gray + 0.9) / 2
    expected = [mean + 0.8 * (c - mean) for c in (0.2, 0.4, 0.6)]
    assert ColorJitter(contrast=0.8)(image)[:, 0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("turns", [-0.4, -0.07, 0.05, 0.5])
def test_hue_equals_the_standard_librarys(turns):
    colors = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    colors[0], colors[1], colors[2] = 0.5, torch.tensor([1.0, 0, 0]), 0.0
    turned = turn_hue(colors.T[..., None], turns)[..., 0].T
    for before, after in zip(colors.double().tolist(), turned.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value), abs=1e-5)


def test_steps_of_the_jitter_follow_their_order():
    image = torch.rand(3, 4, 4)
    first = ColorJitter(brightness=1.9, contrast=0.5, order=("brightness", "contrast"))(image)
    second = ColorJitter(brightness=1.9, contrast=0.5, order=("contrast", "brightness"))(image)
    assert not torch.allclose(first, second)


def test_jitter_is_drawn_with_its_probability_and_range():
    generator = torch.Generator().manual_seed(0)
    drawn = [ColorJitter.draw(AugmentationConfig(jitter=0.5), generator) for _ in range(300)]
    some = [d for d in drawn if d is not None]
    assert 110 < len(some) < 190
    assert all(0.8 <= f <= 1.2 for d in some for f in (d.brightness, d.contrast, d.saturation))
    assert all(abs(d.hue) <= 0.1 for d in some) and len({d.order for d in some}) == 24
