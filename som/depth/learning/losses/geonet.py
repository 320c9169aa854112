"""Consistency of flow with depth and motion, and of normals with depth.

Two methods share the name GeoNet: Yin and Shi (CVPR 2018), flow from depth and pose with a forward-backward check; and
Qi et al. (CVPR 2018), depth and surface normals that refine each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from som.cameras.geometry import in_image, pixel_centers, reproject, sample_map
from som.depth.learning.losses.reduction import check_map
from som.reductions import check_same_shape, weighted_mean


def rigid_flow(
    depth: Float[Tensor, "b 1 h w"],
    K_tgt: Float[Tensor, "b 3 3"],
    K_src: Float[Tensor, "b 3 3"],
    T_src_tgt: Float[Tensor, "b 4 4"],
) -> tuple[Float[Tensor, "b 2 h w"], Bool[Tensor, "b 1 h w"]]:
    """Flow in pixels, (right, down), that the camera's motion alone causes, and where it can be trusted to exist.

    Args:
        depth: z of the target, 0 = unknown.
        K_tgt, K_src: intrinsics of images of the same size.
        T_src_tgt: maps target-camera points into the source camera.

    Returns:
        flow from target to source; bool, whether depth is known, the point is in front and within the source image.

    Raises:
        ValueError: shapes disagree.
    """
    min_depth = 1e-3
    xy, z = reproject(depth, K_tgt, K_src, T_src_tgt, min_depth)
    H, W = depth.shape[-2:]
    flow = xy - pixel_centers(H, W, device=xy.device, dtype=xy.dtype)
    return flow.permute(0, 3, 1, 2), in_image(xy, H, W)[:, None] & (z > min_depth) & (depth > 0)


def _check_flow(name: str, **flows: Tensor) -> None:
    check_same_shape(name, **flows)
    for label, flow in flows.items():
        if flow.ndim != 4 or flow.shape[1] != 2:
            raise ValueError(f"{name}: {label} must be (B,2,H,W), got {tuple(flow.shape)}.")


def forward_backward_difference(
    forward: Float[Tensor, "b 2 h w"], backward: Float[Tensor, "b 2 h w"], alpha: float = 3.0, beta: float = 0.05
) -> tuple[Float[Tensor, "b 2 h w"], Bool[Tensor, "b 1 h w"]]:
    """Where flow there and back misses the pixel it came from, with GeoNet's adaptive threshold.

    A pixel x is consistent where ``|d|₂ < max(alpha, beta |f(x)|₂)`` with d = f(x) + b(x + f(x)) and x + f(x) in the
    image. GeoNet's values are for images of 416x128 pixels; at half the size half of alpha is the same.

    Args:
        forward, backward: flow in pixels, (right, down), from image 0 to 1 and back.
        alpha: difference in pixels that is always allowed.
        beta: share of the flow's length that is allowed.

    Returns:
        d in pixels, differentiable; bool, whether the pixel is consistent.

    Raises:
        ValueError: shapes disagree.
    """
    _check_flow("forward_backward_difference", forward=forward, backward=backward)
    H, W = forward.shape[-2:]
    arrival = pixel_centers(H, W, device=forward.device, dtype=forward.dtype) + forward.permute(0, 2, 3, 1)
    difference = forward + sample_map(backward, arrival)
    with torch.no_grad():
        bound = (beta * forward.norm(dim=1, keepdim=True)).clamp(min=alpha)
        consistent = (difference.norm(dim=1, keepdim=True) < bound) & in_image(arrival, H, W)[:, None]
    return difference, consistent


def flow_consistency_loss(
    forward: Float[Tensor, "b 2 h w"],
    backward: Float[Tensor, "b 2 h w"],
    valid: Tensor | None = None,
    alpha: float = 3.0,
    beta: float = 0.05,
) -> Float[Tensor, ""]:
    """GeoNet's geometric consistency, the mean L1 norm of the forward-backward difference over consistent pixels.

    Args:
        forward, backward: flow in pixels, (B,2,H,W); both get gradients, the choice of pixels none.
        valid: (B,1,H,W), bool or weights >= 0; None counts all.
        alpha, beta: as in ``forward_backward_difference``.

    Returns:
        scalar >= 0 in pixels; a differentiable 0 when nothing counts.

    Raises:
        ValueError: shapes disagree.
    """
    difference, consistent = forward_backward_difference(forward, backward, alpha, beta)
    return _flow_l1("flow_consistency_loss", difference, consistent, valid)


def rigid_flow_loss(
    rigid: Float[Tensor, "b 2 h w"], flow: Float[Tensor, "b 2 h w"], consistent: Tensor, valid: Tensor | None = None
) -> Float[Tensor, ""]:
    """Mean L1 norm in pixels between the flow of depth and pose and optical flow: flow as supervision of depth.

    Args:
        rigid: flow of the static scene, see ``rigid_flow``; gets the gradient.
        flow: optical flow of the same pair; no gradient.
        consistent: (B,1,H,W) bool, where the optical flow is trusted and ``rigid_flow`` exists.
        valid: (B,1,H,W), bool or weights >= 0, e.g. static pixels; None counts all.

    Returns:
        scalar >= 0 in pixels; a differentiable 0 when nothing counts.

    Raises:
        ValueError: shapes disagree.
    """
    _check_flow("rigid_flow_loss", rigid=rigid, flow=flow)
    return _flow_l1("rigid_flow_loss", rigid - flow.detach(), consistent, valid)


def _flow_l1(name: str, difference: Tensor, consistent: Tensor, valid: Tensor | None) -> Tensor:
    check_map(name, "consistent", consistent, difference)
    check_same_shape(name, consistent=consistent, valid=valid)
    weights = consistent.to(difference.dtype)
    weights = weights if valid is None else weights * valid.to(difference.dtype)
    difference = torch.where(weights > 0, difference, torch.zeros_like(difference))
    return weighted_mean(difference.abs().sum(1, keepdim=True), weights)


def _rays(height: int, width: int, K: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised coordinates x = (u - cx) / fx (B,1,1,W) and y (B,1,H,1) of the pixel centres."""
    u = torch.arange(width, device=K.device, dtype=K.dtype) + 0.5
    v = torch.arange(height, device=K.device, dtype=K.dtype)[:, None] + 0.5
    fx, cx, fy, cy = (K[:, i, j].view(-1, 1, 1, 1) for i, j in ((0, 0), (0, 2), (1, 1), (1, 2)))
    return (u - cx) / fx, (v - cy) / fy


def normals_from_depth(
    depth: Float[Tensor, "b 1 h w"], K: Float[Tensor, "b 3 3"], max_ratio: float = 1.2
) -> tuple[Float[Tensor, "b 3 h w"], Bool[Tensor, "b 1 h w"]]:
    """Unit surface normals in camera axes, towards the camera, from the plane that fits a 3x3 window best.

    A plane m·X = 1 has the inverse depth m·(x, y, 1), linear in the image: its least-squares fit to the nine inverse
    depths is a fixed filter, exact for planes, smooth in the depth and without any matrix to invert.

    Args:
        depth: z, 0 = unknown. The scale does not matter.
        K: intrinsics in pixels.
        max_ratio: a window whose farthest depth is more than this many times its nearest spans an edge.

    Returns:
        normals; bool, whether the window lies in the image, is known and spans no edge. Elsewhere the normal is
        (0, 0, -1).

    Raises:
        ValueError: shapes disagree.
    """
    if depth.ndim != 4 or depth.shape[1] != 1 or K.shape != (depth.shape[0], 3, 3):
        raise ValueError(
            f"normals_from_depth: depth must be (B,1,H,W) and K (B,3,3), got {tuple(depth.shape)} and {tuple(K.shape)}."
        )
    H, W = depth.shape[-2:]
    with torch.no_grad():
        window = F.pad(depth, (1, 1, 1, 1))
        nearest, farthest = -F.max_pool2d(-window, 3, 1), F.max_pool2d(window, 3, 1)
        valid = (nearest > 0) & (farthest <= max_ratio * nearest)
    xi = F.pad(torch.where(depth > 0, depth, torch.ones_like(depth)).reciprocal(), (1, 1, 1, 1), mode="replicate")
    across = (xi[..., 2:] - xi[..., :-2]) / 6
    down = (xi[..., 2:, :] - xi[..., :-2, :]) / 6
    slope_u = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    slope_v = down[..., :-2] + down[..., 1:-1] + down[..., 2:]
    x, y = _rays(H, W, K.to(depth.dtype))
    m_x, m_y = slope_u * K[:, 0, 0].view(-1, 1, 1, 1), slope_v * K[:, 1, 1].view(-1, 1, 1, 1)
    plane = torch.cat([m_x, m_y, F.avg_pool2d(xi, 3, 1) - x * m_x - y * m_y], dim=1)
    away = torch.cat([torch.zeros_like(m_x), torch.zeros_like(m_x), torch.ones_like(m_x)], dim=1)
    return -F.normalize(torch.where(valid, plane, away), dim=1), valid


def depth_from_normals(
    depth: Float[Tensor, "b 1 h w"],
    normals: Float[Tensor, "b 3 h w"],
    K: Float[Tensor, "b 3 3"],
    min_cosine: float = 0.95,
) -> tuple[Float[Tensor, "b 1 h w"], Bool[Tensor, "b 1 h w"]]:
    """Depth of each pixel as its 3x3 neighbours' tangent planes predict it, by kernel regression (Qi et al.).

    Neighbour j's plane meets the ray r_i of pixel i at ``z_ji = (n_j·X_j) / (n_j·r_i)``; the result is
    ``sum_j w_ji z_ji / sum_j w_ji`` with w_ji = n_j·n_i where that is above ``min_cosine``. On a plane it returns the
    depth itself.

    Args:
        depth: z, 0 = unknown.
        normals: unit normals in camera axes, of either sign but the same one on a surface.
        K: intrinsics in pixels.
        min_cosine: neighbours whose normals differ more have no weight.

    Returns:
        z; bool, whether any neighbour (the pixel itself does not vote) had weight, elsewhere z is the depth given.

    Raises:
        ValueError: shapes disagree.
    """
    if depth.ndim != 4 or depth.shape[1] != 1 or normals.shape != (depth.shape[0], 3, *depth.shape[2:]):
        raise ValueError(
            f"depth_from_normals: depth must be (B,1,H,W) and normals (B,3,H,W), got {tuple(depth.shape)} and "
            f"{tuple(normals.shape)}."
        )
    B, _, H, W = depth.shape
    x, y = _rays(H, W, K.to(depth.dtype))
    rays = torch.cat([x.expand(B, 1, H, W), y.expand(B, 1, H, W), torch.ones_like(depth)], dim=1)
    offset = depth * (normals * rays).sum(1, keepdim=True)
    known = (depth > 0).to(depth.dtype)
    windows = F.unfold(torch.cat([offset, normals * known], dim=1), 3, padding=1).view(B, 4, 9, H, W)
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    offsets, planes = windows[:, :1, others], windows[:, 1:, others]
    cosine = (planes * normals[:, :, None]).sum(1)
    slant = (planes * rays[:, :, None]).sum(1)
    # a plane seen edge-on meets the ray nowhere near
    use = (cosine > min_cosine) & (slant.abs() > 0.05 * rays.norm(dim=1, keepdim=True))
    weights = torch.where(use, cosine, torch.zeros_like(cosine))
    z = offsets[:, 0] / torch.where(use, slant, torch.ones_like(slant))
    total = weights.sum(1, keepdim=True)
    valid = (total > 0) & (depth > 0)
    mean = (weights * z).sum(1, keepdim=True) / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(valid, mean, depth), valid


def normal_consistency_loss(
    depth: Float[Tensor, "b 1 h w"],
    normals: Float[Tensor, "b 3 h w"],
    K: Float[Tensor, "b 3 3"],
    valid: Tensor | None = None,
) -> Float[Tensor, ""]:
    """``mean 1 - n(D)·n``: predicted normals against those of the predicted depth; both get gradients.

    Args:
        depth: predicted z, 0 = unknown.
        normals: predicted unit normals in camera axes, towards the camera.
        K: intrinsics in pixels.
        valid: (B,1,H,W), bool or weights >= 0; None counts all pixels whose window is fit for a normal.

    Returns:
        scalar in [0, 2] without unit; a differentiable 0 when nothing counts.

    Raises:
        ValueError: shapes disagree.
    """
    from_depth, fit = normals_from_depth(depth, K)
    check_same_shape("normal_consistency_loss", from_depth=from_depth, normals=normals)
    check_same_shape("normal_consistency_loss", depth=depth, valid=valid)
    weights = fit.to(depth.dtype) if valid is None else fit * valid.to(depth.dtype)
    return weighted_mean(1 - (from_depth * normals).sum(1, keepdim=True), weights)


def tangent_plane_loss(
    depth: Float[Tensor, "b 1 h w"],
    normals: Float[Tensor, "b 3 h w"],
    K: Float[Tensor, "b 3 3"],
    valid: Tensor | None = None,
) -> Float[Tensor, ""]:
    """``mean |log z' - log z|``, z' the depth that the neighbours' tangent planes predict; both inputs get gradients.

    Args:
        depth, normals, K: as in ``depth_from_normals``.
        valid: (B,1,H,W), bool or weights >= 0; None counts all pixels that a neighbour predicts.

    Returns:
        scalar >= 0 without unit; a differentiable 0 when nothing counts.

    Raises:
        ValueError: shapes disagree.
    """
    predicted, usable = depth_from_normals(depth, normals, K)
    check_same_shape("tangent_plane_loss", depth=depth, valid=valid)
    usable = usable & (predicted > 0)
    weights = usable.to(depth.dtype) if valid is None else usable * valid.to(depth.dtype)
    one = torch.ones_like(depth)
    ratio = torch.where(weights > 0, predicted, one) / torch.where(weights > 0, depth, one)
    return weighted_mean(ratio.log().abs(), weights)
