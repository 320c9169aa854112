import pytest
import torch

from flow.pairs import PairSampler
from som.training.config import DepthOrderConfig, LossWeights
from som.training.depth_order import TERM_NAMES, DepthOrderSampler
from som.training.objective import TERMS, Objective
from som.training.sampling import BatchSampler


def sample(dataset, batch_size=3, targets=2, tracks=64):
    """A batch with all that the default terms need; nothing links the frames, so order_across_frames rests."""
    device = torch.device("cpu")
    order = DepthOrderSampler(dataset.train, DepthOrderConfig(pairs=256), list(TERM_NAMES), None, device)
    return BatchSampler(dataset, batch_size, targets, tracks, 0, device, order).sample(0)


@pytest.fixture
def batch(dataset):
    return sample(dataset)


def test_the_true_scene_costs_next_to_nothing(scene, dataset, batch):
    values, _ = Objective(LossWeights(rigidity=1.0), dataset.num_times, True)(scene, batch)
    assert values["psnr"] > 45
    for name in ("rgb", "depth", "depth_gradient", "smooth_tracks", "smooth_along_ray", "rigidity", "smooth_bases"):
        assert values[name].item() == pytest.approx(0, abs=5e-3), name
    assert values["track_2d"] < 0.03  # a pixel shows several Gaussians of the ball


def test_wrong_motion_raises_the_track_terms(scene, dataset, batch):
    objective = Objective(LossWeights(), dataset.num_times, True)
    good, _ = objective(scene, batch)
    with torch.no_grad():
        scene.motion_bases.params["transls"][:, :, 0] *= -1
    bad, _ = objective(scene, batch)
    assert bad["track_2d"] > 3 * good["track_2d"] and bad["rgb"] > 3 * good["rgb"]


def test_total_is_the_weighted_sum_and_zero_weights_cost_nothing(scene, dataset, batch, monkeypatch):
    def never(context):
        raise AssertionError("a term of weight 0 was computed")

    monkeypatch.setitem(TERMS, "depth", never)
    weights = LossWeights(depth=0.0)
    values, _ = Objective(weights, dataset.num_times, True)(scene, batch)
    assert "depth" not in values
    total = sum(getattr(weights, name) * v for name, v in values.items() if name in TERMS)
    torch.testing.assert_close(values["loss"], total)


def test_every_term_is_differentiable_and_finite(scene, dataset):
    views, order = dataset.train, DepthOrderConfig(pairs=64, linked_pairs=32)
    still = torch.zeros(views.height, views.width, 2)
    links = PairSampler((views.height, views.width))
    for source in range(len(views) - 1):
        links.add(source, source + 1, views.valid[source], still)
        links.add(source + 1, source, views.valid[source], still)
    sampler = DepthOrderSampler(views, order, list(TERM_NAMES), links, torch.device("cpu"))
    batch = BatchSampler(dataset, 3, 2, 64, 0, torch.device("cpu"), sampler).sample(0)
    weights = LossWeights(**dict.fromkeys(TERMS, 1.0))
    values, render = Objective(weights, dataset.num_times, True)(scene, batch)
    assert set(TERMS) < set(values)
    render.info["means2d"].retain_grad()
    values["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in scene.parameters())
    assert render.info["means2d"].grad is not None


def test_missing_priors_and_parts(scene, dataset, batch):
    from som.scene import DynamicScene

    batch.depth = batch.foreground = batch.targets.tracks = None
    values, _ = Objective(LossWeights(), dataset.num_times, True)(scene, batch)
    assert values["depth"] == values["mask"] == values["track_2d"] == 0 and values["loss"].isfinite()
    static = DynamicScene(None, None, scene.background, scene.normalization, num_times=6)
    assert Objective(LossWeights(), 6, True)(static, batch)[0]["loss"].isfinite()


def test_without_background_the_rest_is_backdrop(scene, dataset, batch):
    from som.scene import DynamicScene

    only = DynamicScene(scene.foreground, scene.motion_bases, None, scene.normalization)
    with_bg = Objective(LossWeights(), 6, True)(only, batch)[0]
    without = Objective(LossWeights(), 6, False)(only, batch)[0]
    assert without["alpha"] < 0.2 * with_bg["alpha"] and without["rgb"] < with_bg["rgb"]


def test_two_times_only(scene, dataset):
    from dataclasses import replace

    from som.data.dataset import Tracks
    from som.scene import DynamicScene, MotionBases

    tracks = Tracks(
        *(
            getattr(dataset.tracks, n) if n == "query_times" else getattr(dataset.tracks, n)[:, :2]
            for n in ("query_times", "xy", "visible", "confidence")
        )
    )
    short = replace(dataset, num_times=2, train=dataset.train.select([0, 1]), tracks=tracks)
    bases = MotionBases(*(scene.motion_bases.params[n][:, :2] for n in ("rots", "transls")))
    small = DynamicScene(scene.foreground, bases, scene.background, scene.normalization)
    values, _ = Objective(LossWeights(), 2, True)(small, sample(short, 2, 4, 16))
    assert values["loss"].isfinite() and values["smooth_tracks"] == 0
