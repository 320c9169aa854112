"""Does training teach the network to match, can it be interrupted, and what does it refuse?"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from som.depth.errors import DepthError
from som.depth.learning.multiview import predict_views
from som.depth.learning.multiview.build import make_multiview_trainer, measurement_rule
from som.depth.learning.training.batches import collate
from som.depth.learning.training.checkpoint import load_checkpoint
from som.depth.learning.training.config import Augmentation, LossWeights, check_training
from som.depth.views import SourceConfig
from som.runs.work_dir import checkpoint_path
from tests.depth.learning.multiview.conftest import RANGE, plane_clip, truth


def abs_rel(depth, known):
    return float(((depth - known).abs() / known).mean())


def test_training_beats_a_constant_on_planes_that_it_has_not_seen(make_config):
    config = make_config(steps=60, weights=LossWeights(photometric=0.0, geometry=0.0, smoothness=0.0, supervised=1.0))
    trainer = make_multiview_trainer(config, [plane_clip(seed) for seed in range(6)])
    losses = []
    trainer.train(lambda step, total, values: losses.append(values["supervised"]))
    assert losses[-1] < 0.3 * losses[0]
    for seed in (100, 101):
        unseen = plane_clip(seed)
        known = truth(unseen)
        found = predict_views(trainer.objective.depth_net, unseen, measurement_rule(config), RANGE)
        constant = known.flatten(1).median(1).values[:, None, None].expand_as(known)
        assert abs_rel(found.depth, known) < 0.6 * abs_rel(constant, known)
        # the same clip in another unit
        millimetres = plane_clip(seed, unit=1000.0)
        larger = predict_views(
            trainer.objective.depth_net, millimetres, measurement_rule(config), tuple(1000 * end for end in RANGE)
        )
        torch.testing.assert_close(larger.depth, 1000 * found.depth, rtol=1e-3, atol=0.5)
        torch.testing.assert_close(larger.confidence, found.confidence, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"supervision": "inverse", "network": {"num_scales": 4}},
        {"teacher": "sweep", "network": {"matching": "absolute"}},
        {"weights": LossWeights(photometric=1.0, geometry=0.5, smoothness=1e-3), "network": {"matching": "zncc"}},
        {"weights": LossWeights(photometric=1.0), "photometric_form": "pairs", "network": {"matching": "published"}},
    ],
)
def test_every_kind_of_supervision_changes_all_layers(make_config, changes):
    trainer = make_multiview_trainer(make_config(steps=2, batch_size=2, **changes), [plane_clip(0)])
    net = trainer.objective.depth_net
    before = {name: value.clone() for name, value in net.named_parameters()}
    trainer.train()
    scales = changes.get("network", {}).get("num_scales", 1)
    unused = {f"net.disp{level}" for level in range(scales + 1, 5)}
    for name, value in net.named_parameters():
        assert bool(value.isfinite().all())
        if not any(name.startswith(prefix) for prefix in unused):
            assert not torch.equal(value, before[name]), name


def test_an_interrupted_run_goes_on_exactly(make_config, tmp_path):
    clips = [plane_clip(0), plane_clip(1)]
    config = make_config(steps=5, augmentation=Augmentation(), checkpoint_every=3)
    whole = make_multiview_trainer(config, clips)
    whole.train()

    first = make_multiview_trainer(config, clips, work_dir=tmp_path)
    first.train()
    second = make_multiview_trainer(config, clips, work_dir=tmp_path)
    second.load(load_checkpoint(checkpoint_path(tmp_path, 3)))
    assert second.step == 3
    second.train()
    for (name, a), (_, b) in zip(
        whole.objective.state_dict().items(), second.objective.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_the_untrained_network_predicts_its_first_depth(make_config):
    trainer = make_multiview_trainer(make_config(network={"initial_depth": 3.0}), [plane_clip(0)])
    batch = collate([trainer.dataset[t] for t in range(4)])
    with torch.no_grad():
        output = trainer.objective.train()._depth(batch, False)[0]
    metres = output.depths[0] * RANGE[0] / 0.5
    assert float(metres.median()) == pytest.approx(3.0, rel=0.15)


def test_clips_of_different_units_train_alike(make_config):
    """Each clip is brought to the network's unit; only the poses' unit differs here, so must nothing else."""
    config = make_config(network={"depth_range": None}, steps=2)
    states = []
    for unit in (1.0, 100.0):
        trainer = make_multiview_trainer(config, [plane_clip(3, unit=unit)])
        trainer.train()
        states.append(trainer.objective.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-2, atol=1e-3, msg=name)


def test_bad_input_is_refused_in_one_sentence(make_config):
    clip = plane_clip(0)
    unposed = [replace(frame, w2c=None) for frame in clip.recording.frames]
    without_depth = [replace(frame, depth=None) for frame in clip.recording.frames]
    still = [replace(frame, w2c=clip.recording.frames[0].w2c) for frame in clip.recording.frames]

    def with_frames(frames):
        return type(clip)(replace(clip.recording, frames=frames))

    with pytest.raises(DepthError, match=r"plane 0 has no camera poses; give poses\.$"):
        make_multiview_trainer(make_config(), [with_frames(unposed)])
    with pytest.raises(DepthError, match=r"no camera poses, and mvdepthnet matches posed frames"):
        predict_views(make_multiview_trainer(make_config(), [clip]).objective.depth_net, with_frames(unposed))
    with pytest.raises(DepthError, match="set teacher to sweep"):
        make_multiview_trainer(make_config(), [with_frames(without_depth)])
    with pytest.raises(DepthError, match="camera does not move"):
        make_multiview_trainer(make_config(network={"depth_range": None}), [with_frames(still)])
    with pytest.raises(DepthError, match="no frame has the source frames"):
        make_multiview_trainer(make_config(sources="two_view"), [with_frames(still)])
    with pytest.raises(DepthError, match="0 < nearest < farthest"):
        make_multiview_trainer(make_config(network={"depth_range": (3.0, 2.0)}), [clip])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pose": "cnn"}, "no pose network"),
        ({"weights": LossWeights(velocity=1.0)}, "scale of its poses"),
        ({"network": {"head": "ddv"}}, "fixed layout"),
        ({"network": {"width": 0.0}}, "network.width"),
        ({"network": {"width": math.nan}}, "network.width"),
        ({"augmentation": Augmentation(rescale=0.5)}, "rescale"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_config, changes, message):
    with pytest.raises(DepthError, match=message):
        check_training(make_config(**changes))


def test_losses_fall_by_photometric_supervision_alone(make_config):
    weights = LossWeights(photometric=1.0, geometry=0.0, smoothness=0.0)
    config = make_config(steps=40, weights=weights, auto_mask=False, log_every=10, network={"initial_depth": 6.0})
    losses = []
    trainer = make_multiview_trainer(config, [plane_clip(0)])
    trainer.train(lambda step, total, values: losses.append(values["photometric"]))
    assert all(later < earlier for earlier, later in pairwise(losses))
    known = truth(plane_clip(0))
    found = predict_views(trainer.objective.depth_net, plane_clip(0), measurement_rule(config), RANGE)
    assert abs_rel(found.depth, known) < 0.25


def test_prediction_takes_measurement_frames_by_the_rule_of_training(make_config):
    assert measurement_rule(make_config(sources="auto", num_sources=3)) == SourceConfig("baseline", count=3)
    assert measurement_rule(make_config(sources="consecutive")).offsets == (-1, 1)
    assert measurement_rule(make_config(sources="offset", source_offset=2, num_sources=3)).offsets == (-2, 2, -4)
    trainer = make_multiview_trainer(make_config(), [plane_clip(0)])
    found = predict_views(trainer.objective.depth_net, plane_clip(0), measurement_rule(make_config()), RANGE)
    assert found.sources == [[1], [0, 2], [1, 3], [2, 4], [3]]
