"""Depth networks by name: one configuration, one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som.depth.errors import DepthError
from som.depth.networks.decoder import DepthDecoder, Upsampling
from som.depth.networks.heads import HeadName, make_head
from som.depth.networks.packnet import PackNet, Variant
from som.depth.networks.resnet import NumLayers, ResNetEncoder

NetworkName = Literal["small", "resnet18", "resnet50", "packnet", "packnet_1b", "packnet_slim"]
STRIDE = 32
"""Image sides must be multiples of this."""
INITIAL_WEIGHT_SCALE = 0.1
"""Factor on the weights of the last convolutions where the untrained net is to predict one depth everywhere."""


@dataclass(frozen=True)
class NetworkConfig:
    """A depth network."""

    name: NetworkName = "small"
    """``small`` (ResNet-18 with a quarter of the channels and half the decoder's), ``resnet18``, ``resnet50`` (both
    with the Monodepth2 decoder), ``packnet`` (PackNet01 1A), ``packnet_1b``, ``packnet_slim``."""
    head: HeadName = "sigmoid"
    """What the output means: ``sigmoid`` or ``softplus`` disparity, ``ddv`` (discrete disparity volume), ``dorn``
    (ordinal regression); the last two say how sure they are."""
    upsampling: Upsampling = "nearest"
    """How the decoder doubles its size: ``nearest``, ``bilinear``, ``subpixel`` or ``up_projection``. PackNet unpacks
    and takes ``nearest`` only."""
    num_scales: int = 4
    """Number of depth maps, 1 to 4: at full size, 1/2, 1/4, 1/8."""
    depth_range: tuple[float, float] = (0.1, 100.0)
    """Nearest and farthest depth in scene units. The far end may be ``inf`` for ``sigmoid``; ``softplus`` has no
    bounds and takes its unit from the near end."""
    initial_depth: float | None = None
    """Depth that the untrained net predicts, roughly, everywhere. Give the median of the scene when poses are known:
    a start at the default of a sigmoid (about twice the near end) sends every warp out of the image. None leaves the
    usual random start."""
    bins: int | None = None
    """Planes of ``ddv`` (None: 64) or bins of ``dorn`` (None: 80)."""


class DepthOutput(NamedTuple):
    """Predictions of a depth network; lists have one entry per scale, finest first."""

    depths: list[Float[Tensor, "b 1 h w"]]
    """z-depth in the unit of the network's range."""
    disparities: list[Float[Tensor, "b 1 h w"]]
    """1 / depth."""
    logits: list[Float[Tensor, "b c h w"]] | None
    """What the losses of ``ddv`` and ``dorn`` act on; None for the other heads."""
    deviation: Float[Tensor, "b 1 h w"] | None
    """Standard deviation of depth over depth, at the finest scale; None for heads without."""


class ResNetDepth(nn.Module):
    """ResNet encoder and Monodepth2 decoder: images to logits per scale."""

    def __init__(
        self,
        num_layers: NumLayers,
        width: float,
        decoder_width: float,
        channels: int,
        num_scales: int,
        upsampling: Upsampling,
    ):
        super().__init__()
        self.encoder = ResNetEncoder(num_layers, width=width)
        self.decoder = DepthDecoder(self.encoder.channels, channels, num_scales, upsampling, decoder_width)

    def output_convs(self) -> list[nn.Conv2d]:
        """The convolutions that make the logits, finest scale first."""
        return self.decoder.output_convs()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c _ _"]]:
        return self.decoder(self.encoder(images))


_PACKNET_VARIANTS: dict[str, Variant] = {"packnet": "1A", "packnet_1b": "1B", "packnet_slim": "slim"}


class DepthModule(nn.Module, ABC):
    """What a training run trains: a network with settings of its own, whose call gives a ``DepthOutput``."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Its configuration in plain values, for checkpoints."""


class DepthNet(DepthModule):
    """A network body ``net`` (parameters called as in the published layouts) and a head without parameters."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        _check(config)
        self.config = config
        self.head = make_head(config.head, config.depth_range, config.bins)
        if config.name.startswith("packnet"):
            self.net: PackNet | ResNetDepth = PackNet(self.head, _PACKNET_VARIANTS[config.name])
        else:
            num_layers: NumLayers = 50 if config.name == "resnet50" else 18
            width, decoder_width = (0.25, 0.5) if config.name == "small" else (1.0, 1.0)
            self.net = ResNetDepth(
                num_layers, width, decoder_width, self.head.channels, config.num_scales, config.upsampling
            )
        if config.initial_depth is not None:
            bias = self.head.initial_bias(config.initial_depth)
            with torch.no_grad():
                for conv in self.net.output_convs():
                    assert conv.bias is not None  # every output layer is made with one
                    conv.weight.mul_(INITIAL_WEIGHT_SCALE)
                    conv.bias.copy_(bias)

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> DepthOutput:
        """Depth of RGB images in [0, 1], the same number of scales in training and evaluation.

        Raises:
            DepthError: not (B,3,H,W), or sides that are not multiples of 32.
        """
        check_images(images)
        logits = self.net(images)[: self.config.num_scales]
        outputs = [self.head(scale) for scale in logits]
        return DepthOutput(
            depths=[output.depth for output in outputs],
            disparities=[output.disparity for output in outputs],
            logits=logits if self.head.is_distribution else None,
            deviation=outputs[0].deviation,
        )


def make_depth_net(config: NetworkConfig | None = None) -> DepthNet:
    """The network of a configuration (None: the defaults), with random weights from torch's global generator.

    Raises:
        DepthError: the configuration contradicts itself.
    """
    return DepthNet(config or NetworkConfig())


def check_images(images: Tensor) -> None:
    """Raises DepthError unless ``images`` is (B,3,H,W) with sides that are multiples of 32."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise DepthError(f"images must be (B,3,H,W), got shape {tuple(images.shape)}.")
    H, W = images.shape[-2:]
    if H % STRIDE or W % STRIDE or not H or not W:
        raise DepthError(f"image sides must be multiples of {STRIDE} px, got {W}x{H}; resize the images (and K).")


def _check(config: NetworkConfig) -> None:
    if config.name not in get_args(NetworkName):
        raise DepthError(f"unknown depth network {config.name!r}; choose one of {', '.join(get_args(NetworkName))}.")
    if config.num_scales not in (1, 2, 3, 4):
        raise DepthError(f"num_scales must be 1, 2, 3 or 4, got {config.num_scales}.")
    if config.upsampling not in get_args(Upsampling):
        raise DepthError(f"unknown upsampling {config.upsampling!r}; choose one of {', '.join(get_args(Upsampling))}.")
    if config.name.startswith("packnet") and config.upsampling != "nearest":
        raise DepthError(f"{config.name} upsamples by unpacking; leave upsampling at nearest.")
    lo, hi = (0.0, float("inf")) if config.head == "softplus" else config.depth_range
    if config.initial_depth is not None and not lo < config.initial_depth < hi:
        raise DepthError(f"initial_depth {config.initial_depth} must lie inside depth_range ({lo}, {hi}).")
