"""Static Gaussians from the depth of all frames outside the foreground; and lifting of pixels in general."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from som.cameras.geometry import unproject_to_world
from som.data.dataset import Views
from som.initialization.config import InitializationConfig
from som.initialization.lifting import depth_edges, depth_range
from som.initialization.thinning import spacing, thin_points
from som.scene.gaussians import Gaussians

SIGMA_PER_SPACING = 0.65
"""Standard deviation of a Gaussian as a share of the distance to its neighbours."""


@dataclass
class LiftedPixels:
    """N pixels of several views with their positions."""

    points: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    """RGB in [0, 1]."""
    footprints: Float[Tensor, "n"]
    """Size of the pixel at its depth, in the unit of the points."""
    times: Int[Tensor, "n"]
    clean: Bool[Tensor, "n"]
    """The pixel shows one surface: it lies on no edge of depth or mask."""

    def __len__(self) -> int:
        return len(self.points)

    def select(self, index: Tensor) -> LiftedPixels:
        return LiftedPixels(*(value[index] for value in vars(self).values()))


def lift_pixels(
    views: Views, wanted: Bool[Tensor, "n h w"], clean: Bool[Tensor, "n h w"], count: int, generator: torch.Generator
) -> LiftedPixels:
    """About ``count`` of the wanted pixels with known depth, drawn evenly over all views, in random order."""
    depths = views.require_depths()
    wanted = wanted & views.valid & (depths > 0)
    share = count / max(int(wanted.sum()), 1)
    parts = []
    for i in range(len(views)):
        drawn = wanted[i] if share >= 1 else wanted[i] & (torch.rand(wanted[i].shape, generator=generator) < share)
        row, column = drawn.nonzero().unbind(1)
        xy = torch.stack([column, row], -1) + 0.5
        depth = depths[i, row, column].float()
        parts.append(
            LiftedPixels(
                points=unproject_to_world(xy, depth, views.cameras.K[i].float(), views.cameras.w2c[i].float()),
                colors=views.images[i, row, column].float() / 255,
                footprints=depth / views.cameras.K[i, [0, 1], [0, 1]].float().mean(),
                times=views.times[i].long().expand(len(row)),
                clean=clean[i, row, column],
            )
        )
    pixels = LiftedPixels(*(torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])))
    return pixels.select(torch.randperm(len(pixels), generator=generator))


def dilate(mask: Bool[Tensor, "n h w"], radius: int) -> Bool[Tensor, "n h w"]:
    """Grown by a square of (2 radius + 1) pixels; a negative radius shrinks it, the image border counting as inside."""
    if radius == 0:
        return mask
    grown = (mask if radius > 0 else ~mask).float()[:, None]
    grown = F.max_pool2d(grown, 2 * abs(radius) + 1, stride=1, padding=abs(radius))[:, 0] > 0.5
    return grown if radius > 0 else ~grown


def isotropic_gaussians(pixels: LiftedPixels, opacity: float, motion_coefs: Tensor | None = None) -> Gaussians:
    """Spheres sized by the distance to their neighbours."""
    n = len(pixels)
    return Gaussians.from_values(
        means=pixels.points,
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        scales=SIGMA_PER_SPACING * spacing(pixels.points, pixels.footprints)[:, None].repeat(1, 3),
        opacities=torch.full((n,), opacity),
        colors=pixels.colors,
        motion_coefs=motion_coefs,
    )


def initialize_background(
    views: Views, config: InitializationConfig, generator: torch.Generator
) -> Gaussians | None:
    """Static Gaussians in the coordinates of ``views``; None if no static pixel has depth.

    Pixels close to the foreground or on a depth edge may show a mixture; they are used only for places that no clean
    pixel of any frame comes near. Depths between two surfaces belong to neither and are left out.
    """
    moving = torch.zeros_like(views.valid) if views.foreground is None else views.foreground
    depths = views.require_depths()
    edges = depth_edges(depths, config.depth_edge_ratio)
    near, far = depth_range(depths)
    ratio = config.surface_depth_ratio
    between = edges & (depths > ratio * near) & (depths * ratio < far)
    clean = ~dilate(moving, config.mask_margin) & ~edges
    pixels = lift_pixels(views, ~moving & ~between, clean, int(config.oversampling * config.num_background), generator)
    if len(pixels) == 0:
        return None
    doubtful, trusted = pixels.select(~pixels.clean), pixels.select(pixels.clean)
    if len(trusted) and len(doubtful):
        nearest = cKDTree(trusted.points.numpy()).query(doubtful.points.numpy(), workers=-1)[0]
        alone = torch.from_numpy(nearest).to(doubtful.points) > config.hole_footprints * doubtful.footprints
        doubtful = doubtful.select(alone)
    pixels = LiftedPixels(*(torch.cat([getattr(p, name) for p in (trusted, doubtful)]) for name in vars(pixels)))
    pixels = pixels.select(thin_points(pixels.points, pixels.footprints, config.num_background))
    return isotropic_gaussians(pixels, config.opacity)
