"""Dense differentiable reference of the rasteriser, in plain PyTorch and any floating-point type.

Every pixel looks at every Gaussian, so it is slow and needs memory for ``pixels x Gaussians`` numbers; it exists to
say what the fast kernels must compute, and the tests compare them with it in float64.

The formulas, for one Gaussian with mean :math:`\\mu`, rotation R(q), scales s and opacity o, and one camera with
rotation W, translation t and intrinsics :math:`f_x, f_y, c_x, c_y`:

* camera space: :math:`(x, y, z) = W \\mu + t`; image: :math:`u = f_x x/z + c_x,\\ v = f_y y/z + c_y`;
* EWA splatting (Zwicker et al. 2001): with the Jacobian J of the projection at (x, y, z), the footprint has the
  covariance :math:`\\Sigma = J W R S S^T R^T W^T J^T`, to which :math:`\\epsilon I` is added as a low-pass filter.
  Like 3DGS (Kerbl et al. 2023) and gsplat (Ye et al. 2024), J is taken at a point whose x/z and y/z are clamped to
  the field of view widened by 15 % of the image on each side;
* alpha at a pixel centre p: :math:`\\alpha = \\min(0.999,\\ o\\,\\exp(-\\tfrac12 (u-p)^T \\Sigma^{-1} (u-p)))`, and
  nothing where that is below 1/255;
* front to back: :math:`C = \\sum_i c_i \\alpha_i T_i + T_\\infty b`, with :math:`T_i = \\prod_{j<i} (1-\\alpha_j)`;
  the first Gaussian that would bring T to 1e-4 or below, and all behind it, are left out;
* antialiased mode (Mip-Splatting, Yu et al. 2024): o is multiplied by
  :math:`\\sqrt{\\det\\Sigma / \\det(\\Sigma + \\epsilon I)}`.

Discontinuities. At the two thresholds (1/255 and 1e-4) and at the clamp, a rounding error decides whether a Gaussian
counts. ``info["ambiguous"]`` marks the pixels where some Gaussian stands within 2e-5 (alpha, relative) or 2e-3
(transmittance, relative) of a threshold; a comparison with float32 kernels leaves them out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from som.cameras.rotations import quat_wxyz_to_matrix

MAX_ALPHA = 0.999
MIN_ALPHA = 1.0 / 255.0
MIN_TRANSMITTANCE = 1e-4
MAX_COVARIANCE = 1e18
"""Square pixels; a larger footprint would overflow float32 further on, and is culled."""


def rasterize_reference(
    means: Tensor,  # (..., N, 3)
    quats: Tensor,  # (..., N, 4) wxyz
    scales: Tensor,  # (..., N, 3)
    opacities: Tensor,  # (..., N)
    colors: Tensor,  # (..., N, D) or (..., C, N, D)
    viewmats: Tensor,  # (..., C, 4, 4) world to camera
    Ks: Tensor,  # (..., C, 3, 3)
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    backgrounds: Tensor | None = None,  # (..., C, D)
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
    pixels_at_once: int = 4096,
) -> tuple[Tensor, Tensor, dict]:
    """Same arguments and results as :func:`som.rendering.rasterize`, plus ``info["ambiguous"]`` (..., C, H, W) bool."""
    batch, n_cameras, n = means.shape[:-2], viewmats.shape[-3], means.shape[-2]
    per_view = colors.dim() == len(batch) + 3
    projected = project(
        means, quats, scales, opacities, viewmats, Ks, width, height, near_plane, far_plane, eps2d,
        rasterize_mode == "antialiased",
    )  # fmt: skip
    if not per_view:
        colors = colors[..., None, :, :].expand(*batch, n_cameras, n, colors.shape[-1])
    if backgrounds is None:
        backgrounds = colors.new_zeros(*batch, n_cameras, colors.shape[-1])
    depths = projected["depths"][..., None]
    if render_mode in ("D", "ED"):
        colors, backgrounds = depths, torch.zeros_like(backgrounds[..., :1])
    elif render_mode in ("RGB+D", "RGB+ED"):
        colors = torch.cat([colors, depths], -1)
        backgrounds = torch.cat([backgrounds, torch.zeros_like(backgrounds[..., :1])], -1)

    flat = {k: v.reshape(-1, *v.shape[len(batch) + 1 :]) for k, v in projected.items()}
    flat_colors = colors.reshape(-1, n, colors.shape[-1])
    flat_backgrounds = backgrounds.reshape(-1, backgrounds.shape[-1])
    images = [
        blend(
            flat["means2d"][view], flat["conics"][view], flat["opacities"][view], flat["depths"][view],
            flat["visible"][view], flat_colors[view], flat_backgrounds[view], width, height, pixels_at_once,
        )
        for view in range(flat_colors.shape[0])
    ]  # fmt: skip
    lead = (*batch, n_cameras, height, width)
    renders, alphas, ambiguous = (torch.stack(maps) for maps in zip(*images, strict=True))
    renders, alphas, ambiguous = renders.reshape(*lead, -1), alphas.reshape(*lead, 1), ambiguous.reshape(lead)
    if render_mode in ("ED", "RGB+ED"):
        renders = torch.cat([renders[..., :-1], renders[..., -1:] / alphas.clamp(min=1e-10)], -1)
    info: dict[str, Any] = {k: v for k, v in projected.items() if k != "visible"}
    info |= dict(
        width=width, height=height, n_cameras=n_cameras, n_batches=int(torch.Size(batch).numel()),
        ambiguous=ambiguous,
    )  # fmt: skip
    return renders, alphas, info


def project(
    means, quats, scales, opacities, viewmats, Ks, width, height, near_plane, far_plane, eps2d, antialiased
) -> dict[str, Tensor]:
    """Footprints in every camera: tensors (..., C, N, .) by the names of gsplat's info, plus ``visible`` (bool).

    Culled Gaussians have radii 0; what else stands there is of no consequence and passes no gradient.
    """
    W, t = viewmats[..., :, None, :3, :3], viewmats[..., :, None, :3, 3]  # (..., C, 1, 3, 3)
    points = (W @ means[..., None, :, :, None])[..., 0] + t  # (..., C, N, 3)
    in_range = (points[..., 2] >= near_plane) & (points[..., 2] <= far_plane)
    in_front = torch.where(in_range[..., None], points, points.new_tensor([0.0, 0.0, 1.0]))
    x, y, z = in_front.unbind(-1)
    fx, fy, cx, cy = (Ks[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)

    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = torch.minimum(torch.maximum(x / z, -(cx / fx + margin_x)), (width - cx) / fx + margin_x)
    ty = torch.minimum(torch.maximum(y / z, -(cy / fy + margin_y)), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * tx / z, zero, fy / z, -fy * ty / z], -1).reshape(*z.shape, 2, 3)
    axes = J @ W @ (quat_wxyz_to_matrix(quats) * scales[..., None, :])[..., None, :, :, :]  # (..., C, N, 2, 3)

    a, b = axes.unbind(-2)
    xx, xy, yy = (a * a).sum(-1), (a * b).sum(-1), (b * b).sum(-1)
    det_sharp = torch.linalg.cross(a, b).square().sum(-1)  # Cauchy-Binet: no cancellation for needles
    det = det_sharp + eps2d * (xx + yy + eps2d)
    xx, yy = xx + eps2d, yy + eps2d
    in_range = in_range & (det > 0) & (xx < MAX_COVARIANCE) & (yy < MAX_COVARIANCE)
    safe_det = torch.where(in_range, det, 1.0)
    conics = torch.stack([yy / safe_det, -xy / safe_det, xx / safe_det], -1)
    opacities = opacities[..., None, :].expand_as(z)
    if antialiased:
        ratio = torch.where(in_range, det_sharp / safe_det, 1.0)
        positive = ratio > 0
        opacities = opacities * torch.where(positive, torch.where(positive, ratio, 1.0).sqrt(), 0.0)

    with torch.no_grad():
        in_range = in_range & (opacities >= MIN_ALPHA)
        extent = (2 * (opacities.clamp(min=MIN_ALPHA) / MIN_ALPHA).log()).sqrt().clamp(max=3.33)
        radii = (extent[..., None] * torch.stack([xx, yy], -1).sqrt()).ceil()
        size = means2d.new_tensor([width, height])
        visible = in_range & ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
        radii = torch.where(visible[..., None], radii, 0.0).int()
    return dict(
        means2d=means2d, depths=points[..., 2], conics=conics, opacities=opacities, radii=radii, visible=visible
    )


def blend(
    means2d, conics, opacities, depths, visible, colors, background, width, height, pixels_at_once
) -> tuple[Tensor, Tensor, Tensor]:
    """One view: ``((H*W, D) image, (H*W,) alpha, (H*W,) ambiguous)``."""
    keep = visible.nonzero()[:, 0]
    # Depths are compared in float32, as the kernels do, and ties keep the order of the Gaussians.
    keep = keep[torch.sort(depths.detach()[keep].float(), stable=True)[1]]
    means2d, conics, opacities, colors = means2d[keep], conics[keep], opacities[keep], colors[keep]
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=means2d.dtype), torch.arange(width, dtype=means2d.dtype), indexing="ij"
    )
    centres = torch.stack([columns.reshape(-1), rows.reshape(-1)], -1) + 0.5
    images, alphas, ambiguous = [], [], []
    for pixels in centres.split(pixels_at_once):
        dx, dy = (means2d[None] - pixels[:, None]).unbind(-1)  # (pixels, Gaussians)
        sigma = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
        unclamped = opacities * torch.exp(-sigma)
        counts = unclamped >= MIN_ALPHA
        alpha = torch.where(counts, unclamped.clamp(max=MAX_ALPHA), 0.0)
        after = torch.cumprod(1 - alpha, 1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
        stops = (after <= MIN_TRANSMITTANCE) & counts
        hidden = torch.cumsum(stops.int(), 1) > 0
        weights = torch.where(hidden, 0.0, alpha * before)
        transmittance = torch.where(hidden, 1.0, 1 - alpha).prod(1)
        images.append(weights @ colors + transmittance[:, None] * background)
        alphas.append(1 - transmittance)
        ambiguous.append(_ambiguous(unclamped, before, after, counts, hidden & ~stops))
    return torch.cat(images), torch.cat(alphas), torch.cat(ambiguous)


@torch.no_grad()
def _ambiguous(unclamped, before, after, counts, behind) -> Tensor:
    """Pixels where a Gaussian that still matters stands at a threshold; see the module's docstring."""
    at_alpha = ((unclamped / MIN_ALPHA - 1).abs() < 2e-5) | ((unclamped - MAX_ALPHA).abs() < 2e-5)
    at_end = ((after / MIN_TRANSMITTANCE - 1).abs() < 2e-3) & counts
    return ((at_alpha & (before > 0.9 * MIN_TRANSMITTANCE) & ~behind) | at_end).any(1)
