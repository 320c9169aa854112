"""Pairs of pixels of one frame together with the places in another frame to which optical flow leads them.

They supervise the *order* of depth across frames: what is in front in frame t should be in front in frame t + d, too.
Every draw has a fixed number of pairs and gives those that must not be used weight 0, so that no size in it depends on
the data. ``PairSampler`` serves training: it lists the reliable pixels of a whole video once, and draws from the lists
at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from flow.edges import Edges, find_edges
from flow.errors import FlowError
from flow.pair_drawing import PairFields, PairOptions, PixelPairs, draw_pairs
from flow.progress import Progress
from flow.reliability import Reliability, ReliabilityRules, RuleCount, reliable_pixels
from flow.video_flow import PackedFlow, VideoFlow

__all__ = ["PairOptions", "PairSampler", "PixelPairs", "build_pair_sampler", "sample_pairs"]


def sample_pairs(
    reliability: Reliability | Tensor,
    flow: Tensor,
    options: PairOptions | None,
    generator: torch.Generator,
    guidance: Tensor | None = None,
) -> PixelPairs:
    """Draws pairs for one pair of frames, or for a batch. ``PairSampler`` is faster where many are drawn.

    Nothing is read back from the device.

    Args:
        reliability: of frame t, or a mask (H,W) or (B,H,W), bool, or weights in [0, 1].
        flow: (H,W,2) or (B,H,W,2), from frame t to t + d, pixels.
        options: the defaults where None.
        generator: on the CPU; consumed in the order of the batch, so that a batch equals single calls in turn.
        guidance: map whose edges the edge pairs straddle (image, depth, mask, ...): (H,W) or (H,W,C), or with B in
            front; the flow itself where None.

    Returns:
        PixelPairs (P,) or (B,P), on the device of ``flow``. Where the reliable pixels do not suffice, or no edge is
        found, weights are 0. On another device, edges may differ by rounding; all else is the same.

    Raises:
        FlowError: shapes or the generator do not fit.
    """
    options = options or PairOptions()
    weight = reliability.weight if isinstance(reliability, Reliability) else reliability
    if flow.ndim == 3 and weight.ndim == 2:
        guidance = None if guidance is None else guidance[None]
        pairs = sample_pairs(weight[None], flow[None], options, generator, guidance)
        return PixelPairs(**{name: x[0] for name, x in vars(pairs).items()})
    if flow.ndim != 4 or flow.shape[-1] != 2 or weight.shape != flow.shape[:3]:
        shapes = f"{tuple(weight.shape)} and {tuple(flow.shape)}"
        raise FlowError(f"reliability (B,H,W) and flow (B,H,W,2) of one size expected, got {shapes}.")
    B, H, W = weight.shape
    gap, reach = options.edge_distances((H, W))
    if options.split()[2]:
        edges = find_edges(flow if guidance is None else guidance, weight > 0, options.edge_share, gap, reach)
    else:
        edges = Edges.none(B, weight.device)
    weight, flow = weight.reshape(B, -1).float(), flow.reshape(B, -1, 2)
    ranks = (weight > 0).cumsum(1)
    edge_ranks = edges.found.cumsum(1)

    def nth(counted: Tensor, rank: Tensor) -> Tensor:
        return torch.searchsorted(counted, rank, right=True).clamp(max=counted.shape[1] - 1)

    def nth_edge(rank: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index = nth(edge_ranks, rank)
        start = edges.start.gather(1, index[..., None].expand(-1, -1, 2))
        return edges.pixel.gather(1, index), edges.angle.gather(1, index), start

    fields = PairFields(
        size=(H, W),
        num_reliable=ranks[:, -1:],
        num_edges=edge_ranks[:, -1:],
        reliable=lambda rank: nth(ranks, rank),
        edge=nth_edge,
        weight=lambda pixel: weight.gather(1, pixel),
        flow=lambda pixel: flow.gather(1, pixel[..., None].expand(-1, -1, 2)).float(),
    )
    return draw_pairs(fields, options, generator)


class PairSampler:
    """Draws pixel pairs from links, pairs of frames (source, target) with flow from one to the other.

    Lives in main memory. A link takes 5 bytes a pixel (flow in 1/256 px, weight in 1/255), 4 more for each reliable
    pixel and 7 for each edge; a draw costs a few look-ups per pair, however many pixels there are.

    Attributes:
        size: (height, width) of the flow fields.
        image_size: (height, width) of the frames, in whose pixels pairs are given.
        options: how pairs are drawn.
        links: list of (source, target), in the order of their numbers.
        counts: how many pixels each rule removed, over all links that came with a ``Reliability``.
    """

    def __init__(
        self, size: tuple[int, int], options: PairOptions | None = None, image_size: tuple[int, int] | None = None
    ):
        self.size = (int(size[0]), int(size[1]))
        self.image_size = self.size if image_size is None else (int(image_size[0]), int(image_size[1]))
        self.options = options or PairOptions()
        self.links: list[tuple[int, int]] = []
        self.counts: dict[str, RuleCount] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._of_source: dict[int, list[int]] = {}
        self._new: list[dict[str, Tensor]] = []
        self._tables: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.links)

    def number(self, source: int, target: int) -> int:
        """The number of a link, for ``draw``. Raises FlowError if it was not added."""
        if (source, target) not in self._numbers:
            raise FlowError(f"no link from frame {source} to {target}; add it, or compute its flow both ways first.")
        return self._numbers[source, target]

    def target_of(self, link: int) -> int:
        """The frame to which a link leads."""
        return self.links[link][1]

    def draw_link(self, source: int, generator: torch.Generator) -> int:
        """The number of a random link that starts at this frame. Raises FlowError if there is none."""
        numbers = self._of_source.get(source)
        if not numbers:
            raise FlowError(f"no link starts at frame {source}; compute its flow to another frame both ways.")
        return numbers[int(torch.randint(len(numbers), (), generator=generator))]

    @property
    def num_bytes(self) -> int:
        """Memory that the tables take."""
        tables = [self._tables, *self._new]
        return sum(x.numel() * x.element_size() for table in tables for x in table.values())

    def add(
        self,
        source: int,
        target: int,
        reliability: Reliability | Tensor,
        flow: Tensor,
        guidance: Tensor | None = None,
    ) -> int:
        """Adds a link and returns its number.

        Args:
            source, target: frame numbers.
            reliability: of the source frame, or weights in [0, 1] or a mask, (H,W).
            flow: (H,W,2) from the source to the target, pixels.
            guidance: map whose edges the edge pairs straddle, (H,W) or (H,W,C); the flow itself where None.

        Raises:
            FlowError: a shape does not fit, or the link is already there.
        """
        H, W = self.size
        weight = reliability.weight if isinstance(reliability, Reliability) else reliability
        if weight.shape != (H, W) or flow.shape != (H, W, 2):
            shapes = f"{tuple(weight.shape)} and {tuple(flow.shape)}"
            raise FlowError(f"reliability and flow of {W}x{H} pixels expected, got shapes {shapes}.")
        if (source, target) in self._numbers:
            raise FlowError(f"the link from frame {source} to {target} was already added.")
        weight = weight.flatten().float().cpu()
        # Flow that nobody may use must not decide the step of the fixed-point form, nor be nan.
        usable = (weight > 0).view(H, W, 1)
        packed = PackedFlow.pack(torch.where(usable, flow.cpu(), torch.zeros(())))
        table = {
            "weight": torch.where(weight > 0, (weight * 255).round().clamp(1, 255), 0.0).to(torch.uint8),
            "flow": torch.from_numpy(packed.values).view(-1, 2),
            "step": torch.tensor([packed.step]),
            "reliable": weight.nonzero()[:, 0].int(),
            "edge": torch.zeros(0, dtype=torch.int32),
            "angle": torch.zeros(0, dtype=torch.uint8),
            "start": torch.zeros(0, 2, dtype=torch.uint8),
        }
        if self.options.split()[2]:
            o, guidance = self.options, (flow if guidance is None else guidance).cpu()[None]
            edges = find_edges(guidance, usable[None, ..., 0], o.edge_share, *o.edge_distances(self.size))
            table["edge"] = edges.pixel[edges.found].int()
            table["angle"], table["start"] = edges.angle[edges.found].byte(), edges.start[edges.found].byte()
        table["num_reliable"] = torch.tensor([len(table["reliable"])])
        table["num_edge"] = torch.tensor([len(table["edge"])])
        if isinstance(reliability, Reliability):
            for name, count in reliability.counts.items():
                total = self.counts.get(name, RuleCount(0, 0, 0))
                self.counts[name] = RuleCount(*(a + b for a, b in zip(total, count, strict=True)))
        self._new.append(table)
        self.links.append((source, target))
        number = self._numbers[source, target] = len(self.links) - 1
        self._of_source.setdefault(source, []).append(number)
        return number

    def draw(
        self,
        links: Tensor | Sequence[int],
        num_pairs: int | None,
        generator: torch.Generator,
        size: tuple[int, int] | None = None,
    ) -> PixelPairs:
        """Draws pairs for several links at once.

        The same as drawing for one link after the other; for one link the same as ``sample_pairs`` on the CPU, but for
        the rounding of flow and weights.

        Args:
            links: (B,) numbers of links; may repeat.
            num_pairs: P; that of the options where None.
            generator: on the CPU.
            size: (height, width) of the frames in whose pixels the pairs are wanted; ``image_size`` where None.

        Returns:
            PixelPairs (B,P), on the CPU.

        Raises:
            FlowError: a link does not exist.
        """
        links = torch.as_tensor(links, dtype=torch.int64)
        if links.ndim != 1 or (links.numel() and not 0 <= int(links.min()) <= int(links.max()) < len(self.links)):
            raise FlowError(f"links must be (B,) numbers below {len(self.links)}, got {links.tolist()}.")
        options = self.options if num_pairs is None else replace(self.options, num_pairs=num_pairs)
        pairs = draw_pairs(self._fields(links), options, generator)
        return pairs.rescaled(self.size, size or self.image_size)

    def _fields(self, links: Tensor) -> PairFields:
        self._merge()
        tables = self._tables

        def look_up(name: str, offset: Tensor, rank: Tensor) -> Tensor:
            rows = tables[name].index_select(0, (offset + rank).flatten())
            return rows.view(*rank.shape, *rows.shape[1:])

        def look_up_edge(name: str, rank: Tensor) -> Tensor:
            return look_up(name, edge, rank).long()

        reliable, edge = (tables[f"before_{name}"][links][:, None] for name in ("reliable", "edge"))
        first = links[:, None] * (self.size[0] * self.size[1])
        step = tables["step"][links][:, None, None]
        return PairFields(
            size=self.size,
            num_reliable=tables["num_reliable"][links][:, None],
            num_edges=tables["num_edge"][links][:, None],
            reliable=lambda rank: look_up("reliable", reliable, rank).long(),
            edge=lambda rank: (look_up_edge("edge", rank), look_up_edge("angle", rank), look_up_edge("start", rank)),
            weight=lambda pixel: look_up("weight", first, pixel).float() / 255,
            flow=lambda pixel: look_up("flow", first, pixel).float() * step,
        )

    def _merge(self) -> None:
        """Joins what was added to the tables, one table after the other so that memory does not double."""
        if not self._new:
            return
        for name in list(self._new[0]):
            parts = [table.pop(name) for table in self._new]
            if name in self._tables:
                old = self._tables.pop(name)
                parts.insert(0, old[:-1] if name in _LISTS else old)
            if name in _LISTS:  # a link without any entry still looks one up, possibly at the very end
                parts.append(parts[0].new_zeros(1, *parts[0].shape[1:]))
            self._tables[name] = torch.cat(parts)
        self._new = []
        for name in ("reliable", "edge"):
            counts = self._tables[f"num_{name}"]
            self._tables[f"before_{name}"] = counts.cumsum(0) - counts


_LISTS = ("reliable", "edge", "angle", "start")
"""Tables whose length differs from link to link."""


def build_pair_sampler(
    video_flow: VideoFlow,
    frames: Tensor,
    *,
    rules: ReliabilityRules | None = None,
    options: PairOptions | None = None,
    links: Iterable[tuple[int, int]] | None = None,
    valid: Tensor | None = None,
    depth: Tensor | None = None,
    guidance: str | Tensor = "flow",
    progress: Progress | None = None,
) -> PairSampler:
    """Judges the pixels of every link of a video and lists the reliable ones.

    Args:
        video_flow: flow between its frames, in both directions.
        frames: (T,h,w,3) RGB, uint8, or floating point in [0, 1]; brought to the size of the flow fields.
        rules: what makes a pixel unreliable.
        options: how pairs are drawn.
        links: pairs (source, target); all that have flow both ways where None.
        valid: (T,h,w) bool, pixels that may be used; where the fields are smaller, all of a field's pixel must be.
        depth: (T,h,w) depth of any unit, for the rule ``far_quantile``; see ``reliable_pixels``.
        guidance: whose edges the edge pairs straddle: ``flow``, ``image``, or a map (T,h,w) or (T,h,w,C).
        progress: called with the share of the links that is done.

    Raises:
        FlowError: numbers of frames differ, nothing to link, or flow is missing.
    """
    T, size = video_flow.num_frames, (video_flow.height, video_flow.width)
    if isinstance(guidance, str) and guidance not in ("flow", "image"):
        raise FlowError(f"guidance must be flow, image or a map (T,h,w), got {guidance!r}.")
    for name, field in (("frames", frames), ("valid", valid), ("depth", depth), ("guidance", guidance)):
        if isinstance(field, Tensor) and len(field) != T:
            raise FlowError(f"{name} must be of the {T} frames of the flow, got {len(field)}.")
    links = list(links) if links is not None else [pair for pair in video_flow.pairs() if pair[::-1] in video_flow]
    if not links:
        raise FlowError("no pair of frames has flow in both directions; compute it first.")

    frames = _resized(frames, size, "area")
    valid = None if valid is None else _resized(valid.float(), size, "area") >= 1 - 1e-4
    depth = None if depth is None else _resized(depth, size, "nearest-exact")
    if isinstance(guidance, Tensor):
        guidance = _resized(guidance, size, "area")
    elif guidance == "image":
        guidance = frames
    sampler = PairSampler(size, options, (video_flow.image_height, video_flow.image_width))
    for done, (s, t) in enumerate(links):
        forward, backward = video_flow.get(s, t), video_flow.get(t, s)
        masks = {} if valid is None else {"valid0": valid[s], "valid1": valid[t]}
        depth0 = None if depth is None else depth[s]
        reliability = reliable_pixels(forward, backward, frames[s], frames[t], rules=rules, depth0=depth0, **masks)
        sampler.add(s, t, reliability, forward, None if isinstance(guidance, str) else guidance[s])
        if progress is not None:
            progress("pixel pairs", (done + 1) / len(links))
    return sampler


def _resized(fields: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """(T,h,w) or (T,h,w,C) brought to another size, frame by frame; the same type."""
    if fields.shape[1:3] == size:
        return fields
    whole = not fields.is_floating_point()
    resized = []
    for field in fields:
        channels = field.float().reshape(*field.shape[:2], -1).permute(2, 0, 1)
        channels = F.interpolate(channels[None], size, mode=mode)[0].permute(1, 2, 0).reshape(*size, *field.shape[2:])
        resized.append((channels.round() if whole else channels).to(field.dtype))
    return torch.stack(resized)
