"""Long point tracks from the flow fields of a video: multi-stride chaining along the surest path.

A point that is known at frame u is carried to frame t by the flow u -> t. Between far frames that flow is hard to
estimate, between near frames its errors add up, so that several strides compete, as in MFT (Neoral et al. 2023, arXiv
2305.12998): each candidate has a variance that grows with every step and with its forward-backward error, and the
smallest variance wins. Paths are relaxed by sweeps over the video in both directions (Bellman-Ford), so that a point
may also jump over an occluder and come back to the frames behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flow.errors import FlowError
from flow.sampling import inside, sample
from flow.video_flow import VideoFlow

MAX_OUTSIDE_SHARE = 0.5
"""Guessed positions of unseen points stay within this share of the image size beyond its border."""
HALF_CONFIDENCE_VARIANCE = 0.4
"""Variance (px²) at which half of the positions are right within 2 px."""


@dataclass(frozen=True)
class PointTracks:
    """Q point tracks over T frames."""

    query_frames: Tensor
    """(Q,) int64: the frame at which each point was chosen."""
    xy: Tensor
    """(Q,T,2) float32: continuous image coordinates in pixels, pixel centres at +0.5; a guess where invisible."""
    visible: Tensor
    """(Q,T) bool: the point is seen."""
    confidence: Tensor
    """(Q,T) float32 in [0, 1]: how likely the position is right; 0 where nothing vouches for it."""
    variance: Tensor
    """(Q,T) float32, square pixels of ``xy``: 0 at the query, inf where invisible."""

    def __post_init__(self):
        Q, T = self.visible.shape
        expected = dict(query_frames=(Q,), xy=(Q, T, 2), confidence=(Q, T), variance=(Q, T))
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise FlowError(
                    f"{name} of {Q} tracks over {T} frames must be {shape}, got {getattr(self, name).shape}."
                )

    def __len__(self) -> int:
        return len(self.query_frames)

    @property
    def num_frames(self) -> int:
        return self.visible.shape[1]

    def scaled(self, sx: float, sy: float) -> PointTracks:
        """The same tracks in an image resized by (sx, sy); variances scale by sx sy."""
        return replace(self, xy=self.xy * self.xy.new_tensor([sx, sy]), variance=self.variance * (sx * sy))

    def select(self, chosen: Tensor) -> PointTracks:
        """The tracks at ``chosen``: (Q,) bool, or indices."""
        return PointTracks(**{name: value[chosen] for name, value in vars(self).items()})


@dataclass(frozen=True)
class TrackingOptions:
    """How ``track_points`` chains flow. Lengths are in pixels of the flow fields; the defaults suit long sides of about
    300 to 700 px."""

    strides: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Distances in frames that are bridged at once; those not shorter than the video are left out. (1,) is plain
    chaining."""
    max_variance: float = 1.0
    """A point is visible only where its variance (px²) is at most this."""
    step_variance: float = 0.03
    """Variance (px²) that every step adds, besides its squared forward-backward error."""
    neighborhood: float = 3.0
    """The error of a step is that of the point or the median over four neighbours at this distance (px), whichever is
    larger; 0 looks at the point alone."""
    alpha: float = 0.01
    """Relative part of the bound e² < alpha (|f|² + |b|²) + beta on the forward-backward error e."""
    beta: float = 0.5
    """Absolute part (px²) of that bound."""
    reappear: bool = True
    """Whether a lost point may be found again. False: a track ends at its first invisible frame, either side."""
    reappear_variance: float = 0.4
    """A lost point re-appears only where the candidates that agree have together at most this variance (px²), 1 / (sum
    of 1/v): one sure candidate or several fair ones."""
    agreement: float = 1.5
    """Candidates within this distance (px) of the best one agree with it."""
    sweeps: int = 3
    """Sweeps over the video, alternately forward and backward. Two reach every frame; the third finds surer paths."""

    def __post_init__(self):
        strides = self.strides
        if 1 not in strides or min(strides) < 1 or len(set(strides)) != len(strides):
            raise FlowError(f"strides must be different positive numbers with 1 among them, got {strides}.")
        if self.sweeps < 2:
            raise FlowError(f"sweeps must be at least 2 (one forward, one backward), got {self.sweeps}.")
        for name in ("max_variance", "reappear_variance", "agreement"):
            if not getattr(self, name) > 0:
                raise FlowError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("step_variance", "neighborhood", "alpha", "beta"):
            if not getattr(self, name) >= 0:
                raise FlowError(f"{name} must not be negative, got {getattr(self, name)}.")


def confidence_from_variance(variance: Tensor) -> Tensor:
    """Probability that a position is right within 2 px, from its variance v in px²; 1 where v = 0, 0 where v is inf.

    1 / (1 + (v / 0.4)²), fitted to exact tracks of rendered and layered videos; benchmarks/tracks.py prints measured
    shares beside it.
    """
    return 1 / (1 + (variance / HALF_CONFIDENCE_VARIANCE) ** 2)


def variance_from_confidence(confidence: Tensor) -> Tensor:
    """The variance in px² that has this confidence, for tracks that come without; inf where the confidence is 0."""
    return HALF_CONFIDENCE_VARIANCE * ((1 - confidence) / confidence).sqrt()


def track_points(
    flow: VideoFlow, query_xy: Tensor, query_frames: Tensor, options: TrackingOptions | None = None
) -> PointTracks:
    """Tracks points through a whole video, both ways from their query frames.

    Args:
        flow: fields of both directions for every stride of ``options`` that is shorter than the video.
        query_xy: (Q,2) coordinates in pixels of the flow fields, inside the image, centres at +0.5.
        query_frames: (Q,) integers in [0, T).

    Returns:
        tracks in pixels of the flow fields; ``scaled`` takes them to the size of the images.

    Raises:
        FlowError: shapes do not fit, a query lies outside the video, or flow is missing.
    """
    options = options or TrackingOptions()
    query_xy, query_frames = _checked_queries(flow, query_xy, query_frames)
    strides = [s for s in options.strides if s < flow.num_frames]
    _check_flow(flow, strides)
    T, Q = flow.num_frames, len(query_frames)
    xy, variance = torch.zeros(T, Q, 2), torch.full((T, Q), torch.inf)
    xy[query_frames, torch.arange(Q)] = query_xy
    variance[query_frames, torch.arange(Q)] = 0
    for number in range(options.sweeps):
        step = 1 if number % 2 == 0 else -1
        for t in range(1, T) if step > 0 else range(T - 2, -1, -1):
            _relax(flow, xy, variance, t, step, strides, options)
    if not options.reappear:
        variance[~_connected_to_query(variance.isfinite(), query_frames)] = torch.inf
    _guess_unseen(flow, xy, variance.isfinite(), query_frames)
    variance = variance.T.contiguous()
    return PointTracks(
        query_frames=query_frames,
        xy=xy.transpose(0, 1).contiguous(),
        visible=variance.isfinite(),
        confidence=confidence_from_variance(variance),
        variance=variance,
    )


def _checked_queries(flow: VideoFlow, query_xy: Tensor, query_frames: Tensor) -> tuple[Tensor, Tensor]:
    query_xy, query_frames = torch.as_tensor(query_xy).cpu().float(), torch.as_tensor(query_frames).cpu()
    if query_xy.ndim != 2 or query_xy.shape[-1] != 2 or query_frames.shape != query_xy.shape[:1]:
        shapes = f"{tuple(query_xy.shape)} and {tuple(query_frames.shape)}"
        raise FlowError(f"query_xy and query_frames must have shapes (Q,2) and (Q,), got {shapes}.")
    if query_frames.is_floating_point() or query_frames.is_complex() or query_frames.dtype == torch.bool:
        raise FlowError(f"query_frames must be integers, got {query_frames.dtype}.")
    query_frames = query_frames.long()
    if ((query_frames < 0) | (query_frames >= flow.num_frames)).any():
        raise FlowError(f"query_frames must lie in [0, {flow.num_frames}), the frames of the video.")
    if not inside(query_xy, flow.height, flow.width).all():
        raise FlowError(
            f"query_xy must lie in the flow fields' {flow.width}x{flow.height} px; scale the points to them."
        )
    return query_xy, query_frames


def _check_flow(flow: VideoFlow, strides: list[int]) -> None:
    for stride in strides:
        for first in range(flow.num_frames - stride):
            for pair in ((first, first + stride), (first + stride, first)):
                if pair not in flow:
                    raise FlowError(
                        f"there is no flow from frame {pair[0]} to {pair[1]}; compute stride {stride} in both "
                        "directions, or track without it."
                    )


def _relax(
    flow: VideoFlow, xy: Tensor, variance: Tensor, t: int, step: int, strides: list[int], options: TrackingOptions
) -> None:
    """Improves ``xy`` (T,Q,2) and ``variance`` (T,Q) at frame t, in place, by what is visible at t - step stride."""
    sources = [(s, u) for s in strides if 0 <= (u := t - step * s) < flow.num_frames]
    points = torch.full((len(sources), variance.shape[1], 2), torch.inf)
    variances = torch.full((len(sources), variance.shape[1]), torch.inf)
    for i, (_, u) in enumerate(sources):
        # Nothing can come of a path that is already over the limit, or longer than the best one known.
        rows = (variance[u] + options.step_variance < variance[t].clamp(max=options.max_variance)).nonzero()[:, 0]
        if len(rows):
            points[i, rows], error = _carry(flow, u, t, xy[u, rows], options)
            variances[i, rows] = variance[u, rows] + options.step_variance + error
    best, index = variances.min(0)
    rows = ((best <= options.max_variance) & (best < variance[t])).nonzero()[:, 0]
    points, variances, best = points[:, rows], variances[:, rows], best[rows]
    position = points[index[rows], torch.arange(len(rows))]
    # Points at inf are no candidates; they agree with nothing.
    agree = (points - position).square().sum(-1) <= options.agreement**2
    together = 1 / torch.where(agree, 1 / variances, 0).sum(0)
    continued = variance[t - step, rows].isfinite() | variance[t, rows].isfinite()
    kept = continued | (together <= options.reappear_variance)
    xy[t, rows[kept]], variance[t, rows[kept]] = position[kept], best[kept]


def _carry(flow: VideoFlow, u: int, t: int, xy: Tensor, options: TrackingOptions) -> tuple[Tensor, Tensor]:
    """Points (N,2) of frame u in frame t, and the squared forward-backward error, inf where inconsistent or outside."""
    there, back = flow.get(u, t), flow.get(t, u)
    forward = sample(there, xy)
    target = xy + forward
    backward = sample(back, target)
    error = (forward + backward).square().sum(-1)
    bound = options.alpha * (forward.square().sum(-1) + backward.square().sum(-1)) + options.beta
    valid = ((error < bound) & inside(target, flow.height, flow.width)).nonzero()[:, 0]
    # A wrong match may return to its start by luck, but not its neighbours as well.
    cross = options.neighborhood * xy.new_tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])
    around = xy[valid, None] + cross
    forward = sample(there, around)
    around_error = (forward + sample(back, around + forward)).square().sum(-1).median(1).values
    result = torch.full_like(error, torch.inf)
    result[valid] = error[valid].maximum(around_error)
    return target, result


def _connected_to_query(visible: Tensor, query_frames: Tensor) -> Tensor:
    """(T,Q) bool: visible (T,Q) without a gap since the query."""
    lost = (~visible).int().cumsum(0)
    lost_before = lost - (~visible).int()
    at_query = lost.gather(0, query_frames[None])
    after = torch.arange(len(visible))[:, None] >= query_frames
    return visible & torch.where(after, lost == at_query, lost_before == at_query)


def _guess_unseen(flow: VideoFlow, xy: Tensor, visible: Tensor, query_frames: Tensor) -> None:
    """Fills ``xy`` (T,Q,2) where invisible: lines between two observations, along the flow before and after all."""
    T = len(xy)
    times = torch.arange(T)[:, None]
    before = torch.where(visible, times, -1).cummax(0).values
    after = torch.where(visible, times, T).flip(0).cummin(0).values.flip(0)
    gap = ~visible & (before >= 0) & (after < T)
    now, q = gap.nonzero(as_tuple=True)
    start, end = before[now, q], after[now, q]
    share = ((now - start) / (end - start))[:, None]
    xy[now, q] = torch.lerp(xy[start, q], xy[end, q], share)
    limit = xy.new_tensor([flow.width, flow.height])
    for step in (1, -1):
        for t in range(1, T) if step > 0 else range(T - 2, -1, -1):
            rows = (before[t] != t) & (after[t] == T) if step > 0 else (after[t] != t) & (before[t] == -1)
            rows = rows.nonzero()[:, 0]
            if len(rows):
                moved = xy[t - step, rows] + sample(flow.get(t - step, t), xy[t - step, rows])
                xy[t, rows] = moved.maximum(-MAX_OUTSIDE_SHARE * limit).minimum((1 + MAX_OUTSIDE_SHARE) * limit)
