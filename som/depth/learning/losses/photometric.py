"""Photometric errors and their minimum over source views (Monodepth2, Godard et al., ICCV 2019)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import warp
from som.depth.learning.losses.reduction import check_map
from som.reductions import check_same_shape, weighted_mean

C1, C2 = 0.01**2, 0.03**2
SSIM_WEIGHT = 0.85
"""Share of SSIM in the photometric error; the rest is L1."""


def _sum_3x3(x: Tensor) -> Tensor:
    x = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    return x[..., :-2] + x[..., 1:-1] + x[..., 2:]


class _Mean3x3(torch.autograd.Function):
    """Mean of all full 3x3 windows: on a CPU several times faster, there and back, than ``avg_pool2d``.

    Sums of slices, and not a convolution, so that neither autocast nor TF32 takes digits from the variances.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return _sum_3x3(x) / 9

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _sum_3x3(F.pad(grad, (2, 2, 2, 2))) / 9


def dssim(pred: Float[Tensor, "b c h w"], target: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Structural dissimilarity ``clamp((1 - SSIM) / 2, 0, 1)`` of 3x3 mean windows, reflected at the border.

    As Monodepth (Godard et al., CVPR 2017): C1 = 0.01², C2 = 0.03², biased variances.

    Args:
        pred, target: images in [0, 1], at least 2x2 pixels.

    Raises:
        ValueError: the shapes differ or are not (B,C,H,W).
    """
    check_same_shape("dssim", pred=pred, target=target)
    if pred.ndim != 4:
        raise ValueError(f"dssim: images must be (B,C,H,W), got {tuple(pred.shape)}.")
    x, y = (F.pad(image, (1, 1, 1, 1), mode="reflect") for image in (pred, target))
    # the two variances enter only as their sum
    mu_x, mu_y, squares, xy = (_Mean3x3.apply(m) for m in (x, y, x * x + y * y, x * y))
    mu_squares, mu_xy = mu_x * mu_x + mu_y * mu_y, mu_x * mu_y
    numerator = (2 * mu_xy + C1) * (2 * (xy - mu_xy) + C2)
    denominator = (mu_squares + C1) * (squares - mu_squares + C2)
    return ((1 - numerator / denominator) / 2).clamp(0, 1)


def photometric_error(
    pred: Float[Tensor, "b c h w"], target: Float[Tensor, "b c h w"], ssim_weight: float = SSIM_WEIGHT
) -> Float[Tensor, "b 1 h w"]:
    """``a mean_c DSSIM + (1 - a) mean_c |pred - target|`` of every pixel, in [0, 1], a = ``ssim_weight``.

    Args:
        pred, target: images in [0, 1].
        ssim_weight: a in [0, 1].

    Raises:
        ValueError: the shapes differ or are not (B,C,H,W).
    """
    structure = dssim(pred, target)
    return (ssim_weight * structure + (1 - ssim_weight) * (pred - target).abs()).mean(1, keepdim=True)


class Reprojection(NamedTuple):
    """The photometric term over several source views."""

    loss: Float[Tensor, ""]
    """Mean over the pixels that count; a differentiable 0 if none does."""
    error: Float[Tensor, "b 1 h w"]
    """The error of every pixel that the loss is the mean of; 0 where it does not count."""
    moving: Bool[Tensor, "b 1 h w"]
    """Pixels that the auto-mask lets through: a warped source explains them better than an unwarped one. Only these
    (and kept ones) have a gradient."""


def minimum_reprojection(
    errors: Float[Tensor, "b s h w"],
    identity: Float[Tensor, "b s h w"] | None = None,
    *,
    in_view: Bool[Tensor, "b s h w"] | None = None,
    weights: Float[Tensor, "b s h w"] | None = None,
    valid: Tensor | None = None,
    keep: Bool[Tensor, "b 1 h w"] | None = None,
    keep_below: float = 0.75,
    reduction: Literal["min", "mean"] = "min",
    noise: float = 1e-5,
    generator: torch.Generator | None = None,
) -> Reprojection:
    """Per-pixel minimum over sources, with the auto-mask, as Monodepth2 defines them.

    A pixel's error is the smallest of its errors in the warped sources. With ``identity``, the errors of the sources
    left unwarped compete too: where one of them wins, the pixel does not move relative to the camera (or has no
    texture), and counts as a constant. The mean is over all pixels that count, those included.

    Args:
        errors: photometric errors of the S warped sources.
        identity: photometric errors of the unwarped sources, no gradient; None switches the auto-mask off.
        in_view: where each warped source is seen; elsewhere its error is not looked at. A pixel that no source sees
            is a constant too with the auto-mask, and does not count without.
        weights: factor in [0, 1] of each source's error, such as the self-discovered mask of ``consistency``. It acts
            after the choice of the source and never carries a gradient: a mask inside the minimum that does is gamed,
            since making depths inconsistent then lowers the loss.
        valid: pixels that count, (B,1,H,W), bool or weights >= 0; None counts all.
        keep: pixels that the auto-mask must not take, e.g. road, which is so uniform that it looks static (FUMET,
            Kinoshita and Nishino, ECCV 2024).
        keep_below: ``keep`` acts in images of which less than this share of the valid pixels is masked; in the others
            the camera stands still and the auto-mask is right.
        reduction: ``mean`` averages over the sources in view (and over the identity errors) instead of the minimum.
        noise: standard deviation of the normal noise on the identity errors that breaks ties between equal errors; 0
            adds none, and ties count as static.
        generator: the noise is drawn from it, on its own device; None is torch's global generator.

    Raises:
        ValueError: shapes disagree or the reduction is unknown.
    """
    check_same_shape("minimum_reprojection", errors=errors, identity=identity, in_view=in_view, weights=weights)
    for label, mask in (("valid", valid), ("keep", keep)):
        if mask is not None:
            check_map("minimum_reprojection", label, mask, errors)
    if reduction not in ("min", "mean"):
        raise ValueError(f'minimum_reprojection: reduction must be "min" or "mean", got {reduction!r}.')
    seen = torch.ones_like(errors, dtype=torch.bool) if in_view is None else in_view
    factors = None if weights is None else weights.detach().to(errors.dtype)
    warped, weighted = _reduce(errors, seen, factors, reduction)
    any_seen = seen.any(1, keepdim=True)
    counted = torch.ones_like(warped) if valid is None else valid.to(errors.dtype)
    if identity is None:
        moving, counted = any_seen, counted * any_seen
        error = weighted
    else:
        static = _static_error(identity.detach(), reduction, noise, generator)
        moving = any_seen & (warped.detach() < static)
        taken = (
            moving if keep is None else moving | ((keep > 0) & any_seen & _mostly_moving(moving, counted, keep_below))
        )
        error = torch.where(taken, weighted, static)
    error = torch.where(counted > 0, error, torch.zeros_like(error))
    return Reprojection(weighted_mean(error, counted), error, moving & (counted > 0))


def _reduce(errors: Tensor, seen: Tensor, factors: Tensor | None, reduction: str) -> tuple[Tensor, Tensor]:
    """The error over the sources, without and with their factors, (B,1,H,W); finite where nothing is seen."""
    if reduction == "mean":
        number = seen.sum(1, keepdim=True).clamp(min=1)
        errors = torch.where(seen, errors, torch.zeros_like(errors))
        plain = errors.sum(1, keepdim=True) / number
        return plain, plain if factors is None else (errors * factors).sum(1, keepdim=True) / number
    unseen = torch.full_like(errors, torch.finfo(errors.dtype).max)
    plain, chosen = torch.where(seen, errors, unseen).min(1, keepdim=True)
    return plain, plain if factors is None else plain * factors.gather(1, chosen)


def _static_error(identity: Tensor, reduction: str, noise: float, generator: torch.Generator | None) -> Tensor:
    if reduction == "mean":
        identity = identity.mean(1, keepdim=True)
    if noise:
        device = identity.device if generator is None else generator.device
        drawn = torch.randn(identity.shape, generator=generator, device=device, dtype=identity.dtype)
        identity = identity + noise * drawn.to(identity.device, non_blocking=True)
    return identity.amin(1, keepdim=True)


def _mostly_moving(moving: Tensor, counted: Tensor, keep_below: float) -> Bool[Tensor, "b 1 1 1"]:
    share = (~moving * counted).sum((1, 2, 3), keepdim=True) / counted.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return share < keep_below


def identity_errors(
    target: Float[Tensor, "b c h w"], sources: Float[Tensor, "b s c h w"], ssim_weight: float = SSIM_WEIGHT
) -> Float[Tensor, "b s h w"]:
    """Photometric errors of the unwarped sources, for the auto-mask; no gradient. The same at every scale.

    Raises:
        ValueError: the shapes disagree.
    """
    _check_sources("identity_errors", target, sources)
    with torch.no_grad():
        B, S = sources.shape[:2]
        repeated = target[:, None].expand_as(sources).flatten(0, 1)
        return photometric_error(sources.flatten(0, 1), repeated, ssim_weight).view(B, S, *target.shape[2:])


def _check_sources(name: str, target: Tensor, sources: Tensor) -> None:
    if target.ndim != 4 or sources.ndim != 5 or sources.shape[::2] != (target.shape[0], *target.shape[1::2]):
        raise ValueError(
            f"{name}: target must be (B,C,H,W) and sources (B,S,C,Hs,Ws), got {tuple(target.shape)} and "
            f"{tuple(sources.shape)}."
        )


def reprojection_loss(
    target: Float[Tensor, "b c h w"],
    sources: Float[Tensor, "b s c hs ws"],
    depth: Float[Tensor, "b 1 h w"],
    K_tgt: Float[Tensor, "b 3 3"],
    K_src: Float[Tensor, "b s 3 3"],
    T_src_tgt: Float[Tensor, "b s 4 4"],
    *,
    identity: Float[Tensor, "b s h w"] | None = None,
    ssim_weight: float = SSIM_WEIGHT,
    **options,
) -> Reprojection:
    """Monodepth2's term of one scale: every source warped into the target, then ``minimum_reprojection``.

    Args:
        target, sources: images in [0, 1], without augmentation of colours; S >= 1 sources of each target.
        depth: predicted z of the target at full size.
        K_tgt, K_src: intrinsics in pixels.
        T_src_tgt: maps target-camera points into each source camera, in the unit of the depth.
        identity: ``identity_errors(target, sources)``, once for all scales; None switches the auto-mask off.
        ssim_weight: share of SSIM in the error.
        options: of ``minimum_reprojection``: weights, valid, keep, keep_below, reduction, noise, generator.

    Raises:
        ValueError: shapes disagree.
    """
    _check_sources("reprojection_loss", target, sources)
    B, S = sources.shape[:2]

    def repeat(x: Tensor) -> Tensor:
        return x[:, None].expand(B, S, *x.shape[1:]).flatten(0, 1)

    warped = warp(sources.flatten(0, 1), repeat(depth), repeat(K_tgt), K_src.flatten(0, 1), T_src_tgt.flatten(0, 1))
    errors = photometric_error(warped.values, repeat(target), ssim_weight)
    in_view = warped.in_view.view(B, S, *target.shape[2:])
    return minimum_reprojection(errors.view(in_view.shape), identity, in_view=in_view, **options)
