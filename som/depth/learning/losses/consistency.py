"""Photometric and geometric consistency of two views (SC-SfMLearner, Bian et al., NeurIPS 2019 and IJCV 2021)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import warp
from som.depth.learning.losses.photometric import SSIM_WEIGHT, dssim
from som.depth.learning.losses.reduction import check_map
from som.reductions import check_same_shape, weighted_mean


class PairTerms(NamedTuple):
    """Terms of one direction, from a view a to a view b; see ``pair_terms``."""

    photometric: Float[Tensor, ""]
    """L_p, without unit, in [0, 1]."""
    geometry: Float[Tensor, ""]
    """L_g, without unit, in [0, 1]."""
    mask: Float[Tensor, "b 1 h w"]
    """Self-discovered mask 1 - D_diff in [0, 1], without gradient: low where the depths of a and b disagree, that is
    where things move or are hidden."""
    valid: Bool[Tensor, "b 1 h w"]
    """Pixels that both means are over."""


def depth_disagreement(
    depth_in_b: Float[Tensor, "b 1 h w"], sampled: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 h w"]:
    """``|D - D'| / (D + D')`` in [0, 1), for depths > 0: symmetric, and free of their common scale.

    Args:
        depth_in_b: z of a's points in camera b.
        sampled: depth of b where these points project.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape("depth_disagreement", depth_in_b=depth_in_b, sampled=sampled)
    return ((depth_in_b - sampled).abs() / (depth_in_b + sampled)).clamp(0, 1)


def pair_terms(
    image_a: Float[Tensor, "b c h w"],
    image_b: Float[Tensor, "b c hb wb"],
    depth_a: Float[Tensor, "b 1 h w"],
    depth_b: Float[Tensor, "b 1 hb wb"],
    K_a: Float[Tensor, "b 3 3"],
    K_b: Float[Tensor, "b 3 3"],
    T_b_a: Float[Tensor, "b 4 4"],
    *,
    valid_a: Tensor | None = None,
    auto_mask: bool = True,
    discover_mask: bool = True,
    detach_mask: bool = True,
    ssim_weight: float = SSIM_WEIGHT,
    min_share: float = 0.01,
) -> PairTerms:
    """Terms of the direction a to b: b is warped into a, and the depths of both are compared there.

    With D_ab the depth of a's points in camera b and D_b' the depth of b sampled where they project::

        D_diff = |D_ab - D_b'| / (D_ab + D_b'),     M = 1 - D_diff
        L_p = mean_valid( M · mean_c(a DSSIM + (1 - a) |I_a - I_b'|) ),     L_g = mean_valid( D_diff )

    Args:
        image_a, image_b: images in [0, 1]; they may differ in size when the auto-mask is off.
        depth_a, depth_b: predicted dense z > 0 of the same scale; both get gradients.
        K_a, K_b: intrinsics in pixels.
        T_b_a: maps points of camera a into camera b.
        valid_a: pixels of a that count, (B,1,H,W), bool or weights >= 0; None counts all.
        auto_mask: leave out pixels whose L1 the warp does not improve over the unwarped b.
        discover_mask: weigh the photometric error with M.
        detach_mask: M carries no gradient. The first release lets it: then disagreement of the depths lowers L_p, and
            only L_g holds against that.
        ssim_weight: a in [0, 1].
        min_share: both terms are 0 unless more than this share of the batch's pixels counts. (The first release asks
            for 10 000 values, 1.2 % of the depth pixels of its default batch and more than a small batch has.)

    Raises:
        ValueError: shapes disagree.
    """
    check_map("pair_terms", "depth_a", depth_a, image_a)
    check_map("pair_terms", "depth_b", depth_b, image_b)
    if valid_a is not None:
        check_map("pair_terms", "valid_a", valid_a, image_a)
    C = image_b.shape[1]
    warped = warp(torch.cat([image_b, depth_b], dim=1), depth_a, K_a, K_b, T_b_a)
    image_warped, depth_warped = warped.values.split([C, 1], dim=1)
    l1 = (image_a - image_warped).abs()
    disagreement = depth_disagreement(warped.depth, depth_warped)
    valid = warped.in_view
    if auto_mask:
        check_same_shape("pair_terms with auto_mask", image_a=image_a, image_b=image_b)
        valid = valid & (l1.detach().mean(1, keepdim=True) < (image_a - image_b).abs().mean(1, keepdim=True))
    weights = valid.to(l1.dtype) if valid_a is None else valid * valid_a.to(l1.dtype)

    error = (ssim_weight * dssim(image_warped, image_a) + (1 - ssim_weight) * l1).mean(1, keepdim=True)
    mask = 1 - disagreement
    if discover_mask:
        error = error * (mask.detach() if detach_mask else mask)
    counted = weights > 0
    enough = (counted.sum() > min_share * counted.numel()).to(l1.dtype)
    photometric, geometry = (weighted_mean(term, weights) * enough for term in (error, disagreement))
    return PairTerms(photometric, geometry, mask.detach(), counted)


class PairLoss(NamedTuple):
    """Terms of a pair of views, both directions summed."""

    photometric: Float[Tensor, ""]
    """L_p of a to b plus that of b to a, without unit."""
    geometry: Float[Tensor, ""]
    """L_g of a to b plus that of b to a, without unit. Watch it: a falling L_p while it rises is a mask that is
    gamed."""


def pair_loss(
    image_a: Float[Tensor, "b c h w"],
    image_b: Float[Tensor, "b c hb wb"],
    depth_a: Float[Tensor, "b 1 h w"],
    depth_b: Float[Tensor, "b 1 hb wb"],
    K_a: Float[Tensor, "b 3 3"],
    K_b: Float[Tensor, "b 3 3"],
    T_b_a: Float[Tensor, "b 4 4"],
    T_a_b: Float[Tensor, "b 4 4"],
    *,
    valid_a: Tensor | None = None,
    valid_b: Tensor | None = None,
    **options,
) -> PairLoss:
    """SC-SfMLearner's loss of a pair: ``pair_terms`` in both directions, summed.

    The whole objective is 1.0 photometric + 0.5 geometry + 0.1 smoothness (``edge_aware_smoothness`` of the depth),
    each summed over the pairs of a target and its neighbours.

    Args:
        T_b_a, T_a_b: the two relative poses. A pose net predicts them apart; known poses are each other's inverse.
        valid_a, valid_b: pixels of each view that count as targets.
        options: auto_mask, discover_mask, detach_mask, ssim_weight and min_share of ``pair_terms``.

    Raises:
        ValueError: shapes disagree.
    """
    forward = pair_terms(image_a, image_b, depth_a, depth_b, K_a, K_b, T_b_a, valid_a=valid_a, **options)
    backward = pair_terms(image_b, image_a, depth_b, depth_a, K_b, K_a, T_a_b, valid_a=valid_b, **options)
    return PairLoss(forward.photometric + backward.photometric, forward.geometry + backward.geometry)
