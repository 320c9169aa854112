"""CUDA tensors: gsplat's rasteriser, called so that it gives what :func:`som.rendering.rasterize` promises."""

from __future__ import annotations

from torch import Tensor

from som.rendering.validation import SceneShape


def rasterize_with_gsplat(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    shape: SceneShape,
    **options,
) -> tuple[Tensor, Tensor, dict]:
    """Not packed: results keep the shape (..., C, N, .), which density control indexes by Gaussian."""
    del shape  # gsplat reads the sizes from the tensors
    try:
        import gsplat
    except ImportError as error:
        raise ImportError("drawing on a GPU needs gsplat: pip install gsplat==1.5.3") from error
    return gsplat.rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, packed=False, **options
    )
