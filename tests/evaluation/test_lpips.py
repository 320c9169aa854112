import logging
import math
import sys

import pytest
import torch
from torch import nn

from som.evaluation.metrics import LPIPS


class SquaredDifference(nn.Module):
    """Stands in for the network: a map (B, 1, H, W)."""

    def forward(self, a, b, normalize):
        assert normalize
        return (a - b).square().mean(1, keepdim=True)


def test_missing_torchvision_is_reported(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        lpips = LPIPS.load()
    assert "torchvision is not installed" in lpips.unavailable
    assert len(caplog.records) == 1
    assert math.isnan(lpips(torch.rand(40, 40, 3), torch.rand(40, 40, 3)))


def test_failing_download_is_reported(monkeypatch):
    import torchmetrics.image.lpip as module

    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(LPIPS, "_missing", staticmethod(lambda download: None))
    monkeypatch.setattr(module, "LearnedPerceptualImagePatchSimilarity", fail)
    assert "no route to host" in LPIPS.load().unavailable


def test_torchmetrics_network(monkeypatch):
    """The real network of torchmetrics with an untrained AlexNet: spatial map, identity, sign."""
    import torchmetrics.functional.image.lpips as functional
    import torchmetrics.image.lpip as module

    torch.manual_seed(0)
    features = nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
        *(nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1)),
        *(nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )
    monkeypatch.setattr(LPIPS, "_missing", staticmethod(lambda download: None))
    monkeypatch.setattr(functional, "_get_tv_model_features", lambda net, pretrained=False: features)
    monkeypatch.setattr(module, "_TORCHVISION_AVAILABLE", True)
    lpips = LPIPS.load()
    assert lpips.unavailable is None
    a, b = torch.rand(40, 48, 3), torch.rand(40, 48, 3)
    mask = torch.zeros(40, 48, dtype=torch.bool)
    mask[:, :20] = True
    assert lpips(a, a) == 0.0
    assert lpips(a, b) > 0
    assert lpips(a, b, mask) > 0
    outside = torch.where(mask[..., None], a, b)
    assert lpips(a, outside, mask) == 0.0


def test_mask_empty_and_small():
    lpips = LPIPS(SquaredDifference())
    a, b = torch.zeros(32, 32, 3), torch.zeros(32, 32, 3)
    b[:, :16] = 0.5
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:, 8:24] = True
    assert lpips(a, b) == pytest.approx(0.125)
    assert lpips(a, b, mask) == pytest.approx(0.125)
    mask[:, 16:] = False
    assert lpips(a, b, mask) == pytest.approx(0.25)
    assert math.isnan(lpips(a, b, torch.zeros_like(mask)))
    assert math.isnan(lpips(a[:31], b[:31]))
