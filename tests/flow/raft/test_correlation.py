"""Correlation pyramids against loops, against each other and against finite differences."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from flow.errors import FlowError
from flow.raft import correlation
from flow.raft.correlation import NUM_LEVELS, FullCorrelation, OnDemandCorrelation, full_bytes, make_correlation

KINDS = {"full": FullCorrelation, "on_demand": OnDemandCorrelation}


def random_problem(batch=1, channels=3, h=9, w=11, spread=3.0, seed=0):
    """Features (B,C,h,w) x 2 and centres (B,2,h,w) around each cell, many of them outside of the map."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(2, batch, channels, h, w, generator=g, dtype=torch.float64)
    cells = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy")).double()
    return *features, cells + spread * torch.randn(batch, 2, h, w, generator=g, dtype=torch.float64)


def by_loops(features0, features1, centres, radius):
    """The paper's definition, one value at a time: pooled correlations, bilinear, zero outside, x offset slow."""
    C, h, w = features0.shape
    out = torch.zeros(NUM_LEVELS, 2 * radius + 1, 2 * radius + 1, h, w, dtype=torch.float64)
    for row in range(h):
        for column in range(w):
            plane = torch.einsum("c,chw->hw", features0[:, row, column], features1) / math.sqrt(C)
            for level in range(NUM_LEVELS):
                if level:
                    H, W = plane.shape[0] // 2, plane.shape[1] // 2
                    plane = plane[: 2 * H, : 2 * W].reshape(H, 2, W, 2).mean(dim=(1, 3))
                values = plane.tolist()
                for i in range(2 * radius + 1):
                    for j in range(2 * radius + 1):
                        x = centres[0, row, column].item() / 2**level + i - radius
                        y = centres[1, row, column].item() / 2**level + j - radius
                        total = 0.0
                        for v in (math.floor(y), math.floor(y) + 1):
                            for u in (math.floor(x), math.floor(x) + 1):
                                if 0 <= u < plane.shape[1] and 0 <= v < plane.shape[0]:
                                    total += values[v][u] * (1 - abs(x - u)) * (1 - abs(y - v))
                        out[level, i, j, row, column] = total
    return out.flatten(0, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_lookup_is_the_papers_definition(kind, monkeypatch):
    monkeypatch.setattr(correlation, "TILE_CELLS", 4)
    features0, features1, centres = random_problem(batch=2)
    found = KINDS[kind](features0, features1, radius=2).lookup(centres)
    assert found.shape == (2, NUM_LEVELS * 25, 9, 11)
    for b in range(2):
        expected = by_loops(features0[b], features1[b], centres[b], 2)
        torch.testing.assert_close(found[b], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_window_order_is_the_published_one(kind):
    """A single bright cell one step to the right of the centre lights channel (dx=1, dy=0): x is the slow index."""
    radius, side = 4, 9
    features0, features1 = torch.ones(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    features1[0, 0, 8, 9] = 1
    centres = torch.full((1, 2, 16, 16), 8.0)
    finest = KINDS[kind](features0, features1, radius).lookup(centres)[0, : side**2, 0, 0]
    assert finest.nonzero().flatten().tolist() == [(1 + radius) * side + (0 + radius)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("far", [-1e9, -40.0, 60.0, 1e9])
def test_far_outside_is_zero(kind, far):
    features0, features1, centres = random_problem()
    assert not KINDS[kind](features0, features1, 3).lookup(torch.full_like(centres, far)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_is_nan_spoils_only_its_own_cell(kind):
    features0, features1, centres = random_problem()
    clean = KINDS[kind](features0, features1, 3).lookup(centres)
    broken = centres.clone()
    broken[0, 0, 2, 5] = torch.nan
    found = KINDS[kind](features0, features1, 3).lookup(broken)
    spoilt = torch.zeros(9, 11, dtype=torch.bool)
    spoilt[2, 5] = True
    assert found[..., spoilt].isnan().any()
    assert torch.equal(found[..., ~spoilt], clean[..., ~spoilt])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_both_kinds_agree_with_their_gradients(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(correlation, "TILE_CELLS", 8)
    results = []
    for kind in KINDS.values():
        inputs = [t.to(dtype).requires_grad_() for t in random_problem(2, 16, 37, 45, spread=8.0)]
        found = kind(inputs[0], inputs[1], 4).lookup(inputs[2])
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        gradients = torch.autograd.grad((found * weights.to(dtype)).sum(), inputs)
        results.append((found, *gradients))
    for full, on_demand in zip(*results, strict=True):
        scale = float(full.detach().abs().max())
        torch.testing.assert_close(on_demand, full, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_against_finite_differences(kind, monkeypatch):
    monkeypatch.setattr(correlation, "TILE_CELLS", 4)
    features0, features1, centres = random_problem(channels=2, h=8, w=9)
    # Bilinear interpolation has kinks at whole coordinates: k + 1/3 divided by 1, 2, 4 or 8 is far from them all.
    centres = centres.floor() + 1 / 3
    inputs = tuple(t.detach().requires_grad_() for t in (features0, features1, centres))
    assert gradcheck(lambda a, b, c: KINDS[kind](a, b, 1).lookup(c), inputs, eps=1e-6, atol=1e-6, fast_mode=True)


def test_on_demand_holds_a_tile_of_queries_and_computes_little_where_flow_is_smooth(monkeypatch):
    h, w, radius = 64, 80, 4
    held = []
    read = correlation.read_windows

    def recording(planes, *rest):
        held.append(planes.numel())
        return read(planes, *rest)

    monkeypatch.setattr(correlation, "read_windows", recording)
    features0, features1, smooth = (t.float() for t in random_problem(1, 4, h, w, spread=0.2))
    rough = torch.randint(0, h, smooth.shape, generator=torch.Generator().manual_seed(0)).float()
    volume = OnDemandCorrelation(features0, features1, radius)
    volume.lookup(smooth)
    assert sum(held) < full_bytes(1, h, w, element_size=1) / 3
    volume.lookup(rough)
    assert max(held) <= correlation.TILE_CELLS**2 * h * w


def test_auto_chooses_by_the_size_of_the_full_pyramid(monkeypatch):
    features0, features1, _ = random_problem(batch=2, h=17, w=24)
    full = make_correlation("auto", features0, features1, 4)
    assert isinstance(full, FullCorrelation)
    size = sum(planes.numel() * planes.element_size() for planes in full.pyramid)
    assert full_bytes(2, 17, 24, 8) == size
    monkeypatch.setattr(correlation, "MAX_PYRAMID_BYTES", size - 1)
    assert isinstance(make_correlation("auto", features0, features1, 4), OnDemandCorrelation)


def test_unknown_kind_is_refused():
    features0, features1, _ = random_problem()
    with pytest.raises(FlowError, match="sparse"):
        make_correlation("sparse", features0, features1, 4)
