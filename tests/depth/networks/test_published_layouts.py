"""Names and shapes of the public checkpoints against our networks, through the renaming that loading does."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from som.depth.errors import DepthError
from som.depth.networks import MVDepthNet, NetworkConfig, make_depth_net, make_pose_net
from som.depth.networks.heads import SigmoidHead
from som.depth.networks.packnet import ConvGroupNorm, OutputLayer, PackLayer, ResidualConv, UnpackLayer, residual_block
from som.depth.networks.published import (
    LAYOUTS,
    MONODEPTH2_DEPTH,
    MONODEPTH2_POSE,
    MONODEPTH2_POSE_CNN,
    published_config,
)

KEYS = Path(__file__).parents[3].parent / "shared" / "keys"
needs_keys = pytest.mark.skipif(not KEYS.is_dir(), reason="listings of the published files are not at hand")


def listing(*names):
    """Name to shape, of one file or of the files of a folder together."""
    shapes = {}
    for name in names:
        content = json.loads((KEYS / f"{name}.json").read_text())
        shapes |= content.get("keys", content)
    return {key: tuple(shape) for key, shape in shapes.items() if isinstance(shape, list)}


def single_file_layout(name, role):
    return next(layout for layout in LAYOUTS if (layout.name, layout.role) == (name, role))


def depth(name, **options):
    return lambda: make_depth_net(NetworkConfig(name, **options))


def pose(name, **options):
    return lambda: make_pose_net(name, **options)


def shared_pose():
    return make_pose_net("resnet18", shared_encoder=make_depth_net(NetworkConfig("resnet18")).net.encoder)


CASES = {
    "monodepth2 r18": (depth("resnet18"), MONODEPTH2_DEPTH, ["monodepth2_r18_encoder", "monodepth2_r18_depth"]),
    "monodepth2 r50": (depth("resnet50"), MONODEPTH2_DEPTH, ["monodepth2_r50_encoder", "monodepth2_r50_depth"]),
    "monodepth2 r18 pose": (
        pose("resnet18"),
        MONODEPTH2_POSE,
        ["monodepth2_r18_pose_encoder", "monodepth2_r18_pose"],
    ),
    "monodepth2 r50 pose": (
        pose("resnet50"),
        MONODEPTH2_POSE,
        ["monodepth2_r50_pose_encoder", "monodepth2_r50_pose"],
    ),
    "monodepth2 shared pose": (shared_pose, MONODEPTH2_POSE, ["monodepth2_r18_encoder", "monodepth2_pose_shared"]),
    "monodepth2 pose cnn": (pose("cnn"), MONODEPTH2_POSE_CNN, ["monodepth2_posecnn"]),
    "sc r18": (depth("resnet18"), single_file_layout("sc", "depth"), ["sc_dispnet_r18"]),
    "sc r50": (depth("resnet50"), single_file_layout("sc", "depth"), ["sc_dispnet_r50"]),
    "sc pose": (pose("resnet18", style="sc"), single_file_layout("sc", "pose"), ["sc_posenet_r18"]),
    "sc_depth_pl": (depth("resnet18"), single_file_layout("sc_depth_pl", "depth"), ["scdepth_pl_v1_r18"]),
    "sc_depth_pl pose": (
        pose("resnet18", style="sc"),
        single_file_layout("sc_depth_pl", "pose"),
        ["scdepth_pl_v1_r18"],
    ),
    "packnet 1A": (depth("packnet"), single_file_layout("packnet", "depth"), ["packnet01_1A"]),
    "packnet 1A pose": (pose("packnet"), single_file_layout("packnet", "pose"), ["packnet01_1A"]),
    "packnet 1B": (depth("packnet_1b"), single_file_layout("packnet", "depth"), ["packnet01_1B"]),
    "packnet slim": (depth("packnet_slim"), single_file_layout("packnet", "depth"), ["packnetslim01_1A"]),
    "packnet resnet": (
        depth("resnet18"),
        single_file_layout("packnet", "depth"),
        ["packnet_depthresnet18_poseresnet18"],
    ),
    "packnet resnet pose": (
        pose("resnet18", style="packnet"),
        single_file_layout("packnet", "pose"),
        ["packnet_depthresnet18_poseresnet18"],
    ),
    "mvdepthnet": (MVDepthNet, single_file_layout("mvdepthnet", "mvdepthnet"), ["mvdepthnet"]),
}


@needs_keys
@pytest.mark.parametrize("case", CASES)
def test_every_listing_equals_our_network(case):
    make, layout, names = CASES[case]
    published = listing(*names)
    with torch.device("meta"):
        net = make()
    ours = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    renamed = {layout.rename(name): shape for name, shape in published.items() if not layout.is_extra(name)}
    assert renamed == ours
    if layout not in (MONODEPTH2_DEPTH, MONODEPTH2_POSE):
        fitting = (other for other in LAYOUTS if any(re.search(other.marker, name) for name in published))
        assert next(other for other in fitting if other.role == layout.role) is layout


@needs_keys
def test_the_old_mvdepthnet_file_lacks_only_the_counters():
    lacking = set(listing("mvdepthnet")) - set(listing("mvdepthnet_torch03"))
    assert {name.rsplit(".", 1)[1] for name in lacking} == {"num_batches_tracked"}


LAYERS = {
    "pack3d_k5_d8": lambda: PackLayer(16, 5, 8),
    "pack3d_k3_d4": lambda: PackLayer(16, 3, 4),
    "unpack3d_k3_d8": lambda: UnpackLayer(16, 32, 3, 8),
    "unpack3d_k3_d4": lambda: UnpackLayer(16, 16, 3, 4),
    "pack2d_k3": lambda: PackLayer(16, 3, None),
    "unpack2d_k3": lambda: UnpackLayer(16, 16, 3, None),
    "conv2d_k7": lambda: ConvGroupNorm(16, 32, 7),
    "resconv": lambda: ResidualConv(16, 32),
    "resblock3": lambda: residual_block(16, 32, 3),
    "invdepth": lambda: OutputLayer(16, 1),
}


@needs_keys
@pytest.mark.parametrize("name", LAYERS)
def test_packnet_layers_equal_their_listings(name):
    layer: nn.Module = LAYERS[name]()
    published = json.loads((KEYS / "packnet_layers.json").read_text())
    assert set(published) == set(LAYERS)
    assert {k: list(v.shape) for k, v in layer.state_dict().items()} == published[name]


def test_published_ranges_give_the_published_disparity():
    """1/100..1/0.1 for monodepth2, 10 s + 0.01 for SC-SfMLearner, s / 0.5 for PackNet, by the ends of the range."""
    ends = {
        ("monodepth2", "resnet18"): (0.01, 10.0),
        ("sc", "resnet50"): (0.01, 10.01),
        ("sc_depth_pl", "resnet18"): (0.01, 10.01),
        ("packnet", "packnet"): (0.0, 2.0),
        ("packnet", "resnet18"): (0.01, 10.0),
    }
    for (layout, name), expected in ends.items():
        config = published_config(layout, name)
        head = SigmoidHead(*config.depth_range)
        logits = torch.tensor([-math.inf, math.inf]).view(1, 1, 1, 2)
        assert head(logits).disparity.flatten().tolist() == pytest.approx(expected)
        assert config.upsampling == ("bilinear" if layout == "sc_depth_pl" else "nearest")
    with pytest.raises(DepthError, match="unknown layout"):
        published_config("dpt", "resnet18")
