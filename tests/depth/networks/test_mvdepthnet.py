"""MVDepthNet: the published cost volume and network against independent forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from som.depth.errors import DepthError
from som.depth.networks.mvdepthnet import MVDepthNet, cost_volume, normalize_images, plane_disparities


def camera(width, height, focal):
    return torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]])


def shifted(tx, batch=1):
    T = torch.eye(4).repeat(batch, 1, 1, 1)
    T[..., 0, 3] = tx
    return T


def smooth_texture(height, width, seed=0):
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)


def test_planes_are_even_in_disparity_from_50_m_to_half_a_metre():
    planes = plane_disparities()
    assert planes.shape == (64,)
    torch.testing.assert_close(planes, torch.tensor([1 / 50 + i * (2 - 1 / 50) / 63 for i in range(64)]))
    torch.testing.assert_close(plane_disparities(scale=2.0), planes / 2)


def test_images_are_normalised_as_published():
    """Red 81/255 and blue 116/255 become (1, ., 0) in the order blue, green, red."""
    image = torch.tensor([81 / 255, 0.0, 116 / 255]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize_images(image).flatten(), torch.tensor([1.0, -81 / 35, 0.0]))


@torch.no_grad()
def test_volume_equals_a_loop_over_pixels():
    """The published arithmetic pixel by pixel: integer centres, coordinates divided by half the size, corners aligned
    (so sample index = u (W - 1) / W), zeros outside."""
    g = torch.Generator().manual_seed(0)
    H, W = 6, 8
    left, right = torch.randn(1, 3, H, W, generator=g), torch.randn(1, 1, 3, H, W, generator=g)
    K = torch.tensor([[[7.0, 0, 3.7], [0, 6.5, 3.1], [0, 0, 1]]])
    T = shifted(0.3)
    angle = 0.05
    T[0, 0, :3, :3] = torch.tensor(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], dtype=torch.float32
    )
    planes = torch.tensor([0.1, 0.5, 1.0])
    volume = cost_volume(left, right, K, T, planes)
    K0 = K[0].double().numpy() - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    R, t = T[0, 0, :3, :3].double().numpy(), T[0, 0, :3, 3].double().numpy()
    padded = np.pad(right[0, 0].numpy(), ((0, 0), (2, 2), (2, 2)))
    for p, plane in enumerate(planes.tolist()):
        for row in range(H):
            for column in range(W):
                x, y, z = K0 @ (R @ np.linalg.inv(K0) @ [column, row, 1] / plane + t)
                u, v = x / (z + 1e-6) * (W - 1) / W, y / (z + 1e-6) * (H - 1) / H
                u, v = np.clip(u, -1.5, W + 0.5), np.clip(v, -1.5, H + 0.5)
                c, r = int(np.floor(u)), int(np.floor(v))
                patch = padded[:, r + 2 : r + 4, c + 2 : c + 4]
                weights = np.outer([r + 1 - v, v - r], [c + 1 - u, u - c])
                expected = np.abs((patch * weights).sum((1, 2)) - left[0, :, row, column].numpy()).sum()
                assert volume[0, p, row, column].item() == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_minimum_lies_at_the_true_plane():
    """A fronto-parallel plane at disparity 10 of 64; neighbouring planes differ by several pixels.

    Costs are summed over windows: a single pixel finds its colour on other planes too.
    """
    H, W, plane = 64, 192, 10
    planes = plane_disparities()
    pixels_per_disparity = 40 / planes[plane].item()
    focal = 150.0
    baseline = pixels_per_disparity / focal
    texture = smooth_texture(H, W + 40)
    # The measurement camera stands to the left, so it sees at u + 40 what the reference sees at u.
    reference, measurement = texture[..., 40:], texture[..., :W]
    volume = cost_volume(reference, measurement[:, None], camera(W, H, focal), shifted(baseline), planes)
    windows = F.avg_pool2d(volume, 9, 1)[..., : W - 56]
    assert (windows.argmin(1) == plane).float().mean() > 0.99


@torch.no_grad()
def test_several_measurements_are_averaged():
    g = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, 3, 32, 32, generator=g), torch.rand(2, 3, 3, 32, 32, generator=g)
    T = shifted(0.1, 2).repeat(1, 3, 1, 1)
    T[:, 1, 0, 3], T[:, 2, 1, 3] = -0.2, 0.3
    K, planes = camera(32, 32, 30.0).repeat(2, 1, 1), plane_disparities()[::8]
    single = [cost_volume(left, right[:, i : i + 1], K, T[:, i : i + 1], planes) for i in range(3)]
    torch.testing.assert_close(cost_volume(left, right, K, T, planes), torch.stack(single).mean(0))


@torch.no_grad()
def test_measurements_may_have_their_own_intrinsics():
    left, right = smooth_texture(32, 32), smooth_texture(32, 32, 1)[:, None]
    K, T, planes = camera(32, 32, 30.0), shifted(0.2), plane_disparities()[::8]
    same = cost_volume(left, right, K, T, planes, K_meas=K[:, None])
    assert torch.equal(same, cost_volume(left, right, K, T, planes))
    assert not torch.allclose(same, cost_volume(left, right, K, T, planes, K_meas=1.2 * K[:, None]))


def reference_disparities(state, x):
    """The published network in evaluation mode from a state dict."""

    def block(x, name, conv, norm, stride=1):
        weight = state[f"{name}.{conv}.weight"]
        x = F.conv2d(x, weight, None, stride, padding=(weight.shape[-1] - 1) // 2)
        mean, var, gain, bias = (
            state[f"{name}.{norm}.{k}"].view(1, -1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * gain + bias).relu()

    def up(x, name):
        return block(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), name, 1, 2)

    def disparity(x, name):
        return 2.0 * F.conv2d(x, state[name + ".0.weight"], state[name + ".0.bias"], padding=1).sigmoid()

    def double(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    convs = []
    for i in range(1, 6):
        x = block(block(x, f"conv{i}", 0, 1), f"conv{i}", 3, 4, stride=2)
        convs.append(x)
    iconv5 = block(torch.cat([up(x, "upconv5"), convs[3]], 1), "iconv5", 0, 1)
    iconv4 = block(torch.cat([up(iconv5, "upconv4"), convs[2]], 1), "iconv4", 0, 1)
    disp4 = disparity(iconv4, "disp4")
    iconv3 = block(torch.cat([up(iconv4, "upconv3"), convs[1], double(disp4)], 1), "iconv3", 0, 1)
    disp3 = disparity(iconv3, "disp3")
    iconv2 = block(torch.cat([up(iconv3, "upconv2"), convs[0], double(disp3)], 1), "iconv2", 0, 1)
    disp2 = disparity(iconv2, "disp2")
    iconv1 = block(torch.cat([up(iconv2, "upconv1"), double(disp2)], 1), "iconv1", 0, 1)
    return [disparity(iconv1, "disp1"), disp2, disp3, disp4]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = MVDepthNet().eval()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean, 0, 0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    for output in (net.disp1, net.disp2, net.disp3, net.disp4):  # else the sigmoids saturate
        output[0].weight.data.mul_(1e-3)
    return net


@torch.no_grad()
def test_network_equals_the_functional_form(net):
    reference, measurements = torch.rand(1, 3, 32, 64), torch.rand(1, 2, 3, 32, 64)
    K, T = camera(64, 32, 50.0), shifted(0.1).repeat(1, 2, 1, 1)
    out = net(reference, measurements, K, T)
    image = normalize_images(reference)
    volume = cost_volume(image, normalize_images(measurements), K, T, plane_disparities())
    expected = reference_disparities(net.state_dict(), torch.cat([image, volume], 1))
    for scale in range(4):
        assert out.disparities[scale].shape == (1, 1, 32 >> scale, 64 >> scale)
        torch.testing.assert_close(out.disparities[scale], expected[scale], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(out.depths[scale], 1 / expected[scale], rtol=1e-3, atol=1e-3)
    assert out.logits is None
    assert out.deviation is None


@torch.no_grad()
def test_scene_units_scale_depth(net):
    reference, measurements = torch.rand(1, 3, 32, 32), torch.rand(1, 1, 3, 32, 32)
    K = camera(32, 32, 30.0)
    metres, millimetres = shifted(0.1), shifted(100.0)
    in_metres = net(reference, measurements, K, metres)
    in_millimetres = net(reference, measurements, K, millimetres, scale=1000.0)
    assert in_metres.depths[0].std() > 0.01
    torch.testing.assert_close(in_millimetres.depths[0], 1000 * in_metres.depths[0], rtol=1e-3, atol=1.0)


def test_bad_input_raises(net):
    image, T, K = torch.rand(1, 3, 32, 32), shifted(0.1), camera(32, 32, 30.0)
    with pytest.raises(DepthError, match="multiples of 32"):
        net(image[..., :30], image[:, None, ..., :30], K, T)
    with pytest.raises(DepthError, match="N > 0"):
        net(image, image[:, None][:, :0], K, T[:, :0])
    with pytest.raises(ValueError, match="do not fit"):
        cost_volume(image, image[:, None], K, T[:, 0], plane_disparities())


def test_number_of_parameters():
    with torch.device("meta"):
        assert sum(p.numel() for p in MVDepthNet().parameters()) == 33_898_500
