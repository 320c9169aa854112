"""How the references publish their weights: parameter names, and the settings that go with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Literal

from som.depth.errors import DepthError
from som.depth.networks.decoder import Upsampling
from som.depth.networks.depth_net import NetworkConfig, NetworkName

Role = Literal["depth", "pose", "mvdepthnet", "encoder"]
"""What weights are of; ``encoder`` is a ResNet alone."""


@dataclass(frozen=True)
class Layout:
    """The parameter names of one publication."""

    name: str
    """As in reports."""
    role: Role
    """Which network they are of."""
    marker: str
    """Pattern of a name that only this layout has."""
    renames: tuple[tuple[str, str], ...] = ()
    """Patterns and their replacements, applied in order, that make our names of the file's."""
    extras: tuple[str, ...] = ()
    """Patterns of names in the file for which our networks have no place."""

    def rename(self, name: str) -> str:
        """Our name of an entry of the file."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def is_extra(self, name: str) -> bool:
        """Whether an entry of the file is one of the layout's known extras."""
        return any(re.search(pattern, name) for pattern in self.extras)


_CLASSIFIER = r"(^|\.)fc\.(weight|bias)$"
_DEPTH = r"^(?:model\.)*(?:depth_net|disp_network)\."
_POSE = r"^(?:model\.)*(?:pose_net|pose_network)\."
_RECTIFY = r"^rectify_net\."
_OUTPUTS = r"^net\.decoder\.decoder\.1[0-3]\."

MONODEPTH2_DEPTH = Layout(
    "monodepth2",
    "depth",
    r"^decoder\.0\.conv\.",
    ((r"^encoder\.", "net.encoder.encoder."), (r"^decoder\.", "net.decoder.decoder.")),
    (_CLASSIFIER,),
)
MONODEPTH2_POSE = Layout(
    "monodepth2",
    "pose",
    r"^net\.0\.(weight|bias)$",
    ((r"^encoder\.", "encoder.encoder."), (r"^net\.", "decoder.net.")),
    (_CLASSIFIER,),
)
MONODEPTH2_POSE_CNN = Layout("monodepth2", "pose", r"^pose_conv\.")

LAYOUTS = (
    # A training checkpoint of ours holds both networks; a state dict by itself one of them.
    Layout("som4d", "depth", r"^depth_net\.net\.", ((_DEPTH, ""),), (_POSE,)),
    Layout("som4d", "depth", r"^net\.(encoder\.encoder\.conv1|pre_calc)\."),
    Layout(
        "sc_depth_pl",
        "depth",
        r"^depth_net\.decoder\.upconvs0\.",
        (
            (_DEPTH, "net."),
            *((rf"decoder\.upconvs{j}\.{i}\.", f"decoder.decoder.{2 * i + j}.") for i in range(5) for j in range(2)),
            *((rf"decoder\.dispconvs\.{s}\.", f"decoder.decoder.{10 + s}.") for s in range(4)),
        ),
        (_CLASSIFIER, _POSE, _RECTIFY),
    ),
    Layout(
        "sc_depth_pl",
        "pose",
        r"^pose_net\.decoder\.conv_squeeze\.",
        (
            (_POSE, ""),
            (r"^decoder\.conv_squeeze\.", "decoder.net.0."),
            *((rf"^decoder\.convs_pose\.{i}\.", f"decoder.net.{i + 1}.") for i in range(3)),
        ),
        (_CLASSIFIER, _DEPTH, _RECTIFY),
    ),
    Layout("som4d", "pose", r"^pose_net\.", ((_POSE, ""),), (_DEPTH,)),
    # In PackNets with dropout a shortcut is a sequence, of which only entry 0 has parameters.
    Layout("packnet", "depth", _DEPTH, ((_DEPTH, "net."), (r"(conv\d\.\d\.conv3)\.0\.", r"\1.")), (_CLASSIFIER, _POSE)),
    Layout("packnet", "pose", _POSE, ((_POSE, ""),), (_CLASSIFIER, _DEPTH)),
    Layout("packnet", "pose", r"^pose_pred\."),
    Layout("sc", "depth", r"^decoder\.decoder\.0\.", ((r"^", "net."),), (_CLASSIFIER,)),
    Layout("sc", "pose", r"^decoder\.net\.0\.", (), (_CLASSIFIER,)),
    MONODEPTH2_POSE_CNN,
    Layout("mvdepthnet", "mvdepthnet", r"^upconv5\.1\."),
    Layout("torchvision", "encoder", r"^layer1\.0\.conv1\.", ((r"^", "encoder.encoder."),), (_CLASSIFIER,)),
)
"""Layouts of single files, in the order in which they are tried."""

MONODEPTH2_PART = r"^(encoder\.conv1|decoder\.0\.conv|net\.0)\."
"""Names that only a single file of a monodepth2 folder has."""

_RANGES = {"monodepth2": (0.1, 100.0), "sc": (1 / 10.01, 100.0), "sc_depth_pl": (1 / 10.01, 100.0)}


def published_config(layout: str, name: NetworkName) -> NetworkConfig:
    """The configuration under which published depth weights give the published depth.

    Args:
        layout: ``monodepth2``, ``sc``, ``sc_depth_pl`` or ``packnet``.
        name: the network.

    Raises:
        DepthError: a layout without depth nets that depend on a configuration.
    """
    if layout == "packnet":
        return NetworkConfig(name, depth_range=(0.5, inf) if name.startswith("packnet") else (0.1, 100.0))
    if layout not in _RANGES:
        raise DepthError(f"unknown layout {layout!r}; choose monodepth2, sc, sc_depth_pl or packnet.")
    upsampling: Upsampling = "bilinear" if layout == "sc_depth_pl" else "nearest"
    return NetworkConfig(name, upsampling=upsampling, depth_range=_RANGES[layout])


def is_unused_scale(our_name: str) -> bool:
    """Whether an entry belongs to an output layer of the Monodepth2 decoder, which nets of fewer scales lack."""
    return re.search(_OUTPUTS, our_name) is not None
