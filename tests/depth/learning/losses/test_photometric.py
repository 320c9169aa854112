"""SSIM, photometric error, minimum over sources and auto-mask."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from som.cameras.geometry import axis_angle_to_se3
from som.depth.learning.losses.photometric import (
    dssim,
    identity_errors,
    minimum_reprojection,
    photometric_error,
    reprojection_loss,
)

F64 = torch.float64


def images(*shape, seed=0, dtype=F64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth_scene(shift, depth=4.0, height=16, width=24):
    """View of a textured wall at z = depth by a camera ``shift`` to the right, focal length 16, (1,3,H,W)."""
    y, x = torch.meshgrid(torch.arange(height, dtype=F64), torch.arange(width, dtype=F64), indexing="ij")
    x = x + 16 * shift / depth
    waves = [torch.sin(0.9 * x + 0.3 * y), torch.sin(0.5 * x - 0.7 * y), torch.cos(1.1 * x + 0.2 * y)]
    return 0.5 + 0.4 * torch.stack(waves)[None]


def camera(height=16, width=24):
    return torch.tensor([[[16.0, 0, width / 2], [0, 16, height / 2], [0, 0, 1]]], dtype=F64)


def moved(*shifts):
    """T_src_tgt of cameras that stand ``shift`` to the right of the target, (1,S,4,4)."""
    t = torch.tensor([[-s, 0.0, 0.0] for s in shifts], dtype=F64)
    return axis_angle_to_se3(torch.zeros_like(t), t)[None]


# SSIM


def test_dssim_is_the_direct_evaluation():
    x, y = images(1, 2, 5, 7).numpy()[0], images(1, 2, 5, 7, seed=1).numpy()[0]
    expected = np.zeros_like(x)
    padded = [np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect") for image in (x, y)]
    for c, i, j in np.ndindex(*x.shape):
        a, b = (image[c, i : i + 3, j : j + 3].ravel() for image in padded)
        cov = np.mean((a - a.mean()) * (b - b.mean()))
        ssim = (2 * a.mean() * b.mean() + 1e-4) * (2 * cov + 9e-4)
        ssim /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
        expected[c, i, j] = min(max((1 - ssim) / 2, 0), 1)
    result = dssim(torch.from_numpy(x)[None], torch.from_numpy(y)[None])[0]
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert expected.min() < 0.4 and expected.max() > 0.6


def test_dssim_of_equal_inverted_and_constant_images():
    x = images(1, 3, 6, 6)
    torch.testing.assert_close(dssim(x, x), torch.zeros_like(x))
    stripes = (torch.arange(6) % 2).to(F64).expand(1, 1, 6, 6)
    assert dssim(stripes, 1 - stripes)[..., 1:-1].min() > 0.89
    dark, light = torch.full((1, 1, 4, 4), 0.2, dtype=F64), torch.full((1, 1, 4, 4), 0.6, dtype=F64)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    torch.testing.assert_close(dssim(dark, light), torch.full_like(dark, (1 - luminance) / 2))


def test_photometric_error_mixes_the_means_over_channels():
    x, y = images(2, 3, 6, 5), images(2, 3, 6, 5, seed=1)
    expected = 0.85 * dssim(x, y).mean(1) + 0.15 * (x - y).abs().mean(1)
    torch.testing.assert_close(photometric_error(x, y)[:, 0], expected)
    torch.testing.assert_close(photometric_error(x, y, 0.0)[:, 0], (x - y).abs().mean(1))
    assert photometric_error(x, x).max() < 1e-12


def test_gradients_of_the_error_maps():
    x, y = images(1, 2, 4, 5), images(1, 2, 4, 5, seed=1)
    assert gradcheck(photometric_error, (x.requires_grad_(), y.requires_grad_()))
    flat = torch.full((1, 1, 4, 4), 0.3, dtype=F64, requires_grad=True)
    photometric_error(flat, flat.detach()).sum().backward()
    assert flat.grad.isfinite().all()


def test_image_shapes_are_checked():
    for call in (dssim, photometric_error):
        with pytest.raises(ValueError, match="shape"):
            call(images(1, 3, 4, 4), images(1, 3, 4, 5))
        with pytest.raises(ValueError, match="B,C,H,W"):
            call(images(3, 4, 4), images(3, 4, 4))


# Minimum over sources


def test_minimum_and_mean_by_hand():
    errors = torch.tensor([[[[0.1, 0.6]], [[0.3, 0.2]]]])  # two sources, two pixels
    assert minimum_reprojection(errors).loss == pytest.approx(0.15)
    assert minimum_reprojection(errors, reduction="mean").loss == pytest.approx(0.3)
    identity = torch.tensor([[[[0.05, 0.5]], [[0.9, 0.4]]]])
    masked = minimum_reprojection(errors, identity, noise=0.0)
    assert masked.loss == pytest.approx((0.05 + 0.2) / 2)  # the first pixel counts as a constant
    assert masked.moving.flatten().tolist() == [False, True]
    averaged = minimum_reprojection(errors, identity, noise=0.0, reduction="mean")
    assert averaged.loss == pytest.approx((0.2 + 0.4) / 2)  # identity means are 0.475 and 0.45


def test_only_pixels_that_move_have_a_gradient():
    errors = torch.tensor([[[[0.1, 0.6]], [[0.3, 0.2]]]], requires_grad=True)
    identity = torch.tensor([[[[0.05, 0.5]], [[0.9, 0.4]]]], requires_grad=True)
    minimum_reprojection(errors, identity, noise=0.0).loss.backward()
    assert errors.grad.flatten().tolist() == [0, 0, 0, 0.5]
    assert identity.grad is None


def test_a_source_out_of_view_is_not_looked_at():
    errors = torch.tensor([[[[0.1, 0.6, 0.0]], [[0.3, 0.2, 0.0]]]], requires_grad=True)
    in_view = torch.tensor([[[[False, True, False]], [[True, False, False]]]])
    result = minimum_reprojection(errors, in_view=in_view)
    assert result.loss.item() == pytest.approx((0.3 + 0.6) / 2)
    result.loss.backward()
    assert errors.grad.flatten().tolist() == [0, 0.5, 0, 0.5, 0, 0]
    assert minimum_reprojection(errors, in_view=in_view, reduction="mean").loss.item() == pytest.approx(0.45)
    unseen_is_static = minimum_reprojection(errors, torch.full_like(errors, 0.9), in_view=in_view, noise=0.0)
    assert unseen_is_static.loss.item() == pytest.approx((0.3 + 0.6 + 0.9) / 3)


def test_valid_pixels_alone_count_with_their_weights():
    errors = torch.tensor([[[[0.1, 0.6, float("nan")]]]])
    valid = torch.tensor([[[[3.0, 1.0, 0.0]]]])
    assert minimum_reprojection(errors, valid=valid).loss == pytest.approx(0.225)


@pytest.mark.parametrize("reduction", ["min", "mean"])
@pytest.mark.parametrize("auto_mask", [False, True])
def test_nothing_counted_is_a_differentiable_zero(reduction, auto_mask):
    errors = images(2, 2, 3, 4).requires_grad_()
    identity = images(2, 2, 3, 4, seed=1) if auto_mask else None
    for masks in ({"valid": torch.zeros(2, 1, 3, 4)}, {"in_view": torch.zeros(2, 2, 3, 4, dtype=torch.bool)}):
        result = minimum_reprojection(errors, identity, reduction=reduction, **masks)
        assert result.loss.requires_grad
        (grad,) = torch.autograd.grad(result.loss, errors)
        assert (grad == 0).all()
        if "valid" in masks or identity is None:
            assert result.loss == 0


def test_kept_pixels_take_the_plain_minimum_unless_the_camera_stands():
    errors = torch.full((2, 1, 2, 4), 0.3)
    identity = torch.full((2, 1, 2, 4), 0.5)
    identity[0].view(-1)[:5] = 0.1  # 5 of 8 masked
    identity[1].view(-1)[:6] = 0.1  # 6 of 8: 75 %
    keep = torch.zeros(2, 1, 2, 4, dtype=torch.bool)
    keep[:, :, 0] = True
    result = minimum_reprojection(errors, identity, keep=keep, noise=0.0)
    assert result.error[0].flatten().tolist() == pytest.approx([0.3] * 4 + [0.1] + [0.3] * 3)
    assert result.error[1].flatten().tolist() == pytest.approx([0.1] * 6 + [0.3] * 2)
    always = minimum_reprojection(errors, identity, keep=keep, keep_below=1.0, noise=0.0)
    assert always.error[1].flatten().tolist() == pytest.approx([0.3] * 4 + [0.1] * 2 + [0.3] * 2)


def test_the_share_that_keep_asks_for_is_that_of_valid_pixels():
    errors, identity = torch.full((1, 1, 1, 4), 0.3), torch.tensor([[[[0.1, 0.1, 0.1, 0.5]]]])
    keep = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    assert minimum_reprojection(errors, identity, keep=keep, noise=0.0).error[0, 0, 0, 0] == pytest.approx(0.1)
    valid = torch.tensor([[[[1.0, 0, 1, 1]]]])  # 2 of 3 masked
    kept = minimum_reprojection(errors, identity, keep=keep, valid=valid, noise=0.0)
    assert kept.error.flatten().tolist() == pytest.approx([0.3, 0, 0.3, 0.3])


def test_the_noise_breaks_ties_and_repeats_with_the_generator():
    errors = torch.full((1, 2, 50, 50), 0.25)
    draw = lambda seed: minimum_reprojection(errors, errors, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    first, again, other = draw(0), draw(0), draw(1)
    assert torch.equal(first.moving, again.moving) and first.loss == again.loss
    assert not torch.equal(first.moving, other.moving)
    assert first.moving.double().mean() == pytest.approx(0.25, abs=0.05)  # both sources' noise must be above 0
    assert (first.error - 0.25).abs().max() < 1e-4
    assert not minimum_reprojection(errors, errors, noise=0.0).moving.any()


def test_weights_scale_the_chosen_error_but_neither_choose_nor_learn():
    errors = torch.tensor([[[[0.2]], [[0.3]]]], requires_grad=True)
    weights = torch.tensor([[[[0.9]], [[0.0]]]], requires_grad=True)
    result = minimum_reprojection(errors, torch.full((1, 2, 1, 1), 0.25), weights=weights, noise=0.0)
    assert result.loss.item() == pytest.approx(0.18)  # inside the minimum the second source would win with 0
    result.loss.backward()
    assert weights.grad is None
    assert errors.grad.flatten().tolist() == pytest.approx([0.9, 0])
    assert minimum_reprojection(errors, weights=weights, reduction="mean").loss.item() == pytest.approx(0.09)


def test_bad_input_raises():
    errors = torch.rand(2, 3, 4, 5)
    for label, options in {
        "identity": {"identity": errors[:, :2]},
        "in_view": {"in_view": errors[:1] > 0},
        "weights": {"weights": errors[..., :4]},
        "valid": {"valid": errors},
        "keep": {"keep": errors[:, 0] > 0},
        "reduction": {"reduction": "max"},
    }.items():
        with pytest.raises(ValueError, match=label):
            minimum_reprojection(errors, **options)


# The whole term


def test_a_static_camera_is_masked_everywhere():
    still = smooth_scene(0.0)
    sources = torch.stack([still, still], 1)
    depth = torch.full((1, 1, 16, 24), 4.0, dtype=F64, requires_grad=True)
    result = reprojection_loss(
        still,
        sources,
        depth,
        camera(),
        camera()[:, None].expand(1, 2, 3, 3),
        moved(-0.3, 0.3),
        identity=identity_errors(still, sources),
        generator=torch.Generator().manual_seed(0),
    )
    assert not result.moving.any()
    assert result.loss.abs() < 1e-4
    result.loss.backward()
    assert (depth.grad == 0).all()


def two_sources(depth_scale=1.0):
    target, sources = smooth_scene(0.0), torch.stack([smooth_scene(-0.25), smooth_scene(0.25)], 1)
    depth = torch.full((1, 1, 16, 24), 4.0 * depth_scale, dtype=F64)
    K = camera()
    return target, sources, depth, K, K[:, None].expand(1, 2, 3, 3), moved(-0.25, 0.25)


def test_a_moving_camera_is_masked_nowhere_that_matters():
    scene = two_sources()
    identity = identity_errors(*scene[:2])
    result = reprojection_loss(*scene, identity=identity, generator=torch.Generator().manual_seed(0))
    matters = identity.amin(1, keepdim=True) > 1e-3
    assert matters.double().mean() > 0.99
    assert result.moving[matters].all()
    assert result.loss < 1e-6


def test_the_true_depth_has_the_smallest_loss():
    values = [reprojection_loss(*two_sources(s)).loss.item() for s in (0.7, 0.9, 1.0, 1.1, 1.4)]
    assert min(values) == values[2] < 1e-6
    assert values[0] > values[1] > 0.005 and values[4] > values[3] > 0.005


def test_what_one_source_misses_the_other_explains():
    target, sources, *geometry = two_sources()
    sources = sources.clone()
    sources[:, 0, :, 4:12, 6:14] = 0.0  # something stands before the wall, in one source
    assert reprojection_loss(target, sources, *geometry).loss < 1e-6
    assert reprojection_loss(target, sources, *geometry, reduction="mean").loss > 0.05


def test_gradient_of_the_whole_term():
    target, sources, depth, K, K_src, T = two_sources()
    g = torch.Generator().manual_seed(0)
    target, sources = target[..., :6, :8], sources[..., :6, :8]
    depth = (3.5 + torch.rand(1, 1, 6, 8, generator=g, dtype=F64)).requires_grad_()
    identity = identity_errors(target, sources)

    def run(depth, T):
        return reprojection_loss(target, sources, depth, K, K_src, T, identity=identity, noise=0.0).loss

    generic = axis_angle_to_se3(*(0.05 * torch.randn(2, 1, 2, 3, generator=g, dtype=F64))) @ T  # no pixel on a kink
    assert gradcheck(run, (depth, generic.requires_grad_()))


def test_source_shapes_are_checked():
    target, sources, *rest = two_sources()
    for bad in (sources[0], sources.expand(2, -1, -1, -1, -1)):
        with pytest.raises(ValueError, match="sources"):
            reprojection_loss(target, bad, *rest)
    with pytest.raises(ValueError, match="sources"):
        identity_errors(target[0], sources)
