"""Weight files: every layout in files made here, and everything that can be wrong with one."""

import argparse
from dataclasses import asdict

import pytest
import torch
from torch import nn

from som.depth.errors import DepthError
from som.depth.networks import MVDepthNet, NetworkConfig, make_depth_net, make_pose_net
from som.depth.networks.packnet import PackNet
from som.depth.networks.pose import PoseCNN, PoseResNet
from som.depth.networks.published import published_config
from som.depth.networks.resnet import ResNetEncoder
from som.depth.weights import load_weights

CLASSIFIER = {"fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)}


def small(**options):
    return make_depth_net(NetworkConfig("small", **options))


def small_pose(**options):
    """A pose net on a narrow encoder."""
    net = PoseResNet(18, **options)
    narrow = ResNetEncoder(18, num_images=2, width=0.25)
    net.encoder, net.decoder.net[0] = narrow, nn.Conv2d(narrow.channels[-1], 256, 1)
    return net


def values_of(net):
    """A state dict with a value of its own in every entry."""
    g = torch.Generator().manual_seed(5)
    return {
        k: torch.randn(v.shape, generator=g) if v.is_floating_point() else torch.tensor(7)
        for k, v in net.state_dict().items()
    }


def assert_holds(net, values):
    state = net.state_dict()
    assert all(torch.equal(state[name], value) for name, value in values.items())
    assert set(values) == set(state)


def prefixed(prefix, values):
    return {prefix + name: value for name, value in values.items()}


def part(values, prefix):
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def write_monodepth2(folder, values, encoder="encoder.pth", decoder="depth.pth", prefix="net."):
    extras = {"height": 192, "width": 640, "use_stereo": False, **prefixed("encoder.", CLASSIFIER)}
    torch.save(part(values, prefix + "encoder.") | extras, folder / encoder)
    torch.save(part(values, prefix + "decoder."), folder / decoder)


def test_monodepth2_folder(tmp_path):
    net = small()
    values = values_of(net)
    write_monodepth2(tmp_path, values)
    report = load_weights(net, tmp_path)
    assert_holds(net, values)
    assert report.layout == "monodepth2"
    assert report.metadata == {"height": 192, "width": 640, "use_stereo": False}
    assert set(report.ignored) == {"encoder.fc.weight", "encoder.fc.bias"}
    assert report.renamed["encoder.conv1.weight"] == "net.encoder.encoder.conv1.weight"
    assert set(report.loaded) == set(values)
    assert report.notes == report.filled == report.kept == ()
    assert "2 ignored" in str(report)


def test_monodepth2_pose_folders(tmp_path):
    net = small_pose(style="monodepth2")
    values = values_of(net)
    write_monodepth2(tmp_path, values, "pose_encoder.pth", "pose.pth", prefix="")
    load_weights(net, tmp_path)
    assert_holds(net, values)

    (tmp_path / "cnn").mkdir()
    cnn = PoseCNN()
    values = values_of(cnn)
    torch.save(values, tmp_path / "cnn" / "pose.pth")
    for path in (tmp_path / "cnn", tmp_path / "cnn" / "pose.pth"):
        cnn = PoseCNN()
        assert load_weights(cnn, path).layout == "monodepth2"
        assert_holds(cnn, values)


def test_shared_monodepth2_pose_takes_the_depth_encoder(tmp_path):
    depth_net = small()
    net = make_pose_net("resnet18", shared_encoder=depth_net.net.encoder)
    values = values_of(net)
    write_monodepth2(tmp_path, values, "encoder.pth", "pose.pth", prefix="")
    load_weights(net, tmp_path)
    assert_holds(net, values)
    assert torch.equal(depth_net.net.encoder.encoder.conv1.weight, values["encoder.encoder.conv1.weight"])


def test_sc_files(tmp_path):
    depth_net, pose_net = small(depth_range=published_config("sc", "small").depth_range), small_pose(style="sc")
    for net, prefix in ((depth_net, "net."), (pose_net, "")):
        values = values_of(net)
        content = part(values, prefix) | prefixed("encoder.encoder.", CLASSIFIER)
        torch.save({"epoch": 3, "state_dict": content}, tmp_path / "best.pth.tar")
        report = load_weights(net, tmp_path / "best.pth.tar")
        assert_holds(net, values)
        assert report.layout == "sc"
        assert report.metadata == {"epoch": 3}
        assert len(report.ignored) == 2
        assert report.notes == ()


def sc_depth_pl_names(depth_values, pose_values):
    """The names of sc_depth_pl, from ours."""
    content = {}
    for name, value in part(depth_values, "net.").items():
        words = name.split(".")
        if words[0] == "decoder":
            number = int(words[2])
            which = f"upconvs{number % 2}.{number // 2}" if number < 10 else f"dispconvs.{number - 10}"
            name = ".".join(["decoder", which, *words[3:]])
        content["depth_net." + name] = value
    for name, value in pose_values.items():
        name = name.replace("decoder.net.0.", "decoder.conv_squeeze.")
        for i in range(3):
            name = name.replace(f"decoder.net.{i + 1}.", f"decoder.convs_pose.{i}.")
        content["pose_net." + name] = value
    return content


def test_sc_depth_pl_file_fills_either_net(tmp_path):
    depth_net, pose_net = make_depth_net(published_config("sc_depth_pl", "small")), small_pose(style="sc")
    depth_values, pose_values = values_of(depth_net), values_of(pose_net)
    content = sc_depth_pl_names(depth_values, pose_values)
    assert "depth_net.decoder.upconvs1.4.conv.conv.weight" in content
    content |= prefixed("depth_net.encoder.encoder.", CLASSIFIER) | {"rectify_net.decoder.x": torch.zeros(1)}
    torch.save({"epoch": 9, "state_dict": content, "hyper_parameters": {}}, tmp_path / "last.ckpt")
    report = load_weights(depth_net, tmp_path / "last.ckpt")
    assert_holds(depth_net, depth_values)
    assert report.layout == "sc_depth_pl"
    assert report.notes == ()
    assert all(
        name.startswith(("pose_net.", "depth_net.encoder.encoder.fc.", "rectify_net.")) for name in report.ignored
    )
    load_weights(pose_net, tmp_path / "last.ckpt")
    assert_holds(pose_net, pose_values)
    (note,) = load_weights(small(upsampling="bilinear"), tmp_path / "last.ckpt").notes
    assert "depth_range" in note


@pytest.mark.parametrize("prefixes", [("model.depth_net.", "model.pose_net."), ("disp_network.", "pose_network.")])
def test_packnet_file_fills_either_net(tmp_path, prefixes):
    depth_net, pose_net = small(), make_pose_net("packnet")
    depth_net.net = PackNet(depth_net.head, "slim", width=0.5)
    depth_values, pose_values = values_of(depth_net), values_of(pose_net)
    old = prefixes[0] == "disp_network."
    content = {}
    for name, value in part(depth_values, "net.").items():
        words = name.split(".")
        if old and len(words) == 4 and words[2] == "conv3":  # a shortcut with dropout
            words.insert(3, "0")
        content[prefixes[0] + ".".join(words)] = value
    assert any(".conv3.0.weight" in name for name in content) == old
    torch.save({"state_dict": content | prefixed(prefixes[1], pose_values)}, tmp_path / "model.ckpt")
    report = load_weights(depth_net, tmp_path / "model.ckpt")
    assert_holds(depth_net, depth_values)
    assert report.layout == "packnet"
    assert len(report.ignored) == len(pose_values)
    load_weights(pose_net, tmp_path / "model.ckpt")
    assert_holds(pose_net, pose_values)


def test_mvdepthnet_file_of_old_pytorch(tmp_path):
    net = MVDepthNet()
    values = values_of(net)
    old = {name: value for name, value in values.items() if not name.endswith("num_batches_tracked")}
    path = tmp_path / "opensource_model.pth.tar"
    torch.save({"state_dict": old}, path, _use_new_zipfile_serialization=False)
    report = load_weights(net, path)
    counters = {name: torch.tensor(0) for name in values if name not in old}
    assert len(counters) == 20
    assert set(report.filled) == set(counters)
    assert_holds(net, old | counters)


def test_torchvision_file_fills_the_encoders(tmp_path):
    depth_net, pose_net = small(), small_pose()
    before = {name: value.clone() for name, value in depth_net.state_dict().items()}
    values = values_of(depth_net.net.encoder.encoder)
    torch.save(values | CLASSIFIER, tmp_path / "resnet18.pth")
    report = load_weights(depth_net, tmp_path / "resnet18.pth")
    kept = {name: value for name, value in before.items() if ".decoder." in name}
    assert_holds(depth_net, prefixed("net.encoder.encoder.", values) | kept)
    assert set(report.kept) == set(kept)
    assert "kept as they were" in str(report)
    load_weights(pose_net, tmp_path / "resnet18.pth")
    stacked = pose_net.encoder.encoder.conv1.weight
    torch.testing.assert_close(stacked, torch.cat([values["conv1.weight"]] * 2, 1) / 2)


def test_our_checkpoint_fills_either_net(tmp_path):
    net, pose_net = small(depth_range=(0.5, 20.0)), PoseCNN()
    values, pose_values = values_of(net), values_of(pose_net)
    network = asdict(net.config) | {"depth_range": [0.5, 20.0]}
    content = {"format": "som4d-depth-checkpoint", "step": 3, "network": network, "training": {"rng": torch.zeros(3)}}
    torch.save(content | {"depth_net": values, "pose_net": pose_values}, tmp_path / "last.ckpt")
    report = load_weights(net, tmp_path / "last.ckpt")
    assert_holds(net, values)
    assert report.layout == "som4d"
    assert report.metadata == {"format": "som4d-depth-checkpoint", "step": 3, "network": network}
    assert len(report.ignored) == len(pose_values)
    assert report.notes == ()
    assert load_weights(pose_net, tmp_path / "last.ckpt").layout == "som4d"
    assert_holds(pose_net, pose_values)
    (note,) = load_weights(small(depth_range=(0.5, 80.0)), tmp_path / "last.ckpt").notes
    assert "(0.5, 20.0)" in note
    assert "(0.5, 80.0)" in note
    torch.save(content | {"depth_net": values, "pose_net": None}, tmp_path / "last.ckpt")
    with pytest.raises(DepthError, match="holds a depth net"):
        load_weights(pose_net, tmp_path / "last.ckpt")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_bare_state_dicts_load(tmp_path, prefix):
    net = small()
    values = values_of(net)
    torch.save(prefixed(prefix, values), tmp_path / "net.pth")
    load_weights(net, tmp_path / "net.pth")
    assert_holds(net, values)


def test_a_net_of_fewer_scales_ignores_the_others(tmp_path):
    values = values_of(small())
    torch.save(values, tmp_path / "net.pth")
    net = small(num_scales=1)
    report = load_weights(net, tmp_path / "net.pth")
    assert {name.split(".")[3] for name in report.ignored} == {"11", "12", "13"}
    assert torch.equal(net.net.decoder.decoder[10].conv.weight, values["net.decoder.decoder.10.conv.weight"])
    torch.save(net.state_dict(), tmp_path / "one.pth")
    with pytest.raises(DepthError, match=r"6 missing \(net.decoder.decoder.11"):
        load_weights(small(), tmp_path / "one.pth")


def test_what_does_not_fit_raises_and_leaves_the_net_alone(tmp_path):
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    values = values_of(net)
    name = "net.decoder.decoder.0.conv.conv.weight"
    cases = {
        "missing": {k: v for k, v in values.items() if k != name},
        "unexpected": values | {"net.decoder.extra": torch.zeros(1)},
        "another shape": values | {name: torch.zeros(1)},
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(DepthError, match=f"1 .*{message}.*net.decoder"):
            load_weights(net, tmp_path / "net.pth")
    assert_holds(net, before)


def test_files_of_other_networks_are_named(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(PoseCNN().state_dict(), path)
    with pytest.raises(DepthError, match=r"holds a pose net .* but a depth net is to be filled"):
        load_weights(small(), path)
    torch.save(small().state_dict(), path)
    with pytest.raises(DepthError, match="holds a depth net"):
        load_weights(PoseCNN(), path)
    torch.save(part(values_of(small()), "net.encoder."), path)
    with pytest.raises(DepthError, match="give the folder"):
        load_weights(small(), path)
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    with pytest.raises(DepthError, match=r"no known layout .* features\.0\.weight"):
        load_weights(small(), path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(DepthError, match="no tensors"):
        load_weights(small(), path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(DepthError, match="holds a Tensor"):
        load_weights(small(), path)


def test_unreadable_files_say_what_to_do(tmp_path):
    path = tmp_path / "model.ckpt"
    with pytest.raises(DepthError, match="does not exist"):
        load_weights(small(), path)
    torch.save({"config": argparse.Namespace(lr=1), "state_dict": small().state_dict()}, path)
    with pytest.raises(DepthError, match="weights_only=False"):
        load_weights(small(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DepthError, match=r"model\.ckpt"):
        load_weights(small(), path)
    path.write_text("hello")
    with pytest.raises(DepthError, match=r"model\.ckpt"):
        load_weights(small(), path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DepthError, match=r"depth\.pth|encoder\.pth"):
        load_weights(small(), tmp_path / "folder")


def test_only_this_packages_networks_are_filled(tmp_path):
    with pytest.raises(DepthError, match="got Linear"):
        load_weights(nn.Linear(1, 1), tmp_path / "x.pth")
