"""Depth priors of unknown scale and shift are brought to the cameras by static points seen in several views."""

from dataclasses import replace

import pytest
import torch

from som.cameras import Camera
from som.cameras.geometry import in_image, sample_depth
from som.data.dataset import Views
from som.initialization.depth_alignment import StaticLinks, align_depth

N, H, W = 6, 48, 64


@pytest.fixture(scope="module")
def views() -> Views:
    """A hilly ground seen by a camera that walks sideways; depths are exact to the pixel."""
    K = torch.tensor([[60.0, 0, W / 2], [0, 60, H / 2], [0, 0, 1]]).repeat(N, 1, 1)
    w2cs = torch.eye(4).repeat(N, 1, 1)
    w2cs[:, 0, 3] = torch.linspace(0.5, -0.5, N)
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    depths = []
    for i in range(N):  # a surface z(X, Y), found along each ray by fixed-point iteration
        z = torch.full((H, W), 4.0)
        for _ in range(30):
            X, Y = (x - W / 2) / 60 * z - w2cs[i, 0, 3], (y - H / 2) / 60 * z
            z = 4 + 0.6 * torch.sin(1.3 * X) + 0.8 * Y
        depths.append(z)
    black = torch.zeros(N, H, W, 3, dtype=torch.uint8)
    valid = torch.ones(N, H, W, dtype=torch.bool)
    names, cameras = [str(i) for i in range(N)], Camera(K, w2cs, W, H)
    return Views(names, torch.arange(N), black, cameras, valid, None, torch.stack(depths))


def links_of(views: Views, wrong: float = 0.0, seed: int = 0) -> StaticLinks:
    """Exact links between all pairs of views, some of them replaced by nonsense."""
    g = torch.Generator().manual_seed(seed)
    parts = []
    for s in range(N):
        for t in range(N):
            if s == t:
                continue
            xy = torch.rand(200, 2, generator=g) * torch.tensor([W - 2.0, H - 2.0]) + 1
            depth = sample_depth(views.depths[s : s + 1], xy[None])[0]
            there, _ = views.cameras[t].project(views.cameras[s].unproject(xy, depth))
            bad = torch.rand(200, generator=g) < wrong
            there[bad] = torch.rand(int(bad.sum()), 2, generator=g) * torch.tensor([W, H])
            ok = in_image(there, H, W)
            parts.append((torch.full((int(ok.sum()),), s), torch.full((int(ok.sum()),), t), xy[ok], there[ok]))
    return StaticLinks(*(torch.cat([p[i] for p in parts]) for i in range(4)))


def relative_error(depths, views):
    return ((depths - views.depths).abs() / views.depths).mean().item()


def broken(views: Views, scale, shift) -> Views:
    return replace(views, depths=1 / (scale[:, None, None] / views.depths + shift[:, None, None]))


SCALE = torch.tensor([0.5, 2.0, 1.0, 0.7, 1.4, 3.0])
SHIFT = torch.tensor([0.05, -0.1, 0.0, 0.2, 0.1, -0.2])


@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_scale_and_shift_are_found(views, wrong):
    prior = broken(views, SCALE, SHIFT)
    alignment = align_depth(prior, links_of(views, wrong))
    assert relative_error(alignment.apply(prior.depths), views) < 0.01
    torch.testing.assert_close(alignment.scale, 1 / SCALE, rtol=0.05, atol=0.01)
    assert alignment.parallax > 1 and (alignment.reprojection_error < 0.1 or wrong)


def test_scale_alone_when_asked(views):
    prior = broken(views, SCALE, torch.zeros(N))
    alignment = align_depth(prior, links_of(views), kind="scale")
    assert relative_error(alignment.apply(prior.depths), views) < 0.005
    assert alignment.shift.abs().max() < 1e-6
    shifted = broken(views, SCALE, SHIFT)
    assert relative_error(align_depth(shifted, links_of(views), kind="scale").apply(shifted.depths), views) > 0.03


@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_any_rising_distortion_is_undone(views, wrong):
    """Depth bent by a power that differs from frame to frame: no scale and shift can mend that."""
    power = torch.tensor([0.6, 0.8, 1.0, 1.3, 1.6, 1.1])
    prior = replace(views, depths=4 * (views.depths / 4) ** power[:, None, None])
    straight = align_depth(prior, links_of(views, wrong), kind="scale_shift").apply(prior.depths)
    curved = align_depth(prior, links_of(views, wrong), kind="monotone")
    assert relative_error(curved.apply(prior.depths), views) < 0.75 * relative_error(straight, views)
    assert relative_error(curved.apply(prior.depths), views) < 0.01


def test_a_curve_costs_nothing_where_none_is_needed_and_keeps_every_order(views):
    prior = broken(views, SCALE, SHIFT)
    alignment = align_depth(prior, links_of(views, wrong=0.25), kind="monotone")
    aligned = alignment.apply(prior.depths)
    assert relative_error(aligned, views) < 0.01
    for before, after in zip(prior.depths.flatten(1), aligned.flatten(1), strict=True):
        assert (after[before.argsort()].diff() >= -1e-5).all()
    assert alignment.curves is not None and (alignment.curves[1].diff(dim=1) > 0).all()


def test_a_curve_needs_links_only_where_it_bends(views):
    """A view without any link keeps its start instead of failing."""
    links = links_of(views)
    kept = (links.source != 2) & (links.target != 2)
    alone = StaticLinks(links.source[kept], links.target[kept], links.source_xy[kept], links.target_xy[kept])
    aligned = align_depth(broken(views, SCALE, SHIFT), alone, kind="monotone").apply(views.depths)
    assert aligned.isfinite().all() and (aligned > 0).all()


def test_result_does_not_depend_on_the_priors_unit(views):
    prior = broken(views, SCALE, SHIFT)
    big = replace(prior, depths=prior.depths * 1000)
    a, b = align_depth(prior, links_of(views)), align_depth(big, links_of(views))
    torch.testing.assert_close(a.apply(prior.depths), b.apply(big.depths), rtol=1e-3, atol=1e-3)


def test_without_parallax_the_frames_agree_with_each_other(views):
    still = replace(views, cameras=views.cameras[:1][[0] * N], depths=views.depths[:1].repeat(N, 1, 1))
    prior = broken(still, SCALE, torch.zeros(N))
    alignment = align_depth(prior, links_of(still), kind="scale")
    aligned = alignment.apply(prior.depths)
    assert alignment.parallax < 0.01
    assert ((aligned - aligned[:1]).abs() / aligned[:1]).max() < 0.01
    ratio = aligned / still.depths  # one unknown scale for the whole video
    assert ratio.max() / ratio.min() < 1.01


def test_unknown_depth_stays_unknown_and_no_surface_lands_behind_infinity(views):
    prior = broken(views, SCALE, SHIFT)
    prior.depths[:, :10] = 0
    prior.depths[:, 10] = 1e6  # nearly infinitely far
    aligned = align_depth(prior, links_of(views)).apply(prior.depths)
    assert (aligned[:, :10] == 0).all() and (aligned[:, 10:] > 0).all() and aligned.isfinite().all()
