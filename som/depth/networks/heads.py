"""Heads: how a map of logits means depth, and how sure it is of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from som.depth.errors import DepthError

HeadName = Literal["sigmoid", "softplus", "ddv", "dorn"]
MAX_DEPTH_RATIO = 1e6
"""No head predicts a depth beyond this many times the near end of its range, so that depth stays finite."""
MIN_RELATIVE_VARIANCE = 1e-12
"""Relative variance below which a prediction counts as certain; keeps the gradient of the deviation finite."""


class HeadOutput(NamedTuple):
    """What a head reads from logits; all (B,1,h,w)."""

    depth: Tensor
    """z-depth, in the unit of the head's range."""
    disparity: Tensor
    """1 / depth."""
    deviation: Tensor | None
    """Standard deviation of depth divided by depth; None for a head that has no notion of it."""


@dataclass(frozen=True)
class Head(ABC):
    """A mapping of logits to depth, without parameters."""

    lo: float
    """Near end of the depth range."""
    hi: float
    """Far end of the depth range."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of logits per pixel."""

    @property
    def is_distribution(self) -> bool:
        """Whether the logits describe a distribution over depth, on which a loss of its own can act."""
        return self.channels > 1

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "b c h w"]) -> HeadOutput:
        """Depth, disparity and relative deviation, in float32 at least."""

    @abstractmethod
    def initial_bias(self, depth: float) -> Float[Tensor, "c"]:
        """Logits that mean ``depth``."""

    def unit_disparity(self, logits: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Disparity scaled so that the range's far end is 0 and its near end 1."""
        return (self(logits).disparity - 1 / self.hi) / (1 / self.lo - 1 / self.hi)

    def _depth(self, disparity: Tensor) -> Tensor:
        return 1 / disparity.clamp(min=1 / (MAX_DEPTH_RATIO * self.lo))


@dataclass(frozen=True)
class SigmoidHead(Head):
    """disparity = 1/hi + (1/lo - 1/hi) sigmoid(x): Monodepth2 with (0.1, 100), SC-SfMLearner with (1/10.01, 100),
    PackNet with (0.5, inf)."""

    @property
    def channels(self) -> int:
        return 1

    def __call__(self, logits: Float[Tensor, "b 1 h w"]) -> HeadOutput:
        disparity = 1 / self.hi + (1 / self.lo - 1 / self.hi) * _full_precision(logits).sigmoid()
        return HeadOutput(self._depth(disparity), disparity, None)

    def initial_bias(self, depth: float) -> Float[Tensor, "1"]:
        share = (1 / depth - 1 / self.hi) / (1 / self.lo - 1 / self.hi)
        return torch.tensor([math.log(share / (1 - share))])


@dataclass(frozen=True)
class SoftplusHead(Head):
    """disparity = softplus(x) / lo: no bound on either side. Insta-DM (arXiv 2102.02629) is lo = 1."""

    @property
    def channels(self) -> int:
        return 1

    def __call__(self, logits: Float[Tensor, "b 1 h w"]) -> HeadOutput:
        disparity = F.softplus(_full_precision(logits)) / self.lo
        return HeadOutput(self._depth(disparity), disparity, None)

    def initial_bias(self, depth: float) -> Float[Tensor, "1"]:
        value = self.lo / depth
        return torch.tensor([value + math.log(-math.expm1(-value))])


@dataclass(frozen=True)
class VolumeHead(Head):
    """Discrete disparity volume (Johnston & Carneiro, arXiv 2003.13951).

    p = softmax(x) over N planes d_k spread evenly in disparity from 1/hi to 1/lo; disparity = Σ p_k d_k, with the
    variance Σ p_k (d_k - disparity)². The deviation of depth is that of disparity over disparity, to first order.
    """

    planes: int = 64
    """Number of planes N."""

    @property
    def channels(self) -> int:
        return self.planes

    def plane_disparities(self, like: Tensor) -> Float[Tensor, "n"]:
        """The disparities d_k, far to near, with the type and device of a tensor."""
        return torch.linspace(1 / self.hi, 1 / self.lo, self.planes, dtype=like.dtype, device=like.device)

    def __call__(self, logits: Float[Tensor, "b n h w"]) -> HeadOutput:
        shares = _full_precision(logits).softmax(dim=1)
        position = torch.linspace(0, 1, self.planes, dtype=shares.dtype, device=shares.device)
        mean, mean_square = _weighted_sums(shares, position, position.square())
        span = 1 / self.lo - 1 / self.hi
        disparity = 1 / self.hi + span * mean
        variance = (mean_square - mean.square()) * (span / disparity).square()
        return HeadOutput(self._depth(disparity), disparity, variance.clamp(min=MIN_RELATIVE_VARIANCE).sqrt())

    def initial_bias(self, depth: float) -> Float[Tensor, "n"]:
        # Of all distributions with this mean the one of largest entropy is the exponential one.
        position = torch.linspace(0, 1, self.planes, dtype=torch.float64)
        share = (1 / depth - 1 / self.hi) / (1 / self.lo - 1 / self.hi)
        limit = 100.0 * self.planes
        slope = _bisect(lambda s: ((s * position).softmax(0) * position).sum().item(), share, -limit, limit)
        return (slope * (position - 0.5)).float()


@dataclass(frozen=True)
class OrdinalHead(Head):
    """Ordinal regression over spacing-increasing bins (DORN, arXiv 1806.02446).

    2K logits: the pair (2k, 2k+1) is softmaxed into (P(label <= k), P_k = P(label > k)).
    """

    bins: int = 80
    """Number of bins K."""
    soft: bool = True
    """Whether depth is decoded from the expected label, which has a gradient, or as DORN's count."""

    @property
    def channels(self) -> int:
        return 2 * self.bins

    def log_odds(self, logits: Float[Tensor, "b k2 h w"]) -> Float[Tensor, "b k h w"]:
        """log(P_k / (1 - P_k)); its ``logsigmoid`` is ln P_k, that of its negative ln(1 - P_k)."""
        below, beyond = _full_precision(logits).unflatten(1, (self.bins, 2)).unbind(2)
        return beyond - below

    def __call__(self, logits: Float[Tensor, "b k2 h w"]) -> HeadOutput:
        beyond = self.log_odds(logits).sigmoid()
        # E[l] = Σ P_k and E[l²] = Σ (2k+1) P_k for a label with P(l > k) = P_k.
        odd = 2 * torch.arange(self.bins, dtype=beyond.dtype, device=beyond.device) + 1
        label, square = _weighted_sums(beyond, torch.ones_like(odd), odd)
        variance = square - label.square()
        if self.soft:
            depth = label_to_depth(label, self.lo, self.hi, self.bins)
        else:
            depth = decode_ordinal(beyond, self.lo, self.hi)
        shift = 1 - self.lo
        per_label = math.log(self.hi + shift) / self.bins * (depth + shift) / depth
        deviation = variance.clamp(min=MIN_RELATIVE_VARIANCE).sqrt() * per_label
        return HeadOutput(depth, 1 / depth, deviation)

    def initial_bias(self, depth: float) -> Float[Tensor, "k2"]:
        ratio = math.log(self.hi + 1 - self.lo) / self.bins
        label = math.log((depth + 1 - self.lo) / (0.5 + 0.5 * math.exp(ratio))) / ratio
        label = min(max(label, 0.5), self.bins - 1.5)  # an extreme label would need logits without gradient
        # P falls from 1 to 0 around the label over about a fifth of the bins.
        steps = torch.arange(self.bins, dtype=torch.float64) * (20 / self.bins)
        centre = _bisect(lambda c: (c - steps).sigmoid().sum().item(), label, -40.0, 60.0)
        odds = (centre - steps).float()
        return torch.stack([-odds / 2, odds / 2], dim=1).flatten()


def sid_thresholds(lo: float, hi: float, bins: int) -> tuple[Float[Tensor, "k1"], float]:
    """Spacing-increasing discretisation of DORN: (thresholds, shift).

    t_i = exp(i/K ln(hi + shift)), i = 0..K, of depth + shift, where shift = 1 - lo makes the first threshold 1. A depth
    has label l when t_l <= depth + shift < t_(l+1).
    """
    shift = 1 - lo
    steps = torch.arange(bins + 1, dtype=torch.float64) / bins
    return (steps * math.log(hi + shift)).exp().float(), shift


def depth_to_label(depth: Float[Tensor, "*s"], lo: float, hi: float, bins: int) -> Int[Tensor, "*s"]:
    """Label of each depth, 0 to ``bins`` - 1; depths outside the range get the label at its end."""
    thresholds, shift = sid_thresholds(lo, hi, bins)
    inner = thresholds[1:-1].to(depth)
    return torch.bucketize(depth + shift, inner, right=True)


def decode_ordinal(beyond: Float[Tensor, "b k h w"], lo: float, hi: float) -> Float[Tensor, "b 1 h w"]:
    """Depth from P(label > k) as DORN has it: the middle of the bin l = #{P_k >= .5} (at most K - 1). No gradient."""
    bins = beyond.shape[1]
    thresholds, shift = sid_thresholds(lo, hi, bins)
    thresholds = thresholds.to(beyond)
    label = (beyond >= 0.5).sum(1, keepdim=True).clamp(max=bins - 1)
    return (thresholds[label] + thresholds[label + 1]) / 2 - shift


def label_to_depth(label: Float[Tensor, "*s"], lo: float, hi: float, bins: int) -> Float[Tensor, "*s"]:
    """Depth of a real label: at whole numbers the middle of the bin, between them interpolated in log(depth + shift).

    The middles are a geometric series, so the interpolation is one exponential. With the expected label Σ P_k this is
    the soft decoding, equal to ``decode_ordinal`` where every P_k is 0 or 1 (and falls with k).
    """
    shift = 1 - lo
    ratio = math.log(hi + shift) / bins
    return (0.5 + 0.5 * math.exp(ratio)) * (ratio * label.clamp(max=bins - 1)).exp() - shift


def make_head(name: HeadName, depth_range: tuple[float, float], bins: int | None = None) -> Head:
    """A head by name.

    Args:
        depth_range: (lo, hi); hi may be infinite for ``sigmoid`` and is not used by ``softplus``.
        bins: planes of ``ddv`` (None: 64) or bins of ``dorn`` (None: 80).

    Raises:
        DepthError: an unknown name, or a range that the head cannot have.
    """
    lo, hi = depth_range
    if not 0 < lo < hi or math.isinf(lo):
        raise DepthError(f"depth_range must be (lo, hi) with 0 < lo < hi, got {depth_range}.")
    if name in ("ddv", "dorn") and math.isinf(hi):
        raise DepthError(f"the {name} head spreads its bins over depth_range, so its far end must be finite.")
    if bins is not None and bins < 2:
        raise DepthError(f"bins must be at least 2, got {bins}.")
    if name == "sigmoid":
        return SigmoidHead(lo, hi)
    if name == "softplus":
        return SoftplusHead(lo, hi)
    if name == "ddv":
        return VolumeHead(lo, hi, bins or 64)
    if name == "dorn":
        return OrdinalHead(lo, hi, bins or 80)
    raise DepthError(f"unknown head {name!r}; choose sigmoid, softplus, ddv or dorn.")


def _full_precision(logits: Tensor) -> Tensor:
    """float32 where autocast made it less."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _weighted_sums(values: Tensor, *weights: Tensor) -> tuple[Float[Tensor, "b 1 h w"], ...]:
    """Sums over channels under each of the weights, in one product and in the precision of ``values``."""
    with torch.autocast(values.device.type, enabled=False):
        sums = torch.stack(weights) @ values.flatten(2)
    return sums.unflatten(2, values.shape[-2:]).split(1, dim=1)


def _bisect(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2
