"""The volume and the network: the true plane, units, views that must not matter, and the published arithmetic."""

import pytest
import torch
import torch.nn.functional as F

from som.depth.errors import DepthError
from som.depth.learning.multiview import MultiViewConfig, MultiViewNet, in_network_units
from som.depth.learning.multiview.volume import matching_volume
from som.depth.networks import MVDepthNet
from som.depth.networks.mvdepthnet import plane_disparities
from tests.depth.learning.multiview.conftest import plane_clip, truth

H, W, FOCAL = 48, 96, 60.0


def front_parallel(plane: int, shifts=(10, -10), seed=0):
    """Views of a wall at one of the 64 planes, moved by whole pixels: images (1,n,3,H,W), K, poses of the sources."""
    g = torch.Generator().manual_seed(seed)
    wall = F.avg_pool2d(torch.rand(1, 3, H + 2, W + 82, generator=g), 3, 1)[0]
    images = torch.stack([wall[..., 40 + shift : 40 + shift + W] for shift in (0, *shifts)])[None]
    K = torch.tensor([[FOCAL, 0, W / 2], [0, FOCAL, H / 2], [0, 0, 1]]).expand(1, len(shifts) + 1, 3, 3)
    T = torch.eye(4).repeat(1, len(shifts), 1, 1)
    # a source that shows `shift` pixels further right sees the reference's pixel u at u - shift
    T[0, :, 0, 3] = torch.tensor([-shift / FOCAL / float(plane_disparities()[plane]) for shift in shifts])
    return images, K, T


@pytest.mark.parametrize("cost", ["census", "zncc", "absolute"])
@pytest.mark.parametrize("plane", [5, 20])
def test_the_true_plane_costs_least(cost, plane):
    images, K, T = front_parallel(plane)
    volume = matching_volume(images, K, T, plane_disparities(), cost)
    assert volume.shape == (1, 64, H, W)
    assert (volume.argmin(1)[0, 3:-3, 13:-13] == plane).float().mean() > 0.99


def test_the_order_of_measurement_frames_and_the_rest_of_the_batch_do_not_matter():
    a, b = front_parallel(5, (10, -10, 20)), front_parallel(20, (8, -6, 12), seed=1)
    batch = [torch.cat(parts) for parts in zip(a, b, strict=True)]
    both = matching_volume(*batch, plane_disparities(), "census")
    images, K, T = b
    order = [0, 3, 1, 2]
    turned = matching_volume(images[:, order], K[:, order], T[:, [2, 0, 1]], plane_disparities(), "census")
    torch.testing.assert_close(both[1:], turned, atol=1e-5, rtol=0)


def test_what_moves_in_a_measurement_frame_does_not_count():
    images, K, T = front_parallel(5)
    moving = torch.zeros(1, 3, H, W, dtype=torch.bool)
    moving[:, 1:, 10:30, 30:60] = True
    garbage = torch.where(moving[:, :, None], 1 - images, images)
    clean = matching_volume(images, K, T, plane_disparities(), "absolute", moving)
    torch.testing.assert_close(
        matching_volume(garbage, K, T, plane_disparities(), "absolute", moving), clean, atol=1e-5, rtol=0
    )
    assert not torch.allclose(matching_volume(garbage, K, T, plane_disparities(), "absolute"), clean, atol=1e-2)


def test_pixels_that_no_frame_sees_cost_the_same_at_all_planes():
    images, K, T = front_parallel(5, shifts=(10,))
    T[0, 0, 0, 3] = 100.0
    volume = matching_volume(images, K, T, plane_disparities()[5:], "census")
    assert float((volume.amax(1) - volume.amin(1)).max()) < 1e-5


def test_published_matching_is_the_published_network():
    torch.manual_seed(0)
    net = MultiViewNet(MultiViewConfig(width=0.125, matching="published", num_scales=2)).eval()
    plain = MVDepthNet(0.125).eval()
    plain.load_state_dict(net.net.state_dict())
    images, K, T = front_parallel(5)
    images = F.pad(images[0], (0, 0, 0, 16), mode="replicate")[None]
    with torch.no_grad():
        ours, theirs = net(images, K, T), plain(images[:, 0], images[:, 1:], K[:, 0], T)
    assert len(ours.depths) == 2
    torch.testing.assert_close(ours.depths[0], theirs.depths[0])


def test_width_scales_the_channels_in_multiples_of_eight():
    net = MVDepthNet(0.2)
    assert net.conv1[0].weight.shape == (24, 67, 7, 7)
    assert net.upconv1[1].weight.shape[0] == 16
    with pytest.raises(DepthError, match="must be positive"):
        MVDepthNet(0.0)


def test_network_units_divide_motion_and_depth_only():
    clip = plane_clip(0)
    scaled = in_network_units(clip, 4.0)
    torch.testing.assert_close(truth(scaled), truth(clip) / 4)
    torch.testing.assert_close(scaled.w2cs[:, :3, 3], clip.w2cs[:, :3, 3] / 4)
    assert torch.equal(scaled.w2cs[:, :3, :3], clip.w2cs[:, :3, :3])
    assert torch.equal(scaled.Ks, clip.Ks)
    assert torch.equal(scaled.images(), clip.images())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "small"}, "there is mvdepthnet"),
        ({"matching": "sad"}, "choose one of census"),
        ({"num_scales": 5}, "num_scales"),
        ({"initial_depth": 0.4}, "nearest plane"),
        ({"width": -1.0}, "must be positive"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(DepthError, match=message):
        MultiViewNet(MultiViewConfig(**options))


def test_bad_shapes_are_refused():
    images, K, T = front_parallel(5)
    net = MultiViewNet(MultiViewConfig(width=0.125))
    with pytest.raises(DepthError, match="multiples of 32"):
        net(images, K, T)
    with pytest.raises(DepthError, match="T_meas_ref must be"):
        matching_volume(images, K, T[:, :1], plane_disparities(), "census")
    with pytest.raises(DepthError, match="T_meas_ref must be"):
        matching_volume(images[:, :1], K[:, :1], T[:, :0], plane_disparities(), "census")
