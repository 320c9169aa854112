"""Which pixels several views confirm, the cloud of those, and its file."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from som.cameras.geometry import pixel_centers
from som.depth.errors import DepthError
from som.depth.fusion import FusionOptions, PointCloud, check_views, fuse_points, read_ply, write_ply
from som.depth.fusion.cloud import _merged

T, H, W = 6, 48, 64
LOOSE = FusionOptions(voxel=0.0, neighbors=0)


def plane_views(h=H, w=W, count=T, slope=0.1, gap=0.1):
    """Cameras side by side that look at the plane z = 3 + slope x of the world; its exact depth."""
    K = torch.tensor([[60.0 * w / W, 0, w / 2], [0, 60.0 * h / H, h / 2], [0, 0, 1]])
    x = (torch.arange(count) - (count - 1) / 2) * gap
    w2cs = torch.eye(4).repeat(count, 1, 1)
    w2cs[:, 0, 3] = -x
    rays = (pixel_centers(h, w)[..., 0] - w / 2) / K[0, 0]
    depths = (3 + slope * x[:, None, None]) / (1 - slope * rays)
    return depths.expand(count, h, w).clone(), K.repeat(count, 1, 1), w2cs


def gradient_images(h=H, w=W, count=T):
    """Red is the world's x, green its y (on a plane at 3), as far as that stays in [0, 1]."""
    _, K, w2cs = plane_views(h, w, count, slope=0.0)
    xy = pixel_centers(h, w)
    red = ((xy[..., 0] - w / 2) / K[0, 0, 0] * 3 - w2cs[:, 0, 3, None, None]) * 0.2 + 0.5
    green = ((xy[..., 1] - h / 2) / K[0, 1, 1] * 3 * 0.2 + 0.5).expand_as(red)
    return torch.stack([red, green, torch.full_like(red, 0.25)], dim=1)


@pytest.fixture(scope="module")
def views():
    return plane_views()


def inside(mask, border=5):
    return mask[:, border:-border, border:-border]


def test_consistent_depth_is_kept_except_at_the_border(views):
    check = check_views(*views)
    assert inside(check.keep).float().mean() > 0.95
    border = check.keep.clone()
    border[:, 5:-5, 5:-5] = False
    assert not border.any()
    assert check.views.max() <= T - 1
    kept = check.keep
    assert (check.confidence[~kept] == 0).all() and (check.confidence[kept] >= 2 / (T - 1) - 1e-6).all()


def test_one_wrong_view_is_not_confirmed_and_does_not_spoil_the_others(views):
    depths, Ks, w2cs = views
    depths = depths.clone()
    depths[2] *= 1.05
    check = check_views(depths, Ks, w2cs)
    assert not check.keep[2].any()
    others = [0, 1, 3, 4, 5]
    assert inside(check.keep)[others].float().mean() > 0.95
    assert check.views[0].max() <= T - 2


def test_the_number_of_views_that_must_agree_is_obeyed(views):
    depths, Ks, w2cs = (v.clone() for v in views)
    depths[:3] *= 1.05  # two camps of three: each has two others
    for wanted, share in ((2, 1.0), (3, 0.0)):
        keep = check_views(depths, Ks, w2cs, FusionOptions(min_views=wanted)).keep
        assert inside(keep)[:, :, 12:-12].float().mean() == pytest.approx(share, abs=0.05)


def test_tolerances_are_relative_depth_and_pixels(views):
    depths, Ks, w2cs = (v.clone() for v in views)
    depths[3] *= 1.004
    for error, kept in ((0.01, True), (0.002, False)):
        keep = check_views(depths, Ks, w2cs, FusionOptions(max_depth_error=error)).keep
        assert inside(keep)[3].float().mean() == pytest.approx(float(kept), abs=0.05)
    depths[3] *= 1.05
    wide, narrow = (FusionOptions(max_depth_error=0.5, max_reprojection=p) for p in (20.0, 0.02))
    assert inside(check_views(depths, Ks, w2cs, wide).keep)[3].float().mean() > 0.9
    assert inside(check_views(depths, Ks, w2cs, narrow).keep)[3].float().mean() < 0.1


def test_depth_edges_and_range_ends_are_dropped(views):
    depths, Ks, w2cs = (v.clone() for v in views)
    depths[:, 20:30, 20:40] = 2.0  # not consistent, but min_views=0 asks nobody
    options = FusionOptions(min_views=0, border=0)
    keep = check_views(depths, Ks, w2cs, options).keep
    assert not keep[:, 20, 20:40].any() and not keep[:, 19, 20:40].any() and not keep[:, 22:28, 40].any()
    assert keep[:, 21:29, 21:39].all() and keep[:, :19].all()
    assert not check_views(depths, Ks, w2cs, replace(options, near=2.0)).keep[:, 20:30, 20:40].any()
    assert not check_views(depths, Ks, w2cs, replace(options, far=2.5)).keep[:, :19].any()


def test_unknown_depth_is_neither_kept_nor_a_witness(views):
    depths, Ks, w2cs = (v.clone() for v in views)
    depths[1:] = 0
    check = check_views(depths, Ks, w2cs)
    assert not check.keep.any() and check.views.max() == 0
    assert not check_views(torch.zeros_like(depths), Ks, w2cs).keep.any()


def test_points_lie_on_the_surface_and_carry_its_colours():
    depths, Ks, w2cs = plane_views(slope=0.0)
    cloud = fuse_points(depths, gradient_images(), Ks, w2cs, LOOSE)
    assert len(cloud) > 0.5 * depths.numel()
    np.testing.assert_allclose(cloud.points[:, 2], 3, atol=1e-4)
    np.testing.assert_allclose(cloud.colors[:, 0], cloud.points[:, 0] * 0.2 + 0.5, atol=2e-3)
    np.testing.assert_allclose(cloud.colors[:, 1], cloud.points[:, 1] * 0.2 + 0.5, atol=2e-3)
    assert cloud.views.min() >= 2 and 0 < cloud.confidence.min() <= cloud.confidence.max() <= 1
    assert cloud.points.dtype == cloud.colors.dtype == cloud.confidence.dtype == np.float32


def test_the_world_frame_is_that_of_the_poses(views):
    depths, Ks, w2cs = views
    M = torch.eye(4, dtype=torch.float64)
    M[:3, :3] = torch.linalg.matrix_exp(
        torch.tensor([[0, -0.4, 0.5], [0.4, 0, 0.2], [-0.5, -0.2, 0]], dtype=torch.float64)
    )
    M[:3, 3] = torch.tensor([3.0, -2, 1])
    here = fuse_points(depths, gradient_images(), Ks, w2cs, LOOSE)
    there = fuse_points(depths, gradient_images(), Ks, w2cs.double() @ M, LOOSE)
    assert len(there) == pytest.approx(len(here), rel=0.01)
    back = there.points @ M[:3, :3].numpy().T + M[:3, 3].numpy()
    np.testing.assert_allclose(back[:, 2], 3 + 0.1 * back[:, 0], atol=1e-3)


def test_half_size_depth_gives_the_same_cloud():
    """K belongs to the images and follows the depth maps, whatever their size."""
    images = gradient_images()
    full, Ks, w2cs = plane_views()
    for h, w in ((H // 2, W // 2), (H // 2, W), (H * 2, W * 2)):
        depths, _, _ = plane_views(h, w)
        cloud = fuse_points(depths, images, Ks, w2cs, replace(LOOSE, border=0))
        np.testing.assert_allclose(cloud.points[:, 2], 3 + 0.1 * cloud.points[:, 0], atol=1e-3)
        whole = fuse_points(full, images, Ks, w2cs, replace(LOOSE, border=0))
        for k in range(2):
            for q in (0.02, 0.5, 0.98):
                assert np.quantile(cloud.points[:, k], q) == pytest.approx(np.quantile(whole.points[:, k], q), abs=0.07)
        np.testing.assert_allclose(cloud.colors[:, 1], cloud.points[:, 1] * 0.2 + 0.5, atol=0.03)
        check = check_views(depths, Ks, w2cs, size=(H, W))
        assert inside(check.keep).float().mean() > 0.9
    with pytest.raises(DepthError, match="does not fit"):
        check_views(plane_views(H // 4, W // 4)[0], Ks, w2cs)  # K said to be in pixels of the depth maps


def test_averaging_reduces_noise(views):
    depths, Ks, w2cs = views
    noisy = depths * (1 + 0.002 * torch.randn(depths.shape, generator=torch.Generator().manual_seed(0)))
    errors = []
    for average in (False, True):
        cloud = fuse_points(noisy, gradient_images(), Ks, w2cs, replace(LOOSE, average=average))
        errors.append(np.std(cloud.points[:, 2] - 3 - 0.1 * cloud.points[:, 0]))
    assert errors[1] < 0.6 * errors[0]


def test_points_are_merged_in_voxels():
    points = np.array([[0.1, 0.1, 0.1], [0.3, 0.1, 0.1], [-0.1, 0.1, 0.1], [5.0, 5, 5]])
    colors = np.array([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [0.2, 0.3, 0.4]])
    merged = _merged([points, colors, np.array([0.2, 0.4, 0.6, 1.0]), np.array([2, 5, 3, 4])], 0.5)
    order = np.argsort(merged[0][:, 0])
    np.testing.assert_allclose(merged[0][order], [[-0.1, 0.1, 0.1], [0.2, 0.1, 0.1], [5, 5, 5]])
    np.testing.assert_allclose(merged[1][order][1], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(merged[2][order], [0.6, 0.3, 1.0])
    assert merged[3][order].tolist() == [3, 5, 4]


def test_views_of_one_surface_merge_into_one_layer(views):
    images = gradient_images()
    depths, Ks, w2cs = views
    every, merged = (fuse_points(depths, images, Ks, w2cs, FusionOptions(voxel=v, neighbors=0)) for v in (0.0, None))
    assert len(merged) < 0.5 * len(every)
    np.testing.assert_allclose(merged.points[:, 2], 3 + 0.1 * merged.points[:, 0], atol=1e-3)


def test_lone_points_are_removed(views):
    depths, Ks, w2cs = (v.clone() for v in views)
    depths[:, :, :20] = 0
    depths[:, 20:25, 5:10] = 0.9  # a clump near the cameras that only min_views=0 lets through
    options = FusionOptions(voxel=0.0, min_views=0, border=0, neighbors=0)
    with_clump = fuse_points(depths, gradient_images(), Ks, w2cs, options)
    assert (with_clump.points[:, 2] < 1).sum() > 20
    lone = depths.clone()
    lone[:, 20:25, 5:10] = 0
    lone[0, 22, 7] = 0.9
    cleaned = fuse_points(lone, gradient_images(), Ks, w2cs, replace(options, neighbors=16))
    assert (cleaned.points[:, 2] < 1).sum() == 0
    assert len(cleaned) > 0.9 * (lone > 0).sum()


def test_nothing_confirmed_is_an_empty_cloud(views, tmp_path):
    depths, Ks, w2cs = views
    cloud = fuse_points(torch.zeros_like(depths), gradient_images(), Ks, w2cs)
    assert len(cloud) == 0 and cloud.points.shape == (0, 3)
    write_ply(tmp_path / "empty.ply", cloud)
    assert len(read_ply(tmp_path / "empty.ply")) == 0


def test_bad_input_is_named(views):
    depths, Ks, w2cs = views
    images = gradient_images()
    with pytest.raises(DepthError, match="at least two"):
        check_views(depths[:1], Ks[:1], w2cs[:1])
    with pytest.raises(DepthError, match="must not be negative"):
        check_views(-depths, Ks, w2cs)
    with pytest.raises(DepthError, match="images must be of shape"):
        fuse_points(depths, images[:3], Ks, w2cs)
    with pytest.raises(DepthError, match="depths must be finite"):
        check_views(depths * torch.nan, Ks, w2cs)
    with pytest.raises(DepthError, match="enough parallax"):
        check_views(depths, Ks, w2cs[[0]].repeat(T, 1, 1))
    with pytest.raises(DepthError, match="voxel"):
        FusionOptions(voxel=-1.0)


def a_cloud(count=7):
    g = np.random.default_rng(0)
    parts = [g.random((count, 3), np.float32) * 10 - 5, np.round(g.random((count, 3)) * 255).astype(np.float32) / 255]
    return PointCloud(*parts, g.random(count, np.float32), g.integers(0, 9, count).astype(np.int32))


def test_ply_comes_back_as_it_went(tmp_path):
    cloud = a_cloud()
    write_ply(tmp_path / "deep" / "cloud.ply", cloud)
    back = read_ply(tmp_path / "deep" / "cloud.ply")
    for name in ("points", "confidence", "views"):
        assert np.array_equal(getattr(back, name), getattr(cloud, name))
    np.testing.assert_allclose(back.colors, cloud.colors, atol=1e-6)
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["cloud.ply"]


def test_ply_has_the_bytes_that_viewers_expect(tmp_path):
    point, color = np.array([[1, 2, 3]], np.float32), np.array([[1, 0.5, 0]], np.float32)
    cloud = PointCloud(point, color, np.array([0.5]), np.array([4]))
    write_ply(tmp_path / "one.ply", cloud)
    header, body = (tmp_path / "one.ply").read_bytes().split(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 1"]
    assert lines[3:9] == [
        f"property {t}" for t in "float x,float y,float z,uchar red,uchar green,uchar blue".split(",")
    ]
    assert body[:15] == np.array([1, 2, 3], "<f4").tobytes() + bytes([255, 128, 0])


def test_ply_of_other_programs_is_read(tmp_path):
    header = "ply\nformat binary_little_endian 1.0\ncomment x\nelement vertex 2\nproperty double x\nproperty double y\n"
    header += (
        "property double z\nproperty short label\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.array([(1, 2, 3, 7), (4, 5, 6, 8)], [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("label", "<i2")])
    (tmp_path / "other.ply").write_bytes(header.encode() + rows.tobytes())
    cloud = read_ply(tmp_path / "other.ply")
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]] and (cloud.colors == 0.5).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not a PLY file"),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n", "only 'format binary_little_endian"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\nend_header\n", "with x, y and z"),
        (b"ply\nformat binary_little_endian 1.0\nelement face 0\nend_header\n", "first element must be 'vertex'"),
        (
            b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"
            b"property float z\nend_header\n123",
            "ends before its 2 vertices",
        ),
        (None, "no such file"),
    ],
)
def test_unreadable_ply_says_why(tmp_path, data, message):
    path = tmp_path / "cloud.ply"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DepthError, match=message):
        read_ply(path)


def test_only_as_many_views_are_asked_as_wanted():
    """Of a long path with small steps, views aside of the target are picked."""
    depths, Ks, w2cs = plane_views(count=12, gap=0.03)
    check = check_views(depths, Ks, w2cs, FusionOptions(num_views=4))
    assert inside(check.keep).float().mean() > 0.95
    assert check.views.max() <= 4 and math.isclose(float(check.confidence.max()), 1.0)
