"""Losses as pure functions, one family per file; docs/losses.md lists them with their formulas.

Every loss returns a scalar that is a differentiable 0 when nothing is valid, raises ValueError when shapes disagree,
and never waits for the device.
"""

from som.losses.discordance import discordance_rate
from som.losses.disparity import disparity_gradient, disparity_l1
from som.losses.mask import coverage, foreground_mask
from som.losses.order_across_frames import agreeing_signs, cross_frame_order, note_order
from som.losses.ordinal import (
    disparity_order_signs,
    disparity_spread,
    modgs_ordinal,
    modgs_pairs,
    order_signs,
    ordinal_depth,
    sample_frame_pairs,
    values_at,
)
from som.losses.pearson import patch_pearson_depth, pearson_depth, sample_boxes
from som.losses.photometric import l1, photometric, ssim_loss, ssim_map
from som.losses.rigidity import as_rigid_as_possible, local_isometry, nearest_neighbors
from som.losses.scale_variance import scale_variance
from som.losses.smoothness import base_smoothness, ray_acceleration, track_smoothness
from som.losses.tracks import interval_gains, track_2d, track_depth
from som.losses.trimmed import trimmed_l1

__all__ = [
    "agreeing_signs",
    "as_rigid_as_possible",
    "base_smoothness",
    "coverage",
    "cross_frame_order",
    "discordance_rate",
    "disparity_gradient",
    "disparity_l1",
    "disparity_order_signs",
    "disparity_spread",
    "foreground_mask",
    "interval_gains",
    "l1",
    "local_isometry",
    "modgs_ordinal",
    "modgs_pairs",
    "nearest_neighbors",
    "note_order",
    "order_signs",
    "ordinal_depth",
    "patch_pearson_depth",
    "pearson_depth",
    "photometric",
    "ray_acceleration",
    "sample_boxes",
    "sample_frame_pairs",
    "scale_variance",
    "ssim_loss",
    "ssim_map",
    "track_2d",
    "track_depth",
    "track_smoothness",
    "trimmed_l1",
    "values_at",
]
