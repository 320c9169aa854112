import subprocess
import sys

import pytest

from som.depth.errors import DepthError
from som.depth.learning.training.config import (
    DepthTrainingConfig,
    LossWeights,
    NetworkOptions,
    check_training,
)
from som.errors import UserError
from som.settings.plain import differences, merge, to_plain


def test_plain_form_gives_the_configuration_back():
    config = DepthTrainingConfig(network=NetworkOptions("resnet18", depth_range=(0.5, 20.0)), learning_rate=2e-4)
    plain = to_plain(config)
    assert plain["network"]["depth_range"] == [0.5, 20.0]
    assert merge(DepthTrainingConfig(), plain, "here") == config


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"stepps": 3}, "config.yaml: there is no setting 'stepps'"),
        ({"steps": "many"}, "config.yaml: steps: 'many' does not fit"),
        ({"network": {"name": "vgg"}}, "config.yaml: network: name: 'vgg' does not fit"),
        ([1], "expected a mapping"),
    ],
)
def test_a_wrong_entry_is_named(plain, message):
    with pytest.raises(UserError, match=message):
        merge(DepthTrainingConfig(), plain, "config.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 100}, "`width` must be a positive multiple of 32, got 100"),
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"weights": LossWeights(photometric=-1)}, "`weights.photometric` must be 0 or positive"),
        ({"weights": LossWeights(0, 0, 0)}, "all weights of the objective are 0"),
        ({"batch_size": 6, "micro_batch": 4}, "`batch_size` 6 must be a multiple of `micro_batch` 4 x 1"),
        ({"supervision": "head", "weights": LossWeights(supervised=1)}, "`network.head` ddv or dorn"),
        ({"warmup": 1.0}, "warmup"),
    ],
)
def test_values_that_cannot_work_are_refused(changes, message):
    with pytest.raises(DepthError, match=message):
        check_training(DepthTrainingConfig(**changes))


def test_processes_must_divide_the_batch():
    check_training(DepthTrainingConfig(batch_size=8), num_processes=4)
    with pytest.raises(DepthError, match="3 processes"):
        check_training(DepthTrainingConfig(batch_size=8), num_processes=3)


def test_differences_name_nested_settings():
    a, b = DepthTrainingConfig(), DepthTrainingConfig(seed=3)
    b.weights.photometric = 2.0
    assert differences(to_plain(a), to_plain(b)) == ["seed: 0 -> 3", "weights.photometric: 1.0 -> 2.0"]


def test_configuration_comes_without_torch():
    code = "import sys, som.depth.learning.training.config, som.commands.depth; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
