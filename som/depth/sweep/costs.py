"""Matching costs between a target image and source images warped into it: how unlike they are at every pixel and plane.

Each cost sums over a square window, so that it says something about single pixels too, and is scaled to about [0, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from som.depth.errors import DepthError

CostName = Literal["census", "absolute", "zncc"]
COSTS = ("census", "absolute", "zncc")


class MatchingCost(ABC):
    """A cost that is set up with one target image and then compares it with warped source images."""

    smoothness: float = 1.0
    """Typical difference between a wrong and a right match, by which the penalties of regularisation are scaled."""
    neutral: float = 0.25
    """Cost of a pixel that must not decide anything."""

    def __init__(self, window: int):
        self.window = window

    def features(self, images: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t c h w"]:
        """What of the images is warped and compared; grey values by default."""
        return images.mean(1, keepdim=True)

    @abstractmethod
    def set_target(self, target: Float[Tensor, "c h w"]) -> None:
        """Prepares the comparison with the features of one target image."""

    @abstractmethod
    def compare(self, warped: Float[Tensor, "c d h w"], ignored: Tensor | None = None) -> Float[Tensor, "d h w"]:
        """Cost of the target against source features warped by D planes; may overwrite ``warped``.

        Args:
            ignored: (d,h,w) bool, pixels that count as neutral within the windows of their neighbours.
        """


class AbsoluteCost(MatchingCost):
    """Mean over colours and window of the absolute difference; assumes equal exposure."""

    smoothness = 0.1
    neutral = 0.05

    def features(self, images: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
        return images

    def set_target(self, target: Float[Tensor, "c h w"]) -> None:
        self.target = target[:, None]

    def compare(self, warped: Float[Tensor, "c d h w"], ignored: Tensor | None = None) -> Float[Tensor, "d h w"]:
        cost = warped.sub_(self.target).abs_().mean(0)
        if ignored is not None:
            cost.masked_fill_(ignored, self.neutral)
        return window_mean(cost, self.window)


class CensusCost(MatchingCost):
    """Soft census: compares how each pixel differs from its neighbours, clipped to [-1, 1] at ``CONTRAST`` grey levels.

    The census transform (Zabih and Woodfill, ECCV 1994) keeps the signs of these differences only, which a change of
    exposure leaves alone; the clipped ramp in place of the sign keeps noise in flat regions small and the cost
    continuous in depth, which sub-plane refinement needs. Of two opposite neighbours one suffices, since the window
    holds the other pair.
    """

    CONTRAST = 0.03
    """Difference of grey values, in [0, 1], at which the ramp saturates."""
    NEIGHBOURS = ((0, 1), (0, 2), (1, 0), (2, 0), (1, 2), (2, 1), (1, -2), (2, -1))
    """(row, column) offsets: half of a 5x5 window's star pattern."""

    def features(self, images: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 1 h w"]:
        return images.mean(1, keepdim=True) / self.CONTRAST

    def _ramp(self, grey: Float[Tensor, "d h w"], row: int, column: int) -> tuple[Tensor, tuple[slice, slice]]:
        """Clipped differences between neighbours, and the (rows, columns) of the pixels that they belong to."""
        h, w = grey.shape[-2:]
        rows = slice(0, h - row)
        columns = slice(max(0, -column), w - max(0, column))
        there = grey[:, row:, columns.start + column : columns.stop + column]
        return (there - grey[:, rows, columns]).clamp_(-1, 1), (rows, columns)

    def set_target(self, target: Float[Tensor, "c h w"]) -> None:
        self.ramps = [self._ramp(target, *offset)[0] for offset in self.NEIGHBOURS]

    def compare(self, warped: Float[Tensor, "c d h w"], ignored: Tensor | None = None) -> Float[Tensor, "d h w"]:
        grey = warped[0]
        cost = torch.zeros_like(grey)
        for offset, of_target in zip(self.NEIGHBOURS, self.ramps, strict=True):
            ramp, (rows, columns) = self._ramp(grey, *offset)
            cost[:, rows, columns] += ramp.sub_(of_target).abs_()
        cost *= 1 / (2 * len(self.NEIGHBOURS))
        if ignored is not None:
            cost.masked_fill_(ignored, self.neutral)
        return window_mean(cost, self.window)


class ZNCCCost(MatchingCost):
    """(1 - r) / 2 with r the zero-mean normalised cross-correlation of grey values in the window.

    Gain and offset of exposure do not matter, each window by itself. ``NOISE`` is added to both standard deviations, so
    that flat windows correlate with nothing. ``ignored`` pixels make their whole window neutral.
    """

    NOISE = 0.01
    """Standard deviation of grey values, in [0, 1]."""
    neutral = 0.5

    def set_target(self, target: Float[Tensor, "c h w"]) -> None:
        self.target = target
        self.mean = window_mean(target, self.window)
        self.variance = (window_mean(target * target, self.window) - self.mean**2).clamp_(min=0) + self.NOISE**2

    def compare(self, warped: Float[Tensor, "c d h w"], ignored: Tensor | None = None) -> Float[Tensor, "d h w"]:
        grey = warped[0]
        mean = window_mean(grey, self.window)
        covariance = window_mean(grey * self.target, self.window) - mean * self.mean
        variance = (window_mean(grey * grey, self.window) - mean * mean).clamp_(min=0) + self.NOISE**2
        cost = 0.5 - 0.5 * covariance * (variance * self.variance).rsqrt()
        if ignored is not None:
            cost.masked_fill_(window_mean(ignored.float(), self.window) > 1e-6, self.neutral)
        return cost


def make_cost(name: CostName, window: int) -> MatchingCost:
    """A cost by name.

    Raises:
        DepthError: the name is unknown or the window is not an odd number of pixels.
    """
    kinds: dict[str, Callable[[int], MatchingCost]] = {"census": CensusCost, "absolute": AbsoluteCost, "zncc": ZNCCCost}
    if name not in kinds:
        raise DepthError(f"unknown matching cost {name!r}; choose one of {', '.join(COSTS)}.")
    if window < 1 or window % 2 == 0:
        raise DepthError(f"the window of the matching cost must be an odd number of pixels, got {window}.")
    return kinds[name](window)


def window_mean(values: Float[Tensor, "d h w"], window: int) -> Float[Tensor, "d h w"]:
    """Mean over a square window, of the pixels of it that lie inside the image."""
    radius = window // 2
    for dim in (-1, -2):
        size = values.shape[dim]
        total = values.clone()
        inside = torch.ones(size, device=values.device, dtype=values.dtype)
        for step in range(1, min(radius, size - 1) + 1):
            kept = size - step
            total.narrow(dim, step, kept).add_(values.narrow(dim, 0, kept))
            total.narrow(dim, 0, kept).add_(values.narrow(dim, step, kept))
            inside[step:] += 1
            inside[:kept] += 1
        values = total.mul_(inside.reciprocal_() if dim == -1 else inside.reciprocal_()[:, None])
    return values
