"""Training from Python, as a user would write it."""

import logging

import pytest
import torch

from som.data.config import DemoData
from som.data.load import load_dataset
from som.errors import UserError
from som.initialization.config import InitializationConfig
from som.runs.interruption import Interrupted
from som.scene.checkpoint import load_checkpoint
from som.training.config import TrainingConfig
from som.training.run_config import recorded_run
from som.training.train import train, train_from_run

FEW = InitializationConfig(num_foreground=100, num_background=200)
CONFIG = TrainingConfig(batch_size=1, tracks_per_view=32, log_every=2, validations=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    options = DemoData(
        cache_dir=tmp_path_factory.mktemp("demo"), width=48, height=32, num_times=4, held_out_times=1, samples=1
    )
    return load_dataset(options)


def test_trains_records_and_goes_on(demo, tmp_path, capfd, caplog):
    settings = {"work_dir": tmp_path, "steps": 6, "config": CONFIG, "initialization": FEW, "device": "cpu"}
    reports = []
    with pytest.raises(Interrupted), caplog.at_level(logging.INFO, "som"):
        train(demo, **settings, callback=reports.append, stop=lambda: 1 if len(reports) == 2 else 0)
    assert [report.step for report in reports] == [2, 4] and reports[0].values["psnr"] > 0
    assert "data set" in caplog.text and "initial scene" in caplog.text
    assert capfd.readouterr().out == "", "the library prints nothing"

    result = train(demo, **settings)
    assert (result.started_at, result.step) == (4, 6) and result.checkpoint.is_file()
    again = train(demo, **settings)
    assert (again.started_at, again.step) == (6, 6)
    straight = train(demo, **{**settings, "work_dir": tmp_path / "straight"})
    for (name, a), b in zip(straight.scene.named_parameters(), result.scene.parameters(), strict=True):
        assert torch.equal(a, b), name

    recorded = recorded_run(tmp_path)
    assert recorded.data == demo.options and recorded.training.steps == 6
    assert load_checkpoint(train_from_run(recorded).checkpoint).step == 6
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        train(demo, **settings, seed=1)
    assert train(demo, **settings, seed=1, overwrite=True).started_at == 0
