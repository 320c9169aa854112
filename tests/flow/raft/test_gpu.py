"""RAFT on a GPU against RAFT on the CPU."""

import pytest
import torch

from flow.raft.estimator import RAFTEstimator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture(autouse=True)
def full_precision():
    """Without TensorFloat-32, which alone would move the flow by some hundredths of a pixel."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("kind", ["full", "on_demand"])
def test_the_same_flow_as_on_the_cpu(make_raft, images, variant, kind):
    model, pair = make_raft(variant), images()
    with torch.no_grad():
        expected = model(*pair, 4, correlation=kind)
        flow = model.cuda()(*(image.cuda() for image in pair), 4, correlation=kind).cpu()
    assert (flow - expected).abs().max() < 0.05


def test_mixed_precision_stays_close(make_raft, variant):
    model = make_raft(variant).cuda()
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 1, 128, 160, 3), generator=generator, dtype=torch.uint8)
    full = RAFTEstimator(model, "random", "", iterations=4)(*frames)
    mixed = RAFTEstimator(model, "random", "", iterations=4, mixed_precision=True)(*frames)
    assert mixed.dtype == torch.float32 and mixed.isfinite().all() and mixed.device.type == "cpu"
    assert (mixed - full).norm(dim=-1).median() < 0.5


def test_memory_on_demand_does_not_grow_with_the_square_of_the_pixels(make_raft):
    model = make_raft("raft-small").cuda()
    peaks = {}
    for kind in ("full", "on_demand"):
        image = torch.rand(1, 3, 720, 1280, device="cuda") * 2 - 1
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            model(image, image.roll(3, -1), 2, correlation=kind)
        peaks[kind] = torch.cuda.max_memory_allocated() - before
    assert peaks["on_demand"] < 0.7 * peaks["full"]
