"""The camera-height label in training: collected frame by frame, moved at the end of epochs, kept in checkpoints."""

import pytest
import torch

from som.data.memory import memory_sequence
from som.depth.errors import DepthError
from som.depth.learning.synthetic import RoadClipConfig, make_road_clip
from som.depth.learning.training.annotations import Labels, RoadAnnotations, together
from som.depth.learning.training.batches import collate
from som.depth.learning.training.build import make_dataset
from som.depth.learning.training.distributed import Processes
from som.depth.learning.training.metric import HeightState, MetricTerms
from som.depth.metric_scale import DEFAULT_PRIORS, FrameConfig

ACTIVE = ["rough_height", "camera_height"]


@pytest.fixture(scope="module")
def road():
    return make_road_clip(RoadClipConfig(frames=4, width=128, height=96, pitch=(3.0, 0.5)))


@pytest.fixture(scope="module")
def road_sequence(road):
    return memory_sequence(road.images, road.Ks, road.w2c)


@pytest.fixture(scope="module")
def batch(road, road_sequence):
    annotate = RoadAnnotations(road_sequence, road.road, road.instances)
    keys = [annotate(road_sequence, t) for t in range(4)]
    return {**collate(keys), "K": road.Ks[:, None].expand(4, 3, 3, 3)}


def test_true_depth_gives_the_true_camera_height(road, batch):
    heights = HeightState()
    depth = road.depth[:, None].clamp(min=0.01)
    first, _ = MetricTerms()([depth], batch, heights, ACTIVE)
    assert set(first) == {"rough_height"}  # there is no label yet
    assert float(first["rough_height"]) < 0.35  # objects differ from the mean of their class by some 0.13 m
    heights.collect(Processes())
    heights.end_epoch()
    assert heights.value() is None  # the first epoch's heights are thrown away
    MetricTerms()([depth], batch, heights, ACTIVE)
    heights.collect(Processes())
    heights.end_epoch()
    assert heights.value() == pytest.approx(1.5, rel=0.12)
    heights.progress = 2.0
    second, factors = MetricTerms()([depth], batch, heights, ACTIVE)
    assert float(second["camera_height"]) < 0.25
    assert 0 < factors["camera_height"] < 1 and factors["rough_height"] + factors["camera_height"] == pytest.approx(1)


@pytest.mark.parametrize("form", ["horizon", "box"])
@pytest.mark.parametrize("wrong", [0.7, 1.3])
def test_a_label_that_starts_wrong_recovers(form, wrong):
    """Objects that contradict the label reach it: tested against it first, only those that confirm it would be left."""
    clip = make_road_clip(RoadClipConfig(frames=12, width=128, height=96, pitch=(3.0, 0.5), outliers=0.3, seed=2))
    sequence = memory_sequence(clip.images, clip.Ks, clip.w2c)
    annotate = RoadAnnotations(sequence, clip.road, clip.instances)
    batch = {**collate([annotate(sequence, t) for t in range(12)]), "K": clip.Ks[:, None].expand(12, 3, 3, 3)}
    heights = HeightState(frame=FrameConfig(scale_from=form))
    heights.label.end_epoch()
    heights.label.add([wrong * 1.5])
    heights.label.end_epoch()
    assert heights.value() == pytest.approx(wrong * 1.5)
    for _ in range(6):
        MetricTerms()([clip.depth[:, None].clamp(min=0.01)], batch, heights, ACTIVE)
        heights.collect(Processes())
        heights.end_epoch()
    # the first label still weighs 1 of 1 + 2 + ... + 7
    assert heights.value() == pytest.approx(1.5, rel=0.06)


def test_the_state_survives_a_checkpoint(road, batch):
    heights = HeightState()
    MetricTerms()([road.depth[:, None].clamp(min=0.01)], batch, heights, ACTIVE)
    heights.collect(Processes())
    other = HeightState()
    other.load_state(heights.state())
    for state in (heights, other):
        state.end_epoch()
        state.label.add([1.6])
        state.end_epoch()
    assert heights.value() == other.value() == pytest.approx(1.6)


def test_too_large_depth_is_pulled_back(road, batch):
    heights = HeightState()
    depth = (2 * road.depth[:, None].clamp(min=0.01)).requires_grad_()
    values, _ = MetricTerms()([depth], batch, heights, ACTIVE)
    (gradient,) = torch.autograd.grad(values["rough_height"], depth)
    assert float(gradient.sum()) > 0 and bool(gradient.isfinite().all())


def test_a_batch_without_road_is_refused():
    with pytest.raises(DepthError, match="need road masks"):
        MetricTerms()([torch.ones(1, 1, 8, 8)], {}, HeightState(), ACTIVE)


def test_annotations_join_and_check_their_size(road, road_sequence):
    labels = Labels([road_sequence], [road.depth], [torch.ones_like(road.depth)])
    both = together(labels, None, RoadAnnotations(road_sequence, road.road, road.instances))
    assert {"label", "label_confidence", "road", "ids", "object_heights"} == set(both(road_sequence, 2))
    assert together(None) is None
    heights = both(road_sequence, 0)["object_heights"]
    assert set(heights.tolist()) <= {0.0} | {torch.tensor(p.mean).item() for p in DEFAULT_PRIORS.values()}
    with pytest.raises(DepthError, match="labels of clip must be"):
        Labels([road_sequence], [road.depth[:, 1:]], [road.depth])
    with pytest.raises(DepthError, match="road and instances of clip must be"):
        RoadAnnotations(road_sequence, road.road[:2], road.instances)


def test_road_and_objects_follow_a_flipped_and_enlarged_sample(road, road_sequence, make_config):
    annotate = RoadAnnotations(road_sequence, road.road, road.instances)
    dataset = make_dataset(make_config(width=128, height=96), [road_sequence], 10.0, annotate)
    flipped = next(s for s in (dataset[epoch, 1] for epoch in range(20)) if bool(s["flipped"]))
    assert flipped["road"].dtype == torch.bool and flipped["ids"].shape == road.road.shape[1:]
    assert not torch.equal(flipped["road"], road.road[dataset.samples[1][1][0]])


def test_training_with_metric_terms_moves_the_label(road, road_sequence, make_config):
    from som.depth.learning.training.build import make_networks, network_config, resolve_pose
    from som.depth.learning.training.trainer import DepthTrainer

    config = make_config(
        width=128, height=96, batch_size=4, steps=3, weights={"photometric": 0, "geometry": 0, "rough_height": 1.0,
                                                              "camera_height": 0.01},
    )  # fmt: skip
    pose = resolve_pose(config, [road_sequence])
    network = network_config(config, [road_sequence], pose, road.depth[road.depth > 0])
    depth_net, _ = make_networks(config, network, pose)
    annotate = RoadAnnotations(road_sequence, road.road, road.instances)
    trainer = DepthTrainer(config, depth_net, make_dataset(config, [road_sequence], None, annotate))
    trainer.train()
    assert trainer.heights.epoch == 2
    assert set(trainer.heights.state()) == {"epoch", "pending", "numerator", "denominator"}
