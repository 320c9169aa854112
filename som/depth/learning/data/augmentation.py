"""Random changes of training samples: mirroring and scale-crops that keep cameras right, colour jitter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from som.cameras.geometry import flip_intrinsics, flip_pose, resize_intrinsics
from som.depth.errors import DepthError


@dataclass(frozen=True)
class AugmentationConfig:
    """How samples are varied; all zeros and ``max_zoom`` 1 leave them as they are."""

    flip: float = 0.5
    """Probability of mirroring left to right."""
    max_zoom: float = 1.15
    """Images are enlarged by a factor drawn from [1, max_zoom], one per axis, and cropped to their size."""
    jitter: float = 0.5
    """Probability that the colours of the network's inputs are changed."""
    brightness: float = 0.2
    """Factors are drawn from [1 - b, 1 + b]; so for contrast and saturation."""
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.1
    """Turns of the colour circle are drawn from [-hue, hue]."""

    def __post_init__(self) -> None:
        probabilities = (self.flip, self.jitter, self.brightness, self.contrast, self.saturation)
        if not all(0 <= p <= 1 for p in probabilities) or not 0 <= self.hue <= 0.5 or not self.max_zoom >= 1:
            raise DepthError(
                f"augmentation: shares lie in [0, 1], hue in [0, 0.5], max_zoom is at least 1; got {self}."
            )


AUGMENTATION = AugmentationConfig()
NO_AUGMENTATION = AugmentationConfig(flip=0, max_zoom=1, jitter=0)


@dataclass(frozen=True)
class FlipCrop:
    """Mirroring, then enlarging to ``zoomed`` and cropping to the original size; identical for all frames of a sample.

    Every method takes what belongs to the original image and gives what belongs to the changed one.
    """

    height: int
    width: int
    flip: bool = False
    zoomed: tuple[int, int] | None = None
    """(height, width) after enlarging; None for no crop."""
    corner: tuple[int, int] = (0, 0)
    """(top, left) of the crop."""

    @staticmethod
    def draw(height: int, width: int, config: AugmentationConfig, generator: torch.Generator) -> FlipCrop:
        """A random one. Always draws five numbers, so that what is drawn later does not depend on the outcome."""
        u = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        rows, columns = (
            int(side * (1 + (config.max_zoom - 1) * x)) for side, x in zip((height, width), u[1:3], strict=True)
        )
        zoomed = None if (rows, columns) == (height, width) else (rows, columns)
        corner = int(u[3] * (rows - height + 1)), int(u[4] * (columns - width + 1))
        return FlipCrop(height, width, u[0] < config.flip, zoomed, corner)

    @property
    def _scale(self) -> tuple[float, float]:
        """Exact factors (x, y) by which coordinates grow."""
        height, width = self.zoomed or (self.height, self.width)
        return width / self.width, height / self.height

    def image(self, image: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
        """Colours, bilinear."""
        return self._resample(image, "bilinear")

    def map(self, values: Tensor) -> Tensor:
        """(...,H,W) masks, labels or z-depth (which does not change), by nearest pixel; the type is kept."""
        return self._resample(values.double(), "nearest-exact").to(values.dtype)

    def flow(self, flow: Float[Tensor, "*b 2 h w"]) -> Float[Tensor, "*b 2 h w"]:
        """Optical flow (right, down) in pixels, by nearest pixel: mirroring turns its x, enlarging lengthens it."""
        scale = flow.new_tensor(self._scale) * flow.new_tensor([-1.0 if self.flip else 1.0, 1.0])
        return self.map(flow) * scale[:, None, None]

    def _resample(self, values: Tensor, mode: str) -> Tensor:
        if values.shape[-2:] != (self.height, self.width):
            expected = f"({self.height}, {self.width})"
            raise ValueError(f"FlipCrop: expected maps of size {expected}, got {tuple(values.shape[-2:])}.")
        values = values.flip(-1) if self.flip else values
        if self.zoomed is None or values.numel() == 0:
            return values
        flat = values.reshape(1, -1, self.height, self.width)
        align = {"align_corners": False} if mode == "bilinear" else {}
        top, left = self.corner
        zoomed = F.interpolate(flat, self.zoomed, mode=mode, **align)
        return zoomed[..., top : top + self.height, left : left + self.width].reshape(values.shape).contiguous()

    def intrinsics(self, K: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
        """Mirroring moves cx to W - cx, enlarging scales the rows, cropping moves the principal point."""
        K = resize_intrinsics(flip_intrinsics(K, self.width) if self.flip else K, *self._scale)
        top, left = self.corner
        return K - K.new_tensor([[0.0, 0.0, left], [0.0, 0.0, top], [0.0, 0.0, 0.0]])

    def pose(self, T: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
        """Mirrored if the images are: relative poses, and world-to-camera poses, whose world is then mirrored too."""
        return flip_pose(T) if self.flip else T

    def boxes(self, boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
        """Boxes (left, top, right, bottom) in continuous image coordinates. They are not clipped to the image."""
        left, top, right, bottom = boxes.unbind(-1)
        if self.flip:
            left, right = self.width - right, self.width - left
        (sx, sy), (row, column) = self._scale, self.corner
        return torch.stack([left * sx - column, top * sy - row, right * sx - column, bottom * sy - row], -1)


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, in a random order; identical for all frames of a sample.

    The usual definitions (those of Monodepth2's augmentation): brightness multiplies; contrast blends with the image's
    mean grey, saturation with each pixel's grey; hue turns the colour circle of HSV. Every step is clipped to [0, 1].
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    """Turns."""
    order: tuple[str, ...] = ("brightness", "contrast", "saturation", "hue")

    @staticmethod
    def draw(config: AugmentationConfig, generator: torch.Generator) -> ColorJitter | None:
        """A random one, or None. Always draws the same number of numbers."""
        u = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        order = torch.randperm(4, generator=generator).tolist()
        if not u[0] < config.jitter:
            return None
        spread = (config.brightness, config.contrast, config.saturation)
        brightness, contrast, saturation = (1 + s * (2 * x - 1) for s, x in zip(spread, u[1:4], strict=True))
        hue = config.hue * (2 * u[4] - 1)
        return ColorJitter(brightness, contrast, saturation, hue, tuple(ColorJitter.order[i] for i in order))

    def __call__(self, images: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
        """RGB in [0, 1] to RGB in [0, 1]."""
        for step in self.order:
            if step == "brightness":
                images = images * self.brightness
            elif step == "contrast":
                mean = _gray(images).mean((-1, -2), keepdim=True)
                images = mean + self.contrast * (images - mean)
            elif step == "saturation":
                gray = _gray(images)
                images = gray + self.saturation * (images - gray)
            elif self.hue:
                images = turn_hue(images, self.hue)
            images = images.clamp(0, 1)
        return images


def _gray(images: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 1 h w"]:
    """Luma of ITU-R BT.601."""
    return (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(-3, keepdim=True)


def turn_hue(images: Float[Tensor, "*b 3 h w"], turns: float) -> Float[Tensor, "*b 3 h w"]:
    """Adds ``turns`` to the hue of HSV and keeps saturation and value; grey stays grey."""
    value, low = images.amax(-3), images.amin(-3)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    r, g, b = images.unbind(-3)
    sixths = torch.where(value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    sixths = sixths + 6 * turns
    # each channel is a trapezium over the colour circle
    channels = [value - chroma * torch.minimum(k := (n + sixths) % 6, 4 - k).clamp(0, 1) for n in (5, 3, 1)]
    return torch.stack(channels, -3)
