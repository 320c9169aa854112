"""Pose networks: how images are stacked, how numbers become matrices, the references' conventions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from som.depth.errors import DepthError
from som.depth.networks.depth_net import NetworkConfig, make_depth_net
from som.depth.networks.pose import PackNetPose, PairPoseNet, PoseCNN, PoseResNet, PoseStyle, make_pose_net
from som.depth.networks.resnet import ResNetEncoder

NUMBERS = torch.tensor([10.0, -20.0, 30.0, 4.0, 5.0, -6.0])


class MeanNet(PairPoseNet):
    """Predicts numbers that distinguish the two images: the mean of the first times 100, and that of the second."""

    def __init__(self, style):
        super().__init__()
        self.style = style

    def regress(self, first, second):
        a, b = first.mean((1, 2, 3)), second.mean((1, 2, 3))
        return torch.outer(100 * a + b, NUMBERS.to(a))


def constant(batch, value):
    return torch.full((batch, 3, 4, 4), value, dtype=torch.float64)


def rigid(rotation, translation):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.as_matrix(), translation
    return torch.from_numpy(T)


@pytest.mark.parametrize("rotation_first", [True, False])
@pytest.mark.parametrize("rotation", ["axis_angle", "euler"])
def test_numbers_become_the_matrix(rotation, rotation_first):
    net = MeanNet(PoseStyle(rotation, rotation_first, temporal_order=False, outputs=6))
    # The mean images are 0.01 and 0, so the six numbers are NUMBERS, and 0.01 times that counts.
    T = net(constant(1, 0.01), constant(1, 0.0)[:, None])[0, 0]
    first, second = (0.01 * NUMBERS[:3].double().numpy(), 0.01 * NUMBERS[3:].double().numpy())
    angles, translation = (first, second) if rotation_first else (second, first)
    if rotation == "axis_angle":
        R = Rotation.from_rotvec(angles)
    else:
        x, y, z = (Rotation.from_euler(axis, angle) for axis, angle in zip("xyz", angles, strict=True))
        R = x * y * z
    torch.testing.assert_close(T, rigid(R, translation))


def test_temporal_order_puts_the_earlier_image_first_and_inverts():
    style = PoseStyle("axis_angle", True, temporal_order=True, outputs=6)
    net = MeanNet(style)
    target, earlier, later = (constant(1, v) for v in (0.004, 0.002, 0.007))
    T = net(target, torch.stack([earlier, later], 1), offsets=[-1, 1])[0]

    def predicted(a, b):
        vector = 0.01 * (100 * a + b) * NUMBERS.double().numpy()
        return rigid(Rotation.from_rotvec(vector[:3]), vector[3:])

    torch.testing.assert_close(T[0], torch.linalg.inv(predicted(0.002, 0.004)))
    torch.testing.assert_close(T[1], predicted(0.004, 0.007))
    # Seen from the earlier frame the same pair gives the inverse.
    back = net(earlier, target[:, None], offsets=[1])[0, 0]
    torch.testing.assert_close(T[0] @ back, torch.eye(4, dtype=torch.float64))


def test_offsets_may_differ_within_a_batch_and_default_to_later():
    net = MeanNet(PoseStyle("axis_angle", True, temporal_order=True, outputs=6))
    target, source = constant(2, 0.004), constant(2, 0.002)[:, None]
    mixed = net(target, source, offsets=torch.tensor([[-1], [1]]))
    torch.testing.assert_close(mixed[1:], net(target[1:], source[1:]))
    torch.testing.assert_close(mixed[:1], net(target[:1], source[:1], offsets=[-1]))
    assert not torch.allclose(mixed[0], mixed[1])


def test_without_temporal_order_offsets_change_nothing():
    net = MeanNet(PoseStyle("euler", False, temporal_order=False, outputs=6))
    target, source = constant(1, 0.004), constant(1, 0.002)[:, None]
    assert torch.equal(net(target, source, offsets=[-1]), net(target, source))


def test_mean_inverse_depth_scales_the_translation_only():
    net = MeanNet(PoseStyle("axis_angle", True, temporal_order=True, outputs=6))
    target, source = constant(2, 0.004), constant(2, 0.002)[:, None]
    factors = torch.tensor([2.0, 0.5], dtype=torch.float64)
    for offset in (-1, 1):
        plain, scaled = net(target, source, [offset]), net(target, source, [offset], factors)
        torch.testing.assert_close(scaled[..., :3, :3], plain[..., :3, :3])
        torch.testing.assert_close(scaled[..., :3, 3], plain[..., :3, 3] * factors[:, None, None])


@torch.no_grad()
def test_pose_cnn_equals_the_functional_form():
    torch.manual_seed(0)
    net = PoseCNN()
    first, second = torch.rand(2, 3, 3, 64, 96).unbind(0)
    x = torch.cat([first, second], 1)
    for i, kernel in enumerate((7, 5, 3, 3, 3, 3, 3)):
        weight = net.state_dict()[f"net.{i}.weight"]
        assert weight.shape[-1] == kernel
        x = F.conv2d(x, weight, net.state_dict()[f"net.{i}.bias"], stride=2, padding=(kernel - 1) // 2).relu()
    expected = F.conv2d(x, net.pose_conv.weight, net.pose_conv.bias).mean(3).mean(2)
    torch.testing.assert_close(net.regress(first, second), expected)


@torch.no_grad()
def test_packnet_pose_equals_the_functional_form():
    torch.manual_seed(0)
    net = PackNetPose(2).double()
    torch.nn.init.normal_(net.pose_pred.weight)
    target, sources = torch.rand(3, 3, 64, 96).double(), torch.rand(3, 2, 3, 64, 96).double()
    x = torch.cat([target, sources[:, 0], sources[:, 1]], 1)
    state = net.state_dict()
    for i, kernel in enumerate((7, 5, 3, 3, 3, 3, 3), start=1):
        weight, bias = state[f"conv{i}.0.weight"], state[f"conv{i}.0.bias"]
        x = F.conv2d(x, weight, bias, stride=2, padding=(kernel - 1) // 2)
        x = F.group_norm(x, 16, state[f"conv{i}.1.weight"], state[f"conv{i}.1.bias"]).relu()
    numbers = 0.01 * F.conv2d(x, state["pose_pred.weight"], state["pose_pred.bias"]).mean(3).mean(2)
    T = net(target, sources)
    for b in range(3):
        for n in range(2):
            six = numbers[b, 6 * n : 6 * n + 6].numpy()
            angles = [Rotation.from_euler(axis, angle) for axis, angle in zip("xyz", six[3:], strict=True)]
            torch.testing.assert_close(T[b, n], rigid(angles[0] * angles[1] * angles[2], six[:3]))


@torch.no_grad()
def test_pose_resnet_decodes_the_last_features_of_the_stacked_pair():
    torch.manual_seed(0)
    net = PoseResNet(18, "monodepth2").eval()
    first, second = torch.rand(2, 2, 3, 64, 64).unbind(0)
    state = {k.removeprefix("decoder."): v for k, v in net.state_dict().items()}
    x = net.encoder(torch.cat([first, second], 1))[-1]
    for i, padding in ((0, 0), (1, 1), (2, 1)):
        x = F.conv2d(x, state[f"net.{i}.weight"], state[f"net.{i}.bias"], padding=padding).relu()
    x = F.conv2d(x, state["net.3.weight"], state["net.3.bias"]).mean(3).mean(2)
    torch.testing.assert_close(net.regress(first, second), x)
    assert x.shape == (2, 12)


@torch.no_grad()
def test_shared_encoder_sees_the_images_one_by_one():
    torch.manual_seed(0)
    depth_net = make_depth_net(NetworkConfig("small")).eval()
    net = make_pose_net("resnet18", shared_encoder=depth_net.net.encoder).eval()
    assert net.encoder is depth_net.net.encoder
    first, second = torch.rand(2, 2, 3, 64, 64).unbind(0)
    features = [net.encoder(image)[-1] for image in (first, second)]
    torch.testing.assert_close(net.regress(first, second), net.decoder(features))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("resnet18", {"style": "sc"}),
        ("resnet18", {"style": "packnet"}),
        ("cnn", {}),
        ("packnet", {"num_sources": 3}),
    ],
)
def test_untrained_nets_predict_small_rigid_motion_with_gradient(name, options):
    torch.manual_seed(0)
    net = make_pose_net(name, **options)
    T = net(torch.rand(2, 3, 64, 96), torch.rand(2, 3, 3, 64, 96), offsets=[-1, 1, 2])
    assert T.shape == (2, 3, 4, 4)
    R = T[..., :3, :3]
    torch.testing.assert_close(R @ R.transpose(-1, -2), torch.eye(3).expand(2, 3, 3, 3))
    assert (T - torch.eye(4)).abs().max() < 0.1
    T.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@torch.no_grad()
def test_matrices_stay_rigid_in_mixed_precision():
    torch.manual_seed(0)
    net = PoseCNN()
    net.pose_conv.bias.normal_(0, 30)
    with torch.autocast("cpu", torch.bfloat16):
        T = net(torch.rand(2, 3, 32, 32), torch.rand(2, 2, 3, 32, 32), offsets=[-1, 1])
    R = T[..., :3, :3]
    assert T.dtype == torch.float32
    assert (R - torch.eye(3)).abs().max() > 0.1
    torch.testing.assert_close(R @ R.transpose(-1, -2), torch.eye(3).expand(2, 2, 3, 3), rtol=0, atol=1e-6)


def test_bad_input_raises():
    net = PoseCNN()
    target, sources = torch.rand(2, 3, 32, 32), torch.rand(2, 2, 3, 32, 32)
    for call, message in (
        (lambda: net(target, sources[:, 0]), r"\(B,N,3,H,W\)"),
        (lambda: net(target[:1], sources), "same B"),
        (lambda: net(target, sources, offsets=[1, 2, 3]), "offsets"),
        (lambda: net(target, sources, mean_inverse_depth=torch.ones(3)), "mean_inverse_depth"),
        (lambda: PackNetPose(1)(target, sources), "takes 1 sources"),
        (lambda: make_pose_net("vit"), "unknown pose network"),
        (lambda: make_pose_net("resnet18", style="x"), "unknown pose style"),
    ):
        with pytest.raises(DepthError, match=message):
            call()


def test_number_of_parameters():
    with torch.device("meta"):
        counts = {
            "monodepth2 r18": PoseResNet(18, "monodepth2"),
            "monodepth2 r50": PoseResNet(50, "monodepth2"),
            "sc r18": PoseResNet(18, "sc"),
            "shared r18": PoseResNet(18, "monodepth2", ResNetEncoder(18)).decoder,
            "cnn": PoseCNN(),
            "packnet": PackNetPose(2),
        }
    assert {name: sum(p.numel() for p in net.parameters()) for name, net in counts.items()} == {
        "monodepth2 r18": 11_185_920 + 1_314_572,
        "monodepth2 r50": 23_517_440 + 1_707_788,
        "sc r18": 13_011_950 - 513_000,
        "shared r18": 1_902_854,
        "cnn": 1_586_774,
        "packnet": 1_592_684,
    }
