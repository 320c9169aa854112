"""How pixel pairs are drawn, whatever holds the reliable pixels.

Random numbers come from a CPU generator and become pixels by integer arithmetic and tabulated steps, so that the same
seed gives the same pairs everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from flow.edges import NUM_ANGLES, NUM_DISTANCES, edge_steps, step_from
from flow.errors import FlowError

_BITS = 31  # of a random number; two fit in one 63-bit draw


@dataclass(frozen=True)
class PairOptions:
    """How pairs are drawn. Distances are fractions of the longer side of the flow field."""

    num_pairs: int = 4096
    """Pairs per pair of frames, P."""
    uniform: float = 0.5
    """Share of pairs of two independent pixels, each uniform over the reliable ones."""
    near: float = 0.25
    """Share of pairs whose second pixel is uniform over the reliable ones around the first."""
    edges: float = 0.25
    """Share of pairs that lie on either side of an edge of the guidance map (Xian et al., CVPR 2020)."""
    near_radius: float = 0.05
    """Greatest distance of a near pair."""
    edge_share: float = 0.1
    """Share of the pixels, those where the guidance is steepest, that count as edges."""
    edge_gap: float = 0.006
    """Least distance of either pixel from the edge between them; at least 1 px."""
    edge_reach: float = 0.05
    """Greatest such distance."""
    min_distance: float = 0.0
    """Least distance between the pixels of a pair."""
    max_distance: float | None = None
    """Greatest distance between the pixels of a pair; None for no limit."""
    tries: int = 4
    """Candidates for a pixel that may turn out unreliable, or too near or far; if all fail, the weight is 0."""

    def __post_init__(self):
        shares = (self.uniform, self.near, self.edges)
        if min(shares) < 0 or sum(shares) <= 0:
            raise FlowError(f"the shares uniform, near and edges must be >= 0 and not all 0, got {shares}.")
        if self.num_pairs < 1 or self.tries < 1:
            raise FlowError(f"num_pairs and tries must be at least 1, got {self.num_pairs} and {self.tries}.")
        if not 0 < self.edge_share <= 1:
            raise FlowError(f"edge_share must lie in (0, 1], got {self.edge_share}.")
        if not (self.near_radius > 0 and 0 <= self.edge_gap <= self.edge_reach and self.edge_reach > 0):
            raise FlowError("near_radius and edge_reach must be positive and edge_gap in [0, edge_reach].")
        if self.min_distance < 0 or (self.max_distance is not None and self.max_distance <= self.min_distance):
            raise FlowError(f"0 <= min_distance < max_distance expected, got {self.min_distance}, {self.max_distance}.")

    @property
    def limits_distance(self) -> bool:
        """Whether pairs can be refused for their distance."""
        return self.min_distance > 0 or self.max_distance is not None

    def edge_distances(self, size: tuple[int, int]) -> tuple[float, float]:
        """Least and greatest distance from an edge in pixels, in fields of (height, width)."""
        gap = max(self.edge_gap * max(size), 1.0)
        return gap, max(self.edge_reach * max(size), gap)

    def split(self) -> tuple[int, int, int]:
        """Numbers of uniform, near and edge pairs; they lie in this order in every ``PixelPairs``."""
        total = self.uniform + self.near + self.edges
        first = round(self.num_pairs * self.uniform / total)
        second = round(self.num_pairs * (self.uniform + self.near) / total)
        return first, second - first, self.num_pairs - second


@dataclass(frozen=True)
class PixelPairs:
    """Pairs of pixels of frame t and where they are in frame t + d; all (P,...) or (B,P,...)."""

    first: Tensor
    """(P,) int64, flat index row * W + column in frame t."""
    second: Tensor
    """(P,) int64."""
    xy_first: Tensor
    """(P,2) float32, centre of the first pixel."""
    xy_second: Tensor
    """(P,2) float32."""
    target_first: Tensor
    """(P,2) float32, where flow leads the first pixel in frame t + d, also between pixels; its centre if unused."""
    target_second: Tensor
    """(P,2) float32."""
    weight: Tensor
    """(P,) float32 in [0, 1]: product of both pixels' weights; 0 = not to be used (both indices are still valid)."""

    def to(self, device: torch.device | str) -> PixelPairs:
        """The same on another device, without waiting for the copy."""
        return PixelPairs(**{name: x.to(device, non_blocking=True) for name, x in vars(self).items()})

    def rescaled(self, size: tuple[int, int], new_size: tuple[int, int]) -> PixelPairs:
        """The same pairs in the pixels of frames of another size.

        A pixel becomes the one that holds its centre, and keeps its flow, scaled. Pairs that fall into one pixel of
        smaller frames get weight 0.

        Args:
            size, new_size: (height, width) for which the pairs were drawn, and that is wanted.
        """
        if size == new_size:
            return self
        scale = self.xy_first.new_tensor([new_size[1] / size[1], new_size[0] / size[0]])
        indices, centers, targets = [], [], []
        for xy, target in ((self.xy_first, self.target_first), (self.xy_second, self.target_second)):
            column, row = (xy * scale).long().unbind(-1)
            indices.append(row * new_size[1] + column)
            centers.append(torch.stack([column, row], -1) + 0.5)
            targets.append(centers[-1] + (target - xy) * scale)
        weight = self.weight * (indices[0] != indices[1])
        return PixelPairs(indices[0], indices[1], centers[0], centers[1], targets[0], targets[1], weight)


@dataclass(frozen=True)
class PairFields:
    """What ``draw_pairs`` looks up, for B pairs of frames at once. Pixels and ranks are (B,n) int64."""

    size: tuple[int, int]
    """(H, W)."""
    num_reliable: Tensor
    """(B,1) int64, reliable pixels."""
    num_edges: Tensor
    """(B,1) int64, edges with reliable pixels on both sides."""
    reliable: Callable[[Tensor], Tensor]
    """Rank among the reliable pixels -> pixel; any valid pixel if there is none."""
    edge: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    """Rank among the edges -> pixel, angle and start (B,n,2), as in ``flow.edges.Edges``."""
    weight: Callable[[Tensor], Tensor]
    """Pixel -> weight, (B,n) float32; 0 where unreliable."""
    flow: Callable[[Tensor], Tensor]
    """Pixel -> flow, (B,n,2) float32."""


def draw_pairs(fields: PairFields, options: PairOptions, generator: torch.Generator) -> PixelPairs:
    """Draws pairs (B,P) from any source of reliable pixels; see ``sample_pairs`` and ``PairSampler``."""
    B, device = len(fields.num_reliable), fields.num_reliable.device
    counts = options.split()
    tries = options.tries
    alone = 2 + (tries - 1) * options.limits_distance  # two reliable pixels miss only if they are too near or far
    plan = [(_draw_uniform, alone), (_draw_near, 1 + tries), (_draw_edges, 1 + 2 * tries)]
    needed = [count * numbers for count, (_, numbers) in zip(counts, plan, strict=True)]
    random = _random_numbers(B, sum(needed), generator).to(device, non_blocking=True).split(needed, dim=1)
    parts = [
        draw(fields, options, chunk.reshape(B, numbers, count))
        for count, (draw, numbers), chunk in zip(counts, plan, random, strict=True)
        if count
    ]
    first, second, weight = (torch.cat(columns, 1) for columns in zip(*parts, strict=True))
    xy_first, xy_second = (_center(pixels, fields.size[1]) for pixels in (first, second))
    # Flow that is not to be used may be nan, which no weight of 0 makes harmless.
    used = (weight > 0)[..., None]
    flows = [torch.where(used, fields.flow(pixels), 0.0) for pixels in (first, second)]
    return PixelPairs(first, second, xy_first, xy_second, xy_first + flows[0], xy_second + flows[1], weight)


def _random_numbers(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """(B,count) int64, uniform in [0, 2**31)."""
    if generator.device.type != "cpu":
        raise FlowError(f"the generator must be on the CPU, got one on {generator.device}; make torch.Generator().")
    words = torch.empty(batch, (count + 1) // 2, dtype=torch.int64).random_(generator=generator)
    return torch.cat([words & (2**_BITS - 1), words >> (63 - _BITS)], 1)[:, :count]


def _below(numbers: Tensor, limit: Tensor | int) -> Tensor:
    """Random numbers to uniform integers in [0, limit); 0 where the limit is 0. Exact, hence the same everywhere."""
    return (numbers * limit) >> _BITS


def _draw_uniform(fields: PairFields, options: PairOptions, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First and second pixel and weight, each (B,n), from random numbers (B,1+tries,n)."""
    count = fields.num_reliable[..., None]
    rank = _below(numbers[:, :1], count)
    others = _below(numbers[:, 1:], (count - 1).clamp(min=0))
    others = torch.minimum(others + (others >= rank), (count - 1).clamp(min=0))  # all ranks but the first's
    first, second = fields.reliable(rank.flatten(1)), fields.reliable(others.flatten(1))
    return _first_allowed(fields, options, first.view_as(rank), second.view_as(others))


def _draw_near(fields: PairFields, options: PairOptions, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same; the second pixel lies in a disc around the first."""
    rank = _below(numbers[:, :1], fields.num_reliable[..., None])
    first = fields.reliable(rank.flatten(1)).view_as(rank)
    offsets = _disc(options, max(fields.size)).to(first.device)
    step = offsets.index_select(0, _below(numbers[:, 1:], len(offsets)).flatten()).view(*numbers[:, 1:].shape, 2)
    second, inside = step_from(first, step, fields.size)
    return _first_allowed(fields, options, first, second, inside)


def _draw_edges(fields: PairFields, options: PairOptions, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same from numbers (B,1+2 tries,n); the pixels lie on either side of an edge, from where it is reliable on."""
    rank = _below(numbers[:, :1], fields.num_edges[..., None])
    edge, angle, start = fields.edge(rank.flatten(1))
    steps = edge_steps(*options.edge_distances(fields.size)).to(edge.device)
    sides = []
    for side, number in enumerate(numbers[:, 1:].chunk(2, 1)):
        first = start[:, None, :, side]
        distance = first + _below(number, NUM_DISTANCES - first)
        index = ((angle[:, None] + side * (NUM_ANGLES // 2)) & (NUM_ANGLES - 1)) * NUM_DISTANCES + distance
        step = steps.index_select(0, index.flatten()).view(*index.shape, 2)
        sides.append(step_from(edge[:, None], step, fields.size))
    (first, inside), (second, also_inside) = sides
    return _first_allowed(fields, options, first, second, inside & also_inside & (fields.num_edges[..., None] > 0))


def _first_allowed(
    fields: PairFields, options: PairOptions, first: Tensor, second: Tensor, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of candidates (B,tries,n), or (B,1,n) for a fixed first pixel, the first with a weight > 0 if there is one."""
    allowed = first != second if allowed is None else allowed & (first != second)
    if options.limits_distance:
        W, longer = fields.size[1], max(fields.size)
        squared = (first % W - second % W).square() + (first // W - second // W).square()
        allowed = allowed & (squared >= (options.min_distance * longer) ** 2)
        allowed = allowed & (squared <= ((options.max_distance or math.inf) * longer) ** 2)
    weight = fields.weight(first.flatten(1)).view(first.shape) * fields.weight(second.flatten(1)).view(second.shape)
    candidates = [x.expand_as(second).unbind(1) for x in (first, second, weight * allowed)]
    (first, *firsts), (second, *seconds), (weight, *weights) = candidates
    for other_first, other_second, other_weight in zip(firsts, seconds, weights, strict=True):
        found = weight > 0
        first, second = torch.where(found, first, other_first), torch.where(found, second, other_second)
        weight = torch.where(found, weight, other_weight)
    return first, second, weight


@lru_cache(maxsize=16)
def _disc(options: PairOptions, longer: int) -> Tensor:
    """(N,2) int64, columns and rows of all steps that a near pair may have."""
    radius = max(options.near_radius * longer, 1.0)
    extent = torch.arange(-int(radius), int(radius) + 1)
    steps = torch.cartesian_prod(extent, extent)
    squared = steps.square().sum(-1)
    limit = min(radius, (options.max_distance or math.inf) * longer)
    steps = steps[(squared > 0) & (squared <= limit**2) & (squared >= (options.min_distance * longer) ** 2)]
    if not len(steps):
        raise FlowError("no near pair fits between min_distance and near_radius or max_distance; change one of them.")
    return steps


def _center(pixels: Tensor, width: int) -> Tensor:
    return torch.stack([pixels % width, pixels // width], -1) + 0.5
