"""SC-SfMLearner's pair terms."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from som.cameras.geometry import axis_angle_to_se3, invert_se3
from som.depth.learning.losses.consistency import depth_disagreement, pair_loss, pair_terms
from som.depth.learning.losses.photometric import dssim, identity_errors, reprojection_loss

F64 = torch.float64


def wall(shift, z, height=12, width=20):
    """Image and depth of a textured wall, the camera ``shift`` to the right and at distance z; focal length 16."""
    y, x = torch.meshgrid(torch.arange(height, dtype=F64), torch.arange(width, dtype=F64), indexing="ij")
    x, y = (x + 0.5 - width / 2) * z / 4 + 4 * shift, (y + 0.5 - height / 2) * z / 4
    waves = [torch.sin(0.9 * x + 0.3 * y), torch.sin(0.5 * x - 0.7 * y), torch.cos(1.1 * x + 0.2 * y)]
    return 0.5 + 0.4 * torch.stack(waves)[None], torch.full((1, 1, height, width), float(z), dtype=F64)


def pair(shift=0.25, approach=0.0):
    """Two views of a wall at z = 4: the second camera stands to the right and closer. In the order of pair_loss."""
    (image_a, depth_a), (image_b, depth_b) = wall(0.0, 4.0), wall(shift, 4.0 - approach)
    K = torch.tensor([[[16.0, 0, 10], [0, 16, 6], [0, 0, 1]]], dtype=F64)
    T = torch.eye(4, dtype=F64)[None].clone()
    T[:, 0, 3], T[:, 2, 3] = -shift, -approach
    return dict(
        image_a=image_a, image_b=image_b, depth_a=depth_a, depth_b=depth_b, K_a=K, K_b=K, T_b_a=T, T_a_b=invert_se3(T)
    )


def one_way(views):
    return {k: v for k, v in views.items() if k != "T_a_b"}


def test_true_depth_and_pose_cost_nothing():
    for views in (pair(), pair(0.0, 0.5)):
        loss = pair_loss(**views, auto_mask=False)
        assert loss.geometry < 1e-9
        assert loss.photometric < 0.04  # interpolation, and the border
    inner = torch.zeros(1, 1, 12, 20)
    inner[..., 2:-2] = 1
    exact = pair_loss(**pair(), valid_a=inner, valid_b=inner)  # a shift by whole pixels, windows all in view
    assert exact.photometric < 1e-9


def test_disagreement_by_hand():
    a, b = torch.tensor([[[[1.0, 3.0, 5.0]]]]), torch.tensor([[[[3.0, 1.0, 5.0]]]])
    assert depth_disagreement(a, b).flatten().tolist() == [0.5, 0.5, 0]
    assert torch.equal(depth_disagreement(7 * a, 7 * b), depth_disagreement(a, b))
    with pytest.raises(ValueError, match="shape"):
        depth_disagreement(a, b[..., :2])


def test_terms_by_hand():
    g = torch.Generator().manual_seed(0)
    image_a, image_b = torch.rand(2, 1, 3, 6, 8, generator=g, dtype=F64)
    depth_a, depth_b = 2 + torch.rand(2, 1, 1, 6, 8, generator=g, dtype=F64)
    K = torch.tensor([[[8.0, 0, 4], [0, 8, 3], [0, 0, 1]]], dtype=F64)
    T = torch.eye(4, dtype=F64)[None]
    terms = pair_terms(image_a, image_b, depth_a, depth_b, K, K, T, auto_mask=False)
    diff = (depth_a - depth_b).abs() / (depth_a + depth_b)
    photo = 0.85 * dssim(image_a, image_b) + 0.15 * (image_a - image_b).abs()
    assert terms.geometry == pytest.approx(diff.mean().item())
    assert terms.photometric == pytest.approx(((1 - diff) * photo).mean().item())
    torch.testing.assert_close(terms.mask, 1 - diff)
    plain = pair_terms(image_a, image_b, depth_a, depth_b, K, K, T, auto_mask=False, discover_mask=False)
    assert plain.photometric == pytest.approx(photo.mean().item())
    # no motion: no pixel is better warped than unwarped
    still = pair_terms(image_a, image_b, depth_a, depth_b, K, K, T)
    assert not still.valid.any() and still.photometric == 0 and still.geometry == 0


def test_the_common_scale_of_depths_and_translation_does_not_matter():
    views = pair(0.3, 0.4)
    views["depth_a"] = views["depth_a"] * 1.1
    before = pair_loss(**views)
    for key in ("depth_a", "depth_b"):
        views[key] = views[key] * 3
    for key in ("T_b_a", "T_a_b"):
        views[key] = views[key].clone()
        views[key][:, :3, 3] *= 3
    after = pair_loss(**views)
    assert after.geometry == pytest.approx(before.geometry.item())
    assert after.photometric == pytest.approx(before.photometric.item())


def test_both_directions_are_summed():
    views = pair(0.3, 0.4)
    views["depth_a"] = views["depth_a"] * 1.1
    forward = pair_terms(**one_way(views))
    backward = pair_terms(
        views["image_b"],
        views["image_a"],
        views["depth_b"],
        views["depth_a"],
        views["K_b"],
        views["K_a"],
        views["T_a_b"],
    )
    loss = pair_loss(**views)
    assert loss.geometry == pytest.approx((forward.geometry + backward.geometry).item())
    assert loss.photometric == pytest.approx((forward.photometric + backward.photometric).item())
    assert forward.geometry != backward.geometry


def test_something_that_moved_is_discovered_by_the_mask():
    views = pair()
    views["depth_b"][..., 3:9, 8:14] = 2.0  # something came before the wall in b
    terms = pair_terms(**one_way(views), auto_mask=False)
    assert terms.mask[..., 4:8, 10:14].max() == pytest.approx(1 - 1 / 3)  # |4 - 2| / 6; b is shifted by one pixel
    assert terms.mask[..., :2, :].min() == 1


def test_auto_mask_leaves_out_what_the_warp_does_not_improve():
    views = pair()
    views["image_b"][..., :5] = views["image_a"][..., :5]  # moves with the camera
    masked = pair_terms(**one_way(views))
    assert not masked.valid[..., :5].any()
    assert masked.valid[..., 6:].all()
    assert masked.photometric < 0.02 < 0.05 < pair_terms(**one_way(views), auto_mask=False).photometric


def test_the_smallest_share_of_valid_pixels():
    views = one_way(pair())
    views["depth_a"].requires_grad_()
    valid = torch.zeros(1, 1, 12, 20)
    valid[0, 0, 2, 5:7] = 1
    views["depth_b"] = views["depth_b"] * 1.2
    few = pair_terms(**views, valid_a=valid, auto_mask=False)  # 2 of 240
    assert few.photometric == 0 and few.geometry == 0
    (grad,) = torch.autograd.grad(few.photometric + few.geometry, views["depth_a"])
    assert (grad == 0).all()
    valid[0, 0, 2, 7] = 1
    assert pair_terms(**views, valid_a=valid, auto_mask=False).geometry.item() == pytest.approx(0.8 / 8.8)
    assert pair_terms(**views, valid_a=valid, auto_mask=False, min_share=0.02).geometry == 0


def test_nothing_valid_is_a_differentiable_zero():
    views = pair()
    views["depth_a"].requires_grad_()
    none = torch.zeros(1, 1, 12, 20, dtype=torch.bool)
    loss = pair_loss(**views, valid_a=none, valid_b=none, min_share=0.0)
    assert loss.photometric == 0 and loss.geometry == 0
    (loss.photometric + loss.geometry).backward()
    assert (views["depth_a"].grad == 0).all()


def test_constant_images_have_finite_gradients():
    views = pair()
    views["image_a"] = views["image_b"] = torch.full_like(views["image_a"], 0.4)
    views["depth_a"].requires_grad_()
    views["depth_b"].requires_grad_()
    loss = pair_loss(**views, auto_mask=False)
    (loss.photometric + loss.geometry).backward()
    assert loss.photometric < 1e-9
    assert views["depth_a"].grad.isfinite().all() and views["depth_b"].grad.isfinite().all()


def drift(detach_mask, steps=60):
    """Fits the scale of one view's depths to images that never match, and returns L_p and L_g along the way."""
    views = one_way(pair())
    g = torch.Generator().manual_seed(0)
    views["image_a"] = torch.rand(views["image_a"].shape, generator=g, dtype=F64)
    depth_b, log_scale = views.pop("depth_b"), torch.tensor(0.1, dtype=F64, requires_grad=True)
    optimizer = torch.optim.Adam([log_scale], lr=0.05)
    record = []
    for _ in range(steps):
        terms = pair_terms(**views, depth_b=depth_b * log_scale.exp(), auto_mask=False, detach_mask=detach_mask)
        record.append((terms.photometric.item(), terms.geometry.item()))
        optimizer.zero_grad()
        (terms.photometric + 0.1 * terms.geometry).backward()
        optimizer.step()
    return record


def test_the_mask_cannot_be_gamed():
    """Disagreeing depths lower the masked error; with gradients through the mask they are driven apart."""
    (photo, geometry), (photo_end, geometry_end) = (drift(detach_mask=False)[k] for k in (0, -1))
    assert photo_end < 0.4 * photo and geometry_end > 0.6 > 0.1 > geometry
    geometries = [geometry for _, geometry in drift(detach_mask=True)]
    assert max(geometries) <= geometries[0] + 1e-9
    assert geometries[-1] < 0.02


def test_the_default_mask_has_no_gradient():
    views = one_way(pair())
    views["image_a"] = views["image_a"].flip(-1)
    depth_b = (views.pop("depth_b") * 1.3).requires_grad_()  # enters the photometric term through the mask alone
    terms = pair_terms(**views, depth_b=depth_b, auto_mask=False)
    (slope,) = torch.autograd.grad(terms.photometric, depth_b, retain_graph=True, materialize_grads=True)
    assert (slope == 0).all()
    (slope,) = torch.autograd.grad(terms.geometry, depth_b)
    assert (slope[..., 2:-2] > 0).all()
    assert not terms.mask.requires_grad
    gamed = pair_terms(**views, depth_b=depth_b, auto_mask=False, detach_mask=False)
    (slope,) = torch.autograd.grad(gamed.photometric, depth_b)
    assert slope.sum() < 0


def test_gradient():
    g = torch.Generator().manual_seed(0)
    image_a, image_b = torch.rand(2, 2, 2, 5, 6, generator=g, dtype=F64)
    depth_a, depth_b = 2 + torch.rand(2, 2, 1, 5, 6, generator=g, dtype=F64)
    K = torch.tensor([[[6.0, 0, 3], [0, 6, 2.5], [0, 0, 1]]], dtype=F64).expand(2, 3, 3)
    v, t = 0.03 * torch.randn(2, 2, 3, generator=g, dtype=F64)

    def run(depth_a, depth_b, v, t):
        T = axis_angle_to_se3(v, t)
        terms = pair_terms(image_a, image_b, depth_a, depth_b, K, K, T, detach_mask=False)
        return terms.photometric, terms.geometry

    assert gradcheck(run, [x.clone().requires_grad_() for x in (depth_a, depth_b, v, t)])


def test_shapes_are_checked():
    views = one_way(pair())
    bad = torch.ones(1, 1, 12, 19, dtype=F64)
    for key in ("depth_a", "depth_b", "valid_a"):
        with pytest.raises(ValueError, match=key):
            pair_terms(**{**views, key: bad})
    small = {**views, "image_b": views["image_b"][..., :10], "depth_b": views["depth_b"][..., :10]}
    with pytest.raises(ValueError, match="auto_mask"):
        pair_terms(**small)
    assert pair_terms(**small, auto_mask=False).geometry < 1e-9  # sizes may differ without it


def test_the_device_is_never_read():
    with FakeTensorMode():  # raises where a value would decide about shapes or control flow
        image, depth = torch.ones(2, 3, 12, 20), torch.ones(2, 1, 12, 20, requires_grad=True)
        K, T = torch.ones(2, 3, 3), torch.ones(2, 4, 4)
        loss = pair_loss(image, image, depth, depth, K, K, T, T)
        sources = image[:, None].expand(2, 2, 3, 12, 20)
        several = [x[:, None].expand(2, 2, *x.shape[1:]) for x in (K, T)]
        identity = identity_errors(image, sources)
        term = reprojection_loss(image, sources, depth, K, *several, identity=identity, keep=depth > 0, valid=depth > 0)
        (loss.photometric + loss.geometry + term.loss).backward()
        assert depth.grad.shape == depth.shape
