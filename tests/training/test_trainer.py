import copy
import json
import os
import signal

import pytest
import torch

from som.runs.checkpoint import CheckpointError
from som.runs.interruption import Interrupted, NonFiniteLossError, stop_signals
from som.runs.work_dir import checkpoint_path
from som.scene.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from som.training.config import LearningRates, LossWeights, TrainingConfig
from som.training.density import AdaptiveDensity
from som.training.trainer import Trainer, total_steps


def make(scene, dataset, work_dir, **changes):
    options = dict(
        steps=24,
        batch_size=2,
        track_targets=2,
        tracks_per_view=32,
        log_every=4,
        checkpoint_every=8,
        validations=2,
        density=AdaptiveDensity(every=5, start=0.1, end=0.9, gradient_threshold=2e-2),
    )
    config = TrainingConfig(**{**options, **changes})
    return Trainer(scene, dataset, config, work_dir, device=torch.device("cpu"), seed=5), config


def spoil(scene):
    """Wrong colours everywhere, so that there is something to learn."""
    with torch.no_grad():
        for part in (scene.foreground, scene.background):
            part.params["colors"] += 1.0


def parameters(scene):
    return {name: p.detach().clone() for name, p in scene.named_parameters()}


def test_default_schedule():
    assert [total_steps(TrainingConfig(), n) for n in (1, 8, 9, 63, 156)] == [500, 500, 1000, 4000, 10000]


def test_training_improves_and_writes_what_it_promises(scene, dataset, tmp_path):
    spoil(scene)
    rates = LearningRates(colors=0.1)
    trainer, _ = make(scene, dataset, tmp_path, learning_rates=rates, density=AdaptiveDensity(enabled=False))
    trainer.train()
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train = [e for e in entries if e["kind"] == "train"]
    assert [e["step"] for e in train] == [4, 8, 12, 16, 20, 24]
    assert train[-1]["psnr"] > train[0]["psnr"] + 2 and train[-1]["loss"] < train[0]["loss"]
    assert [e["step"] for e in entries if e["kind"] == "validation"] == [12, 24]
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["last.ckpt", "step_000008.ckpt", "step_000016.ckpt", "step_000024.ckpt"]
    assert load_checkpoint(checkpoint_path(tmp_path)).step == 24
    assert any((tmp_path / "logs").iterdir())


def test_resumed_run_ends_bitwise_like_an_undisturbed_one(scene, dataset, tmp_path):
    straight, config = make(copy.deepcopy(scene), dataset, tmp_path / "a")
    straight.train()
    assert straight.scene.num_background > 80, "density control ran"
    broken, _ = make(scene, dataset, tmp_path / "b")
    for _ in range(13):
        broken.train_step()
    broken.save(numbered=False)
    saved = load_checkpoint(checkpoint_path(tmp_path / "b"))
    resumed = Trainer.resume(saved, dataset, config, tmp_path / "b", device=torch.device("cpu"), seed=5)
    assert resumed.step == 13
    resumed.train()
    a, b = parameters(straight.scene), parameters(resumed.scene)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_scene_without_trainer_state_is_not_resumed(scene, dataset, tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", Checkpoint(scene, 3))
    _, config = make(scene, dataset, tmp_path)
    with pytest.raises(CheckpointError, match="lacks the trainer's state"):
        Trainer.resume(load_checkpoint(tmp_path / "a.ckpt"), dataset, config, tmp_path, device=torch.device("cpu"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_and_saves(scene, dataset, tmp_path, number, monkeypatch):
    trainer, _ = make(scene, dataset, tmp_path)
    original, handler = trainer.train_step, signal.getsignal(signal.SIGINT)

    def step():
        if trainer.step == 9:
            os.kill(os.getpid(), number)
        return original()

    monkeypatch.setattr(trainer, "train_step", step)
    with pytest.raises(Interrupted) as interrupted, stop_signals() as stop:
        trainer.train(stop=stop)
    assert interrupted.value.step == 10 and interrupted.value.signal_number == number
    assert load_checkpoint(checkpoint_path(tmp_path)).step == 10
    assert signal.getsignal(signal.SIGINT) is handler


def test_log_of_lost_steps_is_dropped_on_resume(scene, dataset, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 4}\n{"kind": "train", "step": 99}\n{"kind": "tr')
    trainer, _ = make(scene, dataset, tmp_path)
    trainer.step = 20
    trainer.train()
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 24, 24]


def test_non_finite_loss_names_the_term_and_keeps_the_checkpoint(scene, dataset, tmp_path, monkeypatch):
    from som.training import objective

    trainer, _ = make(scene, dataset, tmp_path)
    original = objective.TERMS["depth"]
    monkeypatch.setitem(objective.TERMS, "depth", lambda c: original(c) * (float("nan") if trainer.step >= 10 else 1.0))
    with pytest.raises(NonFiniteLossError, match="depth"):
        trainer.train()
    kept = load_checkpoint(checkpoint_path(tmp_path))
    assert kept.step == 8 and all(p.isfinite().all() for p in kept.scene.parameters())


def test_non_finite_parameters_are_never_saved(scene, dataset, tmp_path):
    trainer, _ = make(scene, dataset, tmp_path)
    trainer.save(numbered=False)
    with torch.no_grad():
        scene.background.params["colors"][0] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"background\.colors"):
        trainer.save(numbered=False)
    assert load_checkpoint(checkpoint_path(tmp_path)).scene.background.params["colors"].isfinite().all()


def test_weights_of_zero_train_too(scene, dataset, tmp_path):
    zeros = dict.fromkeys(vars(LossWeights()), 0.0)
    trainer, _ = make(scene, dataset, tmp_path, losses=LossWeights(**{**zeros, "rgb": 1.0}), steps=4)
    trainer.train()
    assert trainer.step == 4
