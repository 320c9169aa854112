import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from som.evaluation.metrics import mask_iou, masked_ssim, psnr, ssim


def random_images(h=20, w=27, batch=(), seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(*batch, h, w, 3, generator=g), torch.rand(*batch, h, w, 3, generator=g)


def test_psnr_by_hand():
    target = torch.zeros(4, 4, 3)
    assert float(psnr(target + 0.1, target)) == pytest.approx(20.0, abs=1e-4)
    pred = target.clone()
    pred[0, 0] = 0.1
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, :2] = True  # mean squared error 0.01 / 2
    assert float(psnr(pred, target, mask)) == pytest.approx(10 * math.log10(200), abs=1e-4)


def test_psnr_agrees_with_torchmetrics():
    a, b = random_images()
    assert float(psnr(a, b)) == pytest.approx(float(peak_signal_noise_ratio(a, b, data_range=1.0)), abs=1e-4)


def test_psnr_is_per_image():
    a, b = random_images(batch=(2, 3))
    values = psnr(a, b)
    assert values.shape == (2, 3)
    assert float(values[1, 2]) == pytest.approx(float(psnr(a[1, 2], b[1, 2])), abs=1e-5)


def test_psnr_identical_and_empty():
    a, _ = random_images()
    assert math.isinf(psnr(a, a))
    assert math.isnan(psnr(a, a * 0.5, torch.zeros(20, 27, dtype=torch.bool)))


@pytest.mark.parametrize("metric", [psnr, ssim, masked_ssim])
def test_pixels_outside_the_mask_do_not_matter(metric):
    a, b = random_images()
    mask = torch.zeros(20, 27, dtype=torch.bool)
    mask[5:15, 4:20] = True
    changed = torch.where(mask[..., None], a, torch.full_like(a, math.nan))
    assert float(metric(changed, b, mask)) == pytest.approx(float(metric(a, b, mask)), abs=1e-6)


def test_soft_mask_is_not_squared():
    target = torch.zeros(2, 2, 3)
    pred = torch.full((2, 2, 3), 0.1)
    assert float(psnr(pred, target, torch.full((2, 2), 0.5))) == pytest.approx(20.0, abs=1e-4)


@pytest.mark.parametrize("metric", [psnr, ssim, masked_ssim])
def test_shapes_are_checked(metric):
    a, b = random_images()
    with pytest.raises(ValueError, match="must be"):
        metric(a, b[:-1])
    with pytest.raises(ValueError, match="mask"):
        metric(a, b, torch.ones(20, 26, dtype=torch.bool))


def test_ssim_agrees_with_torchmetrics():
    a, b = random_images(batch=(2,))
    b = 0.7 * a + 0.3 * b
    expected = structural_similarity_index_measure(
        a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), data_range=1.0, reduction="none"
    )
    torch.testing.assert_close(ssim(a, b), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ssim(a, b, torch.ones(2, 20, 27, dtype=torch.bool)), expected, atol=1e-5, rtol=0)


def test_ssim_identical_and_empty():
    a, _ = random_images()
    empty = torch.zeros(20, 27, dtype=torch.bool)
    assert float(ssim(a, a)) == pytest.approx(1.0)
    assert math.isnan(ssim(a, a, empty))
    with pytest.raises(ValueError, match="too small"):
        ssim(a[:5], a[:5])


def slow_masked_ssim(a, b, mask, size=11, sigma=1.5):
    """DyCheck's definition with loops, in float64."""
    offsets = np.arange(size) - size // 2
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()

    def one_pass(z, m):  # along the last axis
        n = z.shape[1] - size + 1
        out, seen = np.zeros((z.shape[0], n)), np.zeros((z.shape[0], n))
        for r in range(z.shape[0]):
            for c in range(n):
                window, inside = z[r, c : c + size], m[r, c : c + size]
                if inside.sum() > 0:
                    out[r, c] = (window * inside * taps).sum() * size / inside.sum()
                    seen[r, c] = 1
        return out, seen

    def blur(z):
        rows, seen = one_pass(z, mask)
        columns, seen = one_pass(rows.T, seen.T)
        return columns.T, seen.T

    values = []
    for channel in range(3):
        x, y = a[..., channel], b[..., channel]
        mx, my = blur(x)[0], blur(y)[0]
        vx = np.maximum(blur(x * x)[0] - mx * mx, 0)
        vy = np.maximum(blur(y * y)[0] - my * my, 0)
        cov = blur(x * y)[0] - mx * my
        cov = np.sign(cov) * np.minimum(np.abs(cov), np.sqrt(vx * vy))
        values.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    return np.mean(values), np.mean(values, 0)[blur(x)[1] > 0].mean()


@pytest.mark.parametrize("kind", ["box", "scattered", "full"])
def test_masked_ssim_is_dychecks(kind):
    a, b = (x.double() for x in random_images())
    mask = torch.zeros(20, 27, dtype=torch.bool)
    if kind == "box":
        mask[3:8, 15:22] = True
    elif kind == "scattered":
        mask = torch.rand(20, 27, generator=torch.Generator().manual_seed(3)) < 0.02
    else:
        mask[:] = True
    whole, windows = slow_masked_ssim(a.numpy(), b.numpy(), mask.double().numpy())
    assert float(masked_ssim(a, b, mask)) == pytest.approx(whole, abs=1e-9)
    assert float(masked_ssim(a, b, mask, only_masked_windows=True)) == pytest.approx(windows, abs=1e-9)


def test_dychecks_ssim_is_inflated_and_ours_is_not():
    a, b = random_images(64, 64)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[28:36, 28:36] = True
    assert float(masked_ssim(a, b, mask)) > 0.9
    assert abs(float(ssim(a, b, mask))) < 0.2
    assert float(masked_ssim(a, b, torch.zeros_like(mask))) == 1.0
    assert math.isnan(masked_ssim(a, b, torch.zeros_like(mask), only_masked_windows=True))


def test_mask_iou():
    a = torch.zeros(4, 4, dtype=torch.bool)
    b = a.clone()
    assert math.isnan(mask_iou(a, b))
    a[:2], b[1:3] = True, True
    assert float(mask_iou(a, b)) == pytest.approx(1 / 3)
    valid = torch.ones_like(a)
    valid[2] = False
    assert float(mask_iou(a, b, valid)) == pytest.approx(1 / 2)
    assert float(mask_iou(a, a)) == 1.0
    with pytest.raises(ValueError, match="one shape"):
        mask_iou(a, b[:2])
