"""Depth by order: which of two pixels of a frame is farther, without any scale.

Pairs are kept as flat pixel indices with weights; what may not count has weight 0 instead of being removed, so that
shapes are fixed and the device is never waited for. A sign is +1 where the first pixel of a pair is *farther*.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from som.reductions import check_same_shape, weighted_mean

Kind = Literal["hinge", "logistic", "tanh"]


def check_pairs(name: str, reference: Tensor, **others: Tensor | None) -> None:
    """Raises ValueError unless all tensors that are given have the shape of the reference."""
    for key, value in others.items():
        if value is not None and value.shape != reference.shape:
            raise ValueError(f"{name}: {key} {tuple(value.shape)} must have the shape {tuple(reference.shape)}.")


def _send(values: Tensor, device: torch.device) -> Tensor:
    """A copy on ``device`` that nobody waits for (from pageable memory it would wait for the device)."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def values_at(maps: Shaped[Tensor, "b h w"], index: Int[Tensor, "b p"]) -> Shaped[Tensor, "b p"]:
    """Values of each frame's map at flat pixel indices ``row * W + column``; differentiable in the maps.

    Raises:
        ValueError: not (B,H,W) and (B,P).
    """
    if maps.ndim != 3 or index.ndim != 2 or len(maps) != len(index):
        shapes = f"{tuple(maps.shape)} and {tuple(index.shape)}"
        raise ValueError(f"values_at: shapes (B,H,W) and (B,P) expected, got {shapes}.")
    return maps.flatten(1).gather(1, index)  # on a CPU twice as fast as one index_select over all frames


def sample_frame_pairs(
    valid: Tensor,
    num_pairs: int,
    generator: torch.Generator | None = None,
    near_share: float = 0.5,
    near_radius: float = 0.05,
) -> tuple[Int[Tensor, "b p"], Int[Tensor, "b p"], Float[Tensor, "b p"]]:
    """Random pairs of different pixels, anew for every frame: near ones first, then pairs across the whole frame.

    The first pixel is uniform over the frame. The second is uniform over all others in a square window around it, cut
    at the border, which for far pairs is the whole frame.

    Args:
        valid: (B,H,W) pixels that may be used, bool or weights >= 0.
        num_pairs: P.
        generator: drawn from on its own device, so that a CPU generator gives equal pairs on every device.
        near_share: share of near pairs in [0, 1].
        near_radius: half the side of their window, as a share of max(H, W); at least one pixel.

    Returns:
        flat indices i and j of the pixels, on the device of ``valid``, and the product of their weights: 0 where
        either may not be used.

    Raises:
        ValueError: not (B,H,W), a single pixel, or an option out of range.
    """
    if valid.ndim != 3 or valid.shape[1] * valid.shape[2] < 2:
        raise ValueError(f"sample_frame_pairs: valid must be (B,H,W) of 2 pixels or more, got {tuple(valid.shape)}.")
    if num_pairs < 0 or not 0.0 <= near_share <= 1.0 or near_radius < 0.0:
        raise ValueError("sample_frame_pairs: num_pairs and near_radius must be >= 0, near_share must lie in [0, 1].")
    B, H, W = valid.shape
    origin = torch.device("cpu") if generator is None else generator.device
    uniform = torch.rand(2, B, num_pairs, generator=generator, device=origin, dtype=torch.float64)
    reach = torch.full((num_pairs,), max(H, W), device=origin)
    reach[: round(near_share * num_pairs)] = max(1, round(near_radius * max(H, W)))
    i = (uniform[0] * (H * W)).long()
    y = i.div(W, rounding_mode="floor")
    x = i - y * W
    top, left = (y - reach).clamp(min=0), (x - reach).clamp(min=0)
    columns = (x + reach).clamp(max=W - 1) - left + 1
    rows = (y + reach).clamp(max=H - 1) - top + 1
    k = (uniform[1] * (rows * columns - 1)).long()  # among the window's pixels without the first one
    k = k + (k >= (y - top) * columns + x - left)
    row = k.div(columns, rounding_mode="floor")
    j = (top + row) * W + left + k - row * columns
    i, j = _send(torch.stack([i, j]), valid.device)
    weights = valid.detach() if valid.dtype.is_floating_point else valid.float()
    return i, j, values_at(weights, i) * values_at(weights, j)


def order_signs(
    depth_i: Float[Tensor, "*p"], depth_j: Float[Tensor, "*p"], min_ratio: float = 0.05
) -> Float[Tensor, "*p"]:
    """Which of two pixels is farther: +1 the first, -1 the second, 0 a tie or unknown.

    A pair is a tie unless the farther depth exceeds the nearer one by more than ``min_ratio`` of it. Scaling the depth
    changes nothing. A shift of its disparity never turns a sign around, but makes or ends ties; for priors with an
    unknown shift see ``disparity_order_signs``.

    Args:
        depth_i, depth_j: z-depths of the prior, any one scale for both; 0 = unknown.
        min_ratio: >= 0.

    Raises:
        ValueError: the shapes disagree, or ``min_ratio`` is negative.
    """
    check_pairs("order_signs", depth_i, depth_j=depth_j)
    if min_ratio < 0:
        raise ValueError(f"order_signs: min_ratio must be >= 0, got {min_ratio}.")
    known = (depth_i > 0) & (depth_j > 0)
    first, second = depth_i > (1 + min_ratio) * depth_j, depth_j > (1 + min_ratio) * depth_i
    return (first.to(depth_i.dtype) - second.to(depth_i.dtype)) * known


def disparity_spread(depth: Float[Tensor, "b h w"], weights: Tensor | None = None) -> Float[Tensor, "b 1"]:
    """Standard deviation of each frame's disparity over its known pixels; 0 without any.

    Args:
        depth: z-depth of the prior, any scale; 0 = unknown.
        weights: the same shape, >= 0 or bool.

    Raises:
        ValueError: the shapes disagree.
    """
    check_pairs("disparity_spread", depth, weights=weights)
    known = depth > 0
    disparity = torch.where(known, depth, torch.ones_like(depth)).reciprocal().flatten(1)
    counted = (known.to(depth.dtype) if weights is None else known * weights.to(depth.dtype)).flatten(1)
    total = counted.sum(1, keepdim=True)
    shares = counted / torch.where(total > 0, total, torch.ones_like(total))
    deviation = disparity - (shares * disparity).sum(1, keepdim=True)
    return (shares * deviation * deviation).sum(1, keepdim=True).sqrt()


def disparity_order_signs(
    depth_i: Float[Tensor, "b p"], depth_j: Float[Tensor, "b p"], spread: Float[Tensor, "b 1"], min_share: float = 0.1
) -> Float[Tensor, "b p"]:
    """``order_signs`` for priors whose disparity has an unknown scale and shift in every frame.

    A pair is a tie unless the disparities differ by more than ``min_share`` of their spread in the frame. Neither a
    positive scale nor a shift of a frame's disparity changes anything.

    Args:
        depth_i, depth_j: z-depths of the prior; 0 = unknown.
        spread: of each frame, see ``disparity_spread``.
        min_share: >= 0.

    Raises:
        ValueError: the shapes disagree, or ``min_share`` is negative.
    """
    check_pairs("disparity_order_signs", depth_i, depth_j=depth_j)
    if depth_i.ndim != 2 or spread.shape != (len(depth_i), 1):
        raise ValueError(f"disparity_order_signs: spread must be (B,1) for (B,P), got {tuple(spread.shape)}.")
    if min_share < 0:
        raise ValueError(f"disparity_order_signs: min_share must be >= 0, got {min_share}.")
    known = (depth_i > 0) & (depth_j > 0)
    ones = torch.ones_like(depth_i)
    farther = torch.where(known, depth_j, ones).reciprocal() - torch.where(known, depth_i, ones).reciprocal()
    return torch.where(farther.abs() > min_share * spread, farther.sign(), torch.zeros_like(farther))


def known_pairs(pred_i: Tensor, pred_j: Tensor, signs: Tensor, weights: Tensor | None) -> Float[Tensor, "*p"]:
    """Weights of pairs, 0 where the sign is 0 or either rendered depth is unknown (<= 0)."""
    counted = (signs != 0) & (pred_i.detach() > 0) & (pred_j.detach() > 0)
    return counted.to(pred_i.dtype) if weights is None else counted * weights.to(pred_i.dtype)


def ordinal_depth(
    pred_i: Float[Tensor, "*p"],
    pred_j: Float[Tensor, "*p"],
    signs: Float[Tensor, "*p"],
    weights: Shaped[Tensor, "*p"] | None = None,
    kind: Kind = "hinge",
    margin: float | Tensor = 0.02,
    temperature: float = 0.02,
    sharpness: float = 20.0,
) -> Float[Tensor, ""]:
    """Weighted mean over pairs of the cost of their order, on the log ratio ``l = log(pred_i / pred_j)``.

    The log ratio does not change when the rendered depth is scaled. With s the sign:

    - ``hinge``: ``relu(margin - s l)``, 0 once the order holds by the margin; the gradient of a wrong pair does not
      fade with the size of its error.
    - ``logistic``: ``t softplus((margin - s l) / t)``, a hinge with a round corner (t the temperature); never 0.
    - ``tanh``: ``|tanh(a l) - s|`` as MoDGS prints it (arXiv 2406.00434), with a the sharpness, but on the log ratio.
      Its gradient fades for *badly wrong* pairs as for right ones: at a = 20 beyond |l| = 0.3 hardly any is left.

    Args:
        pred_i, pred_j: rendered z-depths of the two pixels in scene units; <= 0 = nothing hit, ignored.
        signs: +1 where the first is farther, -1 where the second is, 0 ignored.
        weights: the same shape, >= 0 or bool.
        margin: log ratio by which an order should hold (hinge and logistic), one or, as (B,1), one per frame. It must
            not exceed the smallest ratio that the signs vouch for, or right pairs are pulled apart.
        temperature: t > 0 of the logistic, in log ratio.
        sharpness: a > 0 of the tanh.

    Returns:
        scalar >= 0; a differentiable 0 when nothing counts.

    Raises:
        ValueError: the shapes disagree, or the kind is unknown.
    """
    check_same_shape("ordinal_depth", pred_i=pred_i, pred_j=pred_j)
    check_pairs("ordinal_depth", pred_i, signs=signs, weights=weights)
    counted = known_pairs(pred_i, pred_j, signs, weights)
    ones = torch.ones_like(pred_i)
    kept = counted > 0
    agreement = signs * torch.log(torch.where(kept, pred_i, ones) / torch.where(kept, pred_j, ones))
    if kind == "hinge":
        cost = F.relu(margin - agreement)
    elif kind == "logistic":
        cost = F.softplus(margin - agreement, beta=1 / temperature)
    elif kind == "tanh":
        cost = 1 - torch.tanh(sharpness * agreement)  # = |tanh(a l) - s| for s = +-1
    else:
        raise ValueError(f'ordinal_depth: kind must be "hinge", "logistic" or "tanh", got {kind!r}.')
    return weighted_mean(cost, counted)


def modgs_pairs(
    valid: Tensor, num_pairs: int = 200_000, generator: torch.Generator | None = None
) -> tuple[Int[Tensor, "b p"], Int[Tensor, "b p"]]:
    """MoDGS' pairs: two independent random orders of a frame's valid pixels, read side by side.

    Args:
        valid: (B,H,W) bool.
        num_pairs: at most this many pairs a frame; as MoDGS never has more than valid pixels, P is min(num_pairs, HW).
        generator: drawn from on its own device.

    Returns:
        flat indices i and j. With n valid pixels the first n pairs join valid pixels (one may meet itself), and all
        later ones invalid pixels.

    Raises:
        ValueError: not (B,H,W).
    """
    if valid.ndim != 3:
        raise ValueError(f"modgs_pairs: valid must be (B,H,W), got {tuple(valid.shape)}.")
    flat = (valid > 0).flatten(1)
    origin = "cpu" if generator is None else generator.device
    keys = _send(torch.rand(2, *flat.shape, generator=generator, device=origin), flat.device)
    i, j = (keys + 2.0 * ~flat).argsort(-1)[..., :num_pairs]  # valid pixels first
    return i, j


def modgs_ordinal(
    pred_depth: Float[Tensor, "b h w"],
    depth: Float[Tensor, "b h w"],
    pairs: tuple[Int[Tensor, "b p"], Int[Tensor, "b p"]],
    valid: Tensor | None = None,
    alpha: float = 100.0,
) -> Float[Tensor, ""]:
    """The ordinal loss of MoDGS' code (its ``tanh_threshold``), for comparison.

    ``mean |tanh(alpha (pred_i - pred_j)) - sign(D_i - D_j)|`` over pairs with ``|D_i - D_j| >= (max D - min D) / 10``.
    It depends on the scale of both depths: at alpha = 100 a pair that is wrong by 0.1 scene units has no gradient.
    With pairs from ``modgs_pairs`` it equals their code up to the random draw; the differences are that the mean of a
    frame without any kept pair is 0 instead of nan, and that a batch is the mean over the frames that have kept pairs.

    Args:
        pred_depth: rendered z-depth in scene units; 0 where nothing was hit *does* count, as in their code.
        depth: z-depth of the prior; 0 = unknown, ignored.
        pairs: flat indices of the two pixels, see ``modgs_pairs``.
        valid: (B,H,W) further pixels to ignore (where 0 or False), also in max and min.

    Returns:
        scalar in [0, 2]; a differentiable 0 when no pair is kept.

    Raises:
        ValueError: the shapes disagree.
    """
    check_same_shape("modgs_ordinal", pred_depth=pred_depth, depth=depth)
    check_pairs("modgs_ordinal", depth, valid=valid)
    check_pairs("modgs_ordinal", pairs[0], second=pairs[1])
    usable = depth > 0 if valid is None else (depth > 0) & (valid > 0)
    low = torch.where(usable, depth, torch.full_like(depth, torch.inf)).flatten(1).amin(1, keepdim=True)
    high = torch.where(usable, depth, torch.zeros_like(depth)).flatten(1).amax(1, keepdim=True)
    both = torch.cat(pairs, 1)
    pred_i, pred_j = values_at(pred_depth, both).chunk(2, 1)
    (depth_i, depth_j), (use_i, use_j) = (values_at(x, both).chunk(2, 1) for x in (depth, usable))
    difference = depth_i - depth_j
    kept = use_i & use_j & (difference.abs() >= (high - low) / 10)
    cost = (torch.tanh(alpha * (pred_i - pred_j)) - difference.sign()).abs()
    count = kept.sum(1)
    per_frame = torch.where(kept, cost, torch.zeros_like(cost)).sum(1) / count.clamp(min=1)
    return weighted_mean(per_frame, count > 0)
