"""LPIPS (Zhang et al. 2018, AlexNet) through torchmetrics, where its weights can be had."""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import socket
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

logger = logging.getLogger(__name__)

MIN_SIDE_PX = 32
"""Smaller images leave AlexNet's last layers without a pixel."""


class LPIPS:
    """Perceptual distance, or the reason why it cannot be computed here.

    The backbone's weights are torchvision's (download once, 230 MB). Nothing else ever takes their place.

    Attributes:
        unavailable: None, or why there is no value.
    """

    def __init__(self, network: nn.Module | None, unavailable: str | None = None):
        self._network = network
        self.unavailable = unavailable

    @classmethod
    def load(cls, device: torch.device | str = "cpu", download: bool = True, timeout_s: float = 20.0) -> LPIPS:
        """Loads the network; never raises for want of weights, and waits at most ``timeout_s`` for a silent server."""
        reason = cls._missing(download)
        if reason is None:
            before = socket.getdefaulttimeout()
            socket.setdefaulttimeout(timeout_s)
            try:
                from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

                network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).net
                network.spatial = True
                return cls(network.to(device).eval())
            except (OSError, RuntimeError, ImportError, ValueError) as error:  # URLError and timeouts are OSError
                reason = f"loading its weights failed ({type(error).__name__}: {error})"
            finally:
                socket.setdefaulttimeout(before)
        logger.warning("LPIPS is unavailable: %s", reason)
        return cls(None, reason)

    @staticmethod
    def _missing(download: bool) -> str | None:
        if importlib.util.find_spec("torchvision") is None:
            return "torchvision is not installed (pip install torchvision, of the release that fits torch)"
        try:
            from torchvision.models import AlexNet_Weights
        except (ImportError, OSError, RuntimeError) as error:
            return f"torchvision does not fit the installed torch ({error})"
        file = Path(torch.hub.get_dir()) / "checkpoints" / AlexNet_Weights.DEFAULT.url.rsplit("/", 1)[-1]
        if not file.exists() and not download:
            return f"{file} does not exist and downloading is off"
        return None

    @torch.no_grad()
    def __call__(
        self, pred: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
    ) -> float:
        """Mean of the spatial LPIPS map; 0 for identical images.

        With a mask, both images are set to black outside it and the mean is over the mask (DyCheck's mLPIPS).

        Returns:
            nan where LPIPS is unavailable, the mask empty, or the image smaller than 32 pixels.
        """
        if self._network is None or min(pred.shape[:2]) < MIN_SIDE_PX or (mask is not None and not bool(mask.any())):
            return math.nan
        images = [image.clamp(0, 1) for image in (pred, target)]
        if mask is not None:
            images = [torch.where(mask[..., None], image, torch.zeros_like(image)) for image in images]
        a, b = (image.permute(2, 0, 1)[None] for image in images)
        values = self._network(a, b, normalize=True)[0, 0]
        return float(values.mean() if mask is None else values[mask].mean())


@functools.cache
def load_lpips(device: str, download: bool) -> LPIPS:
    """``LPIPS.load`` once per process, so that a missing network is reported once."""
    return LPIPS.load(device, download)
