import pytest
import torch
from torch import nn

from som.depth.learning.training.config import DepthTrainingConfig
from som.depth.learning.training.distributed import Processes
from som.depth.learning.training.optimization import RunningStatistics, make_optimizer, rate_factor, set_rates


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_rates_rise_then_follow_the_schedule(schedule):
    config = DepthTrainingConfig(schedule=schedule, warmup=0.1)
    assert rate_factor(config, 0.0) == pytest.approx(0.01)
    assert rate_factor(config, 0.05) == pytest.approx(0.5)
    assert rate_factor(config, 0.1) == pytest.approx(1.0)
    end = {"constant": 1.0, "step": 0.1, "cosine": 0.01}[schedule]
    assert rate_factor(config, 0.9999) == pytest.approx(end, abs=1e-3)
    assert rate_factor(config, 0.55) == pytest.approx({"cosine": 0.505}.get(schedule, 1.0))


def test_every_network_has_its_own_rate_and_shared_parameters_one():
    shared, own = nn.Linear(2, 2), nn.Linear(2, 2)
    config = DepthTrainingConfig(learning_rate=1e-3, pose_learning_rate=1e-4)
    optimizer = make_optimizer(config, shared, nn.ModuleList([shared, own]))
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    set_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 5e-5]


def test_running_statistics_do_not_depend_on_the_order_of_micro_batches():
    def after(parts):
        torch.manual_seed(0)
        net = nn.BatchNorm2d(3, momentum=0.3).train()
        net(torch.rand(4, 3, 5, 5))
        statistics = RunningStatistics(net)
        with statistics.averaged(len(parts), Processes()) as average:
            for part in parts:
                average.micro_batch()
                net(part)
        return net.running_mean, net.running_var

    a, b = torch.rand(2, 3, 4, 4), 5 + torch.rand(2, 3, 4, 4)
    forward, backward = after([a, b]), after([b, a])
    for x, y in zip(forward, backward, strict=True):
        torch.testing.assert_close(x, y)
    # two micro batches are the mean of what each alone arrives at: what two processes compute and average
    for k in range(2):
        torch.testing.assert_close(forward[k], (after([a])[k] + after([b])[k]) / 2)


def test_a_network_without_statistics_is_left_alone():
    statistics = RunningStatistics(nn.Linear(2, 2))
    with statistics.averaged(1, Processes()) as average:
        average.micro_batch()
    assert statistics.buffers == []
