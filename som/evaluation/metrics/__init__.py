"""Metrics as pure functions, one family a file. Every definition is stated where it is computed."""

from som.evaluation.metrics.depth import depth_discordance, depth_errors, disparity_correlation
from som.evaluation.metrics.image import masked_ssim, psnr, ssim, ssim_map
from som.evaluation.metrics.lpips import LPIPS, load_lpips
from som.evaluation.metrics.masks import mask_iou
from som.evaluation.metrics.tracks import pck, track_errors_3d

__all__ = [
    "LPIPS",
    "depth_discordance",
    "depth_errors",
    "disparity_correlation",
    "load_lpips",
    "mask_iou",
    "masked_ssim",
    "pck",
    "psnr",
    "ssim",
    "ssim_map",
    "track_errors_3d",
]
