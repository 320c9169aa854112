"""Pixel pairs: where they lie, where flow leads them, how they are distributed, and which may be used."""

import dataclasses

import pytest
import torch

from flow.errors import FlowError
from flow.pairs import PairOptions, PairSampler, PixelPairs, build_pair_sampler, sample_pairs
from flow.reliability import ReliabilityRules, reliable_pixels
from flow.video_flow import VideoFlow

H, W = 30, 48
NOTHING = dict(uniform=0.0, near=0.0, edges=0.0)
UNIFORM, NEAR, EDGES = (PairOptions(**(NOTHING | {name: 1.0})) for name in ("uniform", "near", "edges"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_mask(share=0.6, seed=5):
    return torch.rand(H, W, generator=seeded(seed)) < share


def some_flow(seed=6):
    return 3 * torch.randn(H, W, 2, generator=seeded(seed))


def column(pixels):
    return pixels % W


def distance(pairs):
    return (pairs.xy_first - pairs.xy_second).norm(dim=-1)


def equal(a: PixelPairs, b: PixelPairs, tolerance=0.0):
    fields = zip(vars(a).values(), vars(b).values(), strict=True)
    return all(torch.allclose(x, y, rtol=0, atol=tolerance) for x, y in fields)


@pytest.mark.parametrize("options", [UNIFORM, NEAR, EDGES, PairOptions()], ids=["uniform", "near", "edges", "mixed"])
def test_used_pairs_are_two_different_reliable_pixels_with_exact_targets(options):
    mask, flow = some_mask(), some_flow()
    confidence = torch.rand(H, W, generator=seeded(1)).clamp(min=0.1) * mask
    pairs = sample_pairs(confidence, flow, options, seeded())
    used = pairs.weight > 0
    assert pairs.first.shape == pairs.weight.shape == (4096,)
    assert pairs.first.dtype == pairs.second.dtype == torch.int64
    assert used.float().mean() > 0.8
    assert (pairs.first != pairs.second)[used].all()
    assert mask.flatten()[pairs.first[used]].all()
    assert mask.flatten()[pairs.second[used]].all()
    weights = confidence.flatten()
    assert torch.equal(pairs.weight[used], (weights[pairs.first] * weights[pairs.second])[used])
    for pixel, xy, target in (
        (pairs.first, pairs.xy_first, pairs.target_first),
        (pairs.second, pairs.xy_second, pairs.target_second),
    ):
        assert torch.equal(xy, torch.stack([pixel % W, pixel // W], -1) + 0.5)
        assert torch.equal(target[used], xy[used] + flow.view(-1, 2)[pixel][used])
        assert torch.equal(target[~used], xy[~used])


def test_shares_set_the_numbers_and_the_order():
    options = PairOptions(num_pairs=1001, uniform=2, near=1, edges=1)
    assert sum(options.split()) == 1001
    assert options.split() == (500, 251, 250)
    radius = options.near_radius * W
    far_apart = distance(sample_pairs(some_mask(), some_flow(), options, seeded())) > radius + 3
    first, second, _ = (part.float().mean() for part in far_apart.split(options.split()))
    assert first > 0.8
    assert second == 0


def test_uniform_pairs_are_uniform_over_the_reliable_pixels():
    mask = some_mask(0.15)
    count = int(mask.sum())
    pairs = sample_pairs(mask, some_flow(), dataclasses.replace(UNIFORM, num_pairs=400 * count), seeded())
    for pixels in (pairs.first, pairs.second):
        hits = torch.bincount(pixels, minlength=H * W)[mask.flatten()].float()
        chi_square = ((hits - 400) ** 2 / 400).sum() / (count - 1)
        assert 0.7 < chi_square < 1.3
    partners = torch.bincount(pairs.second[pairs.first == pairs.first[0]], minlength=H * W)[mask.flatten()]
    assert (partners > 0).sum() > 0.8 * count


def test_near_pairs_fill_the_disc_uniformly():
    options = dataclasses.replace(NEAR, num_pairs=200_000, near_radius=4.2 / W)
    pairs = sample_pairs(torch.ones(H, W), some_flow(), options, seeded())
    used = pairs.weight > 0
    assert distance(pairs)[used].max() <= 4.2
    step = (pairs.xy_second - pairs.xy_first).long()
    x, y = pairs.xy_first.unbind(-1)
    inner = used & (x > 5) & (x < W - 5) & (y > 5) & (y < H - 5)
    hits = torch.bincount((step[inner, 0] + 5) * 11 + step[inner, 1] + 5, minlength=121)
    reached = hits[hits > 0].float()
    inside = [(i, j) for i in range(-5, 6) for j in range(-5, 6) if 0 < i * i + j * j <= 4.2**2]
    assert len(reached) == len(inside)
    assert 0.6 < ((reached - reached.mean()) ** 2 / reached.mean()).sum() / (len(inside) - 1) < 1.5


def test_near_pairs_find_reliable_neighbours_among_unreliable_ones():
    one_try = sample_pairs(some_mask(0.5), some_flow(), dataclasses.replace(NEAR, tries=1), seeded())
    four = sample_pairs(some_mask(0.5), some_flow(), dataclasses.replace(NEAR, tries=4), seeded())
    assert (one_try.weight > 0).float().mean() == pytest.approx(0.5, abs=0.08)
    assert (four.weight > 0).float().mean() > 0.88


@pytest.mark.parametrize("options", [UNIFORM, NEAR, EDGES], ids=["uniform", "near", "edges"])
def test_distance_limits(options):
    options = dataclasses.replace(options, min_distance=3 / W, max_distance=7 / W, near_radius=0.3, edge_reach=0.2)
    pairs = sample_pairs(some_mask(0.9), some_flow(), dataclasses.replace(options, tries=40), seeded())
    used = pairs.weight > 0
    assert used.float().mean() > 0.8
    assert distance(pairs)[used].min() >= 3
    assert distance(pairs)[used].max() <= 7


@pytest.mark.parametrize("shape", ["vertical", "horizontal", "diagonal", "disc"])
def test_edge_pairs_straddle_the_edge(shape):
    x, y = torch.arange(W)[None].expand(H, W), torch.arange(H)[:, None].expand(H, W)
    step = {
        "vertical": x >= 20,
        "horizontal": y >= 11,
        "diagonal": 0.8 * x + 0.6 * y >= 25,
        "disc": (x - 24) ** 2 + (y - 15) ** 2 < 81,
    }[shape]
    pairs = sample_pairs(torch.ones(H, W), some_flow(), EDGES, seeded(), guidance=step)
    used, side = pairs.weight > 0, step.flatten()
    assert used.float().mean() > 0.95
    assert (side[pairs.first] != side[pairs.second])[used].float().mean() > 0.99
    if shape == "vertical":
        assert (pairs.xy_first[used, 1] == pairs.xy_second[used, 1]).all()


def test_edge_pairs_reach_across_an_unreliable_band():
    x = torch.arange(W).expand(H, W)
    mask = (x < 18) | (x >= 23)  # the edge at 20 is occluded
    options = dataclasses.replace(EDGES, edge_reach=8 / W)
    pairs = sample_pairs(mask, some_flow(), options, seeded(), guidance=(x >= 20).float())
    used = pairs.weight > 0
    assert used.float().mean() > 0.95
    left = torch.minimum(column(pairs.first), column(pairs.second))[used]
    right = torch.maximum(column(pairs.first), column(pairs.second))[used]
    assert left.max() < 18
    assert right.min() >= 23
    assert (right - left).max() <= 2 * 8
    hidden = sample_pairs(x < 18, some_flow(), options, seeded(), guidance=(x >= 20).float())
    assert (hidden.weight == 0).all()


def test_edges_come_from_the_flow_by_default_and_from_several_channels():
    flow = torch.zeros(H, W, 2)
    flow[:, 30:, 1] = 4
    pairs = sample_pairs(torch.ones(H, W), flow, EDGES, seeded())
    assert ((column(pairs.first) >= 30) != (column(pairs.second) >= 30)).all()
    image = torch.zeros(H, W, 3, dtype=torch.uint8)
    image[:, :30, 0], image[:, 30:, 2] = 200, 200
    assert equal(pairs, sample_pairs(torch.ones(H, W), flow, EDGES, seeded(), guidance=image))


@pytest.mark.parametrize("guidance", [torch.full((H, W), 7.3), torch.full((H, W), torch.nan)])
def test_a_map_without_edges_gives_no_edge_pairs(guidance):
    pairs = sample_pairs(torch.ones(H, W), some_flow(), EDGES, seeded(), guidance=guidance)
    assert (pairs.weight == 0).all()
    assert pairs.target_first.isfinite().all()


def test_holes_in_a_map_are_no_edges():
    depth = torch.ones(H, W)
    depth[:, 30:] = 2
    depth[5:12, 5:15] = torch.nan
    depth[18:24, 5:15] = torch.inf
    pairs = sample_pairs(torch.ones(H, W), some_flow(), EDGES, seeded(), guidance=depth)
    used = pairs.weight > 0
    assert used.float().mean() > 0.95
    assert ((column(pairs.first) >= 30) != (column(pairs.second) >= 30))[used].all()


def test_edges_too_near_the_border_are_left_out():
    guidance = torch.zeros(H, W)
    guidance[:, 20:], guidance[:, W - 2 :] = 1, 2
    options = dataclasses.replace(EDGES, edge_gap=3 / W, edge_reach=6 / W)
    pairs = sample_pairs(torch.ones(H, W), some_flow(), options, seeded(), guidance=guidance)
    assert (pairs.weight > 0).all()


@pytest.mark.parametrize("reliable", [0, 1])
def test_too_few_reliable_pixels_give_valid_indices_and_no_weight(reliable):
    mask, flow = torch.zeros(H, W, dtype=torch.bool), torch.full((H, W, 2), torch.nan)
    if reliable:
        mask[7, 9], flow[7, 9] = True, 1.0
    sampler = PairSampler((H, W))
    sampler.add(0, 1, mask, flow)
    for pairs in (sample_pairs(mask, flow, PairOptions(), seeded()), sampler.draw([0], None, seeded())):
        assert (pairs.weight == 0).all()
        for pixels in (pairs.first, pairs.second):
            assert ((pixels >= 0) & (pixels < H * W)).all()
        for place in (pairs.xy_first, pairs.xy_second, pairs.target_first, pairs.target_second):
            assert place.isfinite().all()


def test_the_same_seed_gives_the_same_pairs_whatever_the_global_generator_does():
    mask, flow = some_mask(), some_flow()
    torch.manual_seed(1)
    first = sample_pairs(mask, flow, PairOptions(), seeded(3))
    state = torch.manual_seed(2).get_state()
    second = sample_pairs(mask, flow, PairOptions(), seeded(3))
    assert equal(first, second)
    assert torch.equal(torch.default_generator.get_state(), state)
    assert not equal(first, sample_pairs(mask, flow, PairOptions(), seeded(4)))


def test_a_batch_equals_single_calls_in_turn():
    masks, flows = torch.stack([some_mask(0.7, k) for k in range(3)]), torch.stack([some_flow(k) for k in range(3)])
    batch, generator = sample_pairs(masks, flows, PairOptions(num_pairs=999), seeded()), seeded()
    for k in range(3):
        single = sample_pairs(masks[k], flows[k], PairOptions(num_pairs=999), generator)
        assert equal(single, PixelPairs(**{name: x[k] for name, x in vars(batch).items()}))


def test_sampler_draws_what_sample_pairs_draws():
    sampler, options = PairSampler((H, W), PairOptions(num_pairs=700)), PairOptions(num_pairs=700)
    cases = [(some_mask(0.7, k).float() * (0.5 + 0.1 * k), some_flow(k)) for k in range(3)]
    numbers = [sampler.add(k, k + 1, *case) for k, case in enumerate(cases)]
    order = [numbers[2], numbers[0], numbers[2], numbers[1]]
    drawn, generator = sampler.draw(order, None, seeded()), seeded()
    for b, link in enumerate(order):
        pairs = PixelPairs(**{name: x[b] for name, x in vars(drawn).items()})
        assert equal(pairs, sample_pairs(*cases[link], options, generator), tolerance=1 / 255)
        assert (pairs.target_first - pairs.xy_first).abs().max() > 1
    assert sampler.draw(order, 50, seeded()).weight.shape == (4, 50)


def test_sampler_accepts_links_after_the_first_draw_and_keeps_the_others():
    sampler = PairSampler((H, W))
    sampler.add(0, 1, some_mask(), some_flow())
    before = sampler.draw([0], 100, seeded())
    sampler.add(0, 2, torch.zeros(H, W), some_flow())
    faint = 0.001 * some_mask(0.3)  # small weights stay positive
    sampler.add(5, 4, faint, some_flow(1))
    assert equal(sampler.draw([0], 100, seeded()), before)
    assert (sampler.draw([1], 100, seeded()).weight == 0).all()
    late = sampler.draw([2], 3000, seeded())
    direct = sample_pairs(faint, some_flow(1), PairOptions(num_pairs=3000), seeded())
    assert torch.equal(late.first[0], direct.first)
    assert torch.equal(late.weight[0] > 0, direct.weight > 0)


def test_links_of_a_frame():
    sampler = PairSampler((H, W))
    for source, target in ((0, 1), (0, 4), (1, 0)):
        sampler.add(source, target, some_mask(), some_flow())
    assert len(sampler) == 3
    assert sampler.links[sampler.number(0, 4)] == (0, 4)
    generator = seeded()
    targets = [sampler.target_of(sampler.draw_link(0, generator)) for _ in range(50)]
    assert set(targets) == {1, 4}
    for call in (
        lambda: sampler.number(4, 0),
        lambda: sampler.draw_link(4, generator),
        lambda: sampler.add(0, 1, some_mask(), some_flow()),
        lambda: sampler.draw([3], None, generator),
        lambda: sampler.draw([-1], None, generator),
    ):
        with pytest.raises(FlowError, match="link"):
            call()


def test_memory_is_as_documented():
    sampler = PairSampler((H, W), UNIFORM)
    for k in range(4):
        sampler.add(k, k + 1, some_mask(0.5, k), some_flow(k))
    reliable = sum(int(some_mask(0.5, k).sum()) for k in range(4))
    assert sampler.num_bytes == pytest.approx(4 * 5 * H * W + 4 * reliable, rel=0.01)
    sampler.draw([0], None, seeded())
    assert sampler.num_bytes == pytest.approx(4 * 5 * H * W + 4 * reliable, rel=0.02)


def test_rescaled_pairs_keep_place_and_motion():
    pairs = sample_pairs(some_mask(), some_flow(), PairOptions(), seeded())
    double = pairs.rescaled((H, W), (2 * H, 2 * W))
    assert equal(pairs.rescaled((H, W), (H, W)), pairs)
    for index, xy, target, old_xy, old_target in (
        (double.first, double.xy_first, double.target_first, pairs.xy_first, pairs.target_first),
        (double.second, double.xy_second, double.target_second, pairs.xy_second, pairs.target_second),
    ):
        assert torch.equal(xy, torch.stack([index % (2 * W), index // (2 * W)], -1) + 0.5)
        assert ((xy - 2 * old_xy).abs() <= 0.5).all()
        assert torch.allclose(target - xy, 2 * (old_target - old_xy), atol=1e-4)
    assert torch.equal(double.weight, pairs.weight)
    half = pairs.rescaled((H, W), (H // 2, W // 2))
    assert ((half.first == half.second) <= (half.weight == 0)).all()
    assert (half.weight > 0).any()


def video(size=(H, W), image_size=None, num_frames=3):
    flow = VideoFlow(num_frames, size, image_size)
    for s in range(num_frames):
        for t in range(num_frames):
            if s != t:
                flow.put(s, t, torch.zeros(*size, 2))
    return flow


def noise_frames(height=H, width=W, count=3):
    frame = torch.randint(0, 256, (height, width, 3), generator=seeded(9)).to(torch.uint8)
    return frame.expand(count, -1, -1, -1)


def test_sampler_of_a_video_judges_like_reliable_pixels():
    flow, frames = video(), noise_frames()
    flow.put(0, 1, torch.tensor([2.0, 0.0]).expand(H, W, 2))
    flow.put(1, 0, torch.tensor([-2.0, 0.0]).expand(H, W, 2))
    done = []
    rules = dataclasses.replace(ReliabilityRules(), max_appearance_error=None, min_sharpness_ratio=None)
    sampler = build_pair_sampler(flow, frames, rules=rules, progress=lambda stage, share: done.append(share))
    assert done == [k / 6 for k in range(1, 7)]
    assert sorted(sampler.links) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert sampler.counts["leaves"] == (4 * H, 0, 6 * H * W)  # they have no confidence either
    judged = reliable_pixels(flow.get(0, 1), flow.get(1, 0), frames[0], frames[1], rules=rules)
    drawn = sampler.draw([sampler.number(0, 1)], None, seeded())
    assert judged.mask.flatten()[drawn.first[drawn.weight > 0]].all()
    used = PixelPairs(**{name: x[drawn.weight > 0] for name, x in vars(drawn).items()})
    assert torch.equal(used.target_second - used.xy_second, torch.tensor([2.0, 0.0]).expand_as(used.xy_second))


def test_sampler_of_a_video_with_small_fields_gives_pairs_in_the_frames_pixels():
    frames = noise_frames(2 * H, 2 * W)
    valid = torch.ones(3, 2 * H, 2 * W, dtype=torch.bool)
    valid[0, :, : W + 1] = False  # one more column than half: the field's pixel that it cuts goes, too
    depth = torch.ones(3, 2 * H, 2 * W)
    depth[0, -20:] = 3.0
    flow = video((H, W), (2 * H, 2 * W))
    sampler = build_pair_sampler(
        flow,
        frames,
        links=[(0, 1)],
        valid=valid,
        depth=depth,
        guidance="image",
        rules=ReliabilityRules(min_texture=None),
    )
    assert sampler.counts["valid"].removed == H * (W // 2 + 1)
    assert sampler.counts["far"].removed == 10 * W
    drawn = sampler.draw([0], None, seeded())
    used = drawn.weight > 0
    assert used.float().mean() > 0.9
    for pixels, xy in ((drawn.first[used], drawn.xy_first[used]), (drawn.second[used], drawn.xy_second[used])):
        assert torch.equal(xy, torch.stack([pixels % (2 * W), pixels // (2 * W)], -1) + 0.5)
        assert xy[:, 0].min() > W + 1
        assert xy[:, 1].max() < 2 * H - 20
        assert xy[:, 0].max() > 2 * W - 6
    own = sampler.draw([0], None, seeded(), size=(H, W))
    assert own.first.max() < H * W


def test_sampler_of_a_video_uses_a_given_map_for_edges():
    guide = torch.zeros(3, 2 * H, 2 * W)
    guide[:, :, 40:] = 1
    sampler = build_pair_sampler(video(), noise_frames(), options=EDGES, links=[(2, 0)], guidance=guide)
    drawn = sampler.draw([0], None, seeded())
    used = drawn.weight > 0
    assert used.float().mean() > 0.9
    assert ((column(drawn.first) >= 20) != (column(drawn.second) >= 20))[used].all()


def test_bad_input():
    mask, flow, frames = some_mask(), some_flow(), noise_frames()
    for call, message in (
        (lambda: sample_pairs(mask[1:], flow, None, seeded()), "one size"),
        (lambda: sample_pairs(mask, flow[..., :1], None, seeded()), "one size"),
        (lambda: sample_pairs(mask, flow, None, seeded(), guidance=flow[1:]), "guidance"),
        (lambda: PairSampler((H, W)).add(0, 1, mask.T, flow), "expected"),
        (lambda: PairSampler((H, W)).add(0, 1, mask, flow, guidance=flow[1:]), "guidance"),
        (lambda: PairOptions(uniform=-1), "shares"),
        (lambda: PairOptions(**NOTHING), "shares"),
        (lambda: PairOptions(num_pairs=0), "num_pairs"),
        (lambda: PairOptions(tries=0), "tries"),
        (lambda: PairOptions(edge_share=0), "edge_share"),
        (lambda: PairOptions(edge_gap=0.2), "edge_gap"),
        (lambda: PairOptions(near_radius=0), "near_radius"),
        (lambda: PairOptions(min_distance=0.2, max_distance=0.1), "max_distance"),
        (lambda: sample_pairs(mask, flow, dataclasses.replace(NEAR, min_distance=0.5), seeded()), "near"),
        (lambda: build_pair_sampler(video(), frames[:2]), "frames"),
        (lambda: build_pair_sampler(video(), frames, depth=torch.ones(2, H, W)), "depth"),
        (lambda: build_pair_sampler(video(), frames, guidance="edges"), "guidance"),
        (lambda: build_pair_sampler(video(), frames, links=[]), "no pair"),
        (lambda: build_pair_sampler(video(), frames, links=[(0, 7)]), "0 to 7|exist"),
        (lambda: build_pair_sampler(VideoFlow(3, (H, W)), frames), "no pair"),
    ):
        with pytest.raises(FlowError, match=message):
            call()
