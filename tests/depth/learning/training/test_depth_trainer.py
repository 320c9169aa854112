import json
import os
import signal

import pytest
import torch

from som.depth.errors import DepthError
from som.depth.learning.training.annotations import Labels
from som.depth.learning.training.checkpoint import load_checkpoint
from som.depth.learning.training.config import Augmentation
from som.runs.interruption import Interrupted, NonFiniteLossError, stop_signals
from som.runs.work_dir import checkpoint_path


def weights_of(trainer):
    return {k: v.clone() for k, v in trainer.objective.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("weights", [{"geometry": 0.0}, {"geometry": 0.5}])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, make_config, make_trainer, weights):
    config = make_config(weights=weights, steps=6, log_every=3)
    whole = make_trainer(config)
    whole.train()

    interrupted = make_trainer(config, work_dir=tmp_path)
    with pytest.raises(Interrupted) as stopped, stop_signals() as stop:
        interrupted.train(lambda step, *_: os.kill(os.getpid(), signal.SIGINT) if step == 3 else None, stop)
    assert (stopped.value.step, stopped.value.signal_number) == (3, signal.SIGINT)

    resumed = make_trainer(config, work_dir=tmp_path)
    resumed.load(load_checkpoint(checkpoint_path(tmp_path)))
    resumed.train()
    assert resumed.step == 6
    assert_equal(weights_of(whole), weights_of(resumed))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert {"photometric", "smoothness", "loss", "learning_rate"} <= lines[0].keys()


def test_the_same_seed_gives_the_same_weights_and_leaves_other_seeds_different(make_config, make_trainer):
    results = []
    for seed in (0, 0, 1):
        trainer = make_trainer(make_config(steps=2, seed=seed))
        trainer.train()
        results.append(weights_of(trainer))
    assert_equal(results[0], results[1])
    key = "depth_net.net.encoder.encoder.conv1.weight"
    assert not torch.equal(results[0][key], results[2][key])


def test_micro_batches_add_up_to_the_whole_batch(make_config, make_trainer, sequence, clip):
    """Without batch statistics and masks, the division of a batch changes nothing but rounding."""
    labels = Labels([sequence], [clip.depth.clamp(min=0.1)], [torch.ones_like(clip.depth)])
    results = []
    for micro in (4, 1):
        config = make_config(
            weights={"photometric": 0, "geometry": 0, "smoothness": 0, "supervised": 1},
            batch_size=4,
            micro_batch=micro,
            steps=1,
            augmentation=Augmentation(flip=0, max_zoom=1, jitter=0),
        )
        trainer = make_trainer(config, annotate=labels)
        for module in trainer.objective.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0  # keeps the statistics, which are then used in training, too
                module.forward = lambda x, m=module: torch.nn.functional.batch_norm(
                    x, m.running_mean, m.running_var, m.weight, m.bias, False
                )
        trainer.train()
        results.append(weights_of(trainer))
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], atol=2e-5, rtol=0, msg=key)


def test_supervision_reaches_the_labels(make_config, make_trainer, sequence, clip):
    depth = clip.depth.clamp(min=2.0)
    labels = Labels([sequence], [depth], [torch.ones_like(depth)])
    config = make_config(
        weights={"photometric": 0, "geometry": 0, "smoothness": 0, "supervised": 1},
        steps=40,
        batch_size=6,
        learning_rate=3e-3,
        augmentation=Augmentation(flip=0, max_zoom=1, jitter=0),
    )
    seen = []
    trainer = make_trainer(config, annotate=labels, known=depth.flatten())
    trainer.train(lambda step, total, values: seen.append(values["supervised"]))
    assert seen[-1] < 0.3 < seen[0]


def test_a_term_of_weight_zero_is_not_computed(make_config, make_trainer, monkeypatch):
    from som.depth.learning.training import geonet_terms, objective

    def never(*_, **__):
        raise AssertionError("this term has no weight")

    for name in ("pair_loss", "geometry", "edge_aware_smoothness"):
        monkeypatch.setattr(objective, name, never)
    for name in ("rigid_flow", "normals_from_depth", "tangent_plane_loss"):
        monkeypatch.setattr(geonet_terms, name, never)
    trainer = make_trainer(make_config(weights={"geometry": 0, "smoothness": 0}, steps=1))
    seen = {}
    trainer.train(lambda step, total, values: seen.update(values))
    assert set(seen) == {"photometric", "loss", "learning_rate"}
    assert seen["loss"] == pytest.approx(seen["photometric"])


@pytest.mark.parametrize(
    "changes",
    [
        {"photometric_form": "pairs"},
        {"photometric_form": "mean", "auto_mask": False},
        {"pose": "cnn"},
        {"pose": "resnet18", "pose_style": "sc", "photometric_form": "pairs"},
        {"sources": "overlap"},
        {"sources": "two_view"},
        {"sources": "offset", "source_offset": 2, "num_sources": 3},
        {"smoothness_form": "second"},
        {"micro_batch": 1},
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_every_kind_of_run_takes_a_step(make_config, make_trainer, changes):
    trainer = make_trainer(make_config(weights={"geometry": 0.5}, steps=1, **changes))
    before = weights_of(trainer)
    seen = {}
    trainer.train(lambda step, total, values: seen.update(values))
    assert seen["loss"] > 0 and seen["geometry"] > 0
    changed = [k for k, v in weights_of(trainer).items() if not torch.equal(v, before[k])]
    assert any("depth_net" in key for key in changed)
    assert any("pose_net" in key for key in changed) == ("pose" in changes)


def test_several_scales_train(make_config, make_trainer):
    config = make_config(steps=1)
    config.network.num_scales = 4
    trainer = make_trainer(config)
    trainer.train()
    gradients = [p for n, p in trainer.objective.named_parameters() if ".decoder." in n]
    assert all(p.isfinite().all() for p in gradients)


def test_nan_stops_the_run_and_keeps_the_checkpoint(tmp_path, make_config, make_trainer, clip, sequence):
    labels = Labels([sequence], [clip.depth], [torch.ones_like(clip.depth)])
    config = make_config(weights={"supervised": 1.0}, steps=4, checkpoint_every=2)
    trainer = make_trainer(config, annotate=labels, work_dir=tmp_path)

    def spoil(step, total, values):
        with torch.no_grad():
            trainer.objective.depth_net.net.decoder.decoder[-1].conv.bias.fill_(torch.nan)

    with pytest.raises(NonFiniteLossError, match=r"step 2: .*conv.bias is not finite; the last good state is .*ckpt"):
        trainer.train(spoil)
    assert not checkpoint_path(tmp_path).exists()
    with pytest.raises(NonFiniteLossError, match=r"step 2: the loss term .*supervised.* became NaN"):
        trainer.train()


def test_a_budget_shortens_the_run(make_config, make_trainer):
    trainer = make_trainer(make_config(steps=10_000), budget_s=0.0)
    trainer.train()
    assert trainer.step == trainer.total_steps == 10


def test_half_precision_needs_a_gpu(make_config, make_trainer):
    with pytest.raises(DepthError, match="precision bfloat16 needs a GPU"):
        make_trainer(make_config(precision="bfloat16"))


def test_a_checkpoint_of_another_network_is_refused(make_config, make_trainer, tmp_path):
    trainer = make_trainer(make_config(steps=1), work_dir=tmp_path)
    trainer.train()
    other = make_config()
    other.network.name = "resnet18"
    with pytest.raises(DepthError, match="cannot go on"):
        make_trainer(other).load(load_checkpoint(checkpoint_path(tmp_path)))
