"""The depth terms by order and correlation, as the objective uses them."""

from dataclasses import replace

import pytest
import torch

from flow.pairs import PairSampler
from som.training.config import DepthOrderConfig, LossWeights
from som.training.depth_order import TERM_NAMES, DepthOrderSampler, ramp
from som.training.objective import Objective
from som.training.sampling import BatchSampler

CONFIG = DepthOrderConfig(pairs=512, linked_pairs=256)
ONLY = dict.fromkeys(vars(LossWeights()), 0.0)


def links_of(dataset) -> PairSampler:
    """The background stands nearly still in this video; what moves is left out."""
    views = dataset.train
    links = PairSampler((views.height, views.width))
    still = torch.zeros(views.height, views.width, 2)
    for source in range(len(views)):
        for target in (source - 1, source + 1):
            if 0 <= target < len(views):
                links.add(source, target, ~views.foreground[source], still)
    return links


def sample(dataset, names=TERM_NAMES, step=0, seed=0):
    device = torch.device("cpu")
    order = DepthOrderSampler(dataset.train, CONFIG, list(names), links_of(dataset), device)
    return BatchSampler(dataset, 3, 2, 64, seed, device, order).sample(step)


def values_of(scene, dataset, names=TERM_NAMES, progress=1.0):
    weights = LossWeights(**{**ONLY, **dict.fromkeys(names, 1.0)})
    return Objective(weights, dataset.num_times, True, CONFIG)(scene, sample(dataset, names), progress)[0]


def with_depths(dataset, depths):
    return replace(dataset, train=replace(dataset.train, depths=depths))


def test_the_true_scene_costs_next_to_nothing(scene, dataset):
    values = values_of(scene, dataset)
    assert values["pearson"] < 1e-3 and values["ordinal"] < 1e-3 and values["discordance"] < 0.01
    assert values["order_across_frames"] < 2e-3


def test_scale_and_shift_of_each_frames_prior_change_nothing(scene, dataset):
    scale = torch.linspace(0.5, 2.0, len(dataset.train))[:, None, None]
    other = with_depths(dataset, 1 / (scale / dataset.train.depths + 0.1 * scale))
    for name, value in values_of(scene, dataset).items():
        assert values_of(scene, other)[name].item() == pytest.approx(value.item(), abs=2e-3), name


def test_a_reversed_prior_costs_much(scene, dataset):
    depths = dataset.train.depths
    known = depths > 0
    reversed_prior = with_depths(dataset, torch.where(known, 1 / (2 / depths[known].amin() - 1 / depths), 0.0))
    good, bad = values_of(scene, dataset), values_of(scene, reversed_prior)
    assert bad["pearson"] > 1.9 and bad["discordance"] > 0.95
    for name in ("ordinal", "order_across_frames"):
        assert bad[name] > 20 * good[name] + 0.01


def test_a_term_that_is_off_draws_nothing(dataset):
    batch = sample(dataset, names=("pearson",))
    assert batch.depth_order.pairs is None and batch.depth_order.boxes is None and batch.depth_order.linked is None


def test_draws_are_a_function_of_seed_and_step(dataset):
    first, again, other = sample(dataset, step=3), sample(dataset, step=3), sample(dataset, step=4)
    assert torch.equal(first.depth_order.pairs.i, again.depth_order.pairs.i)
    assert torch.equal(first.depth_order.linked.j, again.depth_order.linked.j)
    assert not torch.equal(first.depth_order.pairs.i, other.depth_order.pairs.i)


def test_the_linked_view_comes_first_among_the_targets(dataset):
    batch = sample(dataset)
    assert ((batch.targets.times[:, 0] - batch.times).abs() == 1).all()
    assert batch.targets.times.shape == (3, 2)


def test_order_is_carried_without_tracks_and_without_foreground(scene, dataset):
    from som.scene import DynamicScene

    static = DynamicScene(None, None, scene.background, scene.normalization, num_times=6)
    views = dataset.train
    cameras = views.cameras
    wall = static.rasterize_views(cameras.w2c, cameras.K, views.times, views.width, views.height).depth.detach()
    still = replace(with_depths(dataset, wall), tracks=None)
    assert values_of(static, still)["order_across_frames"] < 2e-3
    assert values_of(scene, replace(dataset, tracks=None))["order_across_frames"] < 2e-3


def test_carried_order_moves_the_motion(scene, dataset):
    values = values_of(scene, with_depths(dataset, dataset.train.depths.flip(0) ** -1), ("order_across_frames",))
    values["loss"].backward()
    assert scene.motion_bases.params["transls"].grad.abs().sum() > 0


def test_terms_come_in_gradually(scene, dataset):
    config = DepthOrderConfig(start=0.1, full=0.3)
    assert [ramp(config, p) for p in (0.0, 0.1, 0.3, 1.0)] == [0, 0, 1, 1] and ramp(config, 0.2) == pytest.approx(0.5)
    assert ramp(DepthOrderConfig(start=0.0, full=0.0), 0.0) == 1
    assert "ordinal" not in values_of(scene, dataset, progress=0.05)
    early, late = values_of(scene, dataset, progress=0.15), values_of(scene, dataset)
    assert early["ordinal"] == late["ordinal"] and early["loss"].item() == pytest.approx(late["loss"].item() / 2)
