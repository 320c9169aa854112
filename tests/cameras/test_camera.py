"""``Camera`` against OpenCV and COLMAP, round trips, gradients, other pictures of the same camera, undistortion."""

import cv2
import numpy as np
import pytest
import roma
import torch
from torch.autograd import gradcheck

from som.cameras import Camera
from som.errors import UserError

F64 = torch.float64
LENSES = {
    "pinhole": None,
    "opencv": [-0.2, 0.06, 0.004, -0.003],
    "opencv5": [-0.2, 0.06, 0.004, -0.003, -0.01],
    "opencv8": [0.3, -0.04, 0.004, -0.003, 0.01, 0.5, -0.02, 0.003],
    "opencv12": [0.3, -0.04, 0.004, -0.003, 0.01, 0.5, -0.02, 0.003, 0.01, -0.004, 0.006, 0.002],
    "opencv_fisheye": [0.05, -0.02, 0.01, -0.003],
    "thin_prism_fisheye": [0.05, -0.02, 0.004, -0.003, 0.01, -0.003, 0.002, -0.004],
}


def make(lens, batch=(), dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    w2c = torch.eye(4, dtype=F64).repeat(*batch, 1, 1)
    w2c[..., :3, :3] = roma.rotvec_to_rotmat(0.2 * torch.randn(*batch, 3, generator=generator, dtype=F64))
    w2c[..., :3, 3] = 0.3 * torch.randn(*batch, 3, generator=generator, dtype=F64)
    K = torch.tensor([[210.0, 0, 155], [0, 205, 118], [0, 0, 1]], dtype=F64)
    distortion = None if LENSES[lens] is None else torch.tensor(LENSES[lens], dtype=F64)
    return Camera(K, w2c, 320, 240, lens.rstrip("0123456789"), distortion).to(dtype)


def points_before(camera, n=50, seed=1):
    """World points in view of it."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(*camera.batch_shape, n, 2, generator=generator, dtype=F64) * torch.tensor([320, 240], dtype=F64)
    depth = 1 + 4 * torch.rand(*camera.batch_shape, n, generator=generator, dtype=F64)
    return xy.to(camera.K), depth.to(camera.K)


@pytest.mark.parametrize("lens", LENSES)
def test_projection_is_opencvs(lens):
    camera = make(lens)
    points = camera.unproject(*points_before(camera))
    xy, z = camera.project(points)
    rvec, tvec = cv2.Rodrigues(camera.w2c[:3, :3].numpy())[0], camera.w2c[:3, 3].numpy()
    distortion = None if camera.distortion is None else camera.distortion.numpy()
    if lens == "thin_prism_fisheye":
        pytest.skip("OpenCV does not know it; see the comparison with COLMAP")
    if lens == "opencv_fisheye":
        wanted, _ = cv2.fisheye.projectPoints(points.numpy()[:, None], rvec, tvec, camera.K.numpy(), distortion)
    else:
        wanted, _ = cv2.projectPoints(points.numpy(), rvec, tvec, camera.K.numpy(), distortion)
    np.testing.assert_allclose(xy.numpy(), wanted[:, 0], atol=1e-9)
    np.testing.assert_allclose(z.numpy(), (points.numpy() @ camera.w2c[2, :3].numpy()) + tvec[2], atol=1e-12)


COLMAP = {
    "SIMPLE_PINHOLE": [200, 150, 110],
    "PINHOLE": [200, 210, 150, 110],
    "SIMPLE_RADIAL": [200, 150, 110, -0.1],
    "RADIAL": [200, 150, 110, -0.1, 0.02],
    "OPENCV": [200, 210, 150, 110, -0.1, 0.02, 0.003, -0.002],
    "FULL_OPENCV": [200, 210, 150, 110, 0.3, -0.04, 0.004, -0.003, 0.01, 0.5, -0.02, 0.003],
    "SIMPLE_RADIAL_FISHEYE": [200, 150, 110, 0.05],
    "RADIAL_FISHEYE": [200, 150, 110, 0.05, -0.01],
    "OPENCV_FISHEYE": [200, 210, 150, 110, 0.05, -0.02, 0.01, -0.003],
    "THIN_PRISM_FISHEYE": [200, 210, 150, 110, 0.05, -0.02, 0.004, -0.003, 0.01, -0.003, 0.002, -0.004],
}


@pytest.mark.parametrize("model", COLMAP)
def test_colmaps_models_are_colmaps(model):
    pycolmap = pytest.importorskip("pycolmap")
    camera = Camera.from_colmap(model, COLMAP[model], torch.eye(4, dtype=F64), 300, 220)
    xy, _ = points_before(camera)
    local = camera.unproject_local(xy)
    theirs = pycolmap.Camera(model=model, width=300, height=220, params=COLMAP[model])
    np.testing.assert_allclose(theirs.img_from_cam(local.numpy()), xy.numpy(), atol=1e-8)


def test_colmaps_other_models_are_refused_by_name():
    with pytest.raises(UserError, match="FOV"):
        Camera.from_colmap("FOV", [1, 1, 1, 1, 1], torch.eye(4), 4, 4)


@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-10), (torch.float32, 2e-3)])
@pytest.mark.parametrize("lens", LENSES)
def test_unprojection_inverts_projection_in_batches(lens, dtype, tolerance):
    camera = make(lens, (2, 3), dtype)
    xy, depth = points_before(camera)
    points = camera.unproject(xy, depth)
    back, z = camera.project(points)
    assert points.dtype == dtype and points.shape == (2, 3, 50, 3)
    torch.testing.assert_close(back, xy, atol=tolerance, rtol=0)
    torch.testing.assert_close(z, depth, atol=tolerance, rtol=0)
    torch.testing.assert_close(points[1, 2], camera[1, 2].unproject(xy[1, 2], depth[1, 2]))


@pytest.mark.parametrize("lens", LENSES)
def test_gradients(lens):
    camera = make(lens)
    xy, depth = points_before(camera, 2)
    points = camera.unproject(xy, depth)
    c = torch.zeros(0, dtype=F64) if camera.distortion is None else camera.distortion

    def build(K, w2c, c):
        return Camera(K, w2c, 320, 240, camera.model, c if len(c) else None)

    free = [t.clone().requires_grad_(t.numel() > 0) for t in (camera.K, camera.w2c, c)]
    assert gradcheck(
        lambda p, *own: build(*own).project(p)[0], (points.requires_grad_(), *free), atol=1e-5, fast_mode=True
    )
    assert gradcheck(
        lambda xy, d, *own: build(*own).unproject(xy, d),
        (xy.requires_grad_(), depth.requires_grad_(), *free),
        atol=1e-5,
        fast_mode=True,
    )


@pytest.mark.parametrize("lens", ["opencv_fisheye", "thin_prism_fisheye"])
def test_the_optical_axis_of_a_fisheye_is_nothing_special(lens):
    camera = make(lens)
    centre = camera.K[:2, 2][None].clone().requires_grad_()
    point = camera.unproject(centre, torch.ones(1, dtype=F64))
    xy, _ = camera.project(point)
    torch.testing.assert_close(xy, centre)
    assert gradcheck(lambda p: camera.project(p)[0], (point.detach().requires_grad_(),), atol=1e-4)
    (gradient,) = torch.autograd.grad(point.sum(), centre)
    assert gradient.isfinite().all()


def test_a_fisheye_sees_beside_itself():
    K, eye = torch.tensor([[100.0, 0, 200], [0, 100, 200], [0, 0, 1]], dtype=F64), torch.eye(4, dtype=F64)
    camera = Camera(K, eye, 400, 400, "opencv_fisheye", torch.zeros(4, dtype=F64))
    xy, _ = camera.project(torch.tensor([[1.0, 0, 0], [1, 0, -1e-3]], dtype=F64))
    torch.testing.assert_close(xy[:, 0], 200 + 100 * torch.tensor([torch.pi / 2, torch.pi / 2 + 1e-3], dtype=F64))
    _, direction = camera.rays(xy)
    torch.testing.assert_close(direction[0], torch.tensor([1.0, 0, 0], dtype=F64))


def test_pixels_that_no_ray_reaches_are_nan():
    camera = Camera.from_colmap("SIMPLE_RADIAL", (100.0, 100.0, 100.0, -0.5), torch.eye(4, dtype=F64), 200, 200)
    points = camera.unproject(torch.tensor([[101.0, 100], [199, 199]], dtype=F64), torch.ones(2, dtype=F64))
    assert points[0].isfinite().all() and points[1].isnan().all()


@pytest.mark.parametrize("lens", LENSES)
def test_rays_point_at_what_pixels_see(lens):
    camera = make(lens, (2,))
    origins, directions = camera.rays()
    assert origins.shape == directions.shape == (2, 240, 320, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 240, 320, dtype=F64))
    xy, _ = camera.project(origins[:, 7, 40:42] + 3 * directions[:, 7, 40:42])
    torch.testing.assert_close(xy, torch.tensor([[40.5, 7.5], [41.5, 7.5]], dtype=F64).expand(2, 2, 2))
    torch.testing.assert_close(origins[:, 0, 0], camera.centers)


@pytest.mark.parametrize("lens", LENSES)
def test_resizing_cropping_and_mirroring_move_pixels_as_they_move_pictures(lens):
    camera = make(lens, (2,))
    xy, depth = points_before(camera)
    points = camera.unproject(xy, depth)
    torch.testing.assert_close(camera.resized(160, 60).project(points)[0], xy * torch.tensor([0.5, 0.25], dtype=F64))
    window = camera.cropped(10, -5, 100, 90)
    torch.testing.assert_close(window.project(points)[0], xy - torch.tensor([10.0, -5], dtype=F64))
    assert (window.width, window.height) == (100, 90)
    mirrored = camera.flipped()
    seen, z = mirrored.project(points * torch.tensor([-1.0, 1, 1], dtype=F64))
    torch.testing.assert_close(seen, torch.stack([320 - xy[..., 0], xy[..., 1]], -1))
    torch.testing.assert_close(z, depth)
    torch.testing.assert_close(mirrored.flipped().w2c, camera.w2c)


def test_as_a_batch():
    camera = make("opencv", (3,))
    assert len(camera) == 3 and camera[1:].batch_shape == (2,) and camera[1].batch_shape == ()
    torch.testing.assert_close(Camera.stack(list(camera)).w2c, camera.w2c)
    torch.testing.assert_close(camera[torch.tensor([2, 0])].distortion, camera.distortion[[2, 0]])
    single = camera[0].to(torch.float32)
    assert single.K.dtype == single.distortion.dtype == torch.float32
    assert len(single[None]) == 1
    for wrong in (len, lambda c: c[0]):
        with pytest.raises(TypeError, match="single camera"):
            wrong(single)
    torch.testing.assert_close(camera.c2w @ camera.w2c, torch.eye(4, dtype=F64).expand(3, 4, 4))


K3, EYE = torch.eye(3), torch.eye(4)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((torch.eye(4), EYE, 4, 4), "K must be a"),
        ((K3, torch.eye(3), 4, 4), "w2c must be a"),
        ((K3.int(), EYE, 4, 4), "int32"),
        ((K3.double(), EYE, 4, 4), "one type and device"),
        ((K3.repeat(2, 1, 1), EYE.repeat(3, 1, 1), 4, 4), "leading dimensions"),
        ((K3, EYE, 0, 4), "positive size"),
        ((K3, EYE, 4, 4, "fisheye"), "Unknown camera model 'fisheye'"),
        ((K3, EYE, 4, 4, "opencv"), "4 or 5 or 8 or 12"),
        ((K3, EYE, 4, 4, "opencv_fisheye", torch.zeros(5)), r"4\) distortion coefficients; got \(5,\)"),
        ((K3, EYE, 4, 4, "pinhole", torch.zeros(4)), "no distortion"),
    ],
)
def test_wrong_cameras_are_refused_in_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        Camera(*arguments)


def test_wrong_points_and_batches_are_refused():
    camera = Camera.from_fov(60, 40, 30)
    for call in (lambda: camera.project(torch.zeros(3)), lambda: camera.rays(torch.zeros(5, 3))):
        with pytest.raises(UserError, match=r"of shape \(...,N,"):
            call()
    with pytest.raises(UserError, match="40x30"):
        Camera.stack([camera, camera.resized(20, 15)])
    with pytest.raises(UserError, match="no camera"):
        Camera.stack([])
    with pytest.raises(UserError, match="180"):
        Camera.from_fov(180, 40, 30)


# -- undistortion ---------------------------------------------------------------------------------------


def smooth_picture(xy):
    x, y = xy[..., 0] / 320, xy[..., 1] / 240
    return torch.stack([0.5 + 0.5 * (9 * x).sin() * (7 * y).cos(), x, y], -1)


@pytest.mark.parametrize("lens", [name for name in LENSES if name != "pinhole"])
def test_undistorted_pictures_show_every_point_where_the_pinhole_projects_it(lens):
    """A plane in front of the camera, painted by the place that it is seen at."""
    camera = make(lens)
    pinhole = camera.undistorted()
    assert camera.is_distorted and not pinhole.is_distorted and pinhole.model == "pinhole"
    assert (pinhole.width, pinhole.height) == (320, 240)
    painted = smooth_picture(pinhole.project(camera.unproject(camera.pixels(), torch.ones(1, dtype=F64)))[0])
    image, valid = camera.undistort(painted.unflatten(0, (240, 320)))
    wanted = smooth_picture(pinhole.pixels()).unflatten(0, (240, 320))
    assert valid.float().mean() > 0.6 and not image[~valid].any()
    inner = torch.nn.functional.max_pool2d((~valid)[None].double(), 3, 1, 1)[0] == 0
    assert (image - wanted)[inner].abs().max() < 2e-3


@pytest.mark.parametrize("lens", [name for name in LENSES if name != "pinhole"])
def test_every_pixel_stays_or_no_border_is_empty(lens):
    camera = make(lens)
    xy = camera.pixels()
    seen, _ = camera.undistorted(max_zoom=4.0).project(camera.unproject(xy, torch.ones(1, dtype=F64)))
    assert (seen >= -1e-6).all() and (seen <= torch.tensor([320, 240]) + 1e-6).all()
    full = camera.undistorted(blank=0.0)
    assert camera.undistortion(full).reached.float().mean() > 0.995
    assert full.K[0, 0] > camera.undistorted().K[0, 0]
    torch.testing.assert_close(full.K[0, 0] / full.K[1, 1], camera.K[0, 0] / camera.K[1, 1])


def test_masks_and_depth_keep_their_values():
    camera = make("opencv", (2,))
    mask = torch.zeros(2, 240, 320, dtype=torch.bool)
    mask[:, 60:180, 80:240] = True
    depth = torch.where(mask, 2.0, 5.0)
    depth[:, :20] = 0.0
    undistortion = camera.undistortion()
    moved, seen = undistortion(mask, "mask")
    z, known = undistortion(depth, "depth")
    assert moved.dtype == torch.bool and z.dtype == torch.float32 and moved.shape == z.shape == (2, 240, 320)
    assert set(z.unique().tolist()) == {0.0, 2.0, 5.0} and (z[known] > 0).all() and not z[~known].any()
    torch.testing.assert_close(z[moved], torch.full_like(z[moved], 2.0))
    assert known.sum() < seen.sum()
    grey = torch.full((2, 240, 320), 200, dtype=torch.uint8)
    image, valid = undistortion(grey)
    assert image.dtype == torch.uint8 and (image[valid] == 200).all() and not image[~valid].any()


def test_directions_beyond_the_fold_of_a_polynomial_are_not_valid():
    camera = Camera.from_colmap("SIMPLE_RADIAL", (100.0, 80.0, 60.0, -0.3), torch.eye(4, dtype=F64), 160, 120)
    wide = Camera(camera.K * torch.tensor([[0.2, 0.2, 1]]).T.double(), camera.w2c, 160, 120)
    wide = wide.cropped(-64, -48, 160, 120)
    undistortion = camera.undistortion(wide)
    direction = wide.unproject_local(wide.pixels())[:, :2].norm(dim=-1)
    fold = (1 / 0.9) ** 0.5  # where r - 0.3 r³ turns back
    assert not undistortion.reached[direction > fold + 0.02].any()
    assert undistortion.reached[direction < 0.5].all()


def test_what_cannot_be_undistorted_is_said():
    camera = make("opencv")
    with pytest.raises(UserError, match="pinhole only"):
        camera.undistortion(camera)
    with pytest.raises(UserError, match="same place"):
        camera.undistortion(make("pinhole", seed=5))
    with pytest.raises(UserError, match=r"\(240, 320\), with or without channels; got \(3, 240, 320\)"):
        camera.undistort(torch.zeros(3, 240, 320))
    with pytest.raises(UserError, match="image, mask or depth"):
        camera.undistort(torch.zeros(240, 320), "flow")
    straight = make("pinhole")
    assert straight.undistorted().K is not None and not straight.is_distorted
    none = Camera(straight.K, straight.w2c, 320, 240, "opencv", torch.zeros(4, dtype=F64))
    assert not none.is_distorted
    torch.testing.assert_close(none.undistorted().K, straight.K)
