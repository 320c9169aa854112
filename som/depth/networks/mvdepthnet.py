"""MVDepthNet (Wang & Shen, arXiv 1807.08563): depth from a reference image and any number of posed images of the scene.

Cost volume and network are the published arithmetic, made with PyTorch 0.3: bilinear sampling and upsampling with
``align_corners=True``, coordinates normalised by half the image size. Parameters are called as in the publication.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from som.depth.errors import DepthError
from som.depth.networks.depth_net import DepthOutput, check_images

MIN_PLANE_DEPTH, MAX_PLANE_DEPTH = 0.5, 50.0
"""Depths of the last and the first plane, in metres as published."""
NUM_PLANES = 64
MAX_DISPARITY = 2.0
"""The disparity that a saturated sigmoid means."""
MAX_DEPTH = 1e6
"""Depth is at most this, so that it stays finite."""


def plane_disparities(scale: float = 1.0, device: torch.device | None = None) -> Float[Tensor, "64"]:
    """The planes, even in disparity from 1/50 to 1/0.5, divided by ``scale``."""
    return torch.linspace(1 / MAX_PLANE_DEPTH, 1 / MIN_PLANE_DEPTH, NUM_PLANES, device=device) / scale


def normalize_images(images: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """RGB in [0, 1] as the network was trained: BGR, (pixel - 81) / 35 on 0..255."""
    return (images.flip(-3) * 255.0 - 81.0) / 35.0


def cost_volume(
    reference: Float[Tensor, "b c h w"],
    measurements: Float[Tensor, "b n c h w"],
    K: Float[Tensor, "b 3 3"],
    T_meas_ref: Float[Tensor, "b n 4 4"],
    disparities: Float[Tensor, "p"],
    K_meas: Float[Tensor, "b n 3 3"] | None = None,
) -> Float[Tensor, "b p h w"]:
    """Absolute difference, summed over channels, of the reference and each measurement warped over each plane.

    The plane at disparity ξ moves pixel p of the reference to K_meas (R K^-1 p / ξ + t). Several measurements are
    averaged; what falls outside of one is compared with 0, as published.

    Args:
        reference, measurements: images, normalised or not.
        K: intrinsics of the reference in pixels, centres at +0.5.
        T_meas_ref: maps points of the reference camera into each measurement camera, in the unit of the planes.
        disparities: 1 / depth of each plane.
        K_meas: intrinsics of the measurements; None: those of the reference.

    Raises:
        ValueError: the shapes disagree.
    """
    B, N, C, H, W = measurements.shape
    if reference.shape != (B, C, H, W) or K.shape != (B, 3, 3) or T_meas_ref.shape != (B, N, 4, 4):
        shapes = f"{tuple(reference.shape)}, {tuple(K.shape)}, {tuple(T_meas_ref.shape)}"
        raise ValueError(f"reference, K and T_meas_ref {shapes} do not fit measurements {tuple(measurements.shape)}.")
    to_integer = K.new_tensor([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])  # centres at whole numbers
    K = to_integer @ K
    K_meas = K[:, None].expand(B, N, 3, 3) if K_meas is None else to_integer @ K_meas
    rows, columns = torch.arange(H, device=K.device, dtype=K.dtype), torch.arange(W, device=K.device, dtype=K.dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # (3, H W)
    rays = K_meas @ T_meas_ref[..., :3, :3] @ torch.linalg.inv(K)[:, None] @ pixels  # (B, N, 3, H W)
    shift = K_meas @ T_meas_ref[..., :3, 3:]
    half_size = K.new_tensor([W / 2, H / 2])[:, None]
    images = measurements.flatten(0, 1)
    costs = []
    for depth in 1 / disparities:
        points = rays * depth + shift
        grid = (points[:, :, :2] / (points[:, :, 2:] + 1e-6)) / half_size - 1
        grid = grid.flatten(0, 1).transpose(1, 2).unflatten(1, (H, W))
        warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        difference = (warped.unflatten(0, (B, N)) - reference[:, None]).abs()
        costs.append(difference.sum(2).mean(1))
    return torch.stack(costs, dim=1)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]


def _down(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv(in_channels, out_channels, kernel_size), *_conv(out_channels, out_channels, kernel_size, 2)
    )


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(upsample, *_conv(in_channels, out_channels, 3))


def _disparity(in_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, 1, 3, padding=1), nn.Sigmoid())


class MVDepthNet(nn.Module):
    """The published encoder-decoder on a reference image and its 64-plane cost volume.

    Args:
        width: factor on the channels of every hidden layer, rounded to multiples of 8; 1 is the published network.

    Raises:
        DepthError: the width is not positive.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        if not width > 0:
            raise DepthError(f"the width of MVDepthNet must be positive, got {width}.")
        c64, c128, c256, c512 = (max(round(channels * width / 8), 1) * 8 for channels in (64, 128, 256, 512))
        downs = ((3 + NUM_PLANES, c128, 7), (c128, c256, 5), (c256, c512, 3), (c512, c512, 3), (c512, c512, 3))
        for level, sizes in enumerate(downs, start=1):
            setattr(self, f"conv{level}", _down(*sizes))
        # channels from below, channels, channels of the skip connection and the coarser disparity
        ups = (
            (c512, c512, c512),
            (c512, c512, c512),
            (c512, c256, c256 + 1),
            (c256, c128, c128 + 1),
            (c128, c64, 1),
        )
        for level, (below, channels, skip) in zip(range(5, 0, -1), ups, strict=True):
            setattr(self, f"upconv{level}", _up(below, channels))
            setattr(self, f"iconv{level}", nn.Sequential(*_conv(channels + skip, channels, 3)))
            if level < 5:
                setattr(self, f"disp{level}", _disparity(channels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        reference: Float[Tensor, "b 3 h w"],
        measurements: Float[Tensor, "b n 3 h w"],
        K: Float[Tensor, "b 3 3"],
        T_meas_ref: Float[Tensor, "b n 4 4"],
        K_meas: Float[Tensor, "b n 3 3"] | None = None,
        scale: float = 1.0,
    ) -> DepthOutput:
        """Depth of the reference at four scales, full size first. Published size: 320x256.

        Args:
            reference, measurements: RGB in [0, 1]; sides that are multiples of 32.
            K, K_meas, T_meas_ref: see ``cost_volume``.
            scale: scene units per metre; the planes and the result are in scene units.

        Raises:
            DepthError: shapes that do not fit, or no measurement.
        """
        check_images(reference)
        B, _, H, W = reference.shape
        if measurements.ndim != 5 or measurements.shape[1] == 0 or measurements.shape[2:] != (3, H, W):
            raise DepthError(f"measurements must be ({B},N,3,{H},{W}) with N > 0, got {tuple(measurements.shape)}.")
        image, others = normalize_images(reference), normalize_images(measurements)
        planes = plane_disparities(scale, reference.device)
        with torch.autocast(reference.device.type, enabled=False):
            volume = cost_volume(image, others, K, T_meas_ref, planes, K_meas)
        disparities = [disparity / scale for disparity in self.decode(image, volume)]
        depths = [1 / disparity.clamp(min=1 / (MAX_DEPTH * scale)) for disparity in disparities]
        return DepthOutput(depths, disparities, None, None)

    def decode(
        self, image: Float[Tensor, "b 3 h w"], volume: Float[Tensor, "b 64 h w"]
    ) -> list[Float[Tensor, "b 1 _ _"]]:
        """Disparity in (0, 2) per metre, finest first, from a normalised image and its cost volume."""
        x = torch.cat([image, volume], dim=1)
        skips = []
        for level in range(1, 6):
            x = getattr(self, f"conv{level}")(x)
            skips.append(x)
        disparities: list[Tensor] = []
        for level in range(5, 0, -1):
            parts = [getattr(self, f"upconv{level}")(x)]
            if level > 1:
                parts.append(skips[level - 2])
            if disparities:
                parts.append(F.interpolate(disparities[-1], scale_factor=2, mode="nearest"))
            x = getattr(self, f"iconv{level}")(torch.cat(parts, dim=1))
            if level < 5:
                disparities.append(MAX_DISPARITY * getattr(self, f"disp{level}")(x))
        return disparities[::-1]
