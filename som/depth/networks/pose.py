"""Pose networks: images of a target and its source views to relative poses.

All have the interface of ``PoseNet``. The references differ in how they stack images and read the six numbers; a
``PoseStyle`` says how.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from som.cameras.geometry import axis_angle_to_se3, euler_to_se3, invert_se3
from som.depth.errors import DepthError
from som.depth.networks.packnet import NUM_NORM_GROUPS
from som.depth.networks.resnet import NumLayers, ResNetEncoder

POSE_SCALE = 0.01
"""Factor on the six numbers, common to all references, so that an untrained net predicts almost no motion."""
CNN_CHANNELS = (16, 32, 64, 128, 256, 256, 256)
CNN_KERNELS = (7, 5, 3, 3, 3, 3, 3)


@dataclass(frozen=True)
class PoseStyle:
    """How a reference stacks two images and reads six numbers."""

    rotation: Literal["axis_angle", "euler"]
    """Rotation vector, or angles around x, y, z with R = Rx Ry Rz."""
    rotation_first: bool
    """[rotation, translation], or [translation, rotation]."""
    temporal_order: bool
    """Whether the earlier image always comes first (and the pose of an earlier source is the inverse of the
    prediction); otherwise the target comes first."""
    outputs: int
    """Numbers predicted per pair; only the first six are used."""


PoseStyleName = Literal["monodepth2", "sc", "packnet"]
STYLES: dict[str, PoseStyle] = {
    "monodepth2": PoseStyle("axis_angle", rotation_first=True, temporal_order=True, outputs=12),
    "sc": PoseStyle("euler", rotation_first=False, temporal_order=False, outputs=6),
    "packnet": PoseStyle("euler", rotation_first=True, temporal_order=False, outputs=12),
}
"""Monodepth2, SC-SfMLearner (and sc_depth_pl), and packnet-sfm's PoseResNet."""


class PoseNet(nn.Module, ABC):
    """Relative poses of source views from images."""

    style: PoseStyle
    """How images are stacked and numbers read."""

    def forward(
        self,
        target: Float[Tensor, "b 3 h w"],
        sources: Float[Tensor, "b n 3 h w"],
        offsets: Int[Tensor, "*s"] | Sequence[int] | None = None,
        mean_inverse_depth: Float[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b n 4 4"]:
        """``T_src_tgt``, which maps points of the target camera into each source camera.

        Args:
            target: RGB in [0, 1].
            sources: RGB in [0, 1], N views of each target.
            offsets: (N,) or (B,N), frame number of each source less that of its target. Nets that stack images in
                temporal order put a source of negative offset first and invert its pose; None takes every source as
                later than its target. Other nets do not use it.
            mean_inverse_depth: mean of 1 / depth of each target, a factor on the translation that keeps the warp
                unchanged when the depth's scale changes (Wang et al., arXiv 1712.00175); None is 1.

        Raises:
            DepthError: the shapes do not fit.
        """
        B, N = _check(target, sources)
        rotation, translation, inverted = self.predict(target, sources, _earlier(offsets, B, N, target.device))
        if mean_inverse_depth is not None:
            if mean_inverse_depth.shape != (B,):
                raise DepthError(f"mean_inverse_depth must be ({B},), got {tuple(mean_inverse_depth.shape)}.")
            translation = translation * mean_inverse_depth[:, None, None]
        to_se3 = axis_angle_to_se3 if self.style.rotation == "axis_angle" else euler_to_se3
        with torch.autocast(target.device.type, enabled=False):
            T = to_se3(rotation, translation)
            return torch.where(inverted[..., None, None], invert_se3(T), T)

    @abstractmethod
    def predict(
        self, target: Tensor, sources: Tensor, earlier: Tensor
    ) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 3"], Tensor]:
        """Rotation, translation, and whether the pose is to be inverted (B,N)."""

    def _read(self, numbers: Float[Tensor, "b n _"]) -> tuple[Tensor, Tensor]:
        """Rotation and translation, in float32 at least."""
        numbers = POSE_SCALE * (numbers if numbers.dtype == torch.float64 else numbers.float())
        first, second = numbers[..., :3], numbers[..., 3:6]
        return (first, second) if self.style.rotation_first else (second, first)


class PairPoseNet(PoseNet):
    """A net that sees one target and one source at a time.

    All pairs run as one batch. (The references run source after source, which differs only in that batch
    normalisation, in training, sees one source's pairs at a time.)
    """

    @abstractmethod
    def regress(self, first: Float[Tensor, "m 3 h w"], second: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m k"]:
        """At least six numbers for each pair of images."""

    def predict(self, target: Tensor, sources: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B, N = sources.shape[:2]
        swapped = earlier if self.style.temporal_order else torch.zeros_like(earlier)
        target = target[:, None].expand_as(sources)
        mask = swapped[..., None, None, None]
        first, second = torch.where(mask, sources, target), torch.where(mask, target, sources)
        numbers = self.regress(first.flatten(0, 1), second.flatten(0, 1)).unflatten(0, (B, N))
        return *self._read(numbers), swapped


class PoseDecoder(nn.Module):
    """ResNet features of one or several images to the mean of the predicted numbers over the map.

    Args:
        in_channels: of each feature map.
        num_features: feature maps, each squeezed to 256 channels and then concatenated.
        outputs: numbers predicted.
    """

    def __init__(self, in_channels: int, num_features: int, outputs: int):
        super().__init__()
        self.net = nn.ModuleList(
            [
                nn.Conv2d(in_channels, 256, 1),
                nn.Conv2d(num_features * 256, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
                nn.Conv2d(256, outputs, 1),
            ]
        )

    def forward(self, features: list[Float[Tensor, "m c h w"]]) -> Float[Tensor, "m k"]:
        x = torch.cat([self.net[0](feature).relu() for feature in features], dim=1)
        x = self.net[2](self.net[1](x).relu()).relu()
        return self.net[3](x).mean(dim=(2, 3))


class PoseResNet(PairPoseNet):
    """Pose from the last ResNet features of a pair, of Monodepth2, SC-SfMLearner or packnet-sfm.

    Args:
        num_layers: 18 or 50.
        style: a key of ``STYLES``.
        shared_encoder: the depth net's encoder (``net.encoder``), to encode both images one by one with it, as
            Monodepth2's shared variant does. None makes an encoder of the stacked pair.
    """

    def __init__(
        self, num_layers: NumLayers = 18, style: str = "monodepth2", shared_encoder: ResNetEncoder | None = None
    ):
        super().__init__()
        if style not in STYLES:
            raise DepthError(f"unknown pose style {style!r}; choose one of {', '.join(STYLES)}.")
        self.style = STYLES[style]
        self.is_shared = shared_encoder is not None
        self.encoder = ResNetEncoder(num_layers, num_images=2) if shared_encoder is None else shared_encoder
        outputs = 6 if self.is_shared else self.style.outputs
        self.decoder = PoseDecoder(self.encoder.channels[-1], 2 if self.is_shared else 1, outputs)

    def regress(self, first: Float[Tensor, "m 3 h w"], second: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m k"]:
        if self.is_shared:
            return self.decoder(list(self.encoder(torch.cat([first, second]))[-1].chunk(2)))
        return self.decoder([self.encoder(torch.cat([first, second], dim=1))[-1]])


class PoseCNN(PairPoseNet):
    """Seven strided convolutions (SfMLearner, arXiv 1704.07813) in Monodepth2's form, without input normalisation."""

    style = STYLES["monodepth2"]

    def __init__(self):
        super().__init__()
        inputs = (6, *CNN_CHANNELS[:-1])
        sizes = zip(inputs, CNN_CHANNELS, CNN_KERNELS, strict=True)
        self.net = nn.ModuleList([nn.Conv2d(i, o, k, stride=2, padding=k // 2) for i, o, k in sizes])
        self.pose_conv = nn.Conv2d(CNN_CHANNELS[-1], 6, 1)

    def regress(self, first: Float[Tensor, "m 3 h w"], second: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m 6"]:
        x = torch.cat([first, second], dim=1)
        for conv in self.net:
            x = conv(x).relu()
        return self.pose_conv(x).mean(dim=(2, 3))


class PackNetPose(PoseNet):
    """packnet-sfm's PoseNet: target and all sources stacked, one [translation, euler] per source.

    Args:
        num_sources: the number of sources that it takes, in a fixed order (the published ones: previous, next).
    """

    style = STYLES["sc"]

    def __init__(self, num_sources: int = 2):
        super().__init__()
        self.num_sources = num_sources
        inputs = (3 * (1 + num_sources), *CNN_CHANNELS[:-1])
        for i, (c_in, c_out, k) in enumerate(zip(inputs, CNN_CHANNELS, CNN_KERNELS, strict=True)):
            conv = nn.Conv2d(c_in, c_out, k, stride=2, padding=k // 2)
            setattr(
                self, f"conv{i + 1}", nn.Sequential(conv, nn.GroupNorm(NUM_NORM_GROUPS, c_out), nn.ReLU(inplace=True))
            )
        self.pose_pred = nn.Conv2d(CNN_CHANNELS[-1], 6 * num_sources, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def predict(self, target: Tensor, sources: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if sources.shape[1] != self.num_sources:
            raise DepthError(f"this pose net takes {self.num_sources} sources a target, got {sources.shape[1]}.")
        x = torch.cat([target[:, None], sources], dim=1).flatten(1, 2)
        for i in range(len(CNN_CHANNELS)):
            x = getattr(self, f"conv{i + 1}")(x)
        numbers = self.pose_pred(x).mean(dim=(2, 3)).unflatten(1, (self.num_sources, 6))
        return *self._read(numbers), torch.zeros_like(earlier)


def make_pose_net(
    name: Literal["resnet18", "resnet50", "cnn", "packnet"] = "resnet18",
    *,
    style: PoseStyleName = "monodepth2",
    num_sources: int = 2,
    shared_encoder: ResNetEncoder | None = None,
) -> PoseNet:
    """A pose network by name, with random weights.

    Args:
        style: whose conventions the ResNets follow.
        num_sources: of ``packnet``; the others take any number.
        shared_encoder: for the ResNets, see ``PoseResNet``.

    Raises:
        DepthError: an unknown name or style.
    """
    if name in ("resnet18", "resnet50"):
        return PoseResNet(18 if name == "resnet18" else 50, style, shared_encoder)
    if name == "cnn":
        return PoseCNN()
    if name == "packnet":
        return PackNetPose(num_sources)
    raise DepthError(f"unknown pose network {name!r}; choose resnet18, resnet50, cnn or packnet.")


def _check(target: Tensor, sources: Tensor) -> tuple[int, int]:
    B, N = sources.shape[:2]
    if sources.ndim != 5 or target.shape != (B, 3, *sources.shape[-2:]) or sources.shape[2] != 3 or N == 0:
        shapes = f"{tuple(target.shape)} and {tuple(sources.shape)}"
        raise DepthError(f"target must be (B,3,H,W) and sources (B,N,3,H,W) of the same B, H, W; got {shapes}.")
    return B, N


def _earlier(offsets: Tensor | Sequence[int] | None, B: int, N: int, device: torch.device) -> Tensor:
    """Whether each source is earlier than its target, (B,N)."""
    if offsets is None:
        return torch.zeros(B, N, dtype=torch.bool, device=device)
    offsets = torch.as_tensor(offsets, device=device)
    if offsets.shape not in ((N,), (B, N)):
        raise DepthError(f"offsets must be ({N},) or ({B},{N}), got {tuple(offsets.shape)}.")
    return (offsets < 0).expand(B, N)
