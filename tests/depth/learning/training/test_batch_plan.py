from collections import Counter

import pytest

from som.depth.learning.training.batches import BatchPlan


def all_indices(plan, steps):
    return [item for step in range(steps) for m in plan.micro_batches for item in plan.indices(step, m)]


def test_every_epoch_sees_every_sample_once():
    plan = BatchPlan(length=7, batch_size=3, micro=3, seed=1)
    drawn = all_indices(plan, 7)  # three epochs of 7 are seven batches of 3
    assert Counter(drawn) == Counter((epoch, i) for epoch in range(3) for i in range(7))
    assert [plan.epoch(step) for step in range(7)] == [0, 0, 0, 1, 1, 2, 2]


def test_epochs_are_shuffled_differently():
    plan = BatchPlan(length=20, batch_size=20, micro=20, seed=0)
    first, second = ([i for _, i in plan.indices(step, 0)] for step in (0, 1))
    assert first != second and first != sorted(first)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_the_micro_batches_of_one_step(count):
    whole = BatchPlan(length=10, batch_size=8, micro=2, seed=3)
    parts = [BatchPlan(10, 8, 2, 3, rank, count) for rank in range(count)]
    for step in range(5):
        shared = [part.indices(step, m) for part in parts for m in part.micro_batches]
        assert shared == [whole.indices(step, m) for m in whole.micro_batches]


def test_a_batch_may_be_larger_than_the_data():
    plan = BatchPlan(length=2, batch_size=5, micro=5, seed=0)
    assert Counter(i for _, i in plan.indices(0, 0) + plan.indices(1, 0)) == {0: 5, 1: 5}


def test_resuming_goes_on_in_the_same_stream():
    plan = BatchPlan(length=9, batch_size=4, micro=2, seed=5)
    assert list(plan.from_step(0, 6))[2 * 2 :] == list(plan.from_step(2, 6))
