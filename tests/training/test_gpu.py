"""The depth terms by order and correlation on a GPU: the same pairs and the same values as on the CPU."""

import pytest
import torch

from som.training.config import DepthOrderConfig
from som.training.depth_order import TERM_NAMES, DepthOrderSampler
from som.training.sampling import BatchSampler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def test_the_same_pairs_on_any_device(dataset):
    from flow.pairs import PairSampler

    views, still = dataset.train, torch.zeros(dataset.train.height, dataset.train.width, 2)
    links = PairSampler((views.height, views.width))
    for source in range(len(views)):
        for target in (source - 1, source + 1):
            if 0 <= target < len(views):
                links.add(source, target, views.valid[source], still)
    batches = []
    for name in ("cpu", "cuda"):
        device = torch.device(name)
        order = DepthOrderSampler(views, DepthOrderConfig(pairs=128, linked_pairs=64), list(TERM_NAMES), links, device)
        batches.append(BatchSampler(dataset, 3, 2, 64, 0, device, order).sample(5).depth_order)
    cpu, cuda = batches
    for part in ("pairs", "linked"):
        for name, value in vars(getattr(cpu, part)).items():
            torch.testing.assert_close(value, getattr(getattr(cuda, part), name).cpu(), msg=f"{part}.{name}")
    assert torch.equal(cpu.boxes, cuda.boxes.cpu())
